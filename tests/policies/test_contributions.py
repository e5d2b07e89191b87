"""Shipped plugins that add something, through the web: claims, members, scopes, clients, observers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from authserver.api import Event, hookimpl
from authserver.policies.clients import ClientsFile
from authserver.settings import SettingsError
from authserver.testing.server import SETTINGS, Server
from authserver.testing.stories import assert_page_error


def with_plugins(*names: str, **settings: str) -> dict[str, str | None]:
    return {"authserver.plugins": SETTINGS["authserver.plugins"] + " ".join(names), **settings}


@pytest.fixture
def serve(sqlite_url: str) -> Any:
    servers: list[Server] = []

    def make(*names: str, **settings: str) -> Server:
        servers.append(Server(sqlite_url, with_plugins(*names, **settings)))
        servers[-1].add_user("ann")
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_the_name_goes_into_tokens_with_the_scope(serve: Callable[..., Server]) -> None:
    """token_claims: `claims_profile`; absent without its scope and for a client alone."""
    server = serve("claims_profile")
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    claims = server.claims(tokens["access_token"])
    assert (claims["preferred_username"], claims["name"]) == ("ann", "Ann")
    tokens = server.redeem(client, secret, server.code(client, scope="files.read")).json
    assert "preferred_username" not in server.claims(tokens["access_token"])
    service, secret = server.add_client(grant_types=("client_credentials",))
    tokens = server.token(service, secret, grant_type="client_credentials").json
    assert "name" not in server.claims(tokens["access_token"])


def test_a_refreshed_token_has_the_claims_too(serve: Callable[..., Server]) -> None:
    server = serve("claims_profile")
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    tokens = server.refresh(client, secret, tokens["refresh_token"]).json
    assert server.claims(tokens["access_token"])["preferred_username"] == "ann"


def test_a_client_learns_when_the_grant_ends(serve: Callable[..., Server]) -> None:
    """token_response: `authorization_expiry` (NEXT-01)."""
    server = serve("authorization_expiry", **{"authserver.grant_lifetime": "1000"})
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    assert 990 <= tokens["authorization_expires_in"] <= 1000
    service, secret = server.add_client(grant_types=("client_credentials",))
    assert (
        "authorization_expires_in" not in server.token(service, secret, grant_type="client_credentials").json
    )


def test_offline_access_governs_refresh_tokens(serve: Callable[..., Server]) -> None:
    """scopes: `offline_access`; A-16, I-01: it is advertised, asked for, and without it there is no refresh token."""
    server = serve("offline_access")
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert "offline_access" in metadata["scopes_supported"]
    client, secret = server.add_client(scopes=("profile", "offline_access"))
    assert "refresh_token" not in server.redeem(client, secret, server.code(client)).json
    browser = server.browser()
    server.sign_in(browser)
    page = browser.get(server.authorization_url(client, scope="profile offline_access"))
    assert "Stay connected while you are away" in page.text
    code = server.code(client, scope="profile offline_access")
    assert "refresh_token" in server.redeem(client, secret, code).json


def test_a_client_of_a_file_is_a_client(serve: Callable[..., Server], tmp_path: Path) -> None:
    """find_client: `clients_file`; it is held to what every client is."""
    file = tmp_path / "clients.toml"
    file.write_text(
        '[notes-app]\nname = "Notes"\nredirect_uris = ["https://client.example/cb"]\nscopes = ["profile"]\n'
    )
    server = serve("clients_file", **{"authserver.plugin.clients_file.file": str(file)})
    with server.application.begin() as engine:
        client = engine.find_client("notes-app")
    assert client is not None
    tokens = server.redeem(client, None, server.code(client)).json
    assert server.claims(tokens["access_token"])["client_id"] == "notes-app"
    assert server.refresh(client, None, tokens["refresh_token"]).status_int == 200
    browser = server.browser()
    answer = browser.get(server.authorization_url(client, client_id="other-app"), expect_errors=True)
    assert_page_error(answer, "invalid_request")


def test_a_client_of_a_file_is_native_where_its_redirect_uris_are(tmp_path: Path) -> None:
    """B204, K-12: a type that is not given follows from them; one that contradicts them stops the start."""
    file = tmp_path / "clients.toml"
    file.write_text(
        "[web]\nredirect_uris = ['https://client.example/cb']\n"
        "[local]\nredirect_uris = ['https://localhost:5001/cb']\n"
    )
    clients = ClientsFile(file=str(file))
    clients.prepare()
    found = [clients.find_client(client_id) for client_id in ("web", "local")]
    assert [client and client.application_type for client in found] == ["web", "native"]
    file.write_text("[local]\napplication_type = 'web'\nredirect_uris = ['https://localhost/cb']")
    with pytest.raises(ValueError, match="web application"):
        clients.prepare()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a", "cannot read"),
        ("[a]\nname = 'A'", "redirect_uris is missing"),
        ("[a]\nredirect_uris = ['javascript:alert(1)']", "redirect_uris"),
        ("[a]\nredirect_uris = 'https://a.example/cb'", "list of strings"),
        (
            "[a]\nredirect_uris = ['https://a.example/cb']\nsecret = 'x'",
            "a client is a table with these keys",
        ),
        ("[user_a]\nredirect_uris = ['https://a.example/cb']", "must not begin with"),
    ],
)
def test_a_bad_file_stops_the_start(
    serve: Callable[..., Server], tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "clients.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem):
        serve("clients_file", **{"authserver.plugin.clients_file.file": str(file)})


def test_every_event_is_logged_after_its_commit(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """observe: `log_events`; refusals too, and never a secret."""
    server = serve("log_events")
    client, secret = server.add_client()
    with caplog.at_level(logging.INFO, "authserver.events"):
        tokens = server.redeem(client, secret, server.code(client)).json
        server.redeem(client, "wrong", "x")
    lines = [
        json.loads(record.getMessage()) for record in caplog.records if record.name == "authserver.events"
    ]
    kept = {event["event_id"]: event["type"] for event in server.events()}
    told = {line["event_id"]: line["type"] for line in lines}
    assert told.items() <= kept.items()
    assert {"sign_in.succeeded", "consent.given", "code.issued", "token.issued", "token.refused"} <= set(
        told.values()
    )
    assert secret not in str(lines)
    assert tokens["refresh_token"] not in str(lines)


SEEN: list[Event] = []


@dataclass(frozen=True)
class Listens:
    """Hears everything, and fails at some."""

    fails: bool = True
    immediate: ClassVar[bool] = True

    @hookimpl
    def observe(self, event: Event) -> None:
        SEEN.append(event)
        if self.fails:
            raise RuntimeError("deaf")


def test_a_failing_observer_harms_nobody(serve: Callable[..., Server]) -> None:
    SEEN.clear()
    server = serve(f"{__name__}:Listens")
    client, secret = server.add_client()
    assert server.redeem(client, secret, server.code(client)).status_int == 200
    assert any(event.type == "token.issued" for event in SEEN)


@dataclass(frozen=True)
class Adds:
    """Adds whatever a test wants."""

    claims: ClassVar[frozenset[str]] = frozenset({"tenant"})
    members: ClassVar[frozenset[str]] = frozenset({"tenant"})
    immediate: ClassVar[bool] = True

    claim: str = "tenant"
    hook: str = "claims"

    @hookimpl
    def token_claims(self) -> Any:
        return {self.claim: "acme"} if self.hook == "claims" else None

    @hookimpl
    def token_response(self) -> Any:
        return {self.claim: "acme"} if self.hook == "members" else None


@dataclass(frozen=True)
class AddsToo(Adds):
    """Another plugin with the same claim."""


@dataclass(frozen=True)
class AddsCore:
    """Wants a claim of the core."""

    claims: ClassVar[frozenset[str]] = frozenset({"sub"})

    @hookimpl
    def token_claims(self) -> Any:
        return {"sub": "root"}


@dataclass(frozen=True)
class AddsScope:
    """Wants a scope that is there already."""

    name: str = "profile"
    other: tuple[str, ...] = field(default=())

    @hookimpl
    def scopes(self) -> Any:
        return {self.name: "Again"}


@dataclass(frozen=True)
class AddsGrantType:
    """Wants a grant type that is there already."""

    @hookimpl
    def grant_types(self) -> Any:
        return {"refresh_token": lambda engine, client, parameters: None}


@pytest.mark.parametrize("hook", ["claims", "members"])
def test_what_is_not_declared_is_a_fault(serve: Callable[..., Server], hook: str) -> None:
    """R-14, T140: nothing is issued."""
    server = serve(
        f"{__name__}:Adds", **{"authserver.plugin.adds.claim": "sub", "authserver.plugin.adds.hook": hook}
    )
    service, secret = server.add_client(grant_types=("client_credentials",))
    answer = server.token(service, secret, grant_type="client_credentials")
    assert (answer.status_int, answer.json["error"]) == (500, "server_error")
    assert not server.events("token.issued")


def test_what_is_declared_is_added(serve: Callable[..., Server]) -> None:
    server = serve(f"{__name__}:Adds", **{"authserver.plugin.adds.hook": "members"})
    service, secret = server.add_client(grant_types=("client_credentials",))
    assert server.token(service, secret, grant_type="client_credentials").json["tenant"] == "acme"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("Adds", "AddsToo"), "plugin adds_too: token_claims adds tenant, which plugin adds adds already"),
        (("AddsCore",), "plugin adds_core: token_claims adds sub, which the core adds already"),
        (("AddsScope",), "plugin adds_scope: scopes adds the scope profile, which the core adds already"),
        (("AddsGrantType",), "plugin adds_grant_type: grant_types adds the grant type refresh_token"),
    ],
)
def test_a_collision_stops_the_start(
    serve: Callable[..., Server], names: tuple[str, ...], problem: str
) -> None:
    """Naming both, and what to do."""
    with pytest.raises(SettingsError, match=problem):
        serve(*(f"{__name__}:{name}" for name in names))


def test_observers_hear_of_a_revocation_that_a_refusal_brings(serve: Callable[..., Server]) -> None:
    """G-05, T108: the replay and what it cost, as the event table has them; nothing that was rolled back."""
    server = serve(f"{__name__}:Listens")
    client, secret = server.add_client()
    code = server.code(client)
    server.redeem(client, secret, code)
    SEEN.clear()
    assert server.redeem(client, secret, code).status_int == 400
    assert [event.type for event in SEEN] == ["grant.revoked", "token.refused"]
    assert {event.event_id for event in SEEN} <= {event["event_id"] for event in server.events()}
