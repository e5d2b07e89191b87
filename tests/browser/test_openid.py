"""The response mode `form_post`, and the page about what applications see, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page

from authserver.testing.live import live_server
from authserver.testing.server import Server
from tests.browser.conftest import ClientSite
from tests.browser.steps import allow, authorize, sign_in
from tests.features.openid_steps import ATTRIBUTES, ON, SCOPES


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server process with the plugin, and the user `ann`."""
    path = tmp_path_factory.mktemp("openid") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    with live_server(f"sqlite:///{path}", ON) as server:
        server.add_user("ann", attributes=ATTRIBUTES)
        yield server


def test_the_browser_posts_the_response(page: Page, server: Server, web_site: ClientSite) -> None:
    """OIDC-13, OIDC-54: by itself, although the page may run one script alone; then the page shows what was shared."""
    client, secret = server.add_client(client_name="Board", scopes=SCOPES)
    before = len(web_site.forms)
    authorize(page, server, client, response_mode="form_post", scope="openid email address", state='"<&ä'[:3])
    sign_in(page)
    allow(page)
    page.wait_for_url("https://client.example/**")
    ((path, body),) = web_site.forms[before:]
    sent = parse_qs(body)
    assert path == "/cb" and sent.keys() == {"code", "state", "iss"} and sent["state"] == ['"<&']
    assert server.redeem(client, secret, sent["code"][0]).status_int == 200
    page.goto(f"{server.issuer}/account/shared")
    assert "ann@example.com" in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_person_posts_it_without_scripts(
    open_page: Callable[..., Page], server: Server, web_site: ClientSite
) -> None:
    """OIDC-54: by the button."""
    page = open_page(java_script_enabled=False)
    client, _ = server.add_client(scopes=SCOPES)
    before = len(web_site.forms)
    authorize(page, server, client, response_mode="form_post", scope="openid")
    sign_in(page)
    allow(page)
    assert len(web_site.forms) == before
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("https://client.example/**")
    assert len(web_site.forms) == before + 1


def test_the_person_confirms_to_sign_out(
    open_page: Callable[..., Page], server: Server, web_site: ClientSite
) -> None:
    """OUT-05, OUT-07: a form of another site leads to the question, without scripts, and the answer to the application."""
    page = open_page(java_script_enabled=False)
    client, _ = server.add_client(
        client_name="Board",
        scopes=SCOPES,
        details={"post_logout_redirect_uris": ["https://client.example/bye"]},
    )
    page.goto(f"{server.issuer}/login")
    sign_in(page)
    page.route(
        "https://client.example/leave",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method="post" action="{server.issuer}/oauth/logout">'
            f'<input name="client_id" value="{client.client_id}"><input name="state" value="s">'
            '<input name="post_logout_redirect_uri" value="https://client.example/bye">'
            "<button>Leave</button></form>",
        ),
    )
    page.goto("https://client.example/leave")
    page.get_by_role("button", name="Leave").click()
    assert "Board" in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("https://client.example/bye?state=s")
    page.goto(f"{server.issuer}/oauth/logout")
    assert "You are signed out" in page.locator("main").inner_text()
