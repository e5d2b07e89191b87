"""Make the pictures of README and documentation: `python docs/screenshots.py`, with Chromium installed.

A server of its own is started for them, with a person, a client and nothing else.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, expect, sync_playwright

import authserver
from authserver.engine.records import Grant, RegisteredBy
from authserver.storage import migrate
from authserver.testing.live import live_server
from authserver.testing.server import PASSWORD, Server
from authserver.testing.server import SETTINGS as OF_TESTS

IMAGES = Path(__file__).parent / "images"
SETTINGS = {
    "authserver.product_name": "Acme ID",
    "authserver.logo": str(Path(authserver.__file__).parent / "web/static/logo.svg"),
    "authserver.scopes": """
        profile = See your name
        notes.read = Read your notes
        notes.write = Write and delete your notes
        """,
    "authserver.plugins": f"{OF_TESTS['authserver.plugins']}\ndevice_grant",
    "authserver.hidden_scopes": None,
    "authserver.plugin.registration_open.scopes": "profile notes.read",
    "authserver.plugin.resources_listed.resources": "https://notes.acme.example/ = *",
    "authserver.resource_names": "https://notes.acme.example/ = Notes",
    "authserver.privacy_url": "https://acme.example/privacy",
    "authserver.terms_url": "https://acme.example/terms",
    "authserver.plugin.resources_listed.default": "https://notes.acme.example/",
}
SCOPES = ("profile", "notes.read", "notes.write")
# What the pictures show: file, width in CSS pixels, colour scheme, whether the client registered itself.
PICTURES = (
    ("consent-light.png", 760, "light", False),
    ("consent-dark-narrow.png", 390, "dark", True),
)
ACCOUNT = "account-light.png"
DEVICE = "device-narrow.png"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


def main() -> None:
    """Take every picture again."""
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        url = f"sqlite:///{folder}/authserver.sqlite"
        migrate.upgrade(url)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        with live_server(url, SETTINGS) as server:
            server.add_user("ann")
            for name, width, scheme, is_stranger in PICTURES:
                context = browser.new_context(
                    viewport={"width": width, "height": 400}, color_scheme=scheme, device_scale_factor=1.5
                )
                page = context.new_page()
                show_consent(page, server, is_stranger)
                take(page, name)
                context.close()
            context = browser.new_context(
                viewport={"width": 760, "height": 400}, color_scheme="light", device_scale_factor=1.5
            )
            page = context.new_page()
            show_account(page, server)
            take(page, ACCOUNT)
            context.close()
            context = browser.new_context(
                viewport={"width": 390, "height": 400}, color_scheme="light", device_scale_factor=1.5
            )
            page = context.new_page()
            show_device(page, server)
            take(page, DEVICE)
            context.close()
        browser.close()


def take(page: Page, name: str) -> None:
    """Keep what the page shows, in a window as high as the page: what stays in sight stands where it belongs."""
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": page.evaluate("innerWidth"), "height": height})
    page.screenshot(path=IMAGES / name, full_page=True)
    sys.stdout.write(f"{IMAGES / name}: {(IMAGES / name).stat().st_size // 1024} KiB\n")


def show_consent(page: Page, server: Server, is_stranger: bool) -> None:
    """Bring the page to the consent that one of two clients asks for."""
    client, _ = server.add_client(
        client_name="Paper Trail",
        redirect_uris=("http://127.0.0.1/callback",)
        if is_stranger
        else ("https://papertrail.example/callback",),
        token_endpoint_auth_method="none" if is_stranger else "client_secret_basic",
        application_type="native" if is_stranger else "web",
        scopes=SCOPES,
    )
    shown = replace(
        client,
        client_id=f"{client.client_id}_shown",
        created_at=datetime(2026, 1, 15, tzinfo=UTC),
        registered_by=RegisteredBy.SELF if is_stranger else RegisteredBy.OPERATOR,
    )
    with server.application.begin() as engine:
        engine.stores.clients.add(shown)
    page.goto(server.issuer + server.authorization_url(shown, scope=" ".join(SCOPES)))
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")


def show_account(page: Page, server: Server) -> None:
    """Bring the page to the applications of somebody who let two of them in."""
    show_consent(page, server, is_stranger=False)
    used_at = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        clients = {client.registered_by: client for client in engine.stores.clients.list(engine.now)}
        assert user is not None
        for kind, scopes, days in ((RegisteredBy.OPERATOR, SCOPES, 5), (RegisteredBy.SELF, SCOPES[:2], 40)):
            grant = Grant(
                grant_id=f"grant_{kind}",
                client_id=clients[kind].client_id,
                user_id=user.user_id,
                scopes=scopes,
                resources=("https://notes.acme.example/",),
                created_at=used_at - timedelta(days=days),
                expires_at=datetime.now(UTC) + timedelta(days=1),
                last_used_at=used_at - timedelta(days=days // 2),
            )
            engine.stores.grants.add(grant)
    page.goto(server.issuer + "/account/apps")
    expect(page.get_by_role("button", name="End access")).to_have_count(2)


def show_device(page: Page, server: Server) -> None:
    """Bring the page to the question whether a device may be connected."""
    client, _ = server.add_client(
        client_name="Television",
        grant_types=(DEVICE_CODE,),
        token_endpoint_auth_method="none",
        scopes=SCOPES[:2],
    )
    told = server.ask("/oauth/device_authorization", client, scope=" ".join(SCOPES[:2])).json
    page.goto(told["verification_uri_complete"])
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Connect this device to your account?")


if __name__ == "__main__":
    main()
