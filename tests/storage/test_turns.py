"""Writers of a SQLite file take turns in the order in which they came."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from authserver.storage import database as storage
from authserver.storage import turns as turns_module
from authserver.storage.database import Database, StorageBusy, StorageSlow
from authserver.storage.turns import PAUSE, REMEMBERED, STRETCH, ProcessTurn, Turns, Writers
from authserver.testing.records import NOW, a_grant, an_event


def wait_until_waiting(turns: Turns, number: int) -> None:
    """Until so many wait."""
    deadline = time.monotonic() + 10
    while len(turns._waiting) < number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_turns_come_in_the_order_of_arrival() -> None:
    turns, order = Turns(), list[int]()

    def wait(number: int) -> None:
        assert turns.take(10)
        order.append(number)
        turns.leave()

    assert turns.take(0)
    threads = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        wait_until_waiting(turns, number)
    turns.leave()
    # Who has just left and comes again is behind all who wait.
    assert turns.take(10)
    assert order == list(range(8))
    for thread in threads:
        thread.join()


def test_who_waits_too_long_is_passed_over() -> None:
    turns = Turns()
    assert turns.take(0)
    assert not turns.take(0.01)
    turns.leave()
    assert turns.take(0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a SQLite file."""
    path = tmp_path / "authserver.db-wal"
    path.touch()
    return path


def test_processes_take_turns(log: Path) -> None:
    """Each has a file of its own open, as two processes have."""
    here, there = ProcessTurn(log), ProcessTurn(log)
    assert here.take(0)
    assert not there.take(0)
    here.leave()
    assert there.take(0)
    assert not here.take(0.01)
    # A process that dies leaves nothing locked.
    there.close()
    assert here.take(0)
    here.close()


class Clock:
    """Time that passes only when somebody sleeps, or when a test lets it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def pauses(clock: Clock, turn: ProcessTurn, seconds: float) -> int:
    """How often this process lets others go first while it writes one transaction of 1 ms after the other."""
    clock.slept.clear()
    for _ in range(round(seconds * 1000)):
        assert turn.take(0)
        clock.now += 0.001
        turn.leave()
    return clock.slept.count(PAUSE)


def test_a_process_that_has_met_another_one_lets_it_go_first(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each stretch; the other one needs no luck to find the moment between two transactions. It is forgotten later."""
    clock = Clock()
    monkeypatch.setattr(turns_module, "time", clock)
    here, there = ProcessTurn(log), ProcessTurn(log)
    assert pauses(clock, here, 10 * STRETCH) == 0
    assert there.take(0)
    assert not here.take(0)
    there.leave()
    assert 5 <= pauses(clock, here, 10 * STRETCH) <= 10
    clock.now += REMEMBERED
    assert pauses(clock, here, 10 * STRETCH) == 0


def test_without_a_log_each_process_has_the_turn(log: Path) -> None:
    """The log is removed with the last connection of all, and made again with the next one; then that one is locked."""
    here, there = ProcessTurn(log), ProcessTurn(log)
    assert here.take(0)
    log.unlink()
    here.leave()
    assert here.take(0) and there.take(0)
    here.leave()
    there.leave()
    log.touch()
    assert here.take(0)
    assert not there.take(0)
    here.leave()
    assert ProcessTurn(None).take(0)


def test_a_turn_of_a_thread_that_does_not_get_that_of_its_process_is_given_back(log: Path) -> None:
    writers, there = Writers(log), ProcessTurn(log)
    assert there.take(0)
    assert not writers.take(0.01)
    there.leave()
    assert writers.take(0)
    assert not there.take(0)
    writers.leave()
    assert there.take(0)


def test_writers_of_a_file_wait_for_each_other_and_for_nobody_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn ends with COMMIT, ROLLBACK or an error, in a transaction of its own as in one of others."""
    monkeypatch.setattr(storage, "SQLITE_BUSY_TIMEOUT", 0.3)
    database = Database(sqlite_url)

    def write(number: int) -> None:
        with database.begin() as stores:
            stores.grants.add(a_grant(grant_id=f"grant_{number}"))
            stores.events.add(an_event(event_id=f"event_{number}"))

    with database.begin() as holder:
        holder.grants.add(a_grant(grant_id="held"))
        with ThreadPoolExecutor(1) as threads, pytest.raises(StorageSlow, match="database is locked"):
            threads.submit(write, 1).result()
        # Reading needs no turn.
        with database.begin() as reader:
            assert reader.clients.find("reports", NOW) is None
    write(2)
    with pytest.raises(sa.exc.IntegrityError), database.begin() as stores:
        stores.grants.add(a_grant(grant_id="broken", user_id="nobody"))
    with pytest.raises(RuntimeError, match="stopped"), database.begin() as stores:
        stores.grants.add(a_grant(grant_id="stopped"))
        raise RuntimeError("stopped")
    with database.begin() as stores:
        stores.grants.add(a_grant(grant_id="undone"))
        stores.undo()
        write(3)
        assert stores.grants.find("undone") is None
    with database.begin() as stores:
        assert [grant.grant_id for grant in stores.grants.page(limit=9)] == ["grant_2", "grant_3", "held"]
    database.close()


def test_a_connection_that_cannot_be_made_anew_is_not_lost_to_the_pool(sqlite_url: str) -> None:
    """T111: whoever comes while the file is away is told so, and the next one gets the connection."""
    database = Database(sqlite_url, pool_size=1)
    with database.engine.connect() as connection:
        connection.invalidate()
    file = Path(str(database.engine.url.database))
    aside = file.rename(file.with_name("aside.db"))
    file.mkdir()
    for _ in range(2):
        with pytest.raises(StorageBusy, match="unable to open"):
            database.ping()
    file.rmdir()
    aside.rename(file)
    database.ping()
    database.close()
