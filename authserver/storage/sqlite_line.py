"""Prepared statements on SQLite, on the driver's connection, which caches compiled statements.

SQLite has one writer at a time. A connection that finds another writer sleeps and tries again, longer each time, and
the one that comes just when the lock is free gets it: under load some wait for a second and others not at all.
Therefore the threads of a process queue up (`turns`), only the first of them tries, and processes take turns. Statements
that are not prepared wait in the same queue, because `work` sends their BEGIN here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.engine import Dialect

from authserver.storage.prepared import Answer, Prepared, Recalled, Remembered, Row, Step, Written
from authserver.storage.turns import Writers


class SqliteForm:
    """A statement with its parameters in order, and the functions that convert the driver's values (`prepared.Form`)."""

    __slots__ = ("_constants", "_parameters", "_readers", "text", "writes")

    def __init__(self, written: Written, dialect: Dialect) -> None:
        self.text = written.text
        self.writes = not written.text.startswith("SELECT")
        self._constants = written.constants
        self._parameters = [(name, written.binding(name, dialect)) for name in written.order]
        self._readers = [
            kind.dialect_impl(dialect).result_processor(dialect, None) for kind in written.columns
        ]

    def values(self, parameters: Row) -> tuple[Any, ...]:
        if self._constants:
            parameters = {**self._constants, **parameters}
        return tuple(
            [process(parameters[name]) if process else parameters[name] for name, process in self._parameters]
        )

    shown = values

    def read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """A row of the driver, each value converted to Python's type."""
        return tuple(
            [
                value if value is None or read is None else read(value)
                for value, read in zip(row, self._readers, strict=True)
            ]
        )


class SqliteLine:
    """One connection to SQLite (`prepared.Line`).

    Args:
        turns: the queue of the writers to this file.
        patience: seconds for which a thread waits for its turn.
    """

    __slots__ = ("_connection", "_dialect", "_has_turn", "_patience", "_turns")

    def __init__(
        self, connection: sqlite3.Connection, dialect: Dialect, turns: Writers, patience: float
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._turns = turns
        self._patience = patience
        self._has_turn = False

    def form(self, statement: Prepared, parameters: Row) -> SqliteForm:
        form: SqliteForm | None = statement.forms.get("sqlite")
        if form is None:
            written = statement.compiled(self._dialect, parameters)
            form = statement.forms["sqlite"] = SqliteForm(written, self._dialect)
        return form

    def run(self, steps: Sequence[Step], announce: Callable[[Step], None] | None) -> list[Answer]:
        answers = []
        for step in steps:
            if announce:
                announce(step)
            form: SqliteForm = step.form
            values = form.values(step.parameters)
            try:
                if form.writes and not self._connection.in_transaction:
                    self._take_turn()
                cursor = self._connection.execute(step.instead or form.text, values)
                rows = [form.read(row) for row in cursor]
            except sqlite3.Error:
                step.failed = True
                raise
            finally:
                if self._has_turn and not self._connection.in_transaction:
                    self.leave()
            answers.append(Answer(rows, cursor.rowcount))
        return answers

    def recall(self, statement: Remembered, parameters: Row) -> Recalled | None:
        # Nothing is remembered, because to read rows again is no round trip.
        return None

    def forget(self, statement: Remembered, parameters: Row) -> None:
        pass

    def reset(self) -> None:
        if self._connection.in_transaction:
            self._connection.rollback()

    def leave(self) -> None:
        """Let the next thread write: the transaction has ended, or the connection is given back."""
        if self._has_turn:
            self._has_turn = False
            self._turns.leave()

    def _take_turn(self) -> None:
        if self._has_turn:
            return
        if not self._turns.take(self._patience):
            # The same message as SQLite's own after its timeout.
            late = sqlite3.OperationalError("database is locked")
            late.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise late
        self._has_turn = True


def read_any_text(connection: sqlite3.Connection) -> None:
    """Read texts that are not UTF-8 with escapes. Somebody wrote them by hand, and they must not make reads fail."""
    connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
