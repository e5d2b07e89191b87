"""F5, F9, F10: serialization failures, a clock that steps, and no descriptors left, under load and two processes."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit

import psycopg
import pytest

from tests.faults.invariants import Disturbance, assert_hold
from tests.faults.load import Load

HOUR = 3600


@pytest.mark.postgresql
def test_serialization_failures_are_repeated(postgresql_url, make_faulty, is_long, report):
    """F5, T111: every transaction serializable, and all of them about one person: no 500, and nothing twice."""
    with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER DATABASE test_migrated SET default_transaction_isolation = 'serializable'")
        try:
            faulty = make_faulty(postgresql_url)
            with faulty.load(pause=0, often=2) as load:
                time.sleep(60 if is_long else 2)
        finally:
            connection.execute("ALTER DATABASE test_migrated RESET default_transaction_isolation")
    report("F5 serializable", assert_hold(faulty.server, load.ledger), load)
    assert load.ledger.statuses()[200] > 5


def step(files: list[Path], ahead: float) -> Disturbance:
    """Set the clocks so many seconds ahead; until all processes follow, they may differ."""
    begin = time.monotonic()
    for file in files:
        file.write_text(str(ahead))
    while any(
        not (seen := Path(f"{file}.seen")).exists() or float(seen.read_text() or -1) != ahead
        for file in files
    ):
        assert time.monotonic() < begin + 30, "a process does not follow"
        time.sleep(0.02)
    return Disturbance(begin, time.monotonic())


def wait_until_followed(load: Load, disturbance: Disturbance) -> None:
    """Until requests that were sent after the disturbance are answered: a run is judged by these, too."""
    load.wait_for(5, disturbance.end, 30)


@pytest.mark.parametrize("both", [True, False], ids=["an hour", "30 seconds apart"])
def test_the_clock_steps(sqlite_url, tmp_path, make_faulty, both, is_long, report):
    """F9, T150: forward and back again under load: nobody hangs, nothing revives, and what begins afterwards succeeds."""
    files = [tmp_path / "clock-0", tmp_path / "clock-1"]
    faulty = make_faulty(
        sqlite_url,
        settings=[{"authserver.plugin.stepped_clock.file": str(file)} for file in files],
        plugins=("tests.faults.points:SteppedClock",),
    )
    steps = []
    with faulty.load() as load:
        load.wait_for(5, 0, 30)
        for _ in range(10 if is_long else 1):
            for ahead in (HOUR if both else 30, 0):
                steps.append(step(files if both else files[:1], ahead))
                wait_until_followed(load, steps[-1])
                time.sleep(1)
    # Half a minute is within what clocks may differ by: nobody is refused at all.
    seen = assert_hold(faulty.server, load.ledger, steps if both else ())
    report("F9 an hour forward and back" if both else "F9 30 s apart", seen, load, times=20)
    assert set(load.ledger.statuses()) <= {200, 201, 303, 400}


def test_no_descriptors_are_left(sqlite_url, make_faulty, is_long, report):
    """F10: a process that may open 96 files and gets 200 idle connections serves again when they are gone."""
    faulty = make_faulty(sqlite_url)
    for process in faulty.processes:
        _, hard = prlimit(process.pid, RLIMIT_NOFILE)
        prlimit(process.pid, RLIMIT_NOFILE, (96, hard))
    with faulty.load(patience=5) as load:
        for _ in range(5 if is_long else 1):
            with ExitStack() as idle:
                for number in range(200):
                    port = faulty.processes[number % 2].port
                    idle.enter_context(socket.create_connection(("127.0.0.1", port)))
                time.sleep(2)
            since = time.monotonic()
            recovery = load.first_success(since, 6)
            for process in faulty.processes:
                assert process.get("/health/live", timeout=5).status == 200
        time.sleep(0.5)
    report("F10 no descriptors", assert_hold(faulty.server, load.ledger), load, recovery, times=5)
