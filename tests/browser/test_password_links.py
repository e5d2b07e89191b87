"""Setting a password with a link, with the script that opens it and without."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, Request, expect

from authserver.testing.server import Server
from tests.browser.steps import choose_password, link_of, new_user, sign_in

NEW_PASSWORD = "a battery of correct horses"


def test_the_script_opens_the_link_and_takes_it_out_of_the_address(page: Page, server: Server) -> None:
    """No request but a form has the secret; neither the address nor the history keeps it."""
    username = new_user(server)
    requests: list[Request] = []
    page.context.on("request", lambda sent: requests.append(sent))
    page.goto(link_of(server, username))
    expect(page.get_by_role("heading", level=1)).to_have_text("Set a new password")
    expect(page.locator("bdi").filter(has_text=username)).to_be_visible()
    assert page.url == f"{server.issuer}/set-password"
    choose_password(page, NEW_PASSWORD)
    expect(page.get_by_role("status")).to_contain_text("Your password is set. Sign in with it.")
    told = [each.url.partition("#")[0] + str(each.headers) for each in requests]
    assert not any("as_link_" in text for text in told)
    sign_in(page, username, NEW_PASSWORD)
    expect(page.get_by_role("link", name="Your account")).to_be_visible()
    page.go_back()
    assert "as_link_" not in page.url


def test_without_scripts_the_link_is_pasted(open_page: Callable[..., Page], server: Server) -> None:
    username = new_user(server)
    page = open_page(java_script_enabled=False)
    link = link_of(server, username)
    page.goto(link)
    page.get_by_label("The link that you got").fill(link)
    page.get_by_role("button", name="Go on").click()
    choose_password(page, NEW_PASSWORD)
    sign_in(page, username, NEW_PASSWORD)
    expect(page.get_by_role("link", name="Your account")).to_be_visible()
