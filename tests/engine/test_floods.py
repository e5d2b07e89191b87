"""Refusals of strangers above a rate: counted with one event of their kind, and nothing hides anything else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from authserver.engine import floods as module
from authserver.engine.floods import MAXIMUM_KINDS, MAXIMUM_SOURCES, TOGETHER, Floods, Kind
from authserver.engine.ports import StorageUnavailable, Stores
from authserver.engine.records import Event, EventType
from authserver.testing.records import NOW, an_event
from authserver.testing.stores import MemoryStores

SECRET = Kind(EventType.TOKEN_REFUSED, "secret-wrong", "token", "notes")
UNKNOWN = Kind(EventType.AUTHORIZATION_REFUSED, "client-unknown", "authorize")


class Flood:
    """A server under a flood, with a clock that stands still."""

    def __init__(self, stored: int = 3) -> None:
        self.stores = MemoryStores()
        self.seconds = 1_000.0
        self.is_away = False
        self.told: list[str] = []
        self.floods = Floods(
            self, stored, lambda event: self.told.append(event.event_id), lambda: self.seconds
        )

    @contextmanager
    def begin(self) -> Iterator[Stores]:
        if self.is_away:
            raise StorageUnavailable("it is away")
        with self.stores.begin() as stores:
            yield stores

    def refuse(self, kind: Kind = SECRET, source: str = "192.0.2.1", **more: bool) -> str | None:
        """One refusal; the id of what it was counted with, None if it was stored."""
        event = an_event(type=kind.type, reason=kind.reason, client_id=kind.client_id, actor="stranger")
        at = NOW + timedelta(seconds=self.seconds - 1_000)
        return self.floods.hold(kind, source, at, lambda: event, **more)

    def stored(self) -> list[Event]:
        with self.stores.begin() as stores:
            return list(stores.events.since(NOW - timedelta(days=1)))

    def later(self, seconds: float = 60) -> list[Event]:
        """What is stored by then."""
        self.seconds += seconds
        self.floods.store()
        return self.stored()


def test_the_first_are_stored_and_the_others_are_counted_in_one_event() -> None:
    flood = Flood()
    assert [flood.refuse() for _ in range(3)] == [None] * 3
    flood.seconds += 20
    ids = {flood.refuse(source=f"192.0.2.{number % 7}") for number in range(1_483)}
    assert len(ids) == 1
    assert flood.later(39) == []
    (event,) = flood.later(1)
    assert {event.event_id} == ids
    assert (event.type, event.reason, event.client_id) == (SECRET.type, SECRET.reason, "notes")
    until = (NOW + timedelta(seconds=20)).isoformat(timespec="seconds")
    assert event.details["more"] == {"count": 1_482, "until": until, "sources": 7}
    assert flood.told == [event.event_id]
    assert flood.floods.counted == {EventType.TOKEN_REFUSED: 1_482}
    assert flood.refuse() is None


def test_one_more_than_are_stored_is_an_event_like_any_other() -> None:
    flood = Flood()
    for _ in range(4):
        flood.refuse()
    (event,) = flood.later()
    assert "more" not in event.details
    assert flood.floods.counted == {}


def test_a_flood_hides_no_other_kind() -> None:
    """Another reason, endpoint, client or person has an event of its own, even when nothing more is stored at once."""
    flood = Flood()
    others = [SECRET._replace(reason="other"), SECRET._replace(endpoint="revoke"), UNKNOWN]
    about = [SECRET._replace(client_id="reports"), SECRET._replace(client_id=None, user_id="user_ann")]
    for _ in range(1_000):
        flood.refuse()
    assert [flood.refuse(kind) for kind in others] == [None] * 3
    ids = [flood.refuse(kind) for kind in about]
    assert len({*ids}) == 2
    assert None not in ids
    counted = {event.event_id: event.details.get("more", {}).get("count", 0) for event in flood.later()}
    assert sorted(counted.values()) == [0, 0, 996]
    assert {*ids} < set(counted)


def test_a_flood_of_all_kinds_is_bounded_and_each_is_still_told() -> None:
    """Who varies everything makes 100 stored events a minute, as many that are held, and one for each type of event."""
    flood = Flood()
    stored = 0
    for number in range(5_000):
        stored += flood.refuse(Kind(EventType.TOKEN_REFUSED, f"reason-{number}", "token")) is None
    assert stored == 3 * TOGETHER
    assert flood.refuse(UNKNOWN) is not None
    held = flood.later()
    assert len(held) == MAXIMUM_KINDS + 2
    together = [event for event in held if event.details.get("more", {}).get("several_kinds")]
    assert [event.type for event in together] == [EventType.TOKEN_REFUSED]
    counts = [1 + event.details.get("more", {}).get("count", 0) for event in held]
    assert sum(counts) + stored == 5_001


def test_many_clients_are_counted_with_those_of_their_kind_when_there_is_no_more_room() -> None:
    flood = Flood()
    for number in range(3 + 2 * MAXIMUM_KINDS):
        flood.refuse(SECRET._replace(client_id=None if number == 3 else f"client-{number}"))
    held = flood.later()
    assert len(held) == MAXIMUM_KINDS
    assert [event.details["more"] for event in held if "more" in event.details] == [
        {"count": MAXIMUM_KINDS, "until": NOW.isoformat(timespec="seconds"), "sources": 1}
    ]


def test_addresses_are_told_apart_up_to_a_number() -> None:
    flood = Flood()
    for number in range(1_000):
        flood.refuse(source=f"2001:db8::{number:x}")
    (event,) = flood.later()
    assert event.details["more"]["sources"] == MAXIMUM_SOURCES


def test_what_is_never_stored_by_itself_is_counted_from_the_first_on() -> None:
    flood = Flood()
    ids = {flood.refuse(stores_first=False) for _ in range(5)}
    assert len(ids) == 1
    assert flood.refuse() is None
    (event,) = flood.later()
    assert event.details["more"]["count"] == 4


def test_what_cannot_be_stored_is_kept_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """T114: no request waits for a database that is away more than once in a while; what is lost is in the log."""
    flood = Flood()
    for _ in range(10):
        flood.refuse()
    flood.is_away = True
    assert flood.later() == []
    assert not flood.floods.is_due()
    assert "could not be stored" in caplog.text
    flood.is_away = False
    flood.floods.store()
    (event,) = flood.later(module.RETRY)
    assert event.details["more"]["count"] == 6
    assert len(flood.later(600)) == 1


def test_a_database_that_stays_away_costs_no_more_memory(caplog: pytest.LogCaptureFixture) -> None:
    flood = Flood()
    flood.is_away = True
    for minute in range(5):
        for number in range(1_000):
            flood.refuse(Kind(EventType.TOKEN_REFUSED, f"reason-{minute}-{number}", "token"))
        flood.later()
    assert caplog.text.count("are in this log only") == 5 * (MAXIMUM_KINDS + 1) - 2 * MAXIMUM_KINDS
    flood.is_away = False
    assert len(flood.later()) == 2 * MAXIMUM_KINDS


def test_at_the_end_everything_is_stored() -> None:
    flood = Flood()
    for _ in range(5):
        flood.refuse()
    flood.floods.store(everything=True)
    flood.floods.store(everything=True)
    assert [event.details["more"]["count"] for event in flood.stored()] == [1]


def test_simultaneous_refusals_are_each_counted_once() -> None:
    flood = Flood()
    results: list[str | None] = []

    def refuse() -> None:
        results.extend(flood.refuse() for _ in range(500))

    threads = [threading.Thread(target=refuse) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (event,) = flood.later()
    assert Counter(results) == {None: 3, event.event_id: 1_997}
    assert event.details["more"]["count"] == 1_996
