"""Spring Security's client in a Spring Boot application, set up by properties as its guide does."""

from __future__ import annotations

import json
import subprocess

import pytest

from authserver.testing.live import free_port
from tests.clients.programs.conftest import path_of, wait_for
from tests.clients.programs.steps import allow


@pytest.fixture
def application(server, resources, spring_application, tmp_path):
    """The application, which found out everything but its client from the issuer. Where it is."""
    address = f"http://localhost:{free_port()}"
    client_id, secret = server.add_client(
        "--name=Spring", f"--redirect-uri={address}/authorized", "--scope=notes.read", "--scope=profile"
    )
    registration = "spring.security.oauth2.client.registration.authserver"
    properties = {
        "server.address": "localhost",
        "server.port": address.rpartition(":")[2],
        "api": resources.notes,
        "spring.security.oauth2.client.provider.authserver.issuer-uri": server.issuer,
        f"{registration}.client-id": client_id,
        f"{registration}.client-secret": secret,
        f"{registration}.authorization-grant-type": "authorization_code",
        f"{registration}.redirect-uri": "{baseUrl}/authorized",
        f"{registration}.scope": "notes.read,profile",
    }
    (tmp_path / "application.properties").write_text(
        "".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8"
    )
    log = tmp_path / "spring.log"
    with log.open("wb") as output:
        command = [path_of("java"), "-XX:TieredStopAtLevel=1", "-jar", str(spring_application)]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{address}/ready", process, log)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert "ERROR" not in log.read_text(encoding="utf-8")


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
