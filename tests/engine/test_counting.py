"""Each event is counted once, in its own hour, day and month, whatever fails meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine import counting
from authserver.engine.count_records import Span, Step
from authserver.engine.counting import Counting, What, begin_of, counted, end_of
from authserver.engine.ports import Storage, Stores
from authserver.engine.records import REFUSALS, Event, EventType, RegisteredBy
from authserver.event_readers import Reading
from authserver.testing.records import NOW, a_client, an_event
from authserver.testing.stores import MemoryStores

DAY = timedelta(days=1)
ALL = frozenset(EventType)
EVER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

Tally = dict[tuple[Step, datetime, What], int]


def store(storage: Storage, *events: Event) -> None:
    with storage.begin() as stores:
        for event in events:
            stores.events.add(event)


def count_all(storage: Storage, batch: int = 500) -> None:
    reading = Reading(storage, Counting(batch=batch))
    while reading.work():
        pass


def kept(stores: MemoryStores) -> Tally:
    return {
        (step, at, What(type, client_id, grant_type, reason)): count
        for (step, client_id, at, type, grant_type, reason), count in stores.tables.counts.items()
    }


def directly(events: Sequence[Event]) -> Tally:
    """The same from the events themselves."""
    found: Counter[tuple[Step, datetime, What]] = Counter()
    for event in events:
        for what, number in counted(event):
            for step in Step:
                found[step, begin_of(step, event.at), what._replace(client_id="")] += number
                if what.client_id and what.type is not EventType.CLIENT_REGISTERED:
                    found[step, begin_of(step, event.at), what] += number
    return dict(found)


@st.composite
def some_events(draw: st.DrawFn) -> Event:
    """Of any type, in times around the ends of hours, days and months."""
    type = draw(st.sampled_from(EventType))
    details: dict[str, Any] = {}
    if draw(st.booleans()):
        details["grant_type"] = draw(st.sampled_from(["refresh_token", "authorization_code"]))
    if draw(st.booleans()):
        details["grants"] = draw(st.integers(0, 5))
    if type in REFUSALS and draw(st.booleans()):
        details["more"] = {"count": draw(st.integers(1, 9)), "sources": 1}
        if draw(st.booleans()):
            details["more"]["several_kinds"] = True
    return an_event(
        type=type,
        at=datetime(2026, 2, 27, 22, tzinfo=UTC) + draw(st.integers(0, 80)) * timedelta(minutes=47),
        client_id=draw(st.sampled_from([None, "notes", "reports"])),
        reason=draw(st.sampled_from(["", "code-claimed", "no-room"])),
        details=details,
    )


class Crashes(Exception):
    """The process ends here."""


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(some_events(), min_size=1, max_size=6), max_size=6),
    size=st.integers(1, 4),
    crashes=st.sets(st.integers(0, 12)),
)
def test_the_sums_are_those_of_the_events(batches: list[list[Event]], size: int, crashes: set[int]) -> None:
    """In batches of any size, and when the process ends before, while or after it stores."""
    storage = MemoryStores()
    turn = 0

    class Crashing(Counting):
        def keep(self, stores: Stores, events: Sequence[tuple[int, Event]]) -> None:
            nonlocal turn
            turn += 1
            super().keep(stores, events)
            if turn in crashes:
                raise Crashes

    for events in batches:
        store(storage, *events)
        reading = Reading(storage, Crashing(batch=size))
        for _ in range(40):
            try:
                if not reading.work():
                    break
            except Crashes:
                reading = Reading(storage, Crashing(batch=size))
    assert kept(storage) == directly([event for events in batches for event in events])


@pytest.mark.parametrize(
    ("step", "begin", "end"),
    [
        (Step.HOUR, "2026-12-31T23", "2027-01-01T00"),
        (Step.DAY, "2026-12-31T00", "2027-01-01T00"),
        (Step.MONTH, "2026-12-01T00", "2027-01-01T00"),
    ],
)
def test_hours_days_and_months_are_those_of_utc(step: Step, begin: str, end: str) -> None:
    at = datetime.fromisoformat("2027-01-01T01:30:00+02:00")
    assert begin_of(step, at) == datetime.fromisoformat(f"{begin}:00:00+00:00")
    assert end_of(step, at) == datetime.fromisoformat(f"{end}:00:00+00:00")
    # The beginning of a time is in that time.
    assert begin_of(step, begin_of(step, at)) == begin_of(step, at)
    assert begin_of(step, end_of(step, at)) == end_of(step, at)


def test_an_event_with_an_older_time_lands_in_its_own_hour() -> None:
    """The clock of a server was set back, or that of another one is late."""
    storage = MemoryStores()
    store(storage, an_event(at=NOW), an_event(at=NOW - 40 * DAY))
    count_all(storage, batch=1)
    store(storage, an_event(at=NOW - 40 * DAY))
    count_all(storage)
    hours = {
        at: count
        for (step, at, what), count in kept(storage).items()
        if step is Step.HOUR and not what.client_id
    }
    assert hours == {
        datetime(2026, 3, 1, 12, tzinfo=UTC): 1,
        datetime(2026, 1, 20, 12, tzinfo=UTC): 2,
    }


def test_a_flood_counts_as_many_as_it_had() -> None:
    refused = {"type": EventType.TOKEN_REFUSED, "reason": "no-such-client", "client_id": "notes"}
    more = {"count": 41, "until": "2026-03-01T12:00:59+00:00", "sources": 3}
    assert dict(counted(an_event(**refused))) == {
        What(EventType.TOKEN_REFUSED, "notes", "", "no-such-client"): 1
    }
    several = an_event(**refused, details={"more": {**more, "several_kinds": True}})
    # Nobody knows for what reasons the others were refused, and whom.
    assert dict(counted(several)) == {
        What(EventType.TOKEN_REFUSED, "notes", "", "no-such-client"): 1,
        What(EventType.TOKEN_REFUSED, "", "", ""): 41,
    }
    alike = Counter[What]()
    for what, number in counted(an_event(**refused, details={"more": more})):
        alike[what] += number
    assert alike == {What(EventType.TOKEN_REFUSED, "notes", "", "no-such-client"): 42}


def test_what_ends_many_grants_counts_each() -> None:
    assert list(counted(an_event(type=EventType.GRANTS_REVOKED, reason="left", details={"grants": 7}))) == [
        (What(EventType.GRANTS_REVOKED, "reports", "", "left"), 7)
    ]
    changed = an_event(type=EventType.PASSWORD_CHANGED, client_id=None, details={"grants": 3, "sessions": 2})
    assert list(counted(changed)) == [
        (What(EventType.PASSWORD_CHANGED, "", "", ""), 1),
        (What(EventType.GRANTS_REVOKED, "", "", "password.changed"), 3),
    ]


@pytest.mark.parametrize(
    "details", [{"grant_type": 7}, {"more": "many"}, {"more": {"count": "9"}}, {"grants": -3}]
)
def test_details_of_another_shape_do_not_count(details: dict[str, Any]) -> None:
    """Nothing that is stored can stop the counting for good."""
    ((_, number),) = counted(an_event(type=EventType.TOKEN_REFUSED, details=details))
    assert number == 1


def clients_of(storage: MemoryStores, step: Step) -> set[str]:
    return {what.client_id for (of, _, what), _ in kept(storage).items() if of is step and what.client_id}


def test_clients_that_strangers_made_do_not_fill_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there is room for have counts of their own; those of operators always have."""
    monkeypatch.setattr(counting, "MAXIMUM_STRANGERS", 3)
    storage = MemoryStores()
    with storage.begin() as stores:
        stores.clients.add(a_client(client_id="ours"))
        stores.clients.add(a_client(client_id="self", registered_by=RegisteredBy.SELF))
    store(storage, *(an_event(client_id=f"stranger {number}") for number in range(9)))
    count_all(storage, batch=4)
    store(storage, an_event(client_id="self"), an_event(client_id="ours"), an_event(client_id="stranger 1"))
    count_all(storage)
    for step in Step:
        assert clients_of(storage, step) == {"stranger 0", "stranger 1", "stranger 2", "ours"}
    day = Span(step=Step.DAY, since=begin_of(Step.DAY, NOW), until=end_of(Step.DAY, NOW))
    with storage.begin() as stores:
        assert sum(total.count for total in stores.statistics.totals([day], ALL)) == 12
        assert dict(stores.statistics.top_clients([day], ALL, limit=9))["stranger 1"] == 2


def test_a_registration_is_counted_for_all_clients_together() -> None:
    """Each of them registers once: strangers would leave a row for each."""
    storage = MemoryStores()
    store(storage, an_event(type=EventType.CLIENT_REGISTERED, client_id="new"))
    count_all(storage)
    assert clients_of(storage, Step.HOUR) == set()
    assert sum(kept(storage).values()) == len(Step)


# ---- counting anew -------------------------------------------------------------------------------------


def rebuild(storage: Storage, **limits: datetime | None) -> list[counting.Rebuilt]:
    anew = {"since": None, "refusals_since": None, "hours_since": None} | limits
    return list(counting.rebuild_counts(storage, NOW, **anew))


def spoil(storage: MemoryStores) -> None:
    """What could go wrong with them: a hand in the database, a mistake of an earlier version."""
    counts = storage.tables.counts
    for number, key in enumerate(sorted(counts)):
        if number % 3 == 0:
            del counts[key]
        elif number % 3 == 1:
            counts[key] += 7


def some(number: int) -> list[Event]:
    chance = random.Random(number)
    return [
        an_event(
            type=chance.choice(
                [
                    EventType.TOKEN_ISSUED,
                    EventType.TOKEN_REFUSED,
                    EventType.SIGNED_IN,
                    EventType.GRANT_REVOKED,
                ]
            ),
            at=NOW - chance.uniform(0, 45) * DAY,
            client_id=chance.choice(["notes", "reports", None]),
            reason=chance.choice(["code-claimed", "no-room"]),
        )
        for _ in range(number)
    ]


def test_counted_anew_they_are_right_again() -> None:
    storage = MemoryStores()
    events = some(700)
    store(storage, *events)
    count_all(storage)
    right = kept(storage)
    assert right == directly(events)
    spoil(storage)
    assert kept(storage) != right
    days = rebuild(storage)
    assert kept(storage) == right
    assert sum(day.events for day in days) == 700
    assert [day.left for day in days] == list(range(len(days) - 1, -1, -1))


def test_what_was_not_counted_before_is_not_counted_twice() -> None:
    """Events that are stored and not yet counted, and others that come while it works."""
    storage = MemoryStores()
    events = some(600)
    store(storage, *events[:300])
    count_all(storage)
    store(storage, *events[300:350])
    coming = iter(events[350:])
    reading = Reading(storage, Counting(batch=40))
    for _ in counting.rebuild_counts(storage, NOW, since=None, refusals_since=None, hours_since=None):
        store(storage, *islice(coming, 6))
        reading.work()
    store(storage, *coming)
    count_all(storage)
    assert kept(storage) == directly(events)


def test_servers_that_count_meanwhile_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of a day and its storing, too."""
    storage = MemoryStores()
    events = some(400)
    store(storage, *events[:200])
    count_all(storage)
    coming = iter(events[200:])
    holds, turns = counting._holds, 0

    def count_before(stores: Stores, position: int) -> bool:
        nonlocal turns
        turns += 1
        if turns % 2:
            store(storage, *islice(coming, 9))
            Reading(storage, Counting()).work()
        return holds(stores, position)

    monkeypatch.setattr(counting, "_holds", count_before)
    rebuild(storage)
    monkeypatch.undo()
    store(storage, *coming)
    count_all(storage)
    assert kept(storage) == directly(events)


def test_days_of_which_events_were_deleted_stay_as_they_are() -> None:
    storage = MemoryStores()
    events = some(500)
    store(storage, *events)
    count_all(storage)
    right = kept(storage)
    deleted, refusals_deleted = NOW - 30 * DAY, NOW - 9 * DAY
    with storage.begin() as stores:
        for event in events:
            if event.at <= (refusals_deleted if event.type in REFUSALS else deleted):
                del stores.tables.events[event.event_id]
    since = counting.whole_day_after(deleted)
    assert since is not None
    assert since > deleted
    assert since == begin_of(Step.DAY, since)
    rebuild(storage, since=since, refusals_since=counting.whole_day_after(refusals_deleted))
    assert kept(storage) == right


def test_a_day_is_counted_as_a_whole_or_not_at_all() -> None:
    """Whatever time of a day is given."""
    storage = MemoryStores()
    store(storage, *some(300))
    count_all(storage)
    right = kept(storage)
    days = rebuild(storage, since=NOW - 9 * DAY, refusals_since=NOW - 3 * DAY, hours_since=NOW - 5 * DAY)
    assert kept(storage) == right
    assert days[0].day == begin_of(Step.DAY, NOW - 8 * DAY)


def test_hours_that_are_not_kept_do_not_come_back() -> None:
    storage = MemoryStores()
    events = some(200)
    store(storage, *events)
    count_all(storage)
    limit = begin_of(Step.DAY, NOW - 10 * DAY)
    for key in [key for key in storage.tables.counts if key[0] is Step.HOUR and key[2] < limit]:
        del storage.tables.counts[key]
    before = kept(storage)
    rebuild(storage, hours_since=limit)
    assert kept(storage) == before


def test_a_rebuild_that_is_stopped_has_done_whole_days() -> None:
    storage = MemoryStores()
    events = some(300)
    store(storage, *events)
    count_all(storage)
    right = kept(storage)
    spoil(storage)
    spoilt = kept(storage)
    days = counting.rebuild_counts(storage, NOW, since=None, refusals_since=None, hours_since=None)
    done = [next(days).day for _ in range(5)][-1] + DAY
    days.close()
    for key, count in kept(storage).items():
        if key[0] is not Step.MONTH:
            assert count == (right if key[1] < done else spoilt)[key]


def test_without_events_there_is_nothing_to_count() -> None:
    storage = MemoryStores()
    count_all(storage)
    assert sum(day.events for day in rebuild(storage)) == 0
    assert kept(storage) == {}
