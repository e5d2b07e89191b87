"""oauth2-proxy before an application that knows nothing of OpenID Connect."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from authserver.testing.live import free_port
from tests.clients.programs.conftest import DevelopmentServer, authserver, wait_for
from tests.clients.programs.steps import allow

SCOPES = ("openid", "profile", "email")


class Behind(BaseHTTPRequestHandler):
    """The application: it says who the proxy says is there."""

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The tests need no access log."""


@pytest.fixture
def behind() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Behind) as application:
        thread = Thread(target=application.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{application.server_port}"
        application.shutdown()
        thread.join()


@pytest.fixture
def proxy(signing_in: DevelopmentServer, oauth2_proxy: str, behind: str, tmp_path) -> Iterator[str]:
    """The proxy, which found out everything but its client from the issuer. Where it is."""
    port = free_port()
    address = f"http://localhost:{port}"
    client_id, secret = signing_in.add_client(
        "--name=Wiki",
        f"--redirect-uri={address}/oauth2/callback",
        *(f"--scope={scope}" for scope in SCOPES),
        f'--metadata=post_logout_redirect_uris=["{address}/goodbye"]',
    )
    command = [
        oauth2_proxy,
        "--provider=oidc",
        f"--oidc-issuer-url={signing_in.issuer}",
        f"--client-id={client_id}",
        f"--client-secret={secret}",
        f"--redirect-url={address}/oauth2/callback",
        f"--scope={' '.join(SCOPES)}",
        "--code-challenge-method=S256",
        "--insecure-oidc-skip-nonce=false",
        f"--http-address=localhost:{port}",
        f"--upstream={behind}",
        f"--cookie-secret={secrets.token_hex(16)}",
        "--cookie-secure=false",
        "--email-domain=*",
        "--skip-provider-button",
        "--pass-access-token",
        f"--whitelist-domain={signing_in.issuer.removeprefix('http://')}",
    ]
    log = tmp_path / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{address}/ping", process, log)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)


def shown(page: Page) -> dict[str, str]:
    told: dict[str, str] = json.loads(page.locator("body").inner_text())
    return told


def test_oauth2_proxy_signs_a_person_in_and_out(
    page: Page, signing_in: DevelopmentServer, proxy: str
) -> None:
    """OIDC-02, OIDC-09, OIDC-22, OIDC-31, OUT-07: with PKCE and a nonce; the mail address comes from UserInfo."""
    mail = ("--attribute=email=demo@example.com", "--attribute=email_verified=demo@example.com")
    authserver(signing_in.ini, "user", "edit", "demo", *mail)
    allow(page, f"{proxy}/", signing_in.password)
    page.wait_for_url(f"{proxy}/")
    told = shown(page)
    assert told["x-forwarded-email"] == "demo@example.com"
    assert told["x-forwarded-preferred-username"] == "demo"
    assert told["x-forwarded-access-token"]
    # The proxy ends its own session and sends the browser on; the person says yes here.
    page.goto(f"{proxy}/oauth2/sign_out?rd={signing_in.issuer}/oauth/logout")
    page.get_by_role("button", name="Sign out").first.click()
    page.wait_for_load_state()
    allow(page, f"{proxy}/", signing_in.password)
    page.wait_for_url(f"{proxy}/")
    assert shown(page)["x-forwarded-email"] == "demo@example.com"


def test_a_person_without_a_verified_address_is_turned_away(
    page: Page, signing_in: DevelopmentServer, proxy: str
) -> None:
    """OIDC-41: an address that nobody verified is told as such, and the proxy does not take it."""
    authserver(signing_in.ini, "user", "edit", "demo", "--attribute=email=demo@example.com")
    allow(page, f"{proxy}/", signing_in.password)
    page.wait_for_url(f"{proxy}/oauth2/callback?**")
    expect(page.locator("body")).to_contain_text("Forbidden")
