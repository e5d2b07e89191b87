"""F6, F7: SQLite while another program writes, and both databases while their disk is full."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.conftest import IS_LONG
from tests.faults.disk import Disk, Limit, small_disk
from tests.faults.invariants import assert_hold
from tests.faults.postgresql import PostgreSQL

# Seconds after which the first token comes once the fault is over.
RECOVERY = 6.0


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def sqlite(disk, migrated_sqlite_file, make_faulty):
    shutil.copy(migrated_sqlite_file, disk.folder / "authserver.db")
    faulty = make_faulty(f"sqlite:///{disk.folder / 'authserver.db'}")
    if isinstance(disk, Limit):
        disk.pids = lambda: [process.pid for process in faulty.processes]
    return faulty


@pytest.mark.parametrize("seconds", [2, 9])
def test_another_program_writes_to_sqlite(sqlite, seconds, is_long, report):
    """F6, T110: a short while is waited for; after five seconds it is 503. Reads do not even wait."""
    seconds = {2: 3, 9: 12}[seconds] if is_long else seconds
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
                        assert (ready.status, ready.seconds < 2) == (200, True)
                    time.sleep(0.3)
                writer.execute("ROLLBACK")
            recovery = load.first_success(time.monotonic(), RECOVERY)
        seen = assert_hold(sqlite.server, load.ledger)
        report(f"F6 locked for {seconds} s", seen, load, recovery)
        statuses = load.ledger.statuses()
        assert set(statuses) <= {200, 201, 303, 400, 503}
        assert (statuses[503] > 0) == (seconds > 5), statuses


def test_the_disk_under_sqlite_is_full(sqlite, disk, is_long, report):
    """F7, T115: nothing is issued and nothing half written; keys are served; it goes on when there is room again."""
    for _ in range(10 if is_long else 1):
        with sqlite.load() as load:
            recovery = assert_survives(sqlite, disk, load)
        report("F7 disk full", assert_hold(sqlite.server, load.ledger), load, recovery)


def assert_survives(faulty, disk, load):
    time.sleep(0.5)
    disk.fill()
    began = time.monotonic()
    refused = []
    while not refused and time.monotonic() < began + 15:
        time.sleep(0.1)
        refused = [step for step in load.ledger.steps() if step.began > began and step.status == 503]
    assert refused
    time.sleep(1)
    for process in faulty.processes:
        assert process.get("/oauth/jwks").status == 200
        assert process.get("/health/live").status == 200
    disk.free()
    recovery = load.first_success(time.monotonic(), RECOVERY)
    time.sleep(0.5)
    return recovery


if IS_LONG:

    @pytest.mark.postgresql
    def test_the_disk_under_postgresql_is_full(make_faulty, report):
        """F7: the same, by `make faults` alone, because it needs a file system of its own, which root may mount."""
        # The user that PostgreSQL runs as may not enter pytest's folders.
        with (
            TemporaryDirectory(prefix="authserver-disk-") as folder,
            small_disk(Path(folder), 192) as disk,
        ):
            assert isinstance(disk, Disk)
            disk.folder.chmod(0o755)
            Path(folder).chmod(0o755)
            with closing(PostgreSQL(disk.folder / "data")) as postgresql:
                faulty = make_faulty(postgresql.new_database("crowded"))
                for _ in range(10):
                    with faulty.load() as load:
                        recovery = assert_survives(faulty, disk, load)
                    report("F7 disk full", assert_hold(faulty.server, load.ledger), load, recovery)
