#!/usr/bin/env python3
"""Measure what statistics of a year cost: 200 clients that did something in each hour of it.

    benchmarks/year.py                  some minutes
    benchmarks/year.py --clients 20     a quick look

On a SQLite file and on a PostgreSQL of its own. Prints how many rows there are, and how long each question takes: the
median, the fastest and the slowest of 20 times, and by which index. Exit status 1 when a median is 50 ms or more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import run
import sqlalchemy as sa

from authserver.engine import statistics as figures
from authserver.engine.context import Engine
from authserver.engine.count_records import Step
from authserver.engine.statistics import By, Measure
from authserver.storage import migrate
from authserver.storage.tables import event_counts
from authserver.testing.plans import plan_of, statements_of
from authserver.testing.server import Server

# Milliseconds.
LIMIT = 50
TIMES = 20
NOW = datetime.now(UTC)
YEAR, DAY = timedelta(days=365), timedelta(days=1)
# What each client does in each hour: type, grant type, reason.
KINDS = (
    ("code.issued", "", ""),
    ("token.issued", "authorization_code", ""),
    ("token.issued", "refresh_token", ""),
    ("token.refused", "refresh_token", "refresh-token-expired"),
)
# How many reasons more there are for all clients together: of strangers.
REASONS = 20
SETTINGS = {"authserver.hourly_statistics_lifetime": str(400 * 86400)}

QUESTIONS: dict[str, Callable[[Engine], object]] = {
    "a year together": lambda engine: figures.totals(engine, NOW - YEAR, NOW),
    "a year by day": lambda engine: figures.totals(engine, NOW - YEAR, NOW, by=By.DAY),
    "a year by month": lambda engine: figures.totals(engine, NOW - YEAR, NOW, by=By.MONTH),
    "a year by client": lambda engine: figures.totals(engine, NOW - YEAR, NOW, by=By.CLIENT),
    "a year by reason": lambda engine: figures.totals(engine, NOW - YEAR, NOW, by=By.REASON),
    "a year by grant type": lambda engine: figures.totals(engine, NOW - YEAR, NOW, by=By.GRANT_TYPE),
    "a year of one client by day": lambda engine: figures.totals(
        engine, NOW - YEAR, NOW, by=By.DAY, client_id="client-7"
    ),
    "a chart of a year": lambda engine: figures.series(
        engine, Measure.REFUSED, NOW - YEAR, NOW, step=Step.DAY
    ),
    "30 days by client": lambda engine: figures.totals(engine, NOW - 30 * DAY, NOW, by=By.CLIENT),
    "30 days by hour": lambda engine: figures.totals(engine, NOW - 30 * DAY, NOW, by=By.HOUR),
    "a day by client": lambda engine: figures.totals(engine, NOW - DAY, NOW, by=By.CLIENT),
}


def fill(url: str, clients: int) -> int:
    """Counts of a year; how many rows they are."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        sqlite = engine.dialect.name == "sqlite"
        if sqlite:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
        connection.exec_driver_sql("BEGIN")
        for index in event_counts.indexes:
            index.drop(connection)
        for step, count in ((Step.HOUR, 365 * 24), (Step.DAY, 366), (Step.MONTH, 13)):
            unit = f"{step.value}s"
            begin = {
                Step.HOUR: f"{NOW:%Y-%m-%d %H}:00:00",
                Step.DAY: f"{NOW:%Y-%m-%d} 00:00:00",
                Step.MONTH: f"{NOW:%Y-%m}-01 00:00:00",
            }[step]
            at = (
                f"strftime('%Y-%m-%d %H:%M:%S', '{begin}', '-' || t.i || ' {unit}') || '.000000'"
                if sqlite
                else f"timestamptz '{begin}Z' - t.i * interval '1 {step.value}'"
            )
            for type, grant_type, reason in KINDS:
                for client, number in (("'client-' || c.i", clients), ("''", 1)):
                    connection.exec_driver_sql(
                        _insert(step, client, at, type, grant_type, f"'{reason}'", count, number)
                    )
            connection.exec_driver_sql(
                _insert(step, "''", at, "token.refused", "", "'reason-' || c.i", count, REASONS)
            )
        for index in event_counts.indexes:
            index.create(connection)
        rows = connection.exec_driver_sql("SELECT count(*) FROM event_counts").scalar_one()
        connection.exec_driver_sql("COMMIT")
        if not sqlite:
            connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return int(rows)


def _insert(
    step: Step, client: str, at: str, type: str, grant_type: str, reason: str, count: int, number: int
) -> str:
    return f"""
        WITH RECURSIVE t(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM t WHERE i + 1 < {count}),
            c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {number})
        INSERT INTO event_counts (step, client_id, at, type, grant_type, reason, count)
        SELECT '{step}', {client}, {at}, '{type}', '{grant_type}', {reason}, 1 + (c.i & 7) FROM c CROSS JOIN t
    """


def how(server: Server, question: Callable[[Engine], object]) -> str:
    """By which indexes the database finds the rows, and which tables it reads as a whole."""
    found: set[str] = set()
    with server.application.begin() as engine, statements_of(server.application.storage.engine) as sent:
        question(engine)
    for statement in sent:
        plan = plan_of(server.application.storage.engine, statement)
        found |= {*plan.indexes, *plan.scans}
    return ", ".join(sorted(found))


def measured(server: Server, question: Callable[[Engine], object]) -> tuple[float, float, float]:
    """Milliseconds: the least, the median and the most."""
    times = []
    for _ in range(TIMES):
        with server.application.begin() as engine:
            begun = time.perf_counter()
            question(engine)
            times.append((time.perf_counter() - begun) * 1000)
    return min(times), statistics.median(times), max(times)


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder, run.postgresql_server() as (url, _):
        urls = {"SQLite": f"sqlite:///{Path(folder)}/year.db", "PostgreSQL": url}
        for each in urls.values():
            migrate.upgrade(each)
        yield urls


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--clients", type=int, default=200)
    reader.add_argument("--only", choices=("SQLite", "PostgreSQL"))
    given = reader.parse_args()
    is_slow = False
    with databases() as urls:
        for database, url in urls.items():
            if given.only not in (None, database):
                continue
            print(f"{database}: {fill(url, given.clients):,} rows", flush=True)
            server = Server(url, SETTINGS)
            for name, question in QUESTIONS.items():
                least, median, most = measured(server, question)
                is_slow = is_slow or median >= LIMIT
                print(
                    f"  {name:30} {median:6.1f} ms ({least:.1f} to {most:.1f})  {how(server, question)}",
                    flush=True,
                )
            server.close()
    sys.exit(is_slow)


if __name__ == "__main__":
    main()
