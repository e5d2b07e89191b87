"""The account pages: ending access and sessions, changing the password, and signing out everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Browser, Page, expect

from authserver.testing.server import PASSWORD, Server
from tests.browser.steps import (
    add_grants,
    ask,
    authorize,
    change_password,
    go_to_account,
    new_user,
    session_cookie,
    sign_in,
)

NEW_PASSWORD = "a battery of correct horses"


def test_what_was_allowed_is_seen_and_ended(page: Page, server: Server) -> None:
    """E-16: from the consent page to the list, and back to being asked."""
    client, secret = server.add_client(client_name="Notes")
    ask(page, server, client)
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url("https://client.example/**")
    code = re.search(r"code=([^&]+)", page.url)
    assert code
    tokens = server.redeem(client, secret, code[1]).json

    page.goto(server.issuer + "/")
    page.get_by_role("link", name="Your account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Applications that may act for you")
    section = page.get_by_role("region", name="Notes Verified")
    expect(section.get_by_text("See your name")).to_be_visible()
    expect(section.get_by_text("https://api.example/")).to_be_visible()
    section.get_by_role("button", name="End access Notes").click()
    expect(page.get_by_role("status")).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("The access of that application has ended")
    expect(section).to_have_count(0)

    assert server.refresh(client, secret, tokens["refresh_token"]).json["error"] == "invalid_grant"
    # Reloading sends no form again.
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Applications that may act for you")
    authorize(page, server, client)
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")


def test_one_of_several_is_ended_alone(page: Page, server: Server) -> None:
    """E-16: the list of them opens by the keyboard."""
    username = new_user(server)
    client, _ = server.add_client(client_name="Notes")
    add_grants(server, username, client.client_id, client.client_id)
    go_to_account(page, server, "apps", username)
    buttons = page.get_by_role("button", name=re.compile(r"^End only this Notes Verified \w+ \d+, 20"))
    expect(buttons.first).to_be_hidden()
    page.get_by_text("It was allowed 2 times").focus()
    page.keyboard.press("Enter")
    buttons.first.click()
    expect(page.get_by_role("status")).to_contain_text("keeps what else you allowed it")
    expect(page.locator("summary")).to_have_count(0)
    expect(page.get_by_role("region", name="Notes")).to_be_visible()


def test_the_name_of_an_application_is_text_and_nothing_else(page: Page, server: Server) -> None:
    """E-11, T094, T097: markup is shown, not run, and what is written from right to left stays within its quotes."""
    username = new_user(server)
    client, _ = server.add_client(client_name="<img src=x onerror=alert(1)> تطبيق")
    add_grants(server, username, client.client_id)
    go_to_account(page, server, "apps", username)
    expect(page.get_by_role("heading", level=2)).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.get_by_role("main").locator("img")).to_have_count(0)
    assert page.locator("h2 bdi").evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"


def test_sessions_are_told_apart_and_ended(chromium: Browser, page: Page, server: Server) -> None:
    """E-17: the other browser is signed out at its next step."""
    username = new_user(server)
    phone = chromium.new_context(
        user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15"
        " (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
    )
    other = phone.new_page()
    go_to_account(other, server, "sessions", username)
    go_to_account(page, server, "sessions", username)
    this = page.get_by_role("region", name=re.compile("This one"))
    expect(this.get_by_role("link", name="Sign out")).to_be_visible()
    expect(this.get_by_text("127.0.0.1")).to_be_visible()
    page.get_by_role("button", name="End this session Mobile Safari on iOS").click()
    expect(page.get_by_role("status")).to_have_text("That session has ended.")
    expect(page.get_by_text("Mobile Safari")).to_have_count(0)
    other.reload()
    expect(other.get_by_role("heading", level=1)).to_have_text("Sign in")
    phone.close()


def test_a_changed_password_keeps_this_browser_signed_in(
    chromium: Browser, page: Page, server: Server, watch
) -> None:
    """I-14, E-17, T098: what is wrong is said at its field; the cookie is a new one, other browsers are out."""
    watch.allow("status of 400")
    username = new_user(server)
    elsewhere = chromium.new_context()
    other = elsewhere.new_page()
    go_to_account(other, server, "apps", username)
    go_to_account(page, server, "password", username)
    change_password(page, "not this one", NEW_PASSWORD)
    expect(page).to_have_title(re.compile("^Error: Password"))
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("Current password")).to_have_accessible_description(
        "This is not your current password."
    )
    assert "not this one" not in page.content() and NEW_PASSWORD not in page.content()
    page.get_by_role("alert").get_by_role("link").click()
    expect(page.get_by_label("Current password")).to_be_focused()

    before = session_cookie(page.context)
    change_password(page, PASSWORD, NEW_PASSWORD)
    expect(page.get_by_role("status")).to_contain_text("Your password is changed.")
    after = session_cookie(page.context)
    assert after["value"] != before["value"]
    other.reload()
    expect(other.get_by_role("heading", level=1)).to_have_text("Sign in")
    sign_in(other, username, NEW_PASSWORD)
    expect(other.get_by_role("heading", level=1)).to_have_text("Applications that may act for you")
    elsewhere.close()


def test_the_account_needs_no_script(open_page: Callable[..., Page], server: Server, watch) -> None:
    """Every page is forms: a browser without JavaScript does it all."""
    watch.allow("status of 400")
    page = open_page(java_script_enabled=False)
    username = new_user(server)
    add_grants(server, username, "gone", "gone")
    page.goto(server.issuer + "/account")
    sign_in(page, username)
    page.get_by_text("It was allowed 2 times").click()
    page.get_by_role("button", name="End only this").first.click()
    page.get_by_role("button", name="End access").click()
    expect(page.get_by_text("No application may act for you now.")).to_be_visible()
    page.get_by_role("link", name="Password").click()
    change_password(page, PASSWORD, "short")
    expect(page.get_by_role("alert")).to_contain_text("8 characters or more")
    change_password(page, PASSWORD, NEW_PASSWORD)
    expect(page.get_by_role("status")).to_be_visible()
    page.get_by_role("link", name="Sessions").click()
    page.get_by_role("link", name="Sign out everywhere").click()
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.get_by_text("All your sessions have ended")).to_be_visible()
    page.goto(server.issuer + "/account")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
