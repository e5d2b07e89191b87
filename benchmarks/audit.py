#!/usr/bin/env python3
"""Measure what the audit trail costs: writing events, sealing them, searching in many of them, and purging them.

    benchmarks/audit.py                         with 10 million events: 20 minutes, and 10 GB of disk
    benchmarks/audit.py --events 100000         a quick look
    benchmarks/audit.py --parts cost seals      only these; postgresql, search and purge are the others
    benchmarks/audit.py --folder events         keep the database there, and use it again the next time

A PostgreSQL of its own, and a server in this process. The exit status is 1 when a figure is not good enough.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import run
import sqlalchemy as sa
from run import postgresql_server

from authserver import upkeep
from authserver.engine import audit
from authserver.engine.event_proof import verify
from authserver.engine.event_seals import Sealer, digest_of
from authserver.engine.records import REFUSALS, EventFilter, EventType
from authserver.engine.upkeep_records import Disposable
from authserver.event_readers import Reading
from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.storage.tables import events as events_table
from authserver.testing.plans import plan_of, statements_of
from authserver.testing.records import an_event
from authserver.testing.server import Server, basic

PARTS = ("cost", "postgresql", "seals", "search", "purge")
# What is good enough: milliseconds of a page, percent of a request, milliseconds of the slowest request during a purge.
PAGE, SHARE, DELAY = 200.0, 10.0, 1000.0
PURGED = 500_000
# Of the server: open connections, and the seconds in which everything that was stored is counted and sealed.
CONNECTIONS, READ_WITHIN = 16, 180.0
NO_EVENTS = """
from authserver.storage import ledger
ledger.SqlEvents.add = lambda self, event: None
"""
CLIENTS, PEOPLE, GRANTS = 20_000, 50_000, 300_000
FORM = "application/x-www-form-urlencoded"
JSON = '{"grant_type": "client_credentials", "scopes": ["read"], "resources": ["https://api.example/"], "kind": "jwt"}'
DECISIONS = (
    '[{"slot": "scope_decision", "facts": {"client_id": "client-7", "user_id": null, "grant_type": "client_credentials", '
    '"requested": ["read"], "resources": ["https://api.example/"]}, "verdict": "allow", "reason": "scope-registered", '
    '"decided_by": "scopes_registered", "outcome": ["read"], "answers": [{"plugin": "scopes_registered", "verdict": "allow", '
    '"reason": "scope-registered", "microseconds": 9}]}]'
)
# Of a thousand events over a year: 850 issuances, 100 refusals, 40 sign-ins, and few of each other type.
FILL = """
INSERT INTO events (event_id, type, at, actor, source, request_id, client_id, user_id, grant_id, reason, decisions, details)
  SELECT 'e' || n,
    CASE WHEN n % 1000 < 600 THEN 'token.issued' WHEN n % 1000 < 850 THEN 'code.issued'
      WHEN n % 1000 < 950 THEN (ARRAY['token.refused', 'sign_in.refused', 'authorization.refused'])[1 + n % 3]
      WHEN n % 1000 < 990 THEN 'sign_in.succeeded' WHEN n % 1000 < 998 THEN 'consent.given'
      ELSE 'client.changed' END,
    CAST(:now AS timestamptz) - ((:all - n) * CAST(:step AS interval)),
    CASE WHEN n % 20 = 0 THEN 'stranger' ELSE 'client:client-' || (n * 7919 % :clients) END,
    '10.' || (n % 200) || '.' || (n * 31 % 250) || '.' || (n * 17 % 250), 'r' || n,
    'client-' || (n * 7919 % :clients),
    CASE WHEN n % 3 = 0 THEN 'user_' || (n * 104729 % :people) END,
    CASE WHEN n % 2 = 0 THEN 'grant-' || (n * 15485863 % :grants) END,
    CASE WHEN n % 1000 BETWEEN 850 AND 949 THEN 'scope-not-registered' ELSE '' END,
    CAST(:decisions AS jsonb), CAST(:details AS jsonb)
  FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) n
"""
CHUNK = 500_000


@dataclass(frozen=True, kw_only=True)
class Search:
    """A kind of search."""

    name: str
    wanted: EventFilter


def fill(server: Server, count: int) -> None:
    """Events over a year until now. The indexes are made afterwards, which takes less time than one by one."""
    engine = server.application.storage.engine
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '1GB'")
        found = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'events' AND indexname LIKE 'ix_%'"
        ).fetchall()
        for name, _ in found:
            connection.execute(f"DROP INDEX {name}")
        statement = sa.text(FILL).compile(dialect=engine.dialect)
        for first in range(1, count + 1, CHUNK):
            connection.execute(
                str(statement),
                {
                    "now": datetime.now(UTC),
                    "all": count,
                    "step": timedelta(days=365) / count,
                    "clients": CLIENTS,
                    "people": PEOPLE,
                    "grants": GRANTS,
                    "decisions": DECISIONS,
                    "details": JSON,
                    "first": first,
                    "last": min(first + CHUNK - 1, count),
                },
            )
        for _, definition in found:
            connection.execute(definition)
        connection.execute("VACUUM ANALYZE events")


def searches(now: datetime) -> list[Search]:
    day, week = now - timedelta(days=1), now - timedelta(days=7)
    return [
        Search(name="all, newest first", wanted=EventFilter()),
        Search(name="--client", wanted=EventFilter(client_id="client-7")),
        Search(name="--client --since 7d", wanted=EventFilter(client_id="client-7", since=week)),
        Search(name="--client --refused", wanted=EventFilter(client_id="client-9", types=REFUSALS)),
        Search(
            name="--client --event client.changed",
            wanted=EventFilter(client_id="client-9", types=frozenset({EventType.CLIENT_CHANGED})),
        ),
        Search(name="--user", wanted=EventFilter(user_id="user_9")),
        Search(name="--grant", wanted=EventFilter(grant_id="grant-12")),
        Search(
            name="--event client.changed", wanted=EventFilter(types=frozenset({EventType.CLIENT_CHANGED}))
        ),
        Search(name="--event token.issued", wanted=EventFilter(types=frozenset({EventType.TOKEN_ISSUED}))),
        Search(
            name="--event client.changed --event user.changed",
            wanted=EventFilter(types=frozenset({EventType.CLIENT_CHANGED, EventType.USER_CHANGED})),
        ),
        Search(name="--refused", wanted=EventFilter(types=REFUSALS)),
        Search(name="--refused --reason", wanted=EventFilter(types=REFUSALS, reason="scope-not-registered")),
        Search(name="--reason", wanted=EventFilter(reason="scope-not-registered")),
        Search(name="--error-id", wanted=EventFilter(event_id="e777")),
        Search(name="--source --since 1d", wanted=EventFilter(source="10.7.7.7", since=day)),
        Search(name="--source --since 7d", wanted=EventFilter(source="10.7.7.7", since=week)),
        Search(name="--request-id --since 1d", wanted=EventFilter(request_id="r77", since=day)),
        Search(name="--actor --since 1d", wanted=EventFilter(actor="client:client-7", since=day)),
    ]


def measure_search(server: Server) -> bool:
    """Print what the first page and one in the middle take, with the indexes of their plan."""
    storage = server.application.storage
    slowest = 0.0
    with storage.begin() as stores:
        newest = next(stores.events.latest()).at
    for search in searches(newest):
        for place in ("first page", "second page"):
            times: list[float] = []
            for _ in range(7):
                with storage.begin() as stores, statements_of(storage.engine) as sent:
                    after = None
                    if place == "second page":
                        after = audit.search(stores.events, search.wanted, limit=audit.MAXIMUM_PAGE).next
                        if after is None:
                            break
                        sent.clear()
                    begun = time.perf_counter()
                    audit.search(stores.events, search.wanted, after=after, limit=audit.MAXIMUM_PAGE)
                    times.append((time.perf_counter() - begun) * 1000)
            if times:
                plan = plan_of(storage.engine, sent[-1])
                how = ", ".join([*sorted(plan.indexes), *plan.scans])
                shown = f"{search.name}, {place}"
                print(f"{shown:<60} {statistics.median(times):8.1f} {max(times):8.1f} ms  {how}")
                slowest = max(slowest, *times)
    print(f"the slowest: {slowest:.1f} ms (at most {PAGE:.0f})")
    return slowest <= PAGE


@dataclass(frozen=True, kw_only=True)
class Side:
    """A PostgreSQL of its own with a server of its own, as `make bench` starts them, and what they used."""

    url: str
    port: int
    server: int
    postgresql: int
    requests: list[int]

    def used(self) -> tuple[float, float]:
        """Seconds of CPU until now: of the server's processes, and of PostgreSQL's."""
        return run.cpu_seconds(self.server), run.cpu_seconds(self.postgresql)

    def drive(self, seconds: float) -> None:
        """W1 over sixteen connections."""
        figures = run.measure("W1", self.port, seconds, [[]] * CONNECTIONS, self.server, self.postgresql)
        assert not figures.wrong, figures.first_wrong
        self.requests.append(figures.requests)

    def is_read(self) -> bool:
        """Whether all events are counted and sealed."""
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            found = connection.execute(
                "SELECT coalesce(min(p.number), 0) >= (SELECT coalesce(max(number), 0) FROM events) FROM event_positions p"
            ).fetchone()
        return bool(found and found[0])


@contextmanager
def side(*, keeps_events: bool, waits: bool) -> Iterator[Side]:
    """Both servers of one side.

    Args:
        waits: whether PostgreSQL waits for the disk.
    """
    with tempfile.TemporaryDirectory() as folder, postgresql_server() as (url, postgresql):
        if not waits:
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
        paths = [str(run.HERE.parent)]
        if not keeps_events:
            # Python runs it before everything else, in each process of the server.
            (Path(folder) / "sitecustomize.py").write_text(NO_EVENTS)
            paths.insert(0, folder)
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PYTHONPATH": ":".join(paths),
            "CHALLENGE": run.CHALLENGE,
        }
        run.seed(environment, "setup")
        with run.measured_server(environment) as (port, server):
            yield Side(url=url, port=port, server=server, postgresql=postgresql, requests=[])


def measure_cost(*, rounds: int, seconds: float) -> bool:
    """Print the CPU of W1 of `make bench` with its event beside that without, as it is and where no disk is waited for.

    After each wait for the disk, all code of the server takes longer, whatever it does. The second comparison leaves that
    out: what remains is the work for the event.
    """
    share = compare_sides(rounds=rounds, seconds=seconds, waits=True)
    compare_sides(rounds=rounds, seconds=seconds, waits=False)
    return share <= SHARE


def compare_sides(*, rounds: int, seconds: float, waits: bool) -> float:
    """Print what both sides use, in turns. Returns by how many percent the server uses more with events.

    What sealing and counting the events takes in the background is in it: the figures go until the last event is read.
    """
    with (
        side(keeps_events=True, waits=waits) as on,
        side(keeps_events=False, waits=waits) as off,
    ):
        both = (on, off)
        for each in both:
            each.drive(seconds)
            each.requests.clear()
        before = [each.used() for each in both]
        for number in range(rounds):
            for each in both if number % 2 else reversed(both):
                each.drive(seconds)
        until = time.monotonic() + READ_WITHIN
        while not on.is_read():
            assert time.monotonic() < until, "the events are not all counted and sealed"
            time.sleep(1)
        used = [
            [
                (late - early) / sum(each.requests) * 1000
                for late, early in zip(each.used(), then, strict=True)
            ]
            for each, then in zip(both, before, strict=True)
        ]
    (server_on, postgresql_on), (server_off, postgresql_off) = used
    print("as it is shipped:" if waits else "where PostgreSQL does not wait for the disk (fsync = off):")
    for name, with_event, without in (
        ("server", server_on, server_off),
        ("PostgreSQL", postgresql_on, postgresql_off),
        ("together", server_on + postgresql_on, server_off + postgresql_off),
    ):
        print(
            f"W1, {name}: {with_event:.3f} s of CPU for 1,000 requests with their events, {without:.3f} without: "
            f"{(with_event / without - 1) * 100:+.1f} %"
        )
    share = (server_on / server_off - 1) * 100
    print(f"the server uses {share:+.1f} % (at most {SHARE:.0f} %)")
    return share


def measure_postgresql() -> bool:
    """Print where PostgreSQL's CPU time goes: to the disk, to the row with its indexes, and to those who read it."""
    count, decisions = 4000, tuple(json.loads(DECISIONS)) * 4
    numbers = itertools.count()
    with postgresql_server() as (url, process):
        migrate.upgrade(url)
        server = Server(url)
        server.deliver()
        at_once = sa.make_url(url).update_query_dict({"options": "-c synchronous_commit=off"})
        # Open until the end: what a process used that has ended is not counted any more.
        safe, quick = Database(url), Database(at_once.render_as_string(hide_password=False))

        def write(storage: Database, together: int) -> None:
            for _ in range(count // together):
                with storage.begin() as stores:
                    for _ in range(together):
                        stores.events.add(
                            an_event(
                                event_id=str(next(numbers)),
                                type=EventType.TOKEN_ISSUED,
                                at=datetime.now(UTC),
                                grant_id=None,
                                client_id="client-7",
                                decisions=decisions,
                                details=json.loads(JSON),
                            )
                        )

        def read(reading: Reading) -> None:
            while reading.work():
                pass

        parts: dict[str, Callable[[], None]] = {
            "written one by one": lambda: write(safe, 1),
            "written eight in a transaction": lambda: write(safe, 8),
            "written one by one, with synchronous_commit = off": lambda: write(quick, 1),
        }
        written = count * len(parts)
        for name, work in parts.items():
            before = run.cpu_seconds(process)
            work()
            used = (run.cpu_seconds(process) - before) / count * 1000
            print(f"PostgreSQL: {used:.3f} s of CPU for 1,000 events, {name}")
        for reading in server.application.readings:
            before = run.cpu_seconds(process)
            read(reading)
            used = (run.cpu_seconds(process) - before) / written * 1000
            print(f"PostgreSQL: {used:.3f} s of CPU for 1,000 events, read for {reading.reader.name}")
        for each in (safe, quick, server):
            each.close()
    return True


def token_request(server: Server) -> Callable[[], None]:
    """W1: a JWT by client_credentials."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    headers = {"Authorization": basic(client.client_id, secret or "")}

    def send() -> None:
        answer = server.http.post(
            "/oauth/token", "grant_type=client_credentials", headers=headers, content_type=FORM
        )
        assert answer.status_int == 200

    return send


def measure_seals(server: Server, *, limit: int) -> bool:
    """Print what sealing and verifying take, of so many events."""
    storage, ring = server.application.storage, server.application.parts.ring
    with storage.begin() as stores:
        first, _ = stores.events.following(0, limit=1)[0]
        stores.event_positions.move("seals", 0, first - 1)
        numbered = stores.events.following(0, limit=500)
    reading = Reading(storage, Sealer(ring, lambda: datetime.now(UTC)))
    cpu, begun, count = time.process_time(), time.perf_counter(), 0
    while count < limit and (taken := reading.work()):
        count += taken
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - begun
    print(
        f"sealing: {cpu / count * 1e6:.0f} ms of CPU for 1,000 events, {count / elapsed:,.0f} events a second"
    )
    cpu = time.process_time()
    for number, event in numbered:
        digest_of(number, event)
    print(f"  of that the digests: {(time.process_time() - cpu) / len(numbered) * 1e6:.0f} ms")
    cpu, begun = time.process_time(), time.perf_counter()
    proof = verify(storage, ring, now=datetime.now(UTC))
    elapsed = time.perf_counter() - begun
    print(f"verifying: {proof.events / elapsed:,.0f} events a second, in {proof.seals:,} seals")
    return proof.whole is True


def measure_purge(server: Server, *, count: int) -> bool:
    """Print how long the slowest of many token requests took while so many events are purged, and before."""
    storage, parts = server.application.storage, server.application.parts
    with storage.engine.connect() as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(events_table)).scalar_one()
        count = min(count, total // 2)
        ordered = sa.select(events_table.c.at).order_by(events_table.c.at).offset(count - 1).limit(1)
        connection.execute(sa.text("SET statement_timeout = 0"))
        before = connection.execute(ordered).scalar_one()
    send = token_request(server)
    ended = threading.Event()
    times: list[float] = []

    def ask() -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            send()
            times.append((time.perf_counter() - begun) * 1000)
            ended.wait(0.01)

    def while_asking(work: Callable[[], object]) -> tuple[float, list[float]]:
        ended.clear()
        times.clear()
        thread = threading.Thread(target=ask)
        thread.start()
        begun = time.perf_counter()
        work()
        took = time.perf_counter() - begun
        ended.set()
        thread.join()
        return took, sorted(times)

    _, idle = while_asking(lambda: time.sleep(10))
    removed = 0

    def purge() -> None:
        nonlocal removed
        for _, batch in upkeep.remove_all(storage, parts.ring, {Disposable.EVENTS: before}, time.sleep):
            removed += batch.removed

    took, busy = while_asking(purge)
    for name, found in (("before", idle), ("during", busy)):
        p95 = found[int(len(found) * 0.95)]
        print(
            f"requests {name} the purge: median {statistics.median(found):.1f}, p95 {p95:.1f}, slowest {found[-1]:.1f} ms"
        )
    print(f"purged {removed:,} events in {took:.0f} s")
    return removed >= count and busy[-1] <= DELAY


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="keep the filled PostgreSQL there; use it if it is there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3, help="of each round")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    good: dict[str, bool] = {}
    if "cost" in options.parts:
        good["cost"] = measure_cost(rounds=options.rounds, seconds=options.seconds)
    if "postgresql" in options.parts:
        good["postgresql"] = measure_postgresql()
    if not {"search", "seals", "purge"} & set(options.parts):
        return told(good)
    with postgresql_server(options.folder) as (url, _):
        migrate.upgrade(url)
        server = Server(url, {"authserver.event_lifetime": "0"})
        with server.application.storage.begin() as stores:
            is_filled = stores.events.find(f"e{options.events}") is not None
        begun = time.perf_counter()
        if not is_filled:
            fill(server, options.events)
        with server.application.storage.engine.connect() as connection:
            size = connection.execute(sa.text("SELECT pg_total_relation_size('events')")).scalar_one()
        how = "found" if is_filled else f"made in {time.perf_counter() - begun:.0f} s"
        print(f"{options.events:,} events: {size / 1e9:.1f} GB with indexes, {how}", flush=True)
        if "search" in options.parts:
            good["search"] = measure_search(server)
        if "seals" in options.parts:
            good["seals"] = measure_seals(server, limit=min(options.events, 100_000))
        if "purge" in options.parts:
            good["purge"] = measure_purge(server, count=PURGED)
        server.close()
    return told(good)


def told(good: Mapping[str, bool]) -> int:
    """Print which parts are not good enough; the exit status."""
    missed = [name for name, is_good in good.items() if not is_good]
    print(f"not good enough: {', '.join(missed)}" if missed else "good enough")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
