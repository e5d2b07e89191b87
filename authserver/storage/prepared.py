"""Statements that nearly every request runs: compiled once, and sent to the driver directly.

SQLAlchemy writes the statement and knows its types. What it does for each run of any statement (its cache of compiled
statements, a context, a result, a description of each column) costs more than the database takes, so a `Prepared`
statement goes to the driver itself: `sqlite_line` and `postgresql_line`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Executable, Select
from sqlalchemy.engine import Compiled, Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

# Under this name a connection keeps its `Line` (`sqlalchemy.Connection.info`).
LINE = "authserver.line"

Row = Mapping[str, Any]
PerDialect = Mapping[str, Executable]

_numbers = itertools.count(1)


class Answer:
    """What a prepared statement answered: its rows, and how many it changed. Named as SQLAlchemy's results are."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def all(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._rows

    def first(self) -> tuple[Any, ...] | None:
        """The first row; None when there is none."""
        return self._rows[0] if self._rows else None

    def one_or_none(self) -> tuple[Any, ...] | None:
        """The row, of a statement that finds its row by a key."""
        return self.first()


class Form(Protocol):
    """A prepared statement as one driver takes it.

    Attributes:
        text: as SQLAlchemy wrote it.
    """

    text: str

    def values(self, parameters: Row) -> Sequence[Any]:
        """The values of one run, in the order of the driver's parameters."""

    def shown(self, parameters: Row) -> Any:
        """The same as a driver takes them together with `text`."""


@dataclass(slots=True)
class Step:
    """One run of a prepared statement.

    Attributes:
        statement: what is run.
        form: the same, for the driver.
        parameters: its values, by name.
        instead: another text, which a listener of SQLAlchemy's events put in place of the statement.
        failed: whether the driver raises about this one.
    """

    statement: Prepared
    form: Any
    parameters: Row
    instead: str | None = None
    failed: bool = False


class Line(Protocol):
    """A connection, as prepared statements use it; of one thread at a time."""

    def form(self, statement: Prepared, parameters: Row) -> Form:
        """The statement as this driver takes it."""

    def run(self, steps: Sequence[Step], announce: Callable[[Step], None] | None) -> list[Answer]:
        """Run these statements in order, up to the first that fails.

        Args:
            announce: called with each before it is sent.

        Raises:
            Exception: the driver's own, about the first that failed.
        """

    def reset(self) -> None:
        """Roll back what was not committed; nothing is sent if there is no transaction."""


class Prepared:
    """A statement whose parameters are single values, always by the same names; a column that is NULL is read as None.

    Args:
        statement: one for every database, or one for each kind of database.
        is_new: whether it inserts a row that is not there yet.
    """

    __slots__ = ("_statements", "forms", "is_new", "number")

    def __init__(self, statement: Executable | PerDialect, *, is_new: bool = False) -> None:
        self._statements = statement
        self.is_new = is_new
        self.number = next(_numbers)
        self.forms: dict[str, Any] = {}

    def compiled(self, dialect: Dialect, parameters: Row) -> Written:
        """The statement in the words of this database, when run with such parameters."""
        statements = self._statements
        statement = statements[dialect.name] if isinstance(statements, Mapping) else statements
        columns = statement.selected_columns if isinstance(statement, Select) else ()
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=dialect, column_keys=list(parameters))
        return Written(compiled, [column.type for column in columns])


class Written:
    """A statement as SQLAlchemy wrote it for one kind of database."""

    def __init__(self, compiled: Compiled, columns: list[TypeEngine[Any]]) -> None:
        assert isinstance(compiled, SQLCompiler)
        self.text = compiled.string
        self.columns = columns
        self.order: Sequence[str] = compiled.positiontup or ()
        self.types = {name: bind.type for name, bind in compiled.binds.items()}
        # Values that belong to the statement.
        self.constants = {
            name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required
        }

    def binding(self, name: str, dialect: Dialect) -> Callable[[Any], Any] | None:
        """What makes the driver's value of a parameter; None where it takes Python's."""
        process: Callable[[Any], Any] | None = self.types[name].dialect_impl(dialect).bind_processor(dialect)
        return process
