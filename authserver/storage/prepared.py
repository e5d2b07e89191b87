"""Statements that nearly every request runs: compiled once, and sent to the driver directly.

SQLAlchemy writes the statement and knows its types. Its work for each run of a statement (the cache of compiled
statements, a context, a result, a description of each column) takes longer than the work of the database. Therefore a
`Prepared` statement is sent to the driver directly, by `sqlite_line` and `postgresql_line`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import Executable, FromClause, Select, Table
from sqlalchemy.dialects.postgresql import aggregate_order_by
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
    """The answer to a prepared statement: its rows, and how many it changed. Names are as in SQLAlchemy's results."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: Sequence[Sequence[Any]], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self._rows)

    def all(self) -> Sequence[Sequence[Any]]:
        """All rows."""
        return self._rows

    def first(self) -> Sequence[Any] | None:
        """The first row; None when there is none."""
        return self._rows[0] if self._rows else None

    def one_or_none(self) -> Sequence[Any] | None:
        """The row of a statement that finds at most one row, by a key."""
        return self.first()


# For those who do not read one.
NO_ANSWER = Answer((), 0)


class Form(Protocol):
    """A prepared statement in the form for one driver.

    Attributes:
        text: as SQLAlchemy wrote it.
    """

    text: str

    def values(self, parameters: Row) -> Sequence[Any]:
        """The values of one run, in the order of the driver's parameters."""

    def shown(self, parameters: Row) -> Any:
        """The same values, in the form that a driver takes together with `text`."""


@dataclass(slots=True)
class Step:
    """One run of a prepared statement.

    Attributes:
        statement: the statement.
        form: its form for the driver.
        parameters: its values, by name.
        is_read: whether its answer is needed; otherwise the line may leave it empty.
        remembers: whether the connection may remember its rows.
        instead: another text, with which a listener of SQLAlchemy's events replaced the statement.
        failed: whether the driver raised an error about this run.
    """

    statement: Prepared
    form: Any
    parameters: Row
    is_read: bool = True
    remembers: bool = False
    instead: str | None = None
    failed: bool = False


class Line(Protocol):
    """A connection, as prepared statements use it; one thread uses it at a time."""

    def form(self, statement: Prepared, parameters: Row) -> Form:
        """The form of the statement for this driver."""

    def run(self, steps: Sequence[Step], announce: Callable[[Step], None] | None) -> list[Answer]:
        """Run these statements in order, up to the first that fails.

        Args:
            announce: called with each run before it is sent.

        Raises:
            Exception: the driver's own, about the first one that failed.
        """

    def recall(self, statement: Remembered, parameters: Row) -> Recalled | None:
        """The rows that this connection remembers from an earlier `run`; None without any."""

    def forget(self, statement: Remembered, parameters: Row) -> None:
        """Do not remember these rows any longer."""

    def reset(self) -> None:
        """Roll back what was not committed; nothing is sent if there is no transaction."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Rows that were read before.

    Attributes:
        answer: a copy of the rows: no other caller has these values.
        seen: the parameters of `Remembered.check` and `Remembered.lock`.
    """

    answer: Answer
    seen: Row


class Prepared:
    """A statement whose parameters are single values, always with the same names; NULL is read as None.

    Args:
        statement: one for every database, or one for each kind of database.
        is_new: whether it inserts a new row.
    """

    __slots__ = ("_statements", "forms", "is_new", "number")

    def __init__(self, statement: Executable | PerDialect, *, is_new: bool = False) -> None:
        self._statements = statement
        self.is_new = is_new
        self.number = next(_numbers)
        self.forms: dict[str, Any] = {}

    def compiled(self, dialect: Dialect, parameters: Row) -> Written:
        """The statement in the dialect of this database, for such parameters."""
        statements = self._statements
        statement = statements[dialect.name] if isinstance(statements, Mapping) else statements
        columns = statement.selected_columns if isinstance(statement, Select) else ()
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=dialect, column_keys=list(parameters))
        return Written(compiled, [column.type for column in columns])


class Remembered(Prepared):
    """A SELECT by a key whose rows a connection to PostgreSQL remembers, with a statement that fails if they have changed.

    PostgreSQL stores with each row the transaction that wrote it (`xmin`), so every change is noticed, with any
    statement and by anybody. Rows that one transaction wrote differ in their place (`ctid`).

    Args:
        statement: the SELECT.
        key: the parameters that select the rows.
        tables: the tables that it reads; the table of the key is the first.
        key_share: whether others may change columns that are no part of a key in spite of `lock`.

    Attributes:
        check: a statement that fails unless the rows have the versions in the parameter `seen`.
        lock: the same, which also locks the row of the first table.
    """

    __slots__ = ("check", "key", "lock")

    def __init__(
        self,
        statement: Select[Any],
        *,
        key: Sequence[str],
        tables: Sequence[Table],
        key_share: bool = False,
    ) -> None:
        # In an outer join, a table without a row has no version.
        versions = [
            sa.cast(sa.literal_column(f"{table.name}.{column}"), sa.Text)
            for table in tables
            for column in ("xmin", "ctid")
        ]
        version = sa.func.concat_ws(sa.literal_column("'.'"), *versions, type_=sa.Text).label(VERSION)
        super().__init__({"sqlite": statement, "postgresql": statement.add_columns(version)})
        self.key = tuple(key)
        rows = statement.with_only_columns(version, maintain_column_froms=True).order_by(None)
        self.check = _unless_seen(rows)
        self.lock = _unless_seen(rows.with_for_update(read=True, key_share=key_share, of=tables[0]))

    @staticmethod
    def versions_of(answer: Answer) -> str:
        """The versions of these rows."""
        return " ".join(sorted(row[-1] for row in answer))

    def key_of(self, parameters: Row) -> tuple[Any, ...]:
        """The key of these rows, which distinguishes them from those of other parameters."""
        return (self.number, *[parameters[name] for name in self.key])


# The name of the column that the versions of rows are in.
VERSION = "version"


def _unless_seen(versions: Select[Any]) -> Prepared:
    """A statement that fails unless the rows have the versions that were seen (`Remembered.versions_of`)."""
    rows = versions.subquery()
    in_order: Any = aggregate_order_by(sa.literal_column("' '"), sa.collate(rows.c[VERSION], "C"))
    found = sa.func.string_agg(rows.c[VERSION], in_order, type_=sa.Text)
    same: Select[Any] = sa.select(sa.literal_column("1")).select_from(rows)
    return Prepared(unless_none(same.having(found == sa.bindparam("seen")).subquery()))


def unless_none(rows: FromClause) -> Select[Any]:
    """A SELECT that fails if there are no such rows: a division by zero ends the transaction (`failures`).

    PostgreSQL then skips the statements that were sent after it, so nobody has to wait for the answer.
    """
    return sa.select(sa.literal_column("1 / count(*)", sa.BigInteger)).select_from(rows)


class Written:
    """A statement as SQLAlchemy wrote it for one kind of database."""

    def __init__(self, compiled: Compiled, columns: list[TypeEngine[Any]]) -> None:
        assert isinstance(compiled, SQLCompiler)
        self.text = compiled.string
        self.columns = columns
        self.order: Sequence[str] = compiled.positiontup or ()
        self.types = {name: bind.type for name, bind in compiled.binds.items()}
        # Literal values of the statement.
        self.constants = {
            name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required
        }

    def binding(self, name: str, dialect: Dialect) -> Callable[[Any], Any] | None:
        """The function that makes the driver's value of a parameter; None if the driver takes the value of Python."""
        process: Callable[[Any], Any] | None = self.types[name].dialect_impl(dialect).bind_processor(dialect)
        return process
