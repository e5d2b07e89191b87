"""Client libraries of other languages, each in a small program as its own documentation writes one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from playwright.sync_api import expect

from authserver.testing.live import free_port
from tests.clients.programs.steps import allow, sign_in, started

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def walk(page, server, command: Sequence[str]) -> dict:
    """Run the program, and be the person whom it sends to the server; what came of it."""
    with started(command) as program:
        allow(page, program.address(), server.password)
        page.get_by_text("Done.").wait_for()
        result = program.result()
    first, refreshed = result["first"], result["refreshed"]
    assert first["client_id"] == refreshed["client_id"] == result["client_id"]
    assert first["sub"] == refreshed["sub"]
    assert first["jti"] != refreshed["jti"]
    assert set(first["scope"].split()) == {"notes.read", "profile"}
    return result


def test_oauth4webapi_registers_gets_uses_refreshes_and_revokes_tokens(page, server, resources, npm, node):
    """A-01, K-01, B-01, F-07, G-01, L-07, M-01: a client with a secret."""
    result = walk(page, server, [node, str(npm / "oauth4webapi.js"), server.issuer, resources.notes])
    assert result["described"]["active"] is True
    assert result["revoked"] == {"active": False}


@pytest.mark.parametrize("pushed", ["", "pushed"])
def test_openid_client_registers_gets_uses_refreshes_and_revokes_tokens(
    page, server, resources, npm, node, pushed
):
    """A-01, K-01, B-01, F-07, G-01, L-07, PAR-01: a public client, also with a pushed authorization request."""
    result = walk(page, server, [node, str(npm / "openid-client.js"), server.issuer, resources.notes, pushed])
    assert result["again"] == "invalid_grant"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_go_gets_uses_and_refreshes_tokens(page, server, resources, go_program, method):
    """F-07, G-01: golang.org/x/oauth2 finds out by itself how the client authenticates."""
    client_id, secret = server.add_client(
        "--name=Go",
        "--redirect-uri=http://127.0.0.1/callback",
        f"--auth-method={method}",
        "--scope=notes.read",
        "--scope=profile",
    )
    walk(page, server, [go_program, server.issuer, resources.notes, client_id, secret])


@pytest.mark.parametrize("script", ["sign-in.js", "sign-in-oauth4webapi.js"])
def test_a_library_of_openid_connect_signs_a_person_in(page, signing_in, npm, node, script):
    """openid-client, and oauth4webapi: OIDC-02, OIDC-08, OIDC-09, OIDC-16, OIDC-22, OIDC-38, OIDC-49: it checks all that OpenID Connect has a client check."""
    port = str(free_port())
    client_id, secret = signing_in.add_client(
        "--name=Board",
        f"--redirect-uri=http://127.0.0.1:{port}/callback",
        "--application-type=native",
        "--grant-type=authorization_code",
        "--grant-type=refresh_token",
        "--scope=openid",
        "--scope=profile",
        "--scope=email",
    )
    with started([node, str(npm / script), signing_in.issuer, client_id, secret, port]) as program:
        allow(page, program.address(), signing_in.password)
        page.get_by_text("Done.").wait_for()
        result = program.result()
    assert result["claims"]["aud"] == client_id
    assert result["claims"]["sub"] == result["person"]["sub"] == result["again"]
    assert result["person"]["preferred_username"] == "demo"


def test_oauth4webapi_connects_a_device_and_its_api_exchanges_the_token(page, exchanging, npm, node):
    """DEV-01, DEV-02, DEV-18, DEV-19, TX-03, TX-04, TX-13, G-01: it polls until its person has allowed it in a browser."""
    server, resources = exchanging
    device, _ = server.add_client(
        "--name=Television",
        "--auth-method=none",
        f"--grant-type={DEVICE}",
        "--grant-type=refresh_token",
        "--scope=notes.read",
        "--scope=profile",
    )
    service, secret = server.add_client(
        "--name=Notes service",
        "--client-id=notes-service",
        f"--grant-type={TOKEN_EXCHANGE}",
        "--scope=notes.read",
    )
    program = [node, str(npm / "device.js"), server.issuer, resources.notes, resources.mcp]
    with started([*program, device, service, secret]) as running:
        page.goto(running.address())
        sign_in(page, server.password)
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Connect this device to your account?")
        page.get_by_role("button", name="Allow").click()
        page.get_by_role("heading", name="Your device is connected").wait_for()
        result = running.result()
    assert set(result["refusals"]) == {"authorization_pending"}
    assert (result["device"]["client_id"], result["exchanged"]["client_id"]) == (device, service)
    assert result["exchanged"]["sub"] == result["device"]["sub"]
    assert result["exchanged"]["act"] == {"sub": service}
    assert result["exchanged"]["scope"] == "notes.read"
    assert result["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert result["refused"] == "invalid_target"
