"""One transaction's way to the database: read without a transaction, begin one at the first write."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy.exc
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Executable,
    Table,
    TextClause,
    bindparam,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from transaction.interfaces import TransientError

from authserver.engine.ports import AlreadyExists, StorageUnavailable
from authserver.engine.records import NOTHING
from authserver.engine.timeline import SpanKind, note

Row = Mapping[str, Any]
PerDialect = Mapping[str, Executable]

# SQLite lets a transaction that has read become a writer only if nobody wrote meanwhile, and refuses at
# once otherwise, busy timeout or not (T110). One that takes the write lock first waits for its turn.
_BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}


class StorageBusy(StorageUnavailable, TransientError):  # type: ignore[misc]  # transaction has no types
    """The connection was lost, or the database ended this transaction (deadlock); a retry at once may succeed."""


class StorageSlow(StorageUnavailable):
    """A request waited for the database, or for a lock in it, as long as it may; a retry would wait again (T114)."""


class StorageUncertain(StorageUnavailable):
    """The connection was lost at COMMIT, so all may have happened or nothing; a retry might look like a replay."""


class Work:
    """What one transaction does. Connects at the first statement, begins at the first write.

    The connection is in the driver's autocommit mode, so reads open no transaction and hold no lock.
    `BEGIN` is sent before the first write; the session's commit or rollback then ends that transaction.

    Args:
        session: not yet used; the caller ends it.
        join: called once, before the session connects.
        before_commit: called once, with what must run just before the transaction commits.
    """

    __slots__ = ("_before_commit", "_connection", "_deferred", "_join", "_session", "_writes")

    def __init__(
        self,
        session: Session,
        join: Callable[[Session], None] | None = None,
        before_commit: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._session = session
        self._join = join
        self._before_commit = before_commit
        self._connection: Connection | None = None
        self._writes = False
        self._deferred: list[tuple[Executable, Row]] = []

    @property
    def dialect(self) -> str:
        """The kind of database, as SQLAlchemy calls it."""
        return self._connected().dialect.name

    def read(self, statement: Executable, parameters: Row) -> CursorResult[Any]:
        """Run a statement that changes nothing. Fetch everything at once."""
        return self._run(statement, parameters)

    def hold(self, statement: Executable, parameters: Row) -> bool:
        """Run a SELECT … FOR SHARE within the transaction; whether there is such a row.

        SQLite has no locks of rows: there a transaction that writes waits for all others anyway.
        """
        return self._write(statement, parameters).first() is not None

    def held(self, statement: Executable, parameters: Row) -> Sequence[Any] | None:
        """As `hold`: the row, as it is when the lock was given; None if there is none."""
        return self._write(statement, parameters).first()

    def count_held(self, statement: Executable, parameters: Row) -> int:
        """As `hold`: how many rows there are."""
        return len(self._write(statement, parameters).all())

    def write(self, statement: Executable, parameters: Row | Sequence[Row]) -> int:
        """Run a statement that changes rows; how many it changed."""
        return self._write(statement, parameters).rowcount

    def take(self, statements: PerDialect, parameters: Row) -> Sequence[Sequence[Any]]:
        """Run a DELETE; what it returns of each row that it took."""
        return self._write(statements[self.dialect], parameters).all()

    def insert(self, statements: PerDialect, row: Row) -> bool:
        """Run a statement of `insert_new` or `insert_or_replace`; whether it inserted or replaced."""
        return self._write(statements[self.dialect], row).rowcount == 1

    def add(self, statements: PerDialect, row: Row) -> None:
        """Insert a new row. Raises AlreadyExists, after which the transaction can still be used."""
        if not self.insert(statements, row):
            raise AlreadyExists

    def defer(self, statement: Executable, row: Row) -> None:
        """Run a statement that changes rows at the very end, in the same transaction.

        Where it is the only write, it is one statement in autocommit, a transaction by itself: two round
        trips less than BEGIN and COMMIT around it.
        """
        if not self._deferred and self._before_commit is not None:
            self._before_commit(self.flush)
        self._deferred.append((statement, row))

    def flush(self) -> None:
        """Run what was deferred."""
        deferred, self._deferred = self._deferred, []
        alone = len(deferred) == 1 and not self._writes
        run = self._run if alone else self._write
        for statement, row in deferred:
            run(statement, row)

    def undo(self) -> None:
        """End the transaction and keep nothing written; what was deferred stays, and the next write begins another."""
        if self._writes:
            self._end_on_error(self._connected().exec_driver_sql, "ROLLBACK")
            self._writes = False

    def _write(self, statement: Executable, parameters: Row | Sequence[Row]) -> CursorResult[Any]:
        if not self._writes:
            connection = self._connected()
            self._end_on_error(connection.exec_driver_sql, _BEGIN[connection.dialect.name])
            self._writes = True
        return self._run(statement, parameters)

    def _run(self, statement: Executable, parameters: Row | Sequence[Row]) -> CursorResult[Any]:
        return self._end_on_error(self._connected().execute, statement, parameters)

    def _end_on_error(self, function: Callable[..., CursorResult[Any]], *arguments: Any) -> CursorResult[Any]:
        try:
            return function(*arguments)
        except BaseException:
            # PostgreSQL answers the COMMIT of a failed transaction with a silent rollback. Once rolled
            # back here, a later commit of this session raises instead of looking like success.
            self._session.rollback()
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            if self._join is not None:
                self._join(self._session)
            began = time.perf_counter_ns()
            try:
                self._connection = self._session.connection()
            except sqlalchemy.exc.TimeoutError as error:
                raise StorageSlow("no database connection became free in time") from error
            finally:
                note(SpanKind.CONNECTION, "connection", began, NOTHING)
        return self._connection


def insert_new(table: Table) -> PerDialect:
    """An INSERT, per dialect, that changes nothing when a unique constraint is violated."""
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True),
        "postgresql": postgresql.insert(table)
        .on_conflict_do_nothing()
        .execution_options(preserve_rowcount=True),
    }


def change(table: Table, *names: str) -> Executable:
    """An UPDATE of these columns of one row, unless one of them is no longer what it was; its row is `changed(…)`."""
    keys = [column.name for column in table.primary_key]
    # By `=`, which never finds a NULL but finds by an index.
    this = [table.columns[name] == bindparam(f"old_{name}") for name in keys]
    unchanged = [
        table.columns[name].is_not_distinct_from(bindparam(f"old_{name}", type_=table.columns[name].type))
        for name in names
        if name not in keys
    ]
    return update(table).where(*this, *unchanged).values({name: bindparam(f"new_{name}") for name in names})


def changed(before: Row, after: Row) -> Row:
    """The parameters of a `change`, from the row before and after it."""
    return {f"old_{name}": value for name, value in before.items()} | {
        f"new_{name}": value for name, value in after.items()
    }


def spelt_out(condition: ColumnElement[bool]) -> TextClause:
    """The condition of a partial index without parameters: only then can a planner use the index."""
    return text(str(condition.compile(compile_kwargs={"literal_binds": True})))


def insert_or_replace(table: Table) -> PerDialect:
    """An INSERT, per dialect, that replaces the row with the same primary key."""
    keys = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in keys]
    statements: dict[str, Executable] = {}
    for dialect, module in (("sqlite", sqlite), ("postgresql", postgresql)):
        insert = module.insert(table)
        statements[dialect] = insert.on_conflict_do_update(
            index_elements=keys, set_={name: insert.excluded[name] for name in others}
        ).execution_options(preserve_rowcount=True)
    return statements
