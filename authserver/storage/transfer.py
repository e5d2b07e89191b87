"""Copies all rows from one database to another, of any kind, and proves that they are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from authserver.storage.database import Database
from authserver.storage.tables import Base, events, migrations

BATCH = 1000
# How a whole database is read as one snapshot, and how a copy is written in one transaction.
_READ = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"}
_WRITE = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
# Sets the number of the last event, even if that was deleted.
_LAST_NUMBER = {
    "sqlite": "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'",
    "postgresql": "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM events_number_seq",
}
_GO_ON_AFTER = {
    "sqlite": "UPDATE sqlite_sequence SET seq = :number WHERE name = 'events'",
    "postgresql": "SELECT setval('events_number_seq', :number)",
}

Told = Callable[[str, int], None]


class NotCopied(Exception):
    """Nothing was copied; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Sum:
    """The content of a table, independent of its order: the number of rows, and the sum of their digests."""

    rows: int = 0
    digest: int = 0

    def with_row(self, values: tuple[Any, ...]) -> Sum:
        """The sum with one more row."""
        text = json.dumps([_plain(value) for value in values], sort_keys=True, ensure_ascii=True)
        added = int.from_bytes(hashlib.sha256(text.encode()).digest())
        return Sum(self.rows + 1, (self.digest + added) % 2**256)


def tables() -> list[Table]:
    """The tables that are copied, each after those that it refers to; rows that the target's own migrations wrote stay."""
    return [table for table in Base.metadata.sorted_tables if table is not migrations]


def count(database: Database) -> int:
    """How many rows there are to copy. Raises StorageUnavailable."""
    with database.engine.connect() as connection:
        return sum(_count(connection, table) for table in tables())


def copy(source: Database, target: Database, told: Told = lambda table, rows: None) -> Mapping[str, int]:
    """Copy all rows into a migrated, empty database, read them again, and commit if they are the same.

    Args:
        told: called with the table and the number of rows, for each batch that was copied.

    Returns:
        How many rows each table has.

    Raises:
        NotCopied: the target is not empty, refuses a row, or returns another value; or somebody wrote to the source
            meanwhile. The target did not change.
        StorageUnavailable: one of them does not answer. The target did not change.
    """
    with _transaction(source, _READ) as reading, _transaction(target, _WRITE) as writing:
        for table in tables():
            if found := _count(writing, table):
                raise NotCopied(
                    f"the target is not empty: {table.name} has {found} rows; name an empty database"
                )
        last = _last_number(reading)
        sums = {}
        for table in tables():
            sums[table.name] = _copy_table(reading, writing, table, told)
            if _sum(writing, table) != sums[table.name]:
                raise NotCopied(f"{table.name} has other content in the target than in the source")
        if last:
            writing.execute(sa.text(_GO_ON_AFTER[target.kind]), {"number": last})
        with source.engine.connect() as now:
            if _last_number(now) != last:
                raise NotCopied(
                    "somebody wrote to the source meanwhile, and this would be missing in the target: stop all servers first"
                )
        writing.exec_driver_sql("COMMIT")
    return {name: sum_.rows for name, sum_ in sums.items()}


@contextmanager
def _transaction(database: Database, begin: Mapping[str, str]) -> Iterator[Connection]:
    with database.engine.connect() as connection:
        connection.exec_driver_sql(begin[database.kind])
        # It may take longer than a request.
        if database.kind == "postgresql":
            for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
        try:
            yield connection
        finally:
            # After a commit this does nothing, and the driver does not complain.
            if database.kind == "postgresql" or _is_in_transaction(connection):
                connection.exec_driver_sql("ROLLBACK")


def _is_in_transaction(connection: Connection) -> bool:
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))


def _copy_table(reading: Connection, writing: Connection, table: Table, told: Told) -> Sum:
    total, names = Sum(), [column.name for column in table.columns]
    result = reading.execute(sa.select(table).execution_options(yield_per=BATCH))
    for rows in result.partitions():
        for row in rows:
            total = total.with_row(tuple(row))
        batch = [dict(zip(names, row, strict=True)) for row in rows]
        try:
            writing.execute(table.insert(), batch)
        except sa.exc.DBAPIError as error:
            raise NotCopied(
                f"{table.name}: the target refuses one of {len(batch)} rows: {error.orig}"
            ) from error
        told(table.name, len(batch))
    return total


def _sum(connection: Connection, table: Table) -> Sum:
    total = Sum()
    for row in connection.execute(sa.select(table).execution_options(yield_per=BATCH)):
        total = total.with_row(tuple(row))
    return total


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def _last_number(connection: Connection) -> int:
    given = connection.exec_driver_sql(_LAST_NUMBER[connection.dialect.name]).scalar_one()
    stored = connection.execute(sa.select(sa.func.max(events.c.number))).scalar_one()
    return max(int(given), int(stored or 0))


def _plain(value: Any) -> Any:
    """The value in one form for each kind of database."""
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case bytes() | memoryview():
            return bytes(value).hex()
        case float() if value == int(value):
            # PostgreSQL gives back 1e3 as 1000.
            return int(value)
        case Mapping():
            return {str(name): _plain(member) for name, member in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
