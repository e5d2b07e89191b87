"""docs/writing-plugins.rst, "An endpoint of your own": its example is a capability, complete as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from webtest import TestResponse

from authserver.api import Binding, hookimpl
from authserver.explaining.explain import explain_event
from authserver.testing.server import SETTINGS, Server, with_plugin
from authserver.testing.stories import assert_json_error


@dataclass(frozen=True)
class Binds:
    """Binds every token to one key."""

    confirmations: ClassVar[Mapping[str, str]] = {"x5t#S256": "Bearer"}

    @hookimpl
    def token_binding(self) -> Binding:
        return Binding(confirmation={"x5t#S256": "x"}, binds_refresh=False)


EXAMPLES = Path(__file__).parents[2] / "docs/examples"
ALLOWED = "who_am_i_allowed"


@pytest.fixture
def server(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.syspath_prepend(EXAMPLES)
    server = Server(sqlite_url, with_plugin("who_am_i:WhoAmI", {}))
    server.add_user("ann")
    yield server
    server.close()


def tokens(server: Server, **details: bool) -> tuple[str, str]:
    """An access and a refresh token of a client with these members."""
    client, secret = server.add_client(details=details)
    answer = server.redeem(client, secret, server.code(client, scope="profile files.read")).json
    return answer["access_token"], answer["refresh_token"]


def ask(server: Server, token: str | None) -> TestResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer: TestResponse = server.http.get("/who-am-i", headers=headers, expect_errors=True)
    return answer


def test_the_example_answers_the_clients_that_are_registered_for_it(server: Server) -> None:
    """client_metadata, includeme: and is in the metadata."""
    access, _ = tokens(server, who_am_i_allowed=True)
    (user,) = server.rows("users")
    assert ask(server, access).json == {"sub": user["user_id"], "scope": "profile files.read"}
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["who_am_i_endpoint"] == f"{server.issuer}/who-am-i"


def test_the_example_refuses_others_and_explain_says_what_would_help(server: Server) -> None:
    """The remedy is the plugin's own."""
    access, _ = tokens(server)
    refused = ask(server, access)
    assert_json_error(refused, "access_denied", status=403)
    with server.application.begin() as engine:
        event = engine.stores.events.find(refused.json["error_id"])
        assert event
        (check,) = explain_event(engine, event, server.application.parts.policies).checks
    assert check.reason == "who-am-i-not-allowed"
    (client,) = server.rows("clients")
    command = f"authserver client edit {client['client_id']} --metadata {ALLOWED}=true"
    assert check.remedies == (f"register the client for it: `{command}`",)


@pytest.mark.parametrize("kind", ["none", "malformed", "refresh", "revoked"])
def test_the_example_takes_access_tokens_that_are_good(server: Server, kind: str) -> None:
    """RFC 6750, 3.1: 401, with the error in the challenge where a token was sent."""
    access, refresh = tokens(server, who_am_i_allowed=True)
    token = {"none": None, "malformed": "x", "refresh": refresh, "revoked": access}[kind]
    if kind == "revoked":
        (grant,) = server.rows("grants")
        with server.application.begin() as engine:
            engine.stores.grants.revoke(grant["grant_id"], engine.now, "test")
    answer = ask(server, token)
    assert_json_error(answer, "invalid_token", status=401)
    assert ("error=" in answer.headers["WWW-Authenticate"]) is (token is not None)


def test_the_example_takes_no_bound_token(server: Server, sqlite_url: str) -> None:
    """DPOP-08: whatever binds it."""
    client, secret = server.add_client(grant_types=("client_credentials",), details={ALLOWED: True})
    plugins = f"{SETTINGS['authserver.plugins']} {__name__}:Binds"
    binding = Server(sqlite_url, {"authserver.plugins": plugins})
    token = binding.token(client, secret, grant_type="client_credentials").json["access_token"]
    binding.close()
    assert_json_error(ask(server, token), "invalid_token", status=401)


def test_the_documentation_shows_this_very_file() -> None:
    page = (EXAMPLES.parent / "writing-plugins.rst").read_text()
    assert ".. literalinclude:: examples/who_am_i.py" in page
