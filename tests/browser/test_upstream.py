"""Sign-in through a provider in a real browser: this product as the provider, in another process."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from authserver.testing.live import live_server
from authserver.testing.server import Server
from tests.browser.conftest import ClientSite, Watch
from tests.browser.steps import allow, answer_of, authorize, sign_in
from tests.features.upstream_steps import PROVIDER, with_provider


@pytest.fixture(scope="module")
def servers(
    migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """This server, and the provider with Ann and Bob, under another name of this machine: each has its own cookies."""
    folder = tmp_path_factory.mktemp("upstream")
    urls = []
    for name in ("provider", "server"):
        shutil.copy(migrated_sqlite_file, folder / f"{name}.db")
        urls.append(f"sqlite:///{folder}/{name}.db")
    with live_server(urls[0], PROVIDER, host="127.0.0.1") as provider:
        provider.add_user("ann", attributes={"email": ("ann@example.com",)})
        provider.add_user("bob", attributes={"email": ("bob@example.com",)})
        client, secret = provider.add_client(
            client_name="Example sign-in",
            redirect_uris=("http://localhost/login/staff/callback",),
            application_type="native",
            scopes=("openid", "profile", "email"),
        )
        assert secret is not None
        settings = with_provider(provider.issuer, client.client_id, secret)
        with live_server(urls[1], settings) as server:
            server.add_user("bob")
            yield server, provider


@pytest.fixture
def server(servers: tuple[Server, Server]) -> Server:
    return servers[0]


@pytest.fixture
def watch(servers: tuple[Server, Server]) -> Watch:
    watch = Watch(issuer=servers[0].issuer)
    # Pages of the provider load what is theirs.
    watch.allow(f"^third party: [a-z]+ {re.escape(servers[1].issuer)}/static/")
    return watch


def there(page: Page, servers: tuple[Server, Server], username: str = "ann") -> None:
    """Press the button of the provider, and sign in and agree there."""
    page.get_by_role("link", name="Staff").click()
    expect(page).to_have_url(re.compile(re.escape(servers[1].issuer)))
    sign_in(page, username)
    allow(page)


def test_from_an_application_through_the_provider_and_back(
    page: Page, server: Server, servers: tuple[Server, Server], web_site: ClientSite
) -> None:
    """UP-01, UP-03, UP-06, UP-11: sign in there, agree here, and the application has its code; then back does no harm."""
    client, secret = server.add_client()
    authorize(page, server, client)
    expect(page.get_by_label("Password")).to_be_visible()
    before = page.context.cookies()
    there(page, servers)
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")
    cookie = session_cookie_of(page, "localhost")
    assert cookie not in [each["value"] for each in before]
    allow(page)
    page.wait_for_url("https://client.example/**")
    assert server.redeem(client, secret, answer_of(page)["code"]).status_int == 200
    page.goto(f"{server.issuer}/account/identities")
    expect(page.get_by_text("ann@example.com")).to_be_visible()
    expect(page.get_by_text("only way")).to_be_visible()
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def session_cookie_of(page: Page, host: str) -> str:
    return next(
        each["value"]
        for each in page.context.cookies()
        if each["domain"] == host and each["name"].endswith("authserver-session")
    )


def test_a_refusal_there_ends_on_a_page_with_ways_on(
    page: Page, server: Server, servers: tuple[Server, Server], watch: Watch
) -> None:
    """The person says no there; here they try again, and it works."""
    watch.allow("400")
    page.goto(f"{server.issuer}/login")
    page.get_by_role("link", name="Staff").click()
    sign_in(page, "bob")
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are not signed in")
    expect(page.get_by_text("You did not allow it there")).to_be_visible()
    page.get_by_role("link", name="Sign in in another way").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="Try again").click()
    allow(page)
    # There is an account of that name here, and it is not theirs unless they show it.
    expect(page.get_by_text("There is an account here with your user name")).to_be_visible()


def test_bob_adds_the_provider_without_scripts(
    open_page: Callable[..., Page], server: Server, servers: tuple[Server, Server]
) -> None:
    """UP-03: in the account, from a form that leads on; and takes it away again."""
    page = open_page(java_script_enabled=False)
    page.goto(f"{server.issuer}/account/identities")
    sign_in(page, "bob")
    page.get_by_role("button", name="Add Staff").click()
    expect(page).to_have_url(re.compile(re.escape(servers[1].issuer)))
    sign_in(page, "bob")
    allow(page)
    expect(page.get_by_role("status")).to_have_text(re.compile("That provider is added"))
    expect(page.get_by_text("bob@example.com")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status")).to_have_text(re.compile("That provider is removed"))
