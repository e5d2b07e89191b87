"""F6, F7: SQLite while another program writes, and both databases while their disk is full."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing

import pytest

from tests.faults.disk import Limit, small_disk
from tests.faults.invariants import assert_hold
from tests.faults.postgresql import PostgreSQL

# Seconds after which the first token comes once the fault is over.
RECOVERY = 6.0


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def sqlite(disk, migrated_sqlite_file, make_faulty):
    shutil.copy(migrated_sqlite_file, disk.folder / "authserver.db")
    faulty = make_faulty(f"sqlite:///{disk.folder / 'authserver.db'}")
    if isinstance(disk, Limit):
        disk.pids = lambda: [process.pid for process in faulty.processes]
    return faulty


@pytest.fixture
def postgresql(disk):
    postgresql = PostgreSQL(disk.folder / "postgresql")
    yield postgresql
    postgresql.close()


@pytest.mark.parametrize("seconds", [2, 7])
def test_another_program_writes_to_sqlite(sqlite, seconds, is_long):
    """F6, T110: a short while is waited for; after five seconds it is 503. Reads do not even wait."""
    seconds = {2: 3, 7: 10}[seconds] if is_long else seconds
    for _ in range(3 if is_long else 1):
        with sqlite.load() as load:
            time.sleep(0.5)
            writer = sqlite3.connect(sqlite.folder / "disk/authserver.db", isolation_level=None, timeout=10)
            with closing(writer):
                writer.execute("BEGIN IMMEDIATE")
                began = time.monotonic()
                while time.monotonic() - began < seconds:
                    for process in sqlite.processes:
                        ready = process.get("/health/ready")
                        assert (ready.status, ready.seconds < 1) == (200, True)
                    time.sleep(0.3)
                writer.execute("ROLLBACK")
            load.first_success(time.monotonic(), RECOVERY)
        assert_hold(sqlite.server, load.ledger)
        statuses = load.ledger.statuses()
        assert set(statuses) <= {200, 201, 303, 400, 503}
        assert (statuses[503] > 0) == (seconds > 5)


def test_the_disk_under_sqlite_is_full(sqlite, disk, is_long):
    """F7, T115: nothing is issued and nothing half written; keys are served; it goes on when there is room again."""
    for _ in range(10 if is_long else 1):
        with sqlite.load() as load:
            assert_survives(sqlite, disk, load)
        assert_hold(sqlite.server, load.ledger)


def assert_survives(faulty, disk, load):
    time.sleep(0.5)
    disk.fill()
    began = time.monotonic()
    time.sleep(2)
    refused = [step for step in load.ledger.steps("itself") if step.began > began and step.status is not None]
    assert refused
    assert refused[-1].status == 503
    for process in faulty.processes:
        assert process.get("/oauth/jwks").status == 200
        assert process.get("/health/live").status == 200
    disk.free()
    load.first_success(time.monotonic(), RECOVERY)
    time.sleep(0.5)
