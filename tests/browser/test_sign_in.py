"""Signing in and out, and the front page."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from authserver.testing.server import PASSWORD, Server
from tests.browser.steps import MANY_SCOPES, answer_of, authorize, session_cookie, sign_in


def test_a_wrong_password_is_explained_and_the_right_one_goes_on(page: Page, server: Server, watch) -> None:
    """E-01: the summary has the focus, its links lead to the fields, and the request is still pending."""
    watch.allow("status of 400")
    client, _ = server.add_client()
    authorize(page, server, client)
    expect(page.get_by_label("Username")).to_be_focused()
    sign_in(page, password="not this one")
    expect(page).to_have_title(re.compile("^Error: Sign in"))
    expect(page.get_by_role("alert")).to_be_focused()
    assert "not this one" not in page.content()
    expect(page.get_by_label("Username")).to_have_value("ann")
    expect(page.get_by_label("Password")).to_have_value("")
    expect(page.get_by_label("Password")).to_have_accessible_description(re.compile("do not go together"))
    page.get_by_role("link", name="Type the password again").click()
    expect(page.get_by_label("Password")).to_be_focused()
    page.get_by_label("Password").fill(PASSWORD)
    reveal = page.get_by_role("button", name="Show password")
    for kind, pressed in (("text", "true"), ("password", "false"), ("text", "true")):
        reveal.press("Enter")
        expect(page.get_by_label("Password")).to_have_attribute("type", kind)
        expect(reveal).to_have_attribute("aria-pressed", pressed)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("heading", name="Client")).to_be_visible()
    assert answer_of(page).keys() == {"code", "state", "iss"}


def test_the_session_cookie_is_renewed_and_out_of_reach_of_scripts(page: Page, server: Server) -> None:
    """E-17, T098: a new one at each sign-in, none before; HttpOnly, SameSite=Lax, for this host alone."""
    values = set()
    for username in ("ann", "bob"):
        page.goto(server.issuer + "/login")
        (mark,) = (each for each in page.context.cookies() if each["name"].startswith("authserver-request-"))
        sign_in(page, username)
        expect(page.get_by_text("You are signed in as")).to_be_visible()
        session = session_cookie(page.context)
        values.add(session["value"])
        device = next(each for each in page.context.cookies() if each["name"] == "authserver-device")
        for cookie in (mark, session, device):
            attributes = [cookie[name] for name in ("httpOnly", "sameSite", "domain", "path")]
            assert attributes == [True, "Lax", "localhost", "/"]
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    assert len(values) == 2


def test_two_cookies_of_that_name_mean_signed_out(page: Page, server: Server, watch) -> None:
    """T099: who tosses a second cookie in can sign nobody in as somebody else; the advice on the page works."""
    watch.allow("status of 400")
    page.goto(server.issuer + "/login")
    sign_in(page)
    expect(page.get_by_text("You are signed in as")).to_be_visible()
    cookie = session_cookie(page.context)
    page.context.add_cookies(
        [{"name": cookie["name"], "value": cookie["value"], "url": server.issuer + "/oauth/"}]
    )
    client, _ = server.add_client()
    authorize(page, server, client)
    expect(page.get_by_text("Your browser sends two sessions.")).to_be_visible()
    page.context.clear_cookies()
    page.reload()
    sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")


def test_signing_out_is_asked_for_and_ends_the_session(page: Page, server: Server, watch) -> None:
    """A link alone signs nobody out; the button does, and another tab's way back shows nothing that was kept."""
    watch.allow("status of 404")
    page.goto(server.issuer + "/")
    page.get_by_role("link", name="Sign in").click()
    sign_in(page)
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    page.goto(server.issuer + "/logout")
    page.get_by_role("link", name="Stay signed in").click()
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    other = page.context.new_page()
    other.goto(server.issuer + "/")
    other.goto(server.issuer + "/no-such-page")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    other.go_back()
    expect(other.get_by_text("You are not signed in.")).to_be_visible()


def test_the_front_page_leads_to_everything(page: Page, server: Server) -> None:
    """Each link for developers answers."""
    page.goto(server.issuer + "/")
    links = page.locator(".rows a")
    addresses = [str(link.get_attribute("href")) for link in links.all()]
    assert f"{server.issuer}/.well-known/oauth-authorization-server" in addresses
    assert f"{server.issuer}/playground" in addresses
    for address in addresses:
        assert page.request.get(address).status == 200


def test_sign_in_and_consent_need_no_script(open_page: Callable[..., Page], server: Server, watch) -> None:
    """The pages are forms; a browser without JavaScript signs in, fails, consents and signs out."""
    watch.allow("status of 400")
    page = open_page(java_script_enabled=False)
    client, _ = server.add_client(scopes=MANY_SCOPES)
    authorize(page, server, client, scope=" ".join(MANY_SCOPES))
    expect(page.get_by_role("button", name="Show password")).to_be_hidden()
    sign_in(page, password="not this one")
    expect(page.get_by_role("alert")).to_contain_text("You are not signed in")
    sign_in(page)
    page.get_by_role("link", name="Tick none").click()
    expect(page.locator("input[name=scope]:checked")).to_have_count(0)
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url("https://client.example/**")
    assert answer_of(page)["state"] == "xyz"
    page.goto(server.issuer + "/logout")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="You are signed out").wait_for()


def test_the_keyboard_alone_signs_in_and_consents(page: Page, server: Server) -> None:
    """Focus begins in the first field, follows the reading order, is visible, and Enter never allows."""
    client, _ = server.add_client()
    authorize(page, server, client, scope="profile files.read")
    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")
    reached = []
    for _step in range(7):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        reached.append(focused.evaluate("element => element.value || element.textContent.trim()"))
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
        assert focused.evaluate("element => parseFloat(getComputedStyle(element).outlineWidth)") >= 2
    assert reached == [
        "Skip to the content",
        "authserver",
        "switch",
        "profile",
        "files.read",
        "deny",
        "allow",
    ]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.get_by_label("Read your files")).not_to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("https://client.example/**")
    assert "code" in answer_of(page)


def test_the_enter_key_in_a_tick_box_never_allows(page: Page, server: Server) -> None:
    """Deny stands first, so that a form sent without choosing a button refuses."""
    client, _ = server.add_client()
    authorize(page, server, client)
    sign_in(page)
    page.get_by_label("See your name").press("Enter")
    page.wait_for_url("https://client.example/**")
    assert answer_of(page)["error"] == "access_denied"


def test_the_skip_link_leads_to_the_content(page: Page, server: Server) -> None:
    """WCAG 2.2, 2.4.1."""
    page.goto(server.issuer + "/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
