"""A reader of the event stream gets every event once, and none before another that it would then miss."""

from __future__ import annotations

from authserver.engine.event_stream import SETTLED, EventStream
from authserver.testing.records import an_event
from authserver.testing.stores import MemoryStores


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def store(storage: MemoryStores, *event_ids: str) -> None:
    with storage.begin() as stores:
        for event_id in event_ids:
            stores.events.add(an_event(event_id=event_id))


def hide(storage: MemoryStores, event_id: str) -> None:
    """As long as its transaction has not committed, its number is taken and nobody sees it."""
    with storage.begin() as stores:
        del stores.tables.events[event_id]


def following(stream: EventStream, storage: MemoryStores, number: int, limit: int = 9) -> list[str]:
    with storage.begin() as stores:
        return [event.event_id for _, event in stream.following(stores.events, number, limit=limit)]


def test_events_come_in_order_and_in_batches() -> None:
    storage, stream = MemoryStores(), EventStream()
    store(storage, "a", "b", "c")
    assert following(stream, storage, 0) == ["a", "b", "c"]
    assert following(stream, storage, 0, limit=2) == ["a", "b"]
    assert following(stream, storage, 2) == ["c"]
    assert following(stream, storage, 3) == []


def test_the_stream_stops_before_a_number_that_may_still_appear() -> None:
    storage, clock = MemoryStores(), Clock()
    stream = EventStream(clock)
    store(storage, "a", "slow", "c")
    with storage.begin() as stores:
        slow = stores.events.find("slow")
    hide(storage, "slow")
    assert following(stream, storage, 0) == ["a"]
    assert following(stream, storage, 1) == []
    clock.now = SETTLED - 1
    assert following(stream, storage, 1) == []
    with storage.begin() as stores:
        stores.tables.events = {"a": stores.events.find("a"), "slow": slow, "c": stores.events.find("c")}
    assert following(stream, storage, 1) == ["slow", "c"]


def test_a_number_that_never_appears_is_passed_after_a_time() -> None:
    """Its transaction failed, or its event was deleted before it was read; all such gaps are passed together."""
    storage, clock = MemoryStores(), Clock()
    stream = EventStream(clock)
    store(storage, "a", "failed", "c", "deleted", "e")
    hide(storage, "failed")
    hide(storage, "deleted")
    assert following(stream, storage, 0) == ["a"]
    clock.now = SETTLED
    # The first look settled nothing yet that came after it.
    store(storage, "failed too", "g")
    hide(storage, "failed too")
    assert following(stream, storage, 0) == ["a", "c", "e"]
    assert following(stream, storage, 5) == []
    clock.now = 2 * SETTLED
    assert following(stream, storage, 5) == ["g"]


def test_a_new_reader_of_an_old_trail_waits_for_its_first_number_only_once() -> None:
    storage, clock = MemoryStores(), Clock()
    stream = EventStream(clock)
    store(storage, "deleted", "b", "c")
    hide(storage, "deleted")
    assert following(stream, storage, 0) == []
    clock.now = SETTLED
    assert following(stream, storage, 0) == ["b", "c"]
