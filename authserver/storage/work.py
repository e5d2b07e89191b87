"""Runs the statements of one transaction: reads without a transaction, and begins one at the first write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, overload

import sqlalchemy as sa
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Executable,
    Table,
    TextClause,
    bindparam,
    literal_column,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from authserver.engine.ports import AlreadyExists
from authserver.engine.records import NOTHING
from authserver.engine.timeline import SpanKind, note, wants_spans
from authserver.storage.failures import StorageChanged, StorageSlow, failure_of
from authserver.storage.prepared import (
    LINE,
    NO_ANSWER,
    Answer,
    Line,
    PerDialect,
    Prepared,
    Recalled,
    Remembered,
    Row,
    Step,
    unless_none,
)

# In SQLite a transaction that has read can begin to write only if nobody wrote meanwhile; otherwise it fails at once,
# with or without a busy timeout (T110). A transaction that takes the write lock first waits for it.
_BEGIN = Prepared({"sqlite": text("BEGIN IMMEDIATE"), "postgresql": text("BEGIN")})
_COMMIT = Prepared(text("COMMIT"))
_ROLLBACK = Prepared(text("ROLLBACK"))
# Where SQLAlchemy logs its own statements.
_log = logging.getLogger("sqlalchemy.engine.Engine")


class Around(Protocol):
    """A transaction in which others take part, too; this work does not commit it."""

    def join(self) -> None:
        """Take part in it, before the first write; may be called twice."""

    def before_commit(self, flush: Callable[[], None]) -> None:
        """Call this function just before it commits."""

    def abandon(self) -> None:
        """Make it fail at its end, so that nothing is stored."""

    def release(self) -> None:
        """Give the connection back: before the first write, or at the end."""


class Work:
    """The work of one transaction. It connects at the first statement, and begins at the first write.

    The connection is in the driver's autocommit mode, so reads open no transaction and hold no lock. `BEGIN` is sent
    with the first write and, if no other transaction is around it, `COMMIT` with the last one, each in the same round
    trip if the statements are `Prepared`. On PostgreSQL one round trip is a transaction without them.

    Args:
        connect: opens a connection; called at the first statement, and at the first one after a `rest`.
        around: the transaction around this one, if there is one.
        optimistic: whether to assume until the end that no other transaction interferes: see `is_optimistic`.
    """

    __slots__ = (
        "_around",
        "_changed",
        "_connect",
        "_connection",
        "_deferred",
        "_expected",
        "_foreseen",
        "_is_optimistic",
        "_is_over",
        "_pending",
        "_recalled",
        "_writes",
    )

    def __init__(
        self, connect: Callable[[], Connection], around: Around | None = None, *, optimistic: bool = False
    ) -> None:
        self._connect = connect
        # Of one that may be, it is found out with its connection.
        self._is_optimistic = None if optimistic else False
        self._around = around
        self._connection: Connection | None = None
        self._writes = False
        self._is_over = False
        # The error that has ended it, if an assumption was wrong.
        self._changed: StorageChanged | None = None
        # Statements to send with the next one, and statements to run at the end.
        self._pending: list[tuple[Prepared, Row]] = []
        self._deferred: list[tuple[Prepared, Row]] = []
        # Announced reads, and rows that were read ahead.
        self._foreseen: list[tuple[Prepared, Row]] = []
        self._expected: list[tuple[Prepared, Row, Answer]] = []
        # Remembered rows that this transaction has read.
        self._recalled: dict[tuple[Any, ...], Recalled] = {}

    @property
    def is_optimistic(self) -> bool:
        """Whether to use statements that fail instead of changing no row, and to send them `along`, without an answer.

        If one fails, StorageChanged is raised later and the transaction is rolled back. The request is then repeated in
        transactions that are not optimistic, and that therefore see the cause. On SQLite a statement is no round trip,
        so no work is optimistic there.
        """
        if self._is_optimistic is None:
            self._is_optimistic = self.dialect == "postgresql"
        return self._is_optimistic

    @property
    def dialect(self) -> str:
        """The kind of database, by SQLAlchemy's name."""
        return self._connected().dialect.name

    @overload
    def read(self, statement: Prepared, parameters: Row) -> Answer: ...
    @overload
    def read(self, statement: Executable, parameters: Row) -> CursorResult[Any]: ...
    def read(self, statement: Executable | Prepared, parameters: Row) -> CursorResult[Any] | Answer:
        """Run a statement that changes nothing. Fetch everything at once."""
        return self._run(statement, parameters)

    def recall(self, statement: Remembered, parameters: Row) -> Answer:
        """As `read`; an optimistic transaction uses rows that its connection remembers.

        That they have not changed is checked together with the next statement, or at the end.
        """
        if self._writes or not self.is_optimistic:
            return self.read(statement, parameters)
        key = statement.key_of(parameters)
        if (recalled := self._recalled.get(key)) is None:
            line: Line = self._connected().info[LINE]
            if recalled := line.recall(statement, parameters):
                self._pending.append((statement.check, recalled.seen))
            else:
                answer = self.read(statement, parameters)
                recalled = Recalled(answer, {**parameters, "seen": statement.versions_of(answer)})
            # A missing row is looked up again, because nothing would notice that somebody else has added it.
            if recalled.answer.all():
                self._recalled[key] = recalled
        return recalled.answer

    def lock(self, statement: Remembered, key: Row) -> Sequence[Any] | None:
        """Lock the row that `recall` gave in this optimistic transaction, if it is still the same; it fails otherwise.

        Returns:
            The row; None, and nothing is locked, if there was none.
        """
        recalled = self._recalled.get(statement.key_of(key))
        if recalled is None or (row := recalled.answer.first()) is None:
            return None
        if (check := (statement.check, recalled.seen)) in self._pending:
            self._pending.remove(check)
        self.along(statement.lock, recalled.seen)
        return row

    def outdate(self, statement: Remembered, parameters: Row) -> None:
        """Make the connection forget these rows, because this transaction changes them."""
        line: Line = self._connected().info[LINE]
        line.forget(statement, parameters)

    def confirm(self) -> None:
        """Check the assumptions now, because a result that follows from them is about to leave the server.

        Raises StorageChanged, even if that was raised and caught before.
        """
        if self._changed is not None:
            raise self._changed
        if self._pending and not self._is_over and self.is_optimistic:
            self._send()

    def foresee(self, statement: Prepared, parameters: Row) -> None:
        """Send this read with the next statement, because a later caller needs it; a write in between cancels it."""
        self._foreseen.append((statement, parameters))

    def hold(self, statement: Executable | Prepared, parameters: Row) -> bool:
        """Run a SELECT … FOR SHARE within the transaction. Returns whether there is such a row.

        SQLite has no row locks; there a transaction that writes waits for all others anyway.
        """
        return self._write(statement, parameters).first() is not None

    def held(self, statement: Executable | Prepared, parameters: Row) -> Sequence[Any] | None:
        """As `hold`. Returns the row as it was when the lock was given; None if there is none."""
        return self._write(statement, parameters).first()

    def count_held(self, statement: Executable | Prepared, parameters: Row) -> int:
        """As `hold`. Returns the number of rows."""
        return len(self._write(statement, parameters).all())

    def write(self, statement: Executable | Prepared, parameters: Row | Sequence[Row]) -> int:
        """Run a statement that changes rows. Returns how many it changed."""
        return self._write(statement, parameters).rowcount

    def take(self, statements: PerDialect, parameters: Row) -> Sequence[Sequence[Any]]:
        """Run a DELETE. Returns the columns that it returns of each deleted row."""
        return self._write(statements[self.dialect], parameters).all()

    def insert(self, statements: PerDialect | Prepared, row: Row) -> bool:
        """Run a statement of `insert_new` or `insert_or_replace`. Returns whether it inserted or replaced."""
        statement = statements if isinstance(statements, Prepared) else statements[self.dialect]
        return self._write(statement, row).rowcount == 1

    def add(self, statements: PerDialect | Prepared, row: Row) -> None:
        """Insert a new row. Raises AlreadyExists; the transaction can still be used after that."""
        if not self.insert(statements, row):
            raise AlreadyExists

    def along(self, statement: Prepared, row: Row) -> None:
        """Send a statement, whose answer is not needed, with the next one or with COMMIT: it costs no round trip.

        If it fails, the later call raises and the transaction is rolled back: AlreadyExists for a row that exists.
        """
        self._ask_for_end()
        self._begin()
        self._pending.append((statement, row))

    def defer(self, statement: Prepared, row: Row) -> None:
        """Run a statement that changes rows at the very end, in the same transaction.

        If it is the only write, it is a transaction by itself, in autocommit, without BEGIN and COMMIT.
        """
        self._ask_for_end()
        self._deferred.append((statement, row))

    def flush(self) -> None:
        """Run the deferred statements."""
        self._end_deferring()
        # Without BEGIN a single statement is a transaction by itself.
        self._send(commits=not self._writes)

    def commit(self) -> None:
        """Run the deferred statements, and commit; only if no other transaction is around it."""
        if self._is_over:
            raise self._changed or _ended()
        # Beside checks.
        stores = self._writes or bool(self._deferred)
        self._end_deferring()
        if self._writes and not self._is_one_trip():
            self._pending.append((_COMMIT, NOTHING))
        self._send(commits=stores)
        self._writes = False

    def _is_one_trip(self) -> bool:
        """Whether everything fits into one round trip, which is a transaction on PostgreSQL; then BEGIN is left out."""
        if self._pending and (_BEGIN, NOTHING) in self._pending and self.dialect == "postgresql":
            self._pending.remove((_BEGIN, NOTHING))
            return True
        return False

    def undo(self) -> None:
        """Roll the transaction back. Deferred statements remain, and the next write begins another transaction."""
        self._forget()
        self._recalled.clear()
        if self._writes:
            self._send(_ROLLBACK, NOTHING)
            self._writes = False

    def rest(self) -> None:
        """Give the connection back until the next statement. Does nothing after the first write, because of its locks."""
        if self._connection is None or self._writes or self._is_over:
            return
        self._forget()
        self._recalled.clear()
        self._release()

    def close(self) -> None:
        """Give the connection back at the end; uncommitted changes are rolled back."""
        self._is_over = True
        self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            (self._around.release if self._around else connection.close)()

    def _forget(self) -> None:
        """Drop the rows that were read ahead, because they may have changed."""
        self._foreseen.clear()
        self._expected.clear()

    def _ask_for_end(self) -> None:
        """Join the transaction around this one, to be called at its end, unless that was done before."""
        if self._around is not None and not (self._pending or self._deferred):
            self._around.before_commit(self.flush)

    def _end_deferring(self) -> None:
        deferred, self._deferred = self._deferred, []
        if self._writes or len(deferred) > 1:
            self._begin()
        self._pending += deferred

    def _begin(self) -> None:
        if self._foreseen or self._expected:
            self._forget()
        if self._is_over:
            raise _ended()
        if not self._writes:
            if self._around is not None:
                self._around.join()
            self._pending.append((_BEGIN, NOTHING))
            self._writes = True

    def _write(
        self, statement: Executable | Prepared, parameters: Row | Sequence[Row]
    ) -> CursorResult[Any] | Answer:
        self._begin()
        return self._run(statement, parameters)

    def _run(
        self, statement: Executable | Prepared, parameters: Row | Sequence[Row]
    ) -> CursorResult[Any] | Answer:
        if isinstance(statement, Prepared):
            assert not isinstance(parameters, Sequence)
            for place, (foreseen, with_these, answer) in enumerate(self._expected):
                if foreseen is statement and with_these == parameters:
                    del self._expected[place]
                    return answer
            if (statement, parameters) in self._foreseen:
                self._foreseen.remove((statement, parameters))
            return self._send(statement, parameters)
        self._send()
        try:
            return self._connected().execute(statement, parameters)
        except BaseException:
            self._give_up()
            raise

    def _send(
        self, statement: Prepared | None = None, parameters: Row = NOTHING, *, commits: bool = False
    ) -> Answer:
        """Run pending statements, this one, and reads that were announced. Returns the answer to this one.

        Args:
            commits: whether the last of them commits.
        """
        pending, self._pending = self._pending, []
        foreseen: list[tuple[Prepared, Row]] = []
        if statement is not None:
            pending.append((statement, parameters))
            foreseen, self._foreseen = self._foreseen, []
        if not pending:
            return NO_ANSWER
        connection = self._connected()
        began = time.perf_counter_ns()
        steps: list[Step] = []
        try:
            line: Line = connection.info[LINE]
            # Rows that a transaction has written itself are not certain before it has committed.
            remembers = self._around is None and not self._writes
            first_read = len(pending) - (statement is not None)
            steps += [
                Step(
                    each,
                    line.form(each, row),
                    row,
                    is_read=place >= first_read,
                    remembers=remembers and isinstance(each, Remembered),
                )
                for place, (each, row) in enumerate((*pending, *foreseen))
            ]
            answers = line.run(steps, _announcing(connection))
        except BaseException as error:
            failed = next((step for step in steps if step.failed), None)
            # If it is not known at which statement the connection was lost, it may have been the last one.
            is_commit = commits and (failed is None or failed is steps[-1])
            raised = failure_of(error, connection, failed, is_commit=is_commit)
            self._give_up()
            if isinstance(raised, StorageChanged):
                self._changed = raised
            if raised is error:
                raise
            raise raised from error
        finally:
            for step in steps if wants_spans() else ():
                text = step.form.text
                note(SpanKind.STATEMENT, text[:6].rstrip().upper(), began, {"text": text})
        for (each, row), answer in zip(foreseen, answers[len(pending) :], strict=True):
            self._expected.append((each, row, answer))
        return answers[len(pending) - 1]

    def _give_up(self) -> None:
        """End the transaction, so that no later commit looks like success.

        PostgreSQL answers the COMMIT of a failed transaction with a silent rollback, and SQLite would store half of it.
        """
        self._is_over = True
        (self._around.abandon if self._around else self.close)()

    def _connected(self) -> Connection:
        if self._is_over:
            raise _ended()
        if self._connection is None:
            began = time.perf_counter_ns()
            try:
                self._connection = self._connect()
            except sa.exc.TimeoutError as error:
                raise StorageSlow("no database connection became free in time") from error
            finally:
                note(SpanKind.CONNECTION, "connection", began, NOTHING)
        return self._connection


def _ended() -> sa.exc.InvalidRequestError:
    return sa.exc.InvalidRequestError("this transaction has ended, or one of its statements failed")


def _announcing(connection: Connection) -> Callable[[Step], None] | None:
    """Announces statements and commits to the log of SQLAlchemy's engine, and to its listeners.

    The log never gets parameters, as with `hide_parameters`. Listeners may replace the text of a statement.
    """
    dispatch = connection.engine.dispatch
    is_logged = _log.isEnabledFor(logging.INFO)
    if not (is_logged or dispatch.before_cursor_execute or dispatch.commit):
        return None

    def announce(step: Step) -> None:
        if step.statement is _COMMIT:
            for listener in dispatch.commit:
                listener(connection)
        elif dispatch.before_cursor_execute:
            text, values = step.form.text, step.form.shown(step.parameters)
            for listener in dispatch.before_cursor_execute:
                text, values = listener(connection, None, text, values, None, False)
            if text != step.form.text:
                step.instead = text
        if is_logged:
            _log.info("%s", step.instead or step.form.text)

    return announce


def insert_new(table: Table) -> PerDialect:
    """An INSERT, per dialect, that changes nothing when a unique constraint is violated."""
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True),
        "postgresql": postgresql.insert(table)
        .on_conflict_do_nothing()
        .execution_options(preserve_rowcount=True),
    }


def insert_or_fail(table: Table) -> Executable:
    """An INSERT for PostgreSQL that fails when a unique constraint is violated, as `unless_none` does."""
    row = {column.name: bindparam(column.name, type_=column.type) for column in table.columns}
    inserted: Any = (
        postgresql.insert(table).values(row).on_conflict_do_nothing().returning(literal_column("1"))
    )
    return unless_none(inserted.cte("inserted"))


def change(table: Table, *names: str) -> Executable:
    """An UPDATE of these columns of one row, unless one of them is no longer what it was; its row is `changed(…)`."""
    keys = [column.name for column in table.primary_key]
    # With `=`, which can use an index; it never matches NULL.
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
    """The condition of a partial index without parameters; only in this form a planner can use the index."""
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
