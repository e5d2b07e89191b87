"""Two servers, each a process of its own: one is a company's issuer, the other the server of a resource .

This server does not issue identity assertions yet. So the test signs them with the keys that the first process publishes, as
that one would; everything else is real: the second process fetches the keys over HTTP, and is asked over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from authserver.testing.live import live_server
from authserver.testing.server import SETTINGS, Server, basic
from tests.trusted_issuers import GRANT_TYPE, Issuer

FILES = "https://files.example/"


def call(server: Server, path: str, form: dict[str, str], client: tuple[str, str]) -> tuple[int, Any]:
    """Status and JSON of a request that a client makes."""
    request = Request(server.issuer + path, urlencode(form).encode(), {"Authorization": basic(*client)})
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def servers(
    migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("enterprise")
    company, ours = (
        f"sqlite:///{shutil.copy(migrated_sqlite_file, folder / name)}" for name in ("company.db", "ours.db")
    )
    settings = {
        "authserver.plugins": f"id_jag {SETTINGS['authserver.plugins']}",
        "authserver.fetch_loopback": "true",
    }
    with live_server(company) as issuing, live_server(ours, settings) as accepting:
        yield issuing, accepting


def test_a_company_lets_an_agent_in_and_out_again(servers: tuple[Server, Server]) -> None:
    """JAG-16, JAG-17, JAG-18, R-13: keys are fetched from the other process; a disabled issuer ends at once."""
    issuing, accepting = servers
    client, secret = accepting.add_client(
        client_id="agent", grant_types=(GRANT_TYPE,), scopes=("files.read", "files.write")
    )
    assert secret is not None
    agent = (client.client_id, secret)
    with urlopen(f"{issuing.issuer}/.well-known/oauth-authorization-server", timeout=20) as answer:
        keys = json.load(answer)["jwks_uri"]
    company = Issuer(issuing.issuer)
    company.trust(
        accepting,
        "mcp",
        jwks_uri=keys,
        clients=("agent",),
        resources=(FILES,),
        scopes=("files.read",),
        options={"create_users": True},
    )

    def assertion(subject: str) -> str:
        now = int(time.time())
        claims = {
            "iss": issuing.issuer,
            "sub": subject,
            "aud": accepting.issuer,
            "client_id": "agent",
            "resource": FILES,
            "scope": "files.read files.write",
            "jti": os.urandom(12).hex(),
            "iat": now,
            "exp": now + 300,
        }
        return issuing.application.parts.signer.sign(claims, typ="oauth-id-jag+jwt")

    def present(text: str) -> tuple[int, Any]:
        return call(accepting, "/oauth/token", {"grant_type": GRANT_TYPE, "assertion": text}, agent)

    def is_active(token: str) -> bool:
        status, told = call(accepting, "/oauth/introspect", {"token": token}, agent)
        assert status == 200
        return bool(told["active"])

    text = assertion("00u1")
    status, first = present(text)
    assert (status, first["scope"]) == (200, "files.read"), first
    assert "refresh_token" not in first
    assert is_active(first["access_token"])
    assert present(text)[1]["error"] == "invalid_grant", "an assertion is accepted once"
    assert present(assertion("00u1"))[0] == 200
    assert len(accepting.rows("users")) == 1, "the same person"

    # What the company signed for itself, and what somebody else signed, lets nobody in.
    own = issuing.application.parts.signer.sign(
        {"iss": issuing.issuer, "sub": "00u1", "aud": accepting.issuer}, typ="at+jwt"
    )
    assert present(own)[1]["error"] == "invalid_grant"
    assert present(company.assertion(aud=accepting.issuer))[1]["error"] == "invalid_grant"

    # An operator disables the company in a process of its own: the next request already is refused.
    company.disable(accepting)
    assert present(assertion("00u1"))[1]["error"] == "invalid_grant"
    assert not is_active(first["access_token"])
    assert accepting.events("token.refused")[-1]["reason"] == "issuer-disabled"
    company.enable(accepting)
    status, second = present(assertion("00u2"))
    assert status == 200
    assert is_active(second["access_token"])
    assert not is_active(first["access_token"])
