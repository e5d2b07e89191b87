#!/usr/bin/env python3
"""A mixed load for long, at 60 % of what the server can do, and then three times as much as it can do.

    benchmarks/soak.py                     30 minutes on PostgreSQL
    benchmarks/soak.py --minutes 5 --database sqlite

Two server processes, people who sign in and agree, and applications that redeem, refresh, introspect and revoke
(tests/faults/load.py). Afterwards every invariant of docs/faults.rst is checked. The exit status is 1 when an answer was
5xx, an invariant is broken, memory grew by 5 % or descriptors grew, or when too little was done under overload.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psycopg

from authserver.storage import migrate
from authserver.testing.server import basic
from tests.faults.conftest import Faulty, serving_faulty
from tests.faults.invariants import assert_hold
from tests.faults.load import HOST, Application, Load
from tests.faults.postgresql import PostgreSQL

VISITORS, SHARE = 8, 0.6
CALIBRATION, WARM_UP, OVERLOAD = 20.0, 30.0, 20.0
# Threads that send at their time whether the server has answered the others or not, and seconds of their patience.
SENDERS, PATIENCE = 150, 10.0
PAGE = os.sysconf("SC_PAGE_SIZE")
# As in production: a request that many wait before is refused. The load comes from one address.
SETTINGS = {"authserver.refusals_per_minute": "100"}


class Pace:
    """Lets so many requests a second through, of all visitors together; None lets all through."""

    def __init__(self, per_second: float | None) -> None:
        self._every = 0.0 if per_second is None else 1 / per_second
        self._lock, self._next = threading.Lock(), time.monotonic()

    def __call__(self) -> None:
        with self._lock:
            at = max(self._next, time.monotonic() - 0.5)
            self._next = at + self._every
        time.sleep(max(0.0, at - time.monotonic()))


def sample(faulty: Faulty) -> tuple[int, int]:
    """Bytes of memory and open descriptors of both processes."""
    pids = [process.pid for process in faulty.processes]
    memory = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in pids)
    return memory, sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def applications(faulty: Faulty) -> list[Application]:
    return [faulty.applications[number % 3] for number in range(VISITORS)]


def run(faulty: Faulty, seconds: float, per_second: float | None) -> tuple[Load, list[tuple[int, int]]]:
    """The mixed load at this rate; and samples, one for each tenth of the time after the warm-up."""
    samples = []
    how = {"pause": 0.0, "pace": Pace(per_second), "often": 0.5}
    load = Load(faulty.processes, applications(faulty), faulty.ledger(), **how)
    with load:
        time.sleep(min(WARM_UP, seconds / 4) if per_second else 0)
        for _ in range(10):
            time.sleep(seconds / 10)
            samples.append(sample(faulty))
    return load, samples


def overload(
    faulty: Faulty, per_second: float, seconds: float, senders: int = SENDERS
) -> list[tuple[int, float]]:
    """Token requests at this rate, whatever becomes of those before: status (0 for none) and seconds of each."""
    answers: list[tuple[int, float]] = []
    began, lock, sent = time.monotonic(), threading.Lock(), iter(range(int(per_second * seconds)))
    of = faulty.applications[0]
    body = urlencode({"grant_type": "client_credentials", "scope": "profile"})
    headers = {
        "Host": HOST,
        "Authorization": basic(of.client.client_id, of.secret),
        "Content-Type": "application/x-www-form-urlencoded",
    }

    def send(number: int) -> int:
        port = faulty.processes[number % 2].port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("POST", "/oauth/token", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def go() -> None:
        while True:
            with lock:
                number = next(sent, None)
            if number is None:
                return
            due = began + number / per_second
            time.sleep(max(0.0, due - time.monotonic()))
            status = send(number)
            # From when it was due: who waits for a sender waits for the server.
            answers.append((status, time.monotonic() - due))

    threads = [threading.Thread(target=go) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def recovery(faulty: Faulty) -> float:
    """Seconds until five token requests in a row are answered, each within a second."""
    began = time.monotonic()
    while time.monotonic() < began + 60:
        answers = overload(faulty, 5, 1)
        if all(status == 200 and seconds < 1 for status, seconds in answers):
            return time.monotonic() - began - 1
    return 60.0


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        url = f"sqlite:///{folder}/authserver.db"
        migrate.upgrade(url)
        yield url
        return
    postgresql = PostgreSQL()
    try:
        with psycopg.connect(postgresql.url().replace("+psycopg", ""), autocommit=True) as connection:
            # A benchmark counts what it costs to lose nothing.
            connection.execute("ALTER SYSTEM SET fsync = on")
            connection.execute("SELECT pg_reload_conf()")
        yield postgresql.new_database("soak")
    finally:
        postgresql.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as scratch,
        database(options.database, Path(scratch)) as url,
        serving_faulty(Path(scratch), url, settings=[SETTINGS] * 2) as faulty,
    ):
        load, _ = run(faulty, CALIBRATION, None)
        capacity = load.successes(0) / CALIBRATION
        load, samples = run(faulty, options.minutes * 60, SHARE * capacity)
        seen = assert_hold(faulty.server, load.ledger)
        latencies = sorted(step.seconds * 1000 for step in load.ledger.steps() if step.status)
        errors = sum(count for status, count in load.ledger.statuses().items() if not status or status >= 500)

        alone = overload_capacity(faulty)
        answers = overload(faulty, 3 * alone, OVERLOAD)
        longest = max(seconds for _, seconds in answers)
        good = sum(status == 200 for status, _ in answers)
        elapsed = max(OVERLOAD, OVERLOAD + longest - PATIENCE)
        statuses = Counter(status for status, _ in answers)
        late = sum(status in (429, 503) and seconds > 3 for status, seconds in answers)
        back = recovery(faulty)
    half = len(samples) // 2
    first, second = (
        statistics.median(memory for memory, _ in part) for part in (samples[:half], samples[half:])
    )
    figures = {
        "database": options.database,
        "minutes": options.minutes,
        "capacity, requests a second": round(capacity, 1),
        "requests": seen["requests"],
        "5xx or lost": errors,
        "p50, ms": round(latencies[len(latencies) // 2], 1),
        "p95, ms": round(latencies[int(len(latencies) * 0.95)], 1),
        "memory growth, %": round((second / first - 1) * 100, 2),
        "descriptors, first and last": [samples[0][1], samples[-1][1]],
        "token requests alone, a second": round(alone, 1),
        "goodput at three times that, %": round(100 * good / elapsed / alone, 1),
        "answers at three times that": {str(status): count for status, count in sorted(statuses.items())},
        "refused later than 3 s": late,
        "recovery, s": round(back, 1),
    }
    print(json.dumps(figures, indent=2))
    is_good = (
        errors == 0
        and figures["memory growth, %"] < 5
        and samples[-1][1] <= samples[0][1] + 8
        and good / elapsed >= 0.8 * alone
        and late == 0
        and back <= 5
    )
    return 0 if is_good else 1


def overload_capacity(faulty: Faulty) -> float:
    """Token requests a second, when each of 16 senders waits for its answer."""
    began = time.monotonic()
    answers = overload(faulty, 1_000_000, 0.0015, senders=16)
    return len(answers) / (time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
