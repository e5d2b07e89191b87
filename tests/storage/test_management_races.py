"""Clients that manage their registrations at the same moment at two servers, on both databases (RFC 7592)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from authserver.testing.server import SETTINGS, Server
from authserver.testing.service import self_registration
from authserver.testing.threads import at_once

TOKEN = "registration_access_token"
NOT_SENT = (
    TOKEN,
    "registration_client_uri",
    "client_id_issued_at",
    "client_secret",
    "client_secret_expires_at",
)
Told = Mapping[str, Any]
CHANGING = 503


@pytest.fixture
def servers(database_url: str) -> Iterator[tuple[Server, Server]]:
    settings = {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_management",
        "authserver.unused_clients_per_source": "3",
    }
    first, second = (Server(database_url, settings) for _ in range(2))
    first.add_user("ann")
    yield first, second
    first.close()
    second.close()


def registered(server: Server, **changes: Any) -> Told:
    told: Told = server.http.post_json("/oauth/register", self_registration(**changes)).json
    return told


def ask(server: Server, told: Told, method: str, *, token: str = "", **changes: Any) -> tuple[int, Told]:
    """The status and the body of the answer."""
    body = {name: value for name, value in told.items() if name not in NOT_SENT} | changes
    answer = server.http.request(
        told["registration_client_uri"],
        method=method,
        body=json.dumps(body).encode() if method == "PUT" else b"",
        headers={"Authorization": f"Bearer {token or told[TOKEN]}", "Content-Type": "application/json"},
        expect_errors=True,
    )
    return answer.status_int, answer.json if answer.body else {}


def test_of_changes_at_once_each_is_made_as_a_whole_or_not_at_all(servers: tuple[Server, Server]) -> None:
    """K-17, K-22, T144: and whoever made the last one has a token that works."""
    told = registered(servers[0])
    answers = at_once(6, lambda number: ask(servers[number % 2], told, "PUT", client_name=f"Name {number}"))
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) <= {200, CHANGING}
    made = {body["client_name"]: body for status, body in answers if status == 200}
    events = servers[0].events("client.changed")
    assert len(events) == len(made) == statuses[200] >= 1
    (client,) = servers[0].rows("clients")
    assert ask(servers[0], told, "GET", token=made[client["name"]][TOKEN])[0] == 200


def test_no_change_brings_back_a_client_that_ends_its_registration(servers: tuple[Server, Server]) -> None:
    """K-21: used or not; and no secret is left of it."""
    for is_used in (False, True):
        told = registered(servers[0])
        client_id = told["client_id"]
        if is_used:
            with servers[0].application.begin() as engine:
                client = engine.stores.clients.find(client_id, engine.now)
            assert client is not None
            servers[0].code(client)

        def act(number: int, told: Told = told) -> int:
            if number == 0:
                return ask(servers[0], told, "DELETE")[0]
            change = {"token_endpoint_auth_method": "client_secret_basic"}
            return ask(servers[number % 2], told, "PUT", **change)[0]

        ended, *changed = at_once(4, act)
        assert ended == 204
        assert set(changed) <= {200, 401, CHANGING}
        assert ask(servers[1], told, "GET")[0] == 401
        rows = [row for row in servers[0].rows("clients") if row["client_id"] == client_id]
        assert [row["disabled_at"] is not None for row in rows] == [True] * is_used
        with servers[0].application.begin() as engine:
            secrets = [row for row in servers[0].rows("client_secrets") if row["client_id"] == client_id]
            assert all(row["expires_at"] is not None for row in secrets)
            assert not engine.stores.grants.list(engine.now, client_id=client_id)


def test_a_refresh_at_the_end_of_a_registration_leaves_nothing_alive(servers: tuple[Server, Server]) -> None:
    """K-21, R-09: it comes before, or is refused; also if it is sent again."""
    told = registered(servers[0], grant_types=["authorization_code", "refresh_token"])
    with servers[0].application.begin() as engine:
        client = engine.stores.clients.find(told["client_id"], engine.now)
    assert client is not None
    secret = told.get("client_secret")
    token = servers[0].redeem(client, secret, servers[0].code(client)).json["refresh_token"]

    def act(number: int) -> tuple[int, Told]:
        if number == 0:
            return ask(servers[0], told, "DELETE")
        answer = servers[number % 2].refresh(client, secret, token)
        return answer.status_int, answer.json

    (ended, _), *refreshed = at_once(5, act)
    assert ended == 204
    assert {status for status, _ in refreshed} <= {200, 400, 401}
    for _, body in (*refreshed, (0, {"refresh_token": token})):
        if "refresh_token" in body:
            late = servers[1].refresh(client, secret, body["refresh_token"])
            assert (late.status_int, late.json["error"]) == (401, "invalid_client")
    with servers[0].application.begin() as engine:
        assert not engine.stores.grants.list(engine.now, client_id=client.client_id)


def test_registrations_at_the_bound_do_not_go_beyond_it(servers: tuple[Server, Server]) -> None:
    """T131"""

    def register(number: int) -> int:
        body = self_registration(client_name=f"Program {number}")
        return servers[number % 2].http.post_json("/oauth/register", body, expect_errors=True).status_int

    assert Counter(at_once(8, register)) == {201: 3, 429: 5}
    assert len(servers[0].rows("clients")) == 3


def test_the_old_and_the_new_token_at_once_leave_one_that_works(servers: tuple[Server, Server]) -> None:
    """K-22, T133: a program that uses both is not locked out, and the one that lost its place is refused."""
    for _ in range(3):
        old = registered(servers[0])
        _, new = ask(servers[0], old, "PUT")

        def act(number: int, old: Told = old, new: Told = new) -> tuple[int, Told]:
            if number == 0:
                return ask(servers[0], new, "GET")
            return ask(servers[1], old, "PUT", client_name="Again")

        (read, _), (changed, again) = at_once(2, act)
        assert read in (200, 401)
        assert changed in (200, 401, CHANGING)
        assert 200 in (read, changed)
        newest = again if changed == 200 and read == 401 else new
        if read == 200 and changed == 200:
            newest = again if ask(servers[0], again, "GET")[0] == 200 else new
        assert ask(servers[0], newest, "GET")[0] == 200
        assert ask(servers[0], newest, "DELETE")[0] == 204
