"""Revocation (RFC 7009): a client ends what it was granted, and only that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from webtest import TestResponse

from authserver.engine.ports import StorageUnavailable
from authserver.testing.server import Server
from authserver.testing.stories import (
    Granted,
    assert_inactive,
    assert_json_error,
    is_active,
)

MakeServer = Callable[..., Server]
ORIGIN = "https://client.example"
FORM = "application/x-www-form-urlencoded"


def assert_done(answer: TestResponse) -> None:
    """The one answer to every revocation that is no error (L-02, L-03)."""
    assert answer.status_int == 200
    assert answer.body == b"{}"
    assert answer.headers["Cache-Control"] == "no-store"


# ---- What is revoked -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_any_token_of_a_grant_ends_all_of_it(kind: str, granted: Granted) -> None:
    """L-01, L-02, L-07, T074, T076: access and refresh tokens alike, at once; rows stay, an event tells."""
    assert is_active(granted.introspect(granted.access))
    assert is_active(granted.introspect(granted.refresh))
    tokens = granted.server.rows("tokens")
    assert_done(granted.revoke(getattr(granted, kind)))
    assert_inactive(granted.introspect(granted.access))
    assert_inactive(granted.introspect(granted.refresh))
    assert granted.server.rows("tokens") == tokens
    assert_json_error(
        granted.server.refresh(granted.client, granted.secret, granted.refresh), "invalid_grant"
    )
    assert granted.grant()["revoked_reason"] == "token-revoked"
    (event,) = granted.server.events("grant.revoked")
    assert (event["client_id"], event["grant_id"]) == (granted.client.client_id, granted.grant_id)
    assert (event["reason"], event["user_id"]) == (
        "token-revoked",
        granted.server.rows("users")[0]["user_id"],
    )
    assert granted.access not in str(event)
    assert granted.refresh not in str(event)


# ---- What changes nothing --------------------------------------------------------------------------


# ---- What is refused -------------------------------------------------------------------------------


# ---- Other origins ---------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example", "null"])
def test_pages_of_clients_may_revoke(origin: str, server: Server) -> None:
    """Q-01, Q-04, T085: as at the token endpoint; errors too, never with credentials."""
    granted = Granted(server, "none")
    answers = [
        server.ask("/oauth/revoke", granted.client, None, headers={"Origin": origin}, token=granted.refresh),
        server.ask("/oauth/revoke", granted.client, None, headers={"Origin": origin}),
        server.http.options("/oauth/revoke", headers={"Origin": origin}),
    ]
    assert [answer.status_int for answer in answers] == [200, 400, 204]
    for answer in answers:
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if origin == ORIGIN else None)
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


# ---- Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", ["UPDATE grants", "INSERT INTO events"])
def test_a_revocation_that_was_not_kept_is_no_success(
    writes: str, make_server: MakeServer, database_url: str
) -> None:
    """T075, R-08: 503 with Retry-After, the grant as live as before; the same request then succeeds."""
    server = make_server(database_url=database_url)
    server.add_user()
    granted = Granted(server)
    engine = server.application.storage.engine

    def fail(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(writes):
            raise StorageUnavailable("injected")

    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        answer = granted.revoke(granted.refresh)
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)
    assert_json_error(answer, "temporarily_unavailable", status=503)
    assert int(answer.headers["Retry-After"]) > 0
    assert granted.grant()["revoked_at"] is None
    assert not server.events("grant.revoked")
    assert is_active(granted.introspect(granted.access))
    assert_done(granted.revoke(granted.refresh))
    assert_inactive(granted.introspect(granted.access))


def test_a_look_up_that_fails_is_no_success(server: Server) -> None:
    """T075: at introspection and revocation alike, nothing is claimed of a token that could not be found."""
    granted = Granted(server)
    engine = server.application.storage.engine

    def fail(connection, cursor, statement, parameters, context, executemany):
        if "FROM grants" in statement or "FROM tokens" in statement:
            raise StorageUnavailable("injected")

    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        for token in (granted.access, granted.refresh):
            for ask in (server.introspect, server.revoke):
                answer = ask(granted.client, granted.secret, token)
                assert_json_error(answer, "temporarily_unavailable", status=503)
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)
    assert is_active(granted.introspect(granted.access))
