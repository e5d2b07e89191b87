"""Renewing access (OAuth 2.1, 4.3): rotation, retry and reuse, seen from outside."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
import time_machine

from authserver.testing.server import Server
from authserver.testing.stories import TokenFamily, assert_json_error, stored


@pytest.fixture
def family(server: Server) -> TokenFamily:
    return TokenFamily(server)


def test_every_use_rotates(server: Server) -> None:
    """I-04, I-05: a new token each time, public client or not; the old one knows its successor."""
    family = TokenFamily(server)
    tokens = [family.token]
    for _ in range(3):
        answer = family.refresh(tokens[-1])
        assert answer.status_int == 200
        assert answer.headers["Cache-Control"] == "no-store"
        tokens.append(answer.json["refresh_token"])
    assert len(set(tokens)) == 4
    rows = [row for row in server.rows("tokens") if row["kind"] == "refresh"]
    links = {row["digest"]: row["successor_digest"] for row in rows}
    assert sum(successor is None for successor in links.values()) == 1
    assert {successor for successor in links.values() if successor} < links.keys()


def test_reuse_ends_the_family(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-06, I-07, R-08, T064: the old token, its live successor and the grant are dead, and stay so."""
    server = family.server
    newest = family.refresh().json["refresh_token"]
    clock.shift(11)
    before = len(server.events("token.issued"))
    assert_json_error(family.refresh(), "invalid_grant")
    assert family.is_dead(newest, family.token)
    assert_json_error(server.redeem(family.client, family.secret, family.code), "invalid_grant")
    assert len(server.events("token.issued")) == before
    (grant,) = server.rows("grants")
    assert grant["revoked_reason"] == "refresh-token-reused"
    (event,) = server.events("grant.revoked")
    assert event["grant_id"] == grant["grant_id"]


def test_a_lost_answer_can_be_asked_for_again(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-08, I-09, T063, T065: inside the window the predecessor gets the same successor, not another."""
    first = family.refresh().json
    clock.shift(10)
    again = family.refresh().json
    assert again["refresh_token"] == first["refresh_token"]
    assert again["scope"] == first["scope"]
    rows = [row for row in family.server.rows("tokens") if row["kind"] == "refresh"]
    assert len(rows) == 2
    assert family.refresh(first["refresh_token"]).status_int == 200
    retried = [event for event in family.server.events("token.issued") if '"retry":true' in event["details"]]
    assert len(retried) == 1


@pytest.mark.parametrize("deleted", ["client", "user"])
def test_a_refresh_token_of_nobody_is_dead(family: TokenFamily, deleted: str) -> None:
    """I-12.a, T073: without its client or its user it is no token, here and at introspection."""
    server = family.server
    api, api_secret = server.add_client(client_id="api", grant_types=("client_credentials",))
    token = family.first["access_token"]
    assert server.introspect(api, api_secret, token).json["active"] is True
    with server.application.storage.engine.connect() as connection:
        if deleted == "user":
            with pytest.raises(sa.exc.IntegrityError):  # while there are grants the database keeps the user
                connection.execute(sa.text("DELETE FROM users"))
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.execute(sa.text("DELETE FROM users"))
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        else:
            connection.execute(sa.text("DELETE FROM clients WHERE client_id <> 'api'"))
    before = stored(server)
    if deleted == "user":
        assert_json_error(family.refresh(), "invalid_grant")
        assert_json_error(server.redeem(family.client, family.secret, family.code), "invalid_grant")
    else:
        assert_json_error(family.refresh(), "invalid_client", status=401)
        assert {row["client_id"] for row in server.rows("client_secrets")} == {"api"}
    assert server.introspect(api, api_secret, token).json == {"active": False}
    assert stored(server)[1] == before[1]
