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
        # Records are frozen and have slots: their `__init__` takes three times as long as filling the slots.
        self._fill = [getattr(kind, name).__set__ for name in names]
        self._others = [item for item in fields(kind) if item.name not in table.columns]  # type: ignore[arg-type]

    def record(self, row: Sequence[Any], **others: Any) -> Record:
        """The record of this row; `others` are members that are kept elsewhere."""
        record = object.__new__(self.kind)
        for fill, value in zip(self._fill, row[self.start : self.end], strict=True):
            fill(record, value)
        for item in self._others:
            object.__setattr__(record, item.name, others.get(item.name, item.default))
        return record

    def row(self, record: Record) -> dict[str, Any]:
        """The row that keeps this record."""
        return dict(zip(self._names, self._values(record), strict=True))
