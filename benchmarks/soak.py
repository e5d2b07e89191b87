#!/usr/bin/env python3
"""A mixed load for long, at 60 % of what the server can do, and then three times as much as it can do.

    benchmarks/soak.py                     30 minutes on PostgreSQL
    benchmarks/soak.py --minutes 5 --database sqlite
    benchmarks/soak.py --connections 0     the second part with a new connection for each request that finds none unused

Two server processes, people who sign in and agree, and applications that redeem, refresh, introspect and revoke
(tests/faults/load.py). Afterwards every invariant of docs/faults.rst is checked. The exit status is 1 when an answer was
5xx, an invariant is broken, memory grew by 5 % or descriptors grew, or when too little was done under overload.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
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
# Seconds after which a client of the second part gives up.
PATIENCE = 10.0
# Loopback addresses that they send from: a process lets none of them await more than `connections_per_address` answers.
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 42)]
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


def overload(faulty: Faulty, per_second: float, seconds: float, connections: int) -> list[tuple[int, float]]:
    """Token requests at this rate, whatever becomes of those before: status (0 for none) and seconds of each.

    The seconds count from when a request has a connection: those before are spent in the client, as in a proxy.
    """
    asking, answers = Asking(faulty, connections), []

    async def send(number: int, due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        async with asking.places:
            sent = time.monotonic()
            answers.append((await asking.status(number), time.monotonic() - sent))

    async def send_all() -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_second * seconds)):
                group.create_task(send(number, began + number / per_second))
        asking.close()

    asyncio.run(send_all())
    return answers


def capacity_alone(faulty: Faulty, seconds: float, senders: int = 16) -> float:
    """Token requests answered a second, when each of some senders waits for its answer."""
    asking, statuses = Asking(faulty), []

    async def go(number: int, end: float) -> None:
        while time.monotonic() < end:
            statuses.append(await asking.status(number))

    async def go_all() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(senders):
                group.create_task(go(number, time.monotonic() + seconds))
        asking.close()

    began = time.monotonic()
    asyncio.run(go_all())
    return statuses.count(200) / (time.monotonic() - began)


class Asking:
    """Asks for tokens from several addresses, on connections that stay open, as a proxy or a library does.

    Args:
        connections: how many it has at most; 0 for any number.
    """

    def __init__(self, faulty: Faulty, connections: int = 0) -> None:
        self.places = asyncio.Semaphore(connections or sys.maxsize)
        of = faulty.applications[0]
        body = urlencode({"grant_type": "client_credentials", "scope": "profile"})
        self._ports = [process.port for process in faulty.processes]
        self._unused: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {0: [], 1: []}
        self._request = (
            f"POST /oauth/token HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Authorization: {basic(of.client.client_id, of.secret)}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def status(self, number: int) -> int:
        """That of the answer of one of the processes; 0 if no whole one came within the seconds of `PATIENCE`."""
        unused, connection = self._unused[number % 2], None
        try:
            async with asyncio.timeout(PATIENCE):
                connection = unused.pop() if unused else await self._connect(number % 2)
                reader, writer = connection
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        except (OSError, EOFError, TimeoutError):
            if connection is not None:
                connection[1].close()
            return 0
        if "connection: close" in head:
            writer.close()
        else:
            unused.append(connection)
        return int(head[9:12])

    async def _connect(self, process: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        source = (random.choice(ADDRESSES), 0)
        return await asyncio.open_connection("127.0.0.1", self._ports[process], local_addr=source)

    def close(self) -> None:
        for _, writer in itertools.chain(*self._unused.values()):
            writer.close()


def recovery(faulty: Faulty) -> float:
    """Seconds until five token requests in a row are answered, each within a second."""
    began = time.monotonic()
    while time.monotonic() < began + 60:
        answers = overload(faulty, 5, 1, 0)
        if all(status == 200 and seconds < 1 for status, seconds in answers):
            return max(0.0, time.monotonic() - began - 1)
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
    parser.add_argument("--connections", type=int, default=400, help="of the client of the second part")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as scratch,
        database(options.database, Path(scratch)) as url,
        serving_faulty(Path(scratch), url, settings=[SETTINGS] * 2) as faulty,
    ):
        load, _ = run(faulty, CALIBRATION, None)
        capacity = load.successes(0) / CALIBRATION
        load, samples = run(faulty, options.minutes * 60, SHARE * capacity)
        print(f"{sum(load.ledger.statuses().values())} requests; checking what they left", file=sys.stderr)
        seen = assert_hold(faulty.server, load.ledger)
        latencies = sorted(step.seconds * 1000 for step in load.ledger.steps() if step.status)
        errors = sum(count for status, count in load.ledger.statuses().items() if not status or status >= 500)

        alone = capacity_alone(faulty, CALIBRATION / 2)
        began = time.monotonic()
        answers = overload(faulty, 3 * alone, OVERLOAD, options.connections)
        goodput = sum(status == 200 for status, _ in answers) / (time.monotonic() - began)
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
        "answers, 0 for none": {str(status): count for status, count in load.ledger.statuses().items()},
        "p50, ms": round(latencies[len(latencies) // 2], 1),
        "p95, ms": round(latencies[int(len(latencies) * 0.95)], 1),
        "memory growth, %": round((second / first - 1) * 100, 2),
        "descriptors, first and last": [samples[0][1], samples[-1][1]],
        "token requests alone, a second": round(alone, 1),
        "connections of the second part": options.connections,
        "goodput at three times that, %": round(100 * goodput / alone, 1),
        "answers at three times that, 0 for none": {
            str(status): count for status, count in sorted(statuses.items())
        },
        "refused later than 3 s": late,
        "recovery, s": round(back, 1),
    }
    print(json.dumps(figures, indent=2))
    is_good = (
        errors == 0
        and figures["memory growth, %"] < 5
        and samples[-1][1] <= samples[0][1] + 8
        and goodput >= 0.8 * alone
        and set(statuses) <= {200, 429, 503}
        and late == 0
        and back <= 5
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
