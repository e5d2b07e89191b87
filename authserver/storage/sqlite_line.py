"""Prepared statements on SQLite: through the driver's connection, which keeps them compiled."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import Dialect

from authserver.storage.prepared import Answer, Prepared, Row, Step, Written


class SqliteForm:
    """A statement with its parameters in order, and what makes Python's values of the driver's."""

    __slots__ = ("_constants", "_parameters", "_readers", "text")

    def __init__(self, written: Written, dialect: Dialect) -> None:
        self.text = written.text
        self._constants = written.constants
        self._parameters = [
            (name, written.types[name].dialect_impl(dialect).bind_processor(dialect))
            for name in written.order
        ]
        self._readers = [
            kind.dialect_impl(dialect).result_processor(dialect, None) for kind in written.columns
        ]

    def values(self, parameters: Row) -> Sequence[Any]:
        if self._constants:
            parameters = {**self._constants, **parameters}
        return [
            process(parameters[name]) if process else parameters[name] for name, process in self._parameters
        ]

    shown = values

    def read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            [
                value if value is None or read is None else read(value)
                for value, read in zip(row, self._readers, strict=True)
            ]
        )


class SqliteLine:
    """One connection to SQLite (`prepared.Line`)."""

    __slots__ = ("_connection", "_dialect")

    def __init__(self, connection: sqlite3.Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

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
            try:
                cursor = self._connection.execute(step.instead or form.text, form.values(step.parameters))
                rows = [form.read(row) for row in cursor]
            except sqlite3.Error:
                step.failed = True
                raise
            answers.append(Answer(rows, cursor.rowcount))
        return answers
