"""Spring Security's client in a Spring Boot application, set up by properties as its guide does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from authserver.testing.live import free_port
from tests.clients.programs.conftest import path_of, wait_for
from tests.clients.programs.steps import allow

REGISTRATION = "spring.security.oauth2.client.registration.authserver"


@contextmanager
def running(jar: Path, folder: Path, address: str, properties: Mapping[str, str]) -> Iterator[str]:
    """The application with these properties, which finds out everything but its client from the issuer. Where it is."""
    properties = {"server.address": "localhost", "server.port": address.rpartition(":")[2], **properties}
    (folder / "application.properties").write_text(
        "".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8"
    )
    log = folder / "spring.log"
    with log.open("wb") as output:
        command = [path_of("java"), "-XX:TieredStopAtLevel=1", "-jar", str(jar)]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{address}/ready", process, log)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert "ERROR" not in log.read_text(encoding="utf-8")


@pytest.fixture
def application(server, resources, spring_application, tmp_path):
    """The application as a client of an API."""
    address = f"http://localhost:{free_port()}"
    client_id, secret = server.add_client(
        "--name=Spring", f"--redirect-uri={address}/authorized", "--scope=notes.read", "--scope=profile"
    )
    properties = {
        "api": resources.notes,
        "spring.security.oauth2.client.provider.authserver.issuer-uri": server.issuer,
        f"{REGISTRATION}.client-id": client_id,
        f"{REGISTRATION}.client-secret": secret,
        f"{REGISTRATION}.authorization-grant-type": "authorization_code",
        f"{REGISTRATION}.redirect-uri": "{baseUrl}/authorized",
        f"{REGISTRATION}.scope": "notes.read,profile",
    }
    with running(spring_application, tmp_path, address, properties) as running_there:
        yield running_there


@pytest.fixture
def signing_application(signing_in, resources, spring_application, tmp_path_factory):
    """The application as one that signs people in."""
    address = f"http://localhost:{free_port()}"
    client_id, secret = signing_in.add_client(
        "--name=Spring",
        f"--redirect-uri={address}/login/oauth2/code/authserver",
        *(f"--scope={scope}" for scope in ("openid", "profile", "email")),
        f'--metadata=post_logout_redirect_uris=["{address}/ready"]',
        f"--metadata=backchannel_logout_uri={address}/logout/connect/back-channel/authserver",
    )
    properties = {
        "api": resources.notes,
        "sign-in": "true",
        "spring.security.oauth2.client.provider.authserver.issuer-uri": signing_in.issuer,
        f"{REGISTRATION}.client-id": client_id,
        f"{REGISTRATION}.client-secret": secret,
        f"{REGISTRATION}.scope": "openid,profile,email",
    }
    folder = tmp_path_factory.mktemp("spring")
    with running(spring_application, folder, address, properties) as running_there:
        yield running_there


def test_spring_security_discovers_gets_uses_and_refreshes_tokens(page, server, application):
    """B069: ClientRegistrations.fromIssuerLocation comes to the metadata of RFC 8414, and PKCE is sent by itself."""
    allow(page, f"{application}/", server.password)
    page.wait_for_url(f"{application}/**")
    first = json.loads(page.locator("body").inner_text())
    page.goto(f"{application}/refreshed")
    refreshed = json.loads(page.locator("body").inner_text())
    assert first["client_id"] == refreshed["client_id"]
    assert first["jti"] != refreshed["jti"]
    assert set(first["scope"].split()) == {"notes.read", "profile"}


def test_spring_security_signs_a_person_in_and_out(page, signing_in, signing_application):
    """OIDC-02, OIDC-22, OIDC-38, OUT-01, OUT-03, OUT-10: oauth2Login; it ends the session here, and is told when that ends."""
    me = f"{signing_application}/me"
    allow(page, me, signing_in.password)
    page.wait_for_url(f"{me}**")
    claims = json.loads(page.locator("body").inner_text())
    assert claims["iss"] == signing_in.issuer and claims["sub"] and claims["sid"] and claims["at_hash"]
    assert claims["preferred_username"] == "demo"
    # From the application: its page of signing out, and ours sends the browser back at once.
    page.goto(f"{signing_application}/logout")
    page.get_by_role("button", name="Log Out").click()
    page.wait_for_url(f"{signing_application}/ready**")
    # From here: the application is told, and does not know the person any more.
    allow(page, me, signing_in.password)
    page.wait_for_url(f"{me}**")
    page.goto(f"{signing_in.issuer}/logout")
    page.get_by_role("button", name="Sign out").first.click()
    page.wait_for_load_state()
    for _ in range(50):
        page.goto(me)
        if page.get_by_label("Username").is_visible():
            break
        page.wait_for_timeout(200)
    expect(page.get_by_label("Username")).to_be_visible()
