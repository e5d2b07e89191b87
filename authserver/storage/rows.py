"""Between rows and records: a column and the member it keeps have the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Table

Record = TypeVar("Record")


class Rows(Generic[Record]):
    """Records of one class as rows of one table.

    `columns` are to be selected, in this order and together; `at` is where they begin in the row.
    """

    def __init__(self, kind: type[Record], table: Table, *, at: int = 0) -> None:
        names = [item.name for item in fields(kind) if item.name in table.columns]  # type: ignore[arg-type]
        self.kind = kind
        self.columns: list[Column[Any]] = [table.columns[name] for name in names]
        self.start = at
        self.end = at + len(names)
        self._names = tuple(names)
        self._values = attrgetter(*names)

    def record(self, row: Sequence[Any], **others: Any) -> Record:
        """The record of this row; `others` are members that are kept elsewhere."""
        return self.kind(**dict(zip(self._names, row[self.start : self.end], strict=True)), **others)

    def row(self, record: Record) -> dict[str, Any]:
        """The row that keeps this record."""
        return dict(zip(self._names, self._values(record), strict=True))
