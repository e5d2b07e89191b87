"""Each thing that the pages for operators are for, done in a real browser without JavaScript."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from authserver.testing.live import live_server
from authserver.testing.server import SETTINGS, Server, basic
from tests.browser.steps import add_grants, sign_in

PLUGINS = "registration_token rate_limits admin_console"


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server process with an administrator, two people, and an application that both let in."""
    path = tmp_path_factory.mktemp("tasks") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    settings = {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']}\n{PLUGINS}",
        "authserver.plugin.registration_token.policies": "partners = scopes profile",
        "authserver.plugin.rate_limits.limits": "asking = token_request, client, 100, hour",
    }
    with live_server(f"sqlite:///{path}", settings) as server:
        server.add_user("ada", groups=["authserver-admins"])
        for username in ("ann", "ben"):
            server.add_user(username)
        server.add_client(client_id="notes", client_name="Notes", scopes=("profile",))
        yield server


@pytest.fixture
def admin(open_page: Callable[..., Page], server: Server) -> Page:
    """A browser without JavaScript in which the administrator is signed in."""
    page = open_page(java_script_enabled=False)
    page.goto(f"{server.issuer}/admin")
    sign_in(page, "ada")
    return page


def go(page: Page, entry: str) -> None:
    """By the navigation."""
    page.get_by_role("navigation", name="Administration").get_by_role("link", name=entry, exact=True).click()


def done(page: Page, sentence: str | re.Pattern[str]) -> None:
    expect(page.get_by_role("status")).to_contain_text(sentence)


def test_a_client_is_changed_and_one_of_its_secrets_ends(admin: Page, server: Server) -> None:
    server.add_client(client_id="reports", client_name="Reports", scopes=("profile",))
    go(admin, "Clients")
    admin.get_by_label("Part of a name or client id").fill("report")
    admin.get_by_label("Part of a name or client id").press("Enter")
    table = admin.get_by_role("table", name="Clients by client id")
    expect(table.get_by_role("row")).to_have_count(2)
    table.get_by_role("link").first.click()
    admin.get_by_role("link", name="Edit", exact=True).click()
    admin.get_by_label("Name", exact=True).fill("Reports of the year")
    admin.get_by_role("button", name="Save").click()
    expect(admin.get_by_role("heading", level=1)).to_have_text("Reports of the year")
    admin.get_by_role("table", name="Live secrets, oldest first").get_by_role("link").click()
    expect(admin.get_by_text("It is the last one")).to_be_visible()
    admin.get_by_role("button", name="End it").click()
    done(admin, "has ended.")
    expect(admin.get_by_text("It has no live secret, so it cannot authenticate.")).to_be_visible()


def test_a_person_is_found_signed_out_and_gets_a_new_password(
    admin: Page, open_page: Callable[..., Page], server: Server
) -> None:
    for _ in range(2):
        page = open_page()
        page.goto(f"{server.issuer}/login")
        sign_in(page, "ann")
    go(admin, "People")
    admin.get_by_label("User name").fill("AN")
    admin.get_by_role("button", name="Search").click()
    table = admin.get_by_role("table", name="People by user name")
    expect(table.get_by_role("row")).to_have_count(2)
    table.get_by_role("link", name="ann").click()
    sessions = admin.get_by_role("table", name="Browsers in which the person is signed in")
    expect(sessions.get_by_role("row")).to_have_count(3)
    sessions.get_by_role("link").first.click()
    expect(admin.get_by_text("1 session", exact=True)).to_be_visible()
    admin.get_by_role("button", name=re.compile("^End")).click()
    done(admin, "1 session of ann ended.")
    expect(sessions.get_by_role("row")).to_have_count(2)
    admin.get_by_role("link", name="Reset the password").click()
    admin.get_by_role("button", name="Show me the link").click()
    expect(admin.locator("code.whole")).to_contain_text("/set-password#")


def test_a_grant_is_found_and_revoked(admin: Page, server: Server) -> None:
    add_grants(server, "ben", "notes")
    go(admin, "Grants")
    admin.get_by_label("Client id").fill("notes")
    admin.get_by_label("Person").fill("ben")
    admin.get_by_role("button", name="Search").click()
    table = admin.get_by_role("table", name="Grants, newest first")
    expect(table.get_by_role("row")).to_have_count(2)
    table.get_by_role("row").last.get_by_role("link").first.click()
    admin.get_by_role("link", name="Revoke").click()
    expect(admin.get_by_text("1 grant", exact=True)).to_be_visible()
    admin.get_by_role("button", name="Revoke").click()
    expect(admin.get_by_text("revoked", exact=True).first).to_be_visible()


def test_a_resource_is_added_changed_and_removed(admin: Page, watch) -> None:
    watch.allow("status of 400")
    go(admin, "Resources")
    admin.get_by_role("link", name="Add a resource").click()
    admin.get_by_label("URI").fill("files")
    admin.get_by_role("button", name="Add").click()
    expect(admin.get_by_role("alert")).to_be_visible()
    admin.get_by_label("URI").fill("https://drawers.example/")
    admin.get_by_label("Name", exact=True).fill("Files")
    admin.get_by_label("Its tokens may have every scope").check()
    admin.get_by_role("button", name="Add").click()
    admin.get_by_role("link", name="Edit https://drawers.example/").click()
    admin.get_by_label("Name", exact=True).fill("Files and folders")
    admin.get_by_role("button", name="Save").click()
    expect(admin.get_by_role("table").get_by_text("Files and folders")).to_be_visible()
    admin.get_by_role("link", name=re.compile("^Remove")).click()
    admin.get_by_role("button", name="Remove it").click()
    expect(admin.get_by_role("table").get_by_text("Files and folders")).to_have_count(0)


def test_a_limit_is_lifted_for_one_client(admin: Page, server: Server) -> None:
    _, secret = server.add_client(client_id="busy", grant_types=("client_credentials",))
    # By the process whose pages are shown: it counts for itself.
    asked = admin.request.post(
        f"{server.issuer}/oauth/token",
        form={"grant_type": "client_credentials"},
        headers={"Authorization": basic("busy", secret or "")},
    )
    assert asked.ok
    go(admin, "Limits")
    admin.get_by_label("Client, person or network address").fill("busy")
    admin.get_by_role("button", name="Search").click()
    used = admin.get_by_role("table", name="What is used, the fullest first")
    expect(used.get_by_role("row")).to_have_count(2)
    used.get_by_role("link").click()
    admin.get_by_role("button", name="Lift this limit").click()
    done(admin, "asking is lifted for")


def test_a_stolen_key_is_revoked(admin: Page) -> None:
    go(admin, "Keys")
    table = admin.get_by_role("table", name="Signing keys, the newest first")
    stolen = table.get_by_role("link").first.get_attribute("aria-label")
    table.get_by_role("link").first.click()
    admin.get_by_label("Reason").fill("stolen")
    admin.get_by_role("button", name="Revoke this key").click()
    expect(admin.get_by_role("status")).to_be_visible()
    expect(table.get_by_role("link", name=stolen or "")).to_have_count(0)


def test_an_initial_access_token_is_made_and_revoked(admin: Page) -> None:
    go(admin, "Clients")
    admin.get_by_role("link", name="Initial access tokens").click()
    admin.get_by_role("link", name="Make a token").click()
    admin.get_by_label("What it is for").fill("a partner")
    admin.get_by_role("button", name="Make it").click()
    token = admin.locator(".once code").inner_text()
    admin.get_by_role("link", name="Initial access tokens").click()
    expect(admin.get_by_text(token)).to_have_count(0)
    admin.get_by_role("link", name=re.compile("^Revoke")).click()
    admin.get_by_role("button", name="Revoke it").click()
    done(admin, "is revoked. The clients that it registered stay.")


def test_the_kill_switch_counts_and_then_ends(admin: Page, server: Server) -> None:
    """L-08: how much is said before anything ends, and what ended afterwards."""
    server.add_client(client_id="leaky", client_name="Leaky", scopes=("profile",))
    for username in ("ann", "ben"):
        add_grants(server, username, "leaky")
    go(admin, "Kill switch")
    admin.get_by_label("What", exact=True).select_option("client")
    admin.get_by_label("Name", exact=True).fill("leaky")
    admin.get_by_label("Disable the person or client, too").check()
    admin.get_by_role("button", name="Count what would end").click()
    expect(admin.get_by_text("2 grants", exact=True)).to_be_visible()
    live = [row for row in server.rows("grants") if row["client_id"] == "leaky" and not row["revoked_at"]]
    assert len(live) == 2
    admin.get_by_role("button", name="Disable, and end all this").click()
    done(admin, "Done. The client is disabled.")
    assert all(row["revoked_at"] for row in server.rows("grants") if row["client_id"] == "leaky")


def test_what_is_refused_is_found_by_statistics_and_audit(admin: Page, server: Server) -> None:
    """From the number of refusals to the refusal itself."""
    client, secret = server.add_client(client_id="odd", grant_types=("client_credentials",))
    server.token(client, secret, grant_type="client_credentials", scope="unheard-of")
    go(admin, "Statistics")
    admin.get_by_label("Since").fill("1d")
    admin.get_by_label("Client id").fill("odd")
    admin.get_by_role("button", name="Show").click()
    expect(admin.get_by_role("heading", name="Over time")).to_be_visible()
    expect(admin.locator("svg").first).to_be_visible()
    go(admin, "Audit")
    admin.get_by_label("Client id").fill("odd")
    admin.get_by_label("Event").select_option("token.refused")
    admin.get_by_role("button", name="Search").click()
    events = admin.get_by_role("table", name="Events, newest first")
    expect(events.get_by_role("row")).to_have_count(2)
    events.get_by_role("link").first.click()
    expect(admin.get_by_role("heading", level=1)).to_have_text("token.refused")


def test_settings_policies_and_scopes_are_read_without_a_secret(admin: Page, server: Server) -> None:
    go(admin, "Settings")
    admin.get_by_label("Part of a setting or a value").fill("secret_keys")
    admin.get_by_role("button", name="Search").click()
    expect(admin.get_by_text("authserver.secret_keys", exact=True)).to_be_visible()
    for key in server.ini["authserver.secret_keys"].split():
        assert key.partition(":")[2] not in admin.content()
    go(admin, "Scopes")
    expect(admin.get_by_role("table", name="Scopes").get_by_text("profile", exact=True)).to_be_visible()
    go(admin, "Policies")
    admin.get_by_role("link", name="Shadow differences").click()
    expect(admin.get_by_role("heading", level=1)).to_have_text("Shadow differences")
    go(admin, "Overview")
    expect(admin.get_by_role("heading", name="Needs attention")).to_be_visible()
