"""Clients that register at the same moment, on both databases, over HTTP."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from authserver.engine.clients import initial_tokens
from authserver.testing.server import SETTINGS, Server
from authserver.testing.service import self_registration
from authserver.testing.threads import at_once

MANY = 8


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    plugins = SETTINGS["authserver.plugins"].replace("registration_open", "registration_token")
    server = Server(
        database_url,
        {
            "authserver.plugins": plugins,
            "authserver.plugin.registration_open.scopes": None,
            "authserver.plugin.registration_token.scopes": "profile",
            "authserver.plugin.registration_token.policies": "partners = clients 3",
        },
    )
    yield server
    server.close()


def register_at_once(server: Server, uses: int) -> Counter[tuple[int, str]]:
    """How often each status and error was answered."""
    with server.application.begin() as engine:
        end = engine.now + timedelta(hours=1)
        _, token = initial_tokens.make(engine, policy="partners", uses=uses, expires_at=end, note="")

    def register(number: int) -> tuple[int, str]:
        answer = server.http.post_json(
            "/oauth/register",
            self_registration(client_name=f"Program {number}"),
            headers={"Authorization": f"Bearer {token}"},
            expect_errors=True,
        )
        return answer.status_int, str(answer.json.get("error", ""))

    return Counter(at_once(MANY, register))


def uses_of(server: Server) -> int:
    with server.application.begin() as engine:
        (token,) = engine.stores.initial_tokens.list()
    return token.used


def test_of_those_with_a_token_for_one_use_one_registers(server: Server) -> None:
    """R-07, K-09: the others are refused, and leave neither a client nor a use."""
    assert register_at_once(server, 1) == {(201, ""): 1, (401, "invalid_token"): MANY - 1}
    assert len(server.events("client.registered")) == 1
    assert uses_of(server) == 1


def test_a_policy_never_gets_more_clients_than_it_may_have(server: Server) -> None:
    """T131: whoever is too late is asked for again by the policy, and refused; no use is spent on that."""
    answers = register_at_once(server, 100)
    assert answers[201, ""] == 3
    assert set(answers) <= {(201, ""), (400, "invalid_client_metadata"), (503, "temporarily_unavailable")}
    assert len(server.events("client.registered")) == 3
    assert uses_of(server) == 3


@pytest.mark.postgresql
def test_a_registration_does_not_wait_for_others_for_ever(postgresql_url: str) -> None:
    """T114: one that holds the others up, because its server hangs, is waited for as long as for any lock."""
    server = Server(postgresql_url)
    try:
        with server.application.begin() as engine:
            engine.stores.clients.hold_registrations()
            began = time.monotonic()
            answer = server.http.post_json("/oauth/register", self_registration(), expect_errors=True)
            assert time.monotonic() - began < 5
        assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["Retry-After"]
        assert server.http.post_json("/oauth/register", self_registration()).status_int == 201
    finally:
        server.close()
