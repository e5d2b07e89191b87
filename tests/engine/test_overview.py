"""What an operator sees first: every number is bounded, and an event that stands for others counts as all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from authserver.engine import overview
from authserver.engine.context import Engine
from authserver.engine.keys import signing_keys
from authserver.engine.records import EventType
from authserver.testing.records import an_event
from authserver.testing.rules import Rules

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def add(engine: Engine, reason: str, hours: int, count: int = 0) -> None:
    """An event of a refusal so many hours before noon, which stands for `count` others."""
    number = len(list(engine.stores.events.latest()))
    event = an_event(
        event_id=f"event-{number}", type=EventType.TOKEN_REFUSED, at=NOON - timedelta(hours=hours)
    )
    details = {"more": {"count": count}} if count else {}
    engine.stores.events.add(replace(event, reason=reason, details=details))


def test_refusals_are_counted_by_reason_and_day() -> None:
    """Both days begin at midnight in UTC; what is older, and what was not refused, is left out."""
    with Rules().begin() as engine:
        engine = replace(engine, now=NOON)
        for reason, hours, count in (
            ("secret-wrong", 1, 41),
            ("secret-wrong", 12, 0),
            ("secret-wrong", 13, 0),
            ("code-expired", 36, 2),
            ("code-expired", 37, 0),
        ):
            add(engine, reason, hours, count)
        engine.stores.events.add(an_event(event_id="issued", type=EventType.TOKEN_ISSUED, at=NOON))
        found = overview.refusals(engine)
    assert found.today == {"secret-wrong": 43}
    assert found.yesterday == {"secret-wrong": 1, "code-expired": 3}
    assert found.reasons == ("secret-wrong", "code-expired")
    assert (found.is_whole, found.since) == (True, datetime(2026, 11, 29, tzinfo=UTC))


def test_only_the_newest_refusals_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """T146: then it is said since when."""
    monkeypatch.setattr(overview, "MAXIMUM_EVENTS_READ", 2)
    with Rules().begin() as engine:
        engine = replace(engine, now=NOON)
        for hours in (3, 2, 1):
            add(engine, "secret-wrong", hours)
        found = overview.refusals(engine)
    assert found.today == {"secret-wrong": 2}
    assert (found.is_whole, found.since) == (False, NOON - timedelta(hours=2))


def test_how_much_there_is_is_counted_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """T146: one more than that means more."""
    monkeypatch.setattr(overview, "MAXIMUM_COUNTED", 2)
    rules = Rules()
    for number in range(5):
        rules.add_client(client_id=f"client-{number}")
        rules.add_user(f"user-{number}")
    with rules.begin() as engine:
        assert overview.size(engine) == overview.Size(clients=3, users=3, grants=0)


def test_a_secret_that_ends_soon_is_found() -> None:
    rules = Rules()
    client, _ = rules.add_client()
    rules.add_client(client_id="unending")
    with rules.begin() as engine:
        for days, expected in ((29, [client.client_id]), (31, [])):
            old = engine.stores.clients.find(client.client_id, engine.now).secrets[0]
            new = replace(old, expires_at=engine.now + timedelta(days=days))
            assert engine.stores.clients.change_secret(client.client_id, old, new)
            assert [each.client_id for each in overview.ending_secrets(engine)] == expected


def test_the_key_that_signs_and_the_next_one_are_told() -> None:
    with Rules().begin() as engine:
        signing_keys.prepare(engine)
        first, none = overview.keys(engine)
        rotation = signing_keys.rotate(engine)
        active, staged = overview.keys(engine)
    assert first and active and rotation.old
    assert first.kid == active.kid == rotation.old.kid
    assert (list(none), list(staged)) == ([], [rotation.new])
