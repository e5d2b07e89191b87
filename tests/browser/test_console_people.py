"""The pages for operators about people and what ends, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from authserver.api import identity_handle
from authserver.testing.live import live_server
from authserver.testing.records import an_identity
from authserver.testing.server import SETTINGS, Server
from tests.browser.steps import add_grants, choose_password, sign_in
from tests.browser.test_accessibility import assert_for_everybody

NAME = "somebody-with-a-user-name-that-is-nearly-as-long-as-one-can-be-on-a-narrow-page"


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server process with an administrator, and a person with grants."""
    path = tmp_path_factory.mktemp("people") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    plugins = f"{SETTINGS['authserver.plugins']}\nadmin_console"
    with live_server(f"sqlite:///{path}", {"authserver.plugins": plugins}) as server:
        server.add_user("ada", groups=["authserver-admins"])
        server.add_user(NAME, groups=["staff", "g" * 60], attributes={"department": ["x" * 100]})
        client, _ = server.add_client(client_name="Notes " * 12)
        add_grants(server, NAME, client.client_id, client.client_id)
        yield server


def test_pages_about_people_are_for_everybody(page: Page, server: Server, watch) -> None:
    """WCAG 2.2 AA by rule in light and dark; 320 px, 1440 px and 200 % zoom without sideways scrolling."""
    page.goto(f"{server.issuer}/admin/people")
    sign_in(page, "ada")
    (grant,) = {row["grant_id"]: row for row in server.rows("grants")[:1]}
    (user_id,) = [row["user_id"] for row in server.rows("users") if row["username"] == NAME]
    (client_id,) = {row["client_id"] for row in server.rows("grants")}
    about = f"user_id={user_id}"
    elsewhere = an_identity(
        issuer=f"https://login.example/{'t' * 40}", subject="s" * 120, label="l" * 120, user_id=user_id
    )
    with server.begin() as engine:
        engine.stores.identities.add(elsewhere)
    for address in (
        f"/admin/people/person?{about}",
        f"/admin/people/edit?{about}",
        f"/admin/people/password?{about}",
        f"/admin/people/application?{about}&client_id={client_id}",
        f"/admin/people/identity?{about}&identity={identity_handle(elsewhere)}",
        f"/admin/grants/grant?grant_id={grant}",
        f"/admin/grants/revoke?grant_id={grant}",
        "/admin/end",
        f"/admin/end?kind=user&name={user_id}",
    ):
        page.goto(server.issuer + address)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert_for_everybody(page, address)


def test_a_person_comes_and_goes(open_page: Callable[..., Page], server: Server) -> None:
    """Added with a link, helped, and disabled with all that is theirs; without JavaScript."""
    page = open_page(java_script_enabled=False)
    page.goto(f"{server.issuer}/admin/people")
    sign_in(page, "ada")
    page.get_by_role("link", name="Add a person").click()
    page.get_by_label("User name").fill("newcomer")
    page.get_by_label("Groups").fill("staff\nsales")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_have_text("newcomer was added.")
    link = page.locator("code.whole").inner_text()

    assert page.context.browser is not None
    theirs = page.context.browser.new_context().new_page()
    theirs.goto(link)
    choose_password(theirs, "a good password of their own")
    expect(theirs.get_by_role("status")).to_be_visible()
    theirs.goto(f"{server.issuer}/login")
    sign_in(theirs, "newcomer", "a good password of their own")
    expect(theirs.get_by_text("You are signed in as")).to_be_visible()
    client, _ = server.add_client(client_name="Reports")
    add_grants(server, "newcomer", client.client_id)

    page.get_by_role("link", name="Go on").click()
    expect(
        page.get_by_role("table", name="Browsers in which the person is signed in").get_by_role("row")
    ).to_have_count(2)
    page.get_by_role("link", name="End the access of").click()
    expect(page.get_by_text("1 grant", exact=True)).to_be_visible()
    page.get_by_role("button", name="End access").click()
    expect(page.get_by_role("status")).to_have_text("Ended: 1 grant.")
    page.get_by_role("link", name="Disable").click()
    expect(page.get_by_text("1 session", exact=True)).to_be_visible()
    page.get_by_role("button", name="Disable, and end all this").click()
    expect(page.get_by_role("status")).to_have_text("Done. The person is disabled.")
    theirs.goto(f"{server.issuer}/account/apps")
    expect(theirs.get_by_label("Username")).to_be_visible()
    theirs.context.close()
