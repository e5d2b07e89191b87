"""Writers of a SQLite file take turns in the order in which they came."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from authserver.storage import database as storage
from authserver.storage.database import Database, StorageBusy, StorageSlow
from authserver.storage.turns import Turns
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
