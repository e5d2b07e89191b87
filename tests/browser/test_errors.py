"""Pages for what cannot go on, and pages inside other people's pages."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from authserver.testing.server import Server
from tests.browser.steps import answer_of, ask, authorize, self_registered, sign_in


def test_an_unknown_client_is_a_page_without_a_way_out(page: Page, server: Server, watch) -> None:
    """B-13, B-14: the supplied address is nowhere on the page."""
    watch.allow("status of 400")
    answer = page.goto(
        server.issuer
        + "/oauth/authorize?response_type=code&client_id=nobody&redirect_uri=https%3A%2F%2Fevil.example%2F"
    )
    assert answer is not None and answer.status == 400
    expect(page.get_by_role("heading", level=1)).to_have_text("This request cannot go on")
    assert "evil.example" not in page.content()
    reference = page.locator(".whole").inner_text()
    help_link = f"mailto:help@site.example?subject=authserver%3A%20{reference}"
    assert [link.get_attribute("href") for link in page.locator("main a").all()] == [
        help_link,
        server.issuer + "/",
    ]
    page.locator(".whole").click()
    assert page.evaluate("getSelection().toString()") == reference


def test_an_unregistered_redirect_uri_is_a_page_without_a_way_out(page: Page, server: Server, watch) -> None:
    """B-13, C-01: the browser stays here."""
    watch.allow("status of 400")
    client, _ = server.add_client()
    authorize(page, server, client, redirect_uri="https://evil.example/cb")
    expect(page.get_by_role("heading", level=1)).to_have_text("This request cannot go on")
    assert "evil.example" not in page.content()
    page.get_by_role("link", name="Go to the front page").click()
    expect(page).to_have_url(server.issuer + "/")


def test_an_unknown_page_says_so(page: Page, server: Server, watch) -> None:
    """An address of ours that leads nowhere still looks like us."""
    watch.allow("status of 404")
    answer = page.goto(server.issuer + "/no-such-page")
    assert answer is not None and answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")


def test_a_stranger_error_asks_before_leaving(page: Page, server: Server) -> None:
    """T009, T026: nobody is bounced off this server to an unvetted place; the link carries no Referer."""
    client = self_registered(server, "https://client.example/cb")
    authorize(page, server, client, scope="nonsense")
    sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Leave authserver?")
    expect(page.locator(".host")).to_have_text("client.example")
    page.get_by_role("link", name="Go on").click()
    page.wait_for_url("https://client.example/**")
    assert answer_of(page)["error"] == "invalid_scope"
    assert page.evaluate("document.referrer") == ""


def test_no_page_can_be_framed(page: Page, server: Server, watch, local_site) -> None:
    """T093, E-06: another site's frames around our pages stay empty, whoever is signed in."""
    watch.allow("status of 40[034]|in a frame|frame-ancestors|X-Frame-Options")
    client, _ = server.add_client()
    ask(page, server, client)
    consent = page.url
    addresses = [consent] + [
        server.issuer + path
        for path in (
            "/",
            "/login",
            "/logout",
            "/no-such-page",
            "/oauth/authorize?client_id=nobody",
            server.authorization_url(client),
            "/playground",
        )
    ]
    page.goto(local_site.address)
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "frame" in message.text else None)
    for address in addresses:
        page.evaluate(
            "address => { const frame = document.createElement('iframe'); frame.src = address;"
            " document.body.append(frame); return new Promise((loaded) => { frame.onload = loaded; }); }",
            address,
        )
    assert len(page.frames) == len(addresses) + 1
    assert not [frame.url for frame in page.frames[1:] if frame.url.startswith(server.issuer)]
    assert not any(frame.locator("main").count() for frame in page.frames[1:])
    assert len(refused) >= len(addresses)
