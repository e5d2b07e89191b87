"""The consent page, and the ways back to the client."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from authserver.testing.server import Server
from tests.browser.steps import SELF_NAMED, allow, answer_of, ask, authorize, self_registered, sign_in

NATIVE = {"token_endpoint_auth_method": "none", "application_type": "native"}


def test_allowing_gives_the_client_a_code(page: Page, server: Server, web_site) -> None:
    """B-16, T026: code, state and iss; the client's server sees no Referer, and no cookie of ours."""
    client, secret = server.add_client(client_name="Notes")
    ask(page, server, client, scope="profile files.read")
    allow(page)
    page.wait_for_url("https://client.example/**")
    answer = answer_of(page)
    assert answer.keys() == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == ("xyz", server.issuer)
    path, headers = web_site.visits[-1]
    assert path.startswith("/cb?") and answer["code"] in path
    assert not {"referer", "cookie"} & headers.keys()
    assert page.evaluate("document.referrer") == ""
    tokens = server.redeem(client, secret, answer["code"], redirect_uri=client.redirect_uris[0]).json
    assert tokens["scope"] == "profile files.read"


def test_denying_tells_the_client_so(page: Page, server: Server) -> None:
    """E-07: access_denied, and no code."""
    client, _ = server.add_client()
    ask(page, server, client)
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url("https://client.example/**")
    answer = answer_of(page)
    assert answer.keys() == {"error", "error_description", "state", "iss"}
    assert answer["error"] == "access_denied"


def test_an_unticked_scope_is_not_given(page: Page, server: Server) -> None:
    """E-14: the token response states what was granted."""
    client, secret = server.add_client()
    ask(page, server, client, scope="profile files.read")
    page.get_by_label("Read your files").uncheck()
    allow(page)
    page.wait_for_url("https://client.example/**")
    tokens = server.redeem(client, secret, answer_of(page)["code"], redirect_uri=client.redirect_uris[0])
    assert tokens.json["scope"] == "profile"


def test_allowing_nothing_is_explained(page: Page, server: Server, watch) -> None:
    """E-14: the summary has the focus and leads to the first tick box; nothing was sent anywhere."""
    watch.allow("status of 400")
    client, _ = server.add_client()
    ask(page, server, client, scope="profile files.read")
    page.get_by_label("See your name").uncheck()
    page.get_by_label("Read your files").uncheck()
    allow(page)
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("Read your files")).not_to_be_checked()  # as it was left
    page.get_by_role("link", name="Tick at least one").click()
    expect(page.get_by_label("See your name")).to_be_focused()
    page.keyboard.press("Space")
    allow(page)
    page.wait_for_url("https://client.example/**")
    assert "code" in answer_of(page)


def test_a_stranger_needs_a_confirmation(page: Page, server: Server, watch) -> None:
    """E-08, E-09, T097: where it goes stands first in our words, the name is quoted and marked; Allow alone is too little."""
    watch.allow("status of 400")
    ask(page, server, self_registered(server, "https://client.example/cb"))
    text = page.get_by_role("main").inner_text()
    assert f"calls itself “{SELF_NAMED}”" in text
    assert text.index("client.example") < text.index(SELF_NAMED) < text.index("Unverified")
    host = page.locator(".destination .host").bounding_box()
    name = page.get_by_text(SELF_NAMED).bounding_box()
    assert host is not None and name is not None and host["y"] < name["y"]
    confirmation = page.get_by_label("I started this and I know where it leads.")
    allow(page)
    expect(confirmation).to_be_focused()  # the browser itself asks for it
    page.locator("form").last.evaluate("form => { form.noValidate = true; }")
    allow(page)
    expect(page.get_by_role("alert")).to_be_focused()  # and so does the server
    page.get_by_role("link", name="Confirm that you started this").click()
    expect(confirmation).to_be_focused()
    confirmation.check()
    allow(page)
    page.wait_for_url("https://client.example/**")
    assert "code" in answer_of(page)


def test_a_stranger_can_be_denied_without_a_confirmation(page: Page, server: Server) -> None:
    """E-07, E-09."""
    ask(page, server, self_registered(server, "https://client.example/cb"))
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url("https://client.example/**")
    assert answer_of(page)["error"] == "access_denied"


def test_deny_and_allow_weigh_the_same(page: Page, server: Server) -> None:
    """E-09: size, place and looks push nobody to either, at every width."""
    client, _ = server.add_client()
    ask(page, server, client)
    looks = "element => { const style = getComputedStyle(element); return [style.color, style.backgroundColor, style.borderColor, style.fontWeight, style.fontSize]; }"
    for width in (1200, 360, 320):
        page.set_viewport_size({"width": width, "height": 800})
        deny, yes = (page.get_by_role("button", name=name) for name in ("Deny", "Allow"))
        ours, theirs = deny.bounding_box(), yes.bounding_box()
        assert ours is not None and theirs is not None
        assert (ours["y"], ours["height"]) == (theirs["y"], theirs["height"])
        assert ours["width"] == pytest.approx(theirs["width"], abs=1)
        assert deny.evaluate(looks) == yes.evaluate(looks)


def test_another_account_can_be_chosen(page: Page, server: Server) -> None:
    """E-04.b: the request goes on with the account that signs in next, and the token is about that one."""
    client, secret = server.add_client()
    ask(page, server, client)
    page.get_by_role("button", name="Not you?").click()
    expect(page.get_by_text(f"to continue to {client.name}")).to_be_visible()
    sign_in(page, "bob")
    expect(page.get_by_text("Signed in as Bob (bob).")).to_be_visible()
    allow(page)
    page.wait_for_url("https://client.example/**")
    tokens = server.redeem(client, secret, answer_of(page)["code"], redirect_uri=client.redirect_uris[0])
    with server.application.begin() as engine:
        bob = engine.stores.users.find_by_name("bob")
    assert bob is not None and server.claims(tokens.json["access_token"])["sub"] == bob.user_id


def test_consent_is_remembered_until_more_is_asked(page: Page, server: Server) -> None:
    """E-12, E-13: the same again goes straight through; one scope more asks."""
    client, _ = server.add_client()
    ask(page, server, client)
    allow(page)
    page.wait_for_url("https://client.example/**")
    first = answer_of(page)["code"]
    authorize(page, server, client)
    page.wait_for_url("https://client.example/**")
    assert answer_of(page)["code"] != first
    authorize(page, server, client, scope="profile files.read")
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow more access to your account?")


def test_a_remembered_consent_leads_from_signing_in_straight_to_the_client(
    page: Page, server: Server
) -> None:
    """Q-07: the sign-in form's redirect ends at the client too, and no policy of ours is in its way."""
    client, _ = server.add_client()
    ask(page, server, client)
    allow(page)
    page.wait_for_url("https://client.example/**")
    page.context.clear_cookies()
    authorize(page, server, client)
    sign_in(page)
    page.wait_for_url("https://client.example/**")
    assert "code" in answer_of(page)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_program_on_this_computer_gets_its_answer(
    page: Page, server: Server, local_site, host: str
) -> None:
    """Q-07, E-10, T026: the answer reaches the loopback port that it listens on; a warning says whose it may be."""
    client, _ = server.add_client(redirect_uris=(f"http://{host}/cb",), **NATIVE)
    local = f"http://{host}:{local_site.port}/cb"
    ask(page, server, client, redirect_uri=local)
    expect(page.get_by_text("Any program on this computer could be asking")).to_be_visible()
    allow(page)
    page.wait_for_url(local + "?**")
    assert "code" in answer_of(page)
    path, headers = local_site.visits[-1]
    assert answer_of(page)["code"] in path and "referer" not in headers


@pytest.mark.parametrize("answer", ["Allow", "Deny"])
def test_an_app_gets_its_answer(page: Page, server: Server, answer: str) -> None:
    """Q-07, B048: the page goes on to a private-use scheme by itself, and offers the link; nothing is installed here."""
    client, _ = server.add_client(redirect_uris=("com.example.notes:/cb",), **NATIVE)
    ask(page, server, client)
    expect(page.get_by_text("Another app on this device could answer")).to_be_visible()
    with page.expect_request("com.example.notes:/cb?**"):
        page.get_by_role("button", name=answer).click()
    link = page.get_by_role("link", name="Go on")
    expected = "code=as_code_" if answer == "Allow" else "error=access_denied"
    assert str(link.get_attribute("href")).startswith(f"com.example.notes:/cb?{expected}")


@pytest.mark.parametrize("answer", ["Allow", "Deny", "none, an error after signing in"])
def test_what_the_client_does_next_is_its_own_affair(
    page: Page, server: Server, local_site, answer: str
) -> None:
    """B103, Q-07: it redirects twice more, at last to an app; no policy of ours is in the way."""
    client, _ = server.add_client(redirect_uris=(f"{local_site.address}/open",), **NATIVE)
    is_error = answer not in ("Allow", "Deny")
    if is_error:
        authorize(page, server, client, scope="nope")
    else:
        ask(page, server, client)
    local_site.visits.clear()
    with page.expect_request("example-app://done"):
        if is_error:
            sign_in(page)
        else:
            page.get_by_role("button", name=answer).click()
    assert [path.partition("?")[0] for path, _ in local_site.visits] == ["/open", "/opened"]


@pytest.mark.parametrize("at", ["sign-in", "consent"])
def test_a_form_that_was_smuggled_in_sends_nothing(
    page: Page, server: Server, watch, web_site, at: str
) -> None:
    """Q-07, T094: on the sign-in and the consent page, form-action holds every form to us."""
    watch.allow("form-action")
    client, _ = server.add_client()
    if at == "sign-in":
        authorize(page, server, client)
    else:
        ask(page, server, client)
    web_site.visits.clear()
    with page.expect_event("console", lambda message: "form-action" in message.text):
        page.evaluate(
            """() => {
                const form = document.createElement("form");
                form.action = "https://client.example/steal";
                document.body.append(form);
                form.submit();
            }"""
        )
    assert web_site.visits == [] and page.url.startswith(server.issuer)


def test_hostile_words_are_words(page: Page, server: Server) -> None:
    """T094, E-11: markup in a name is shown, not obeyed; a long one is cut and breaks nothing."""
    name = "<img src=x onerror=alert(1)>\"'&lt;" + "W" * 60
    page.set_viewport_size({"width": 320, "height": 800})
    ask(page, server, self_registered(server, "https://client.example/cb", client_name=name))
    assert name in page.get_by_role("main").inner_text()
    assert page.locator("main img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_what_reached_the_database_all_the_same_is_contained(page: Page, server: Server) -> None:
    """T094, T095, E-11: an endless name is cut, right-to-left overrides turn nothing around, and only https links show."""
    client, _ = server.add_client()
    hostile = replace(
        client,
        client_id="client_hostile",
        name="\u202eevil\u202c" + "x" * 500,
        details={
            "client_uri": "javascript:alert(1)",
            "policy_uri": "data:text/html,<script>alert(1)</script>",
            "tos_uri": "https://client.example/terms",
            "logo_uri": "https://evil.example/logo.png",
        },
    )
    with server.application.begin() as engine:
        engine.stores.clients.add(hostile)
    ask(page, server, hostile)
    assert "x" * 101 not in page.content()
    # The override ends where its own <bdi> does: the words after it stand in the order they were written in.
    words = page.locator(".asker").inner_text()
    assert words.endswith("Verified")
    assert (
        page.locator(".asker bdi").evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"
    )
    links = page.locator("main a")
    assert [link.get_attribute("href") for link in links.all()] == ["https://client.example/terms"]
    assert links.first.get_attribute("rel") == "noopener noreferrer nofollow"
    assert page.locator("main img").count() == 0
    with page.context.expect_page() as opened:
        links.first.click()
    opened.value.wait_for_load_state()
    assert opened.value.evaluate("[document.referrer, window.opener]") == ["", None]


def test_there_is_no_form_that_posts_itself(page: Page, server: Server) -> None:
    """T018: response_mode=form_post is an error in the query; the client is sent to, never posted to."""
    methods: list[tuple[str, str]] = []
    page.on("request", lambda request: methods.append((urlsplit(request.url).netloc, request.method)))
    client, _ = server.add_client()
    authorize(page, server, client, response_mode="form_post")
    sign_in(page)
    page.wait_for_url("https://client.example/**")
    assert answer_of(page)["error"] == "invalid_request"
    assert ("client.example", "GET") in methods and ("client.example", "POST") not in methods
