"""Readers of the events get each one at least once, and store exactly once, whatever fails meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
import pytest
import time_machine

from authserver import event_readers
from authserver.engine.audit import Backlog, backlogs
from authserver.engine.counting import Counting
from authserver.engine.event_seals import Sealer
from authserver.engine.event_stream import Numbered
from authserver.engine.ports import Storage, Stores
from authserver.engine.records import EventType
from authserver.event_readers import Reading
from authserver.storage.database import Database
from authserver.testing.records import NOW, a_user, an_event


@dataclass
class Noting:
    """Notes what it is given; and stores a user for each event, so that storing twice would fail."""

    name: str = "noting"
    begins_with_the_first: bool = True
    interval: float = 0.01
    batch: int = 3
    taken: list[str] = field(default_factory=list)
    fails: bool = False
    may_miss_events: bool = True
    needs_decisions: bool = True
    never: frozenset[str] = frozenset()

    def take(self, events: Sequence[Numbered]) -> None:
        if self.fails or self.never & {event.event_id for _, event in events}:
            raise RuntimeError("the other side does not answer")
        self.taken += (event.event_id for _, event in events)

    def keep(self, stores: Stores, events: Sequence[Numbered]) -> None:
        for _, event in events:
            stores.users.add(a_user(user_id=f"user_{event.event_id}", username=event.event_id))


def store(storage: Storage, *event_ids: str) -> None:
    for event_id in event_ids:
        with storage.begin() as stores:
            stores.events.add(an_event(event_id=event_id))


def kept(storage: Storage) -> list[str]:
    with storage.begin() as stores:
        return [user.username for user in stores.users.list()]


def position(storage: Storage) -> int | None:
    with storage.begin() as stores:
        return stores.event_positions.of("noting")


def test_a_reader_takes_all_events_in_batches(database: Database) -> None:
    store(database, "a", "b", "c", "d")
    reading = Reading(database, Noting())
    reading.begin()
    assert reading.backlog() == 4
    assert [reading.work(), reading.work(), reading.work()] == [3, 1, 0]
    assert reading.reader.taken == kept(database) == ["a", "b", "c", "d"]
    assert reading.backlog() == 0


def test_a_reader_that_begins_now_gets_no_older_events(database: Database) -> None:
    reading = Reading(database, Noting(begins_with_the_first=False))
    store(database, "before")
    assert reading.work() == 0
    store(database, "after")
    assert reading.work() == 1
    assert reading.reader.taken == ["after"]


def test_a_reader_that_begins_now_misses_nothing_where_there_was_nothing(database: Database) -> None:
    reading = Reading(database, Noting(begins_with_the_first=False))
    assert reading.work() == 0
    assert position(database) == 0
    store(database, "the very first")
    assert reading.work() == 1


def test_what_failed_is_taken_again(database: Database) -> None:
    store(database, "a", "b")
    reading = Reading(database, Noting(fails=True))
    with pytest.raises(RuntimeError, match="does not answer"):
        reading.work()
    assert position(database) == 0
    assert kept(database) == []
    reading.reader.fails = False
    assert reading.work() == 2
    assert kept(database) == ["a", "b"]


def test_a_crash_after_taking_makes_it_taken_twice_and_stored_once(database: Database) -> None:
    store(database, "a")

    class Crashing(Noting):
        def keep(self, stores: Stores, events: Sequence[Numbered]) -> None:
            super().keep(stores, events)
            raise SystemError("the process ends here")

    with pytest.raises(SystemError):
        Reading(database, Crashing()).work()
    reading = Reading(database, Noting())
    assert reading.work() == 1
    assert kept(database) == ["a"]


def test_two_that_take_the_same_events_store_them_once(database: Database) -> None:
    store(database, "a")
    both = threading.Barrier(2, timeout=10)

    class Together(Noting):
        def take(self, events: Sequence[Numbered]) -> None:
            super().take(events)
            both.wait()

    readings = [Reading(database, Together()) for _ in range(2)]
    threads = [threading.Thread(target=reading.work) for reading in readings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reading.reader.taken for reading in readings] == [["a"], ["a"]]
    assert kept(database) == ["a"]


def test_an_event_that_commits_late_is_not_missed(postgresql_url: str) -> None:
    """PostgreSQL gives out numbers before transactions commit."""
    database = Database(postgresql_url)
    try:
        store(database, "a")
        with psycopg.connect(postgresql_url.replace("+psycopg", "")) as slow:
            slow.execute(
                "INSERT INTO events (event_id, type, at, reason, decisions, details) "
                "VALUES ('slow', 'token.issued', now(), '', '[]', '{}')"
            )
            store(database, "c")
            reading = Reading(database, Noting())
            assert reading.work() == 1
            assert reading.work() == 0
        assert reading.work() == 2
        assert reading.reader.taken == ["a", "slow", "c"]
    finally:
        database.close()


def test_a_reader_works_in_one_process_until_that_ends(database: Database) -> None:
    store(database, "a")
    here, there = (Reading(database, Noting()) for _ in range(2))
    assert here._is_here()
    assert not there._is_here()
    here.stop()
    assert there._is_here()


def test_a_process_that_died_is_followed_by_another(database: Database) -> None:
    here, there = (Reading(database, Noting()) for _ in range(2))
    with time_machine.travel(NOW, tick=False) as clock:
        assert here._is_here()
        clock.shift(event_readers.LEASE + 1)
        assert there._is_here()


def test_the_background_goes_on_after_a_failure(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    class FailingOnce(Noting):
        def take(self, events: Sequence[Numbered]) -> None:
            if not self.taken:
                self.taken.append("failed")
                raise RuntimeError("the other side does not answer")
            super().take(events)
            done.set()

    store(database, "a")
    reading = Reading(database, FailingOnce())
    reading.start()
    try:
        assert done.wait(20)
    finally:
        reading.stop()
    assert reading.reader.taken == ["failed", "a"]
    assert [record.getMessage() for record in caplog.records if "noting" in record.getMessage()] == [
        "noting: events wait, because it failed (the other side does not answer); trying again, at least every 60 seconds"
    ]


def fail(reading: Reading, times: int = event_readers.ATTEMPTS) -> None:
    for _ in range(times):
        with pytest.raises(RuntimeError, match="does not answer"):
            reading.work()
        reading.note_failure()


def set_aside(storage: Storage) -> list[list[str]]:
    with storage.begin() as stores:
        found = [event for event in stores.events.latest() if event.type is EventType.EVENT_SET_ASIDE]
        assert sum(len(event.details["events"]) for event in found) == stores.event_positions.set_aside().get(
            "noting", 0
        )
        return [event.details["events"] for event in found]


def test_an_event_that_is_never_taken_does_not_hold_up_the_others(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """One by one after ten failures: it is counted, named in an event and in the log, and what follows goes on."""
    store(database, "a", "poison", "c")
    reading = Reading(database, Noting(never=frozenset({"poison"})))
    fail(reading)
    assert set_aside(database) == []
    assert reading.work() == 3
    assert reading.reader.taken == kept(database) == ["a", "c"]
    assert set_aside(database) == [["poison"]]
    assert "so that others need not wait:" in caplog.text
    reading.failures = 0
    assert reading.work() == 1
    (row,) = (row for row in backlogs_of(database) if row.reader == "noting")
    assert (row.waiting, row.set_aside) == (0, 1)


def backlogs_of(storage: Storage) -> Sequence[Backlog]:
    with storage.begin() as stores:
        return backlogs(stores)


def test_events_wait_while_the_other_side_takes_none(database: Database) -> None:
    """Also when there is one alone: nothing is behind it. After three days the first goes, in case it is to blame."""
    store(database, "a", "b")
    clock = [0.0]
    reading = Reading(database, Noting(fails=True), lambda: clock[0])
    fail(reading, 3 * event_readers.ATTEMPTS)
    assert set_aside(database) == []
    clock[0] = event_readers.PATIENCE
    assert reading.work() == 1
    assert set_aside(database) == [["a"]]
    fail(reading, 1)
    reading.reader.fails = False
    assert reading.work() == 2
    assert reading.reader.taken[0] == "b"


def test_what_must_have_every_event_never_misses_one(database: Database) -> None:
    store(database, "a", "b")
    reading = Reading(database, Noting(never=frozenset({"a"}), may_miss_events=False))
    fail(reading, 2 * event_readers.ATTEMPTS)
    assert position(database) == 0
    assert not Sealer.may_miss_events
    assert not Counting.may_miss_events
