"""Clients on the pages for operators, in a real browser: from a new one to its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from authserver.testing.live import live_server
from authserver.testing.server import SETTINGS, Server
from tests.browser.steps import add_grants, sign_in
from tests.browser.test_accessibility import assert_for_everybody

NAME = "An application with a name that is as long as the name of an application can possibly be at all"


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server process with an administrator, and a client to which somebody agreed."""
    path = tmp_path_factory.mktemp("console-clients") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    plugins = f"{SETTINGS['authserver.plugins']}\nprivate_key_jwt\nadmin_console"
    with live_server(f"sqlite:///{path}", {"authserver.plugins": plugins}) as server:
        server.add_user("ada", groups=["authserver-admins"])
        server.add_user("ann")
        server.add_client(client_id="reports/monthly?of=all%", client_name=NAME)
        add_grants(server, "ann", "reports/monthly?of=all%")
        yield server


@pytest.mark.parametrize("java_script", [False, True], ids=["without-script", "with-script"])
def test_a_client_is_added_gets_another_secret_and_is_disabled(
    open_page: Callable[..., Page], server: Server, watch, java_script: bool
) -> None:
    watch.allow("status of 400")
    page = open_page(java_script_enabled=java_script)
    page.goto(f"{server.issuer}/admin/clients")
    sign_in(page, "ada")
    page.get_by_role("link", name="Add a client").click()
    page.get_by_label("Name", exact=True).fill("Payroll")
    page.get_by_label("Redirect URIs").fill("http://payroll.example/cb")
    page.get_by_label("profile").check()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("It must use https")
    expect(page.get_by_label("Redirect URIs")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Redirect URIs").fill("https://payroll.example/cb")
    page.get_by_role("button", name="Add").click()
    secret = page.locator(".once code").inner_text()
    assert secret.startswith("authserver_secret_") or len(secret) > 40
    page.get_by_role("link", name="Go to the client").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Payroll")
    expect(page.get_by_text(secret)).to_have_count(0)
    page.get_by_role("link", name="Make a new secret").click()
    page.get_by_label("The present secrets are still accepted").select_option("7d")
    page.get_by_role("button", name="Make a new secret").click()
    assert page.locator(".once code").inner_text() != secret
    page.get_by_role("link", name="Go to the client").click()
    secrets = page.get_by_role("table", name="Live secrets, oldest first")
    expect(secrets.get_by_role("row")).to_have_count(3)
    page.get_by_role("link", name="Disable").click()
    page.get_by_role("button", name="Disable it for good").click()
    expect(page.get_by_role("status")).to_contain_text("This client is disabled.")
    expect(page.get_by_role("link", name="Disable")).to_have_count(0)


def test_the_pages_of_a_client_are_for_everybody(page: Page, server: Server, watch) -> None:
    """WCAG 2.2 AA by rule in light and dark; 320 px, 640 px and 1440 px without sideways scrolling."""
    page.goto(f"{server.issuer}/admin/clients?search=reports")
    sign_in(page, "ada")
    page.get_by_role("table", name="Clients by client id").get_by_role("link").first.click()
    expect(page.get_by_role("table", name="Live grants, newest first").get_by_role("row")).to_have_count(2)
    own = page.url
    for link in ("", "Edit", "Make a new secret", "Disable"):
        page.goto(own)
        if link:
            page.get_by_role("link", name=link, exact=True).click()
        page.locator("details").evaluate_all("folds => folds.forEach((fold) => { fold.open = true; })")
        assert_for_everybody(page, link)
