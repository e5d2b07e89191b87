"""Statistics of a real database, while several processes work on it; and what the background does for them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import time_machine

from authserver.engine import counting
from authserver.engine.count_records import Gauge, Span, Step
from authserver.engine.counting import Counting, begin_of, counted
from authserver.engine.ports import Storage, StorageUnavailable
from authserver.engine.records import Event, EventType, RegisteredBy
from authserver.event_readers import Reading
from authserver.storage.database import Database
from authserver.storage.statistics import SqlStatistics
from authserver.storage.tables import event_counts
from authserver.testing.records import NOW, a_client, an_event
from authserver.testing.server import Server

DAY = timedelta(days=1)
Counted = dict[tuple[object, ...], int]


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


def store(storage: Storage, events: list[Event]) -> None:
    with storage.begin() as stores:
        for event in events:
            stores.events.add(event)


def begin_here(storage: Storage) -> None:
    """Count from the next event on: numbers of other tests have gone before."""
    with storage.begin() as stores:
        stores.events.add(an_event(event_id="the first", type=EventType.USER_ADDED, client_id=None))
    with storage.begin() as stores:
        ((number, _),) = stores.events.following(0, limit=1)
        stores.event_positions.begin(counting.READER, number)


def some(name: str, number: int) -> list[Event]:
    types = [EventType.TOKEN_ISSUED, EventType.TOKEN_REFUSED, EventType.SIGNED_IN]
    return [
        an_event(
            event_id=f"{name} {each}",
            type=types[each % 3],
            at=NOW + (each % 50) * timedelta(hours=7, minutes=31),
            client_id=["notes", "reports", None][each % 7 % 3],
            reason="code-claimed" if each % 3 == 1 else "",
        )
        for each in range(number)
    ]


def kept(database: Database) -> Counted:
    with database.engine.connect() as connection:
        found = connection.execute(sa.select(event_counts)).all()
    return {
        (row.step, row.at, row.client_id, row.type, row.grant_type, row.reason): row.count for row in found
    }


def directly(events: list[Event]) -> Counted:
    found: Counter[tuple[object, ...]] = Counter()
    for event in events:
        for what, number in counted(event):
            for step in Step:
                for client_id in {"", what.client_id}:
                    key = (step, begin_of(step, event.at), client_id, what.type, what.grant_type, what.reason)
                    found[key] += number
    return dict(found)


def test_two_processes_count_each_event_once(database: Database, url: str) -> None:
    """Both read the same events; while others are stored, and while one of them counts anew."""
    begin_here(database)
    events = some("before", 120)
    store(database, events)
    other = Database(url)
    try:
        readings = [Reading(each, Counting(batch=25)) for each in (database, other)]
        ended = threading.Event()

        def count(reading: Reading) -> None:
            while not ended.is_set():
                reading.work()
            while reading.work():
                pass

        threads = [threading.Thread(target=count, args=(reading,)) for reading in readings]
        for thread in threads:
            thread.start()
        try:
            for turn in range(4):
                later = some(f"turn {turn}", 30)
                store(database, later)
                events += later
                for _ in counting.rebuild_counts(
                    database, NOW + 3 * DAY, since=None, refusals_since=None, hours_since=None
                ):
                    pass
        finally:
            ended.set()
            for thread in threads:
                thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        first = an_event(type=EventType.USER_ADDED, client_id=None)
        without = {key: count for key, count in kept(database).items() if key[3] is not first.type}
        assert without == directly(events)
    finally:
        other.close()


def test_a_batch_that_fails_is_not_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a part of it nor that it was read."""
    begin_here(database)
    events = some("one", 10)
    store(database, events)
    add = SqlStatistics.add

    def fails(self: SqlStatistics, counts: list[object]) -> None:
        add(self, counts)
        raise RuntimeError("the process ends here")

    monkeypatch.setattr(SqlStatistics, "add", fails)
    with pytest.raises(RuntimeError):
        Reading(database, Counting()).work()
    assert kept(database) == {}
    monkeypatch.undo()
    assert Reading(database, Counting()).work() == 10
    assert kept(database) == directly(events)


def test_clients_of_operators_always_have_counts_of_their_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAXIMUM_STRANGERS", 2)
    begin_here(database)
    with database.begin() as stores:
        for name in ("ours", "also ours"):
            stores.clients.add(a_client(client_id=name))
        stores.clients.add(a_client(client_id="self", registered_by=RegisteredBy.SELF))
    names = ["one", "two", "three", "ours", "self", "also ours", "one"]
    store(database, [an_event(client_id=name) for name in names])
    Reading(database, Counting()).work()
    day = Span(step=Step.DAY, since=begin_of(Step.DAY, NOW), until=begin_of(Step.DAY, NOW) + DAY)
    with database.begin() as stores:
        apart = stores.statistics.top_clients([day], [EventType.TOKEN_ISSUED], limit=9)
        together = stores.statistics.totals([day], [EventType.TOKEN_ISSUED])
    assert dict(apart) == {"one": 2, "ours": 1, "also ours": 1, "self": 1}
    assert [total.count for total in together] == [7]


def test_an_old_trail_is_counted_in_batches_and_the_log_says_how_far(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "TOLD", 0)
    caplog.set_level(logging.INFO)
    begin_here(database)
    events = some("old", 25)
    store(database, events)
    reading = Reading(database, Counting(batch=10))
    assert [reading.work() for _ in range(4)] == [10, 10, 5, 0]
    told = [record.getMessage() for record in caplog.records if "statistics" in record.getMessage()]
    assert len(told) == 2
    with database.begin() as stores:
        last = stores.events.last_number()
    assert told == [f"statistics: counted event {last - left} of {last}" for left in (15, 5)]
    assert kept(database) == directly(events)


# ---- what there is, noted in the background ---------------------------------------------------------------


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    server = Server(url)
    yield server
    server.close()


def samples(server: Server) -> list[tuple[datetime, int]]:
    span = Span(step=Step.HOUR, since=NOW - DAY, until=NOW + DAY)
    with server.application.begin() as engine:
        return list(engine.stores.statistics.samples(Gauge.PEOPLE, span))


def test_the_background_notes_what_there_is_each_hour(server: Server) -> None:
    begin = begin_of(Step.HOUR, NOW)
    with time_machine.travel(NOW, tick=False) as clock:
        server.add_user("ann")
        server.application.caretaker.work()
        server.add_user("bob")
        clock.shift(60)
        server.application.caretaker.work()
        assert samples(server) == [(begin, 1)]
        clock.shift(3600)
        server.application.caretaker.work()
        assert samples(server) == [(begin, 1), (begin + timedelta(hours=1), 2)]


def test_clean_up_goes_on_when_it_cannot_be_counted(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that is too large to be counted in time must still be cleaned."""

    def too_slow(*_: object) -> None:
        raise StorageUnavailable("canceling statement due to statement timeout")

    monkeypatch.setattr(SqlStatistics, "current", too_slow)
    store(server.application.storage, [an_event(at=datetime.now(UTC) - 500 * DAY)])
    assert server.application.caretaker.work() == 1
    assert "is not noted: canceling statement" in caplog.text


def test_the_server_counts_what_it_stores(server: Server) -> None:
    """With the reader that the application has."""
    (reading,) = (each for each in server.application.readings if each.reader.name == counting.READER)
    begin_here(server.application.storage)
    client, secret = server.add_client(grant_types=("client_credentials",))
    for grant_type in ("client_credentials", "authorization_code"):
        server.token(client, secret, grant_type=grant_type)
    while reading.work():
        pass
    span = Span(step=Step.HOUR, since=datetime.now(UTC) - DAY, until=datetime.now(UTC) + DAY)
    with server.application.begin() as engine:
        found = engine.stores.statistics.totals([span], EventType, client_ids=[client.client_id])
    assert {(each.type, each.grant_type, each.count) for each in found} == {
        (EventType.TOKEN_ISSUED, "client_credentials", 1),
        (EventType.TOKEN_REFUSED, "authorization_code", 1),
    }
