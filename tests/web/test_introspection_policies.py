"""Which policies let whom know what a token is good for, and what none of them can (RFC 7662)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from authserver.api import Decision, IntrospectedToken, allow, deny, hookimpl
from authserver.engine.records import Client
from authserver.testing.server import SETTINGS, Server, with_plugin
from authserver.testing.stories import Granted, assert_inactive, is_active

MakeServer = Callable[..., Server]
METADATA = "/.well-known/oauth-authorization-server"
BOTH_POLICIES = ("introspect_own", "introspect_resource_servers")


@dataclass(frozen=True)
class Everybody:
    """Lets every caller know everything."""

    @hookimpl
    def introspection_decision(self, caller: Client, token: IntrospectedToken) -> Decision:
        return allow("everybody")


@dataclass(frozen=True)
class NoFiles:
    """Keeps tokens that can read files to itself."""

    @hookimpl
    def introspection_decision(self, token: IntrospectedToken) -> Decision | None:
        return deny("no-files") if "files.read" in token.scopes else None


def test_no_policy_shows_a_refresh_token_to_others(make_server: MakeServer) -> None:
    """M-07.b, T078: the floor stands below every policy."""
    server = make_server(with_plugin(Everybody, {}))
    server.add_user()
    granted = Granted(server)
    other, secret = server.add_client()
    assert is_active(server.introspect(other, secret, granted.access))
    assert_inactive(server.introspect(other, secret, granted.refresh))
    assert server.events("request.refused")[-1]["reason"] == "refresh-token-of-another-client"


def test_any_refusal_refuses(make_server: MakeServer) -> None:
    """R-14: whatever introspect_own says."""
    server = make_server(with_plugin(NoFiles, {}))
    server.add_user()
    granted = Granted(server)
    assert_inactive(granted.introspect(granted.access))
    assert server.events("request.refused")[-1]["reason"] == "no-files"


@pytest.mark.parametrize("left_out", BOTH_POLICIES)
def test_each_policy_answers_for_its_own_callers(left_out: str, make_server: MakeServer) -> None:
    """M-06, A-18: a line of the INI that goes takes its callers along."""
    listed = [name for name in SETTINGS["authserver.plugins"].split() if name != left_out]
    settings: dict[str, str | None] = {"authserver.plugins": " ".join(listed)}
    if left_out == "introspect_resource_servers":
        settings["authserver.plugin.introspect_resource_servers.clients"] = None
    server = make_server(settings)
    server.add_user()
    granted = Granted(server)
    assert is_active(granted.introspect(granted.access)) == (left_out != "introspect_own")
    assert is_active(granted.introspect_as_api(granted.access)) == (left_out != "introspect_resource_servers")


def test_without_any_policy_there_is_no_introspection(make_server: MakeServer) -> None:
    """A-13, A-18: gone from the address and from the metadata; revocation stays."""
    listed = [name for name in SETTINGS["authserver.plugins"].split() if name not in BOTH_POLICIES]
    server = make_server(
        {
            "authserver.plugins": " ".join(listed),
            "authserver.plugin.introspect_resource_servers.clients": None,
        }
    )
    server.add_user()
    granted = Granted(server)
    assert granted.introspect(granted.access).status_int == 404
    members = server.http.get(METADATA).json
    assert not any(name.startswith("introspection_") for name in members)
    assert "revocation_endpoint" in members
