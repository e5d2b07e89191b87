"""The introspection endpoint against whoever scans for tokens, or passes on made-up ones (M-08)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from webtest import TestResponse

from authserver.testing.server import Server, basic, forged, with_plugin
from authserver.testing.stories import Granted, assert_inactive, is_active, stored

MakeServer = Callable[..., Server]
LIMIT = 5


@pytest.fixture(params=["jwt", "opaque"])
def granted(
    request: pytest.FixtureRequest, make_server: MakeServer, clock: time_machine.Traveller
) -> Granted:
    """With a limit that is soon reached, and a clock that stands still."""
    table = {"limits": f"unknown-tokens = unknown_token, client, {LIMIT}, minute"}
    server = make_server(
        {**with_plugin("rate_limits", table), "authserver.access_token_format": request.param}
    )
    server.add_user()
    return Granted(server)


def scan(granted: Granted, times: int = LIMIT) -> None:
    """Ask about tokens that nobody was given: garbage, and what a database must be asked about."""
    for number in range(times):
        unknown = ("garbage", forged("as_access_"), forged("as_refresh_"), "a.b.c")[number % 4]
        assert_inactive(granted.introspect(unknown))


def assert_throttled(answer: TestResponse, seconds: int) -> None:
    """429 as JSON, which says when to come again (RFC 6585, 4)."""
    assert answer.status_int == 429, answer.text
    assert answer.content_type == "application/json"
    assert answer.json.keys() == {"error", "error_description", "error_id"}
    assert answer.json["error"] == "temporarily_unavailable"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"] == str(seconds)


def test_too_many_unknown_tokens_are_too_many(granted: Granted, clock: time_machine.Traveller) -> None:
    """M-08, T078: 429 with Retry-After until the minute is over; then as before."""
    scan(granted)
    assert_throttled(granted.introspect("garbage"), 60)
    clock.shift(timedelta(seconds=20))
    assert_throttled(granted.introspect(forged("as_access_")), 40)
    # Who goes on asking does not wait for longer.
    clock.shift(timedelta(seconds=39.5))
    assert_throttled(granted.introspect("garbage"), 1)
    clock.shift(timedelta(seconds=1))
    scan(granted)
    assert_throttled(granted.introspect("garbage"), 60)


def test_good_tokens_are_answered_for_in_any_case(granted: Granted) -> None:
    """M-08: else whoever sends made-up tokens to an API would keep it from serving everybody else."""
    scan(granted)
    for _ in range(2 * LIMIT):
        assert is_active(granted.introspect(granted.access))
    assert is_active(granted.introspect(granted.refresh))
    assert_throttled(granted.introspect("garbage"), 60)
    assert is_active(granted.introspect(granted.access))


def test_what_was_issued_here_is_not_counted(granted: Granted) -> None:
    """M-08: good, used, revoked, or not for this caller: an API sees such tokens every day."""
    for _ in range(LIMIT + 1):
        assert is_active(granted.introspect(granted.access))
        assert_inactive(granted.introspect_as_api(granted.refresh))
    granted.renew(granted.refresh)
    for _ in range(LIMIT + 1):
        assert_inactive(granted.introspect(granted.refresh))
    granted.revoke(granted.access)
    for _ in range(LIMIT + 1):
        assert_inactive(granted.introspect(granted.access))
        assert_inactive(granted.introspect_as_api(granted.access))


def test_beyond_the_limit_nothing_tells_known_from_unknown(granted: Granted) -> None:
    """T078, M-03: a token that was revoked is answered as one that never was."""
    granted.revoke(granted.access)
    scan(granted)
    for text in (granted.access, granted.refresh, granted.code, "garbage"):
        assert_throttled(granted.introspect(text), 60)


def test_every_caller_is_counted_alone(granted: Granted) -> None:
    """M-08: one that scans stops no other."""
    scan(granted)
    assert_throttled(granted.introspect("garbage"), 60)
    assert_inactive(granted.introspect_as_api("garbage"))
    assert is_active(granted.introspect_as_api(granted.access))


def test_who_is_not_authenticated_counts_for_nobody(granted: Granted) -> None:
    """M-01, M-08: a stranger cannot use up what a client may ask."""
    headers = {"Authorization": basic(granted.client.client_id, "wrong")}
    for _ in range(LIMIT + 1):
        answer = granted.server.http.post(
            "/oauth/introspect", {"token": "garbage"}, headers=headers, expect_errors=True
        )
        assert answer.status_int == 401
    scan(granted)


def test_a_flood_leaves_one_event_a_minute(granted: Granted, clock: time_machine.Traveller) -> None:
    """M-08, T078: an operator hears of it, and the database does not fill with it; nothing else changes."""
    before = stored(granted.server)
    scan(granted)
    assert not granted.server.events("request.refused")
    ids = [granted.introspect("garbage").json["error_id"] for _ in range(3)]
    (event,) = granted.server.events("request.refused")
    assert (event["event_id"], event["client_id"]) == (ids[0], granted.client.client_id)
    assert event["reason"] == "unknown-tokens"
    assert len(set(ids)) == 3
    clock.shift(timedelta(seconds=61))
    scan(granted)
    assert_throttled(granted.introspect("garbage"), 60)
    assert len(granted.server.events("request.refused")) == 2
    assert stored(granted.server) == before


def test_errors_beyond_the_limit_are_not_signed(granted: Granted) -> None:
    """M-08, M-10: JSON, whatever was asked for."""
    scan(granted)
    answer = granted.server.http.post(
        "/oauth/introspect",
        {"token": "garbage"},
        headers={
            "Authorization": basic(granted.client.client_id, granted.secret or ""),
            "Accept": "application/token-introspection+jwt",
        },
        expect_errors=True,
    )
    assert_throttled(answer, 60)


def test_revocation_is_not_throttled(granted: Granted) -> None:
    """L-03: it answers alike about everything, so there is nothing to learn; and a client must be able to revoke."""
    for _ in range(2 * LIMIT):
        assert granted.revoke("garbage").status_int == 200
    scan(granted)


def test_there_is_a_limit_in_the_shipped_table(make_server: MakeServer) -> None:
    """M-08: 60 by default; without the plugin there is none."""
    for settings, status in ((with_plugin("rate_limits", {}), 429), ({}, 200)):
        server = make_server(settings)
        client, secret = server.add_client(client_id=f"scanner-{status}", grant_types=("client_credentials",))
        for _ in range(60):
            assert_inactive(server.introspect(client, secret, "garbage"))
        assert server.introspect(client, secret, "garbage").status_int == status
