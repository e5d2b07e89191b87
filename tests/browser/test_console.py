"""The pages for operators in a real browser: for everybody, and from a refusal to its reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from authserver.features.console import PAGES
from authserver.testing.live import live_server
from authserver.testing.server import SETTINGS, Server
from tests.browser.steps import sign_in
from tests.browser.test_accessibility import assert_for_everybody

NAME = "An application with a name that is as long as the name of an application can possibly be at all"


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server process with an administrator, a client that was refused, and a setting from a file far down."""
    path = tmp_path_factory.mktemp("console") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    ring = path.with_name("the_key_ring_of_the_server_for_the_tests_of_the_console_on_a_narrow_screen")
    ring.write_text(SETTINGS["authserver.secret_keys"])
    settings = {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console",
        "authserver.secret_keys": f"file:{ring}",
    }
    with live_server(f"sqlite:///{path}", settings) as server:
        server.add_user("ada", groups=["authserver-admins"])
        client, secret = server.add_client(
            client_id="reports",
            client_name=NAME,
            grant_types=("client_credentials",),
            scopes=("files.read",),
        )
        for scope in ("files.read", "files.write"):
            server.token(client, secret, grant_type="client_credentials", scope=scope)
        yield server


def addresses(server: Server) -> list[str]:
    """Every page that needs nothing to be about, and one event."""
    refused = [row["event_id"] for row in server.rows("events") if row["type"] == "token.refused"]
    # Of the settings a few are enough: they are all shown alike.
    own = [f"{page.path}?search=admin" for page in PAGES if not page.keys]
    own.append("/admin/settings?search=secret_keys")
    return [*own, "/admin/audit?actor=nobody&client=reports", f"/admin/audit/event?event_id={refused[0]}"]


def test_every_page_for_operators_is_for_everybody(page: Page, server: Server, watch) -> None:
    """WCAG 2.2 AA by rule in light and dark; 320 px, 1440 px and 200 % zoom without sideways scrolling."""
    page.goto(f"{server.issuer}/admin")
    sign_in(page, "ada")
    for address in addresses(server):
        page.goto(server.issuer + address)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_role("navigation", name="Administration")).to_have_count(1)
        page.locator("details").evaluate_all("folds => folds.forEach((fold) => { fold.open = true; })")
        assert_for_everybody(page, address)


def test_from_a_client_to_why_it_was_refused(open_page: Callable[..., Page], server: Server) -> None:
    """In two clicks, without JavaScript, by keyboard."""
    page = open_page(java_script_enabled=False)
    page.goto(f"{server.issuer}/admin")
    sign_in(page, "ada")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.get_by_label("or client id").fill("reports")
    page.get_by_label("or client id").press("Enter")
    table = page.get_by_role("table", name="Events, newest first")
    expect(table.get_by_role("row")).to_have_count(2)
    table.get_by_role("link").first.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("token.refused")
    expect(page.get_by_text("authserver client edit reports --add-scope files.write")).to_be_visible()
    page.get_by_text("What was asked").last.click()
    expect(page.get_by_text("client_credentials").last).to_be_visible()


def test_a_key_is_replaced_and_a_decision_tried(open_page: Callable[..., Page], server: Server) -> None:
    """Without JavaScript, by keyboard: the new key is staged, and a refused scope says what would change it."""
    page = open_page(java_script_enabled=False)
    page.goto(f"{server.issuer}/admin/keys")
    sign_in(page, "ada")
    page.get_by_role("button", name="Make a new key").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("is published, and signs from")
    table = page.get_by_role("table", name="Signing keys, the newest first")
    expect(table.get_by_text("staged", exact=True)).to_have_count(1)
    table.get_by_role("link", name="Revoke").last.press("Enter")
    expect(page.get_by_role("button", name="Revoke this key")).to_be_visible()
    expect(page.get_by_text("signs at once")).to_be_visible()
    page.get_by_role("link", name="Go back").click()

    page.get_by_role("navigation", name="Administration").get_by_role("link", name="Policies").click()
    page.get_by_role("link", name="Try scope_decision").press("Enter")
    page.get_by_label("Client id").fill("reports")
    page.get_by_role("textbox", name="Scopes").fill("files.write")
    page.get_by_role("textbox", name="Scopes").press("Enter")
    expect(page.get_by_role("heading", name="The answer refused")).to_be_visible()
    expect(page.get_by_text("authserver client edit reports --add-scope files.write")).to_be_visible()
