"""Writers of a SQLite file take turns in the order in which they came."""

from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from authserver.storage import database as storage
from authserver.storage import turns as turns_module
from authserver.storage.database import Database, StorageBusy, StorageSlow
from authserver.storage.turns import Shifts, Turns
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


def test_a_process_ends_its_shift_when_none_of_its_threads_waits(tmp_path: Path) -> None:
    """Nobody waits for another process for longer than it wants to."""
    first, second = Turns(Shifts(tmp_path / "turns")), Turns(Shifts(tmp_path / "turns"))
    assert first.take(0)
    assert not second.take(0.01)
    first.leave()
    assert second.take(0)
    second.leave()
    assert first.take(0)
    assert stat.S_IMODE((tmp_path / "turns").stat().st_mode) == 0o600


def test_threads_follow_each_other_in_a_shift_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then another process is first, although a thread of this one has waited for longer."""
    order = list[str]()
    first, second = Turns(Shifts(tmp_path / "turns")), Turns(Shifts(tmp_path / "turns"))

    def wait(turns: Turns, name: str) -> None:
        assert turns.take(10)
        order.append(name)

    with ThreadPoolExecutor(3) as threads:
        assert first.take(0)
        one = threads.submit(wait, first, "one")
        wait_until_waiting(first, 1)
        two = threads.submit(wait, first, "two")
        wait_until_waiting(first, 2)
        other = threads.submit(wait, second, "another process")
        monkeypatch.setattr(turns_module, "SHIFT", 1000.0)
        first.leave()
        one.result(10)
        assert not other.done()
        monkeypatch.setattr(turns_module, "SHIFT", 0.0)
        monkeypatch.setattr(turns_module, "_TRY_EVERY", 0.05)
        time.sleep(0.01)
        first.leave()
        other.result(10)
        assert not two.done()
        second.leave()
        two.result(10)
    assert order == ["one", "another process", "two"]


def test_a_folder_that_cannot_be_locked_makes_nobody_wait(tmp_path: Path) -> None:
    turns = Turns(Shifts(tmp_path / "missing" / "turns"))
    assert turns.take(0)
    turns.leave()
    assert turns.take(0)
