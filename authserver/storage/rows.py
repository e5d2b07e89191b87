"""Converts rows to records and back: a column and its member have the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Column, Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


class Rows(Generic[Record]):
    """Records of one class as rows of one table.

    `columns` must be selected together and in this order; `at` is the index of the first of them in the row. Members in
    `without` are not selected: they have their defaults.
    """

    def __init__(self, kind: type[Record], table: Table, *, at: int = 0, without: Sequence[str] = ()) -> None:
        kept = {column.name for column in table.columns}.difference(without)
        names = [item.name for item in fields(kind) if item.name in kept]
        self.kind = kind
        self.columns: list[Column[Any]] = [table.columns[name] for name in names]
        self.start = at
        self.end = at + len(names)
        self._names = tuple(names)
        self._values = attrgetter(*names)
        # Records are frozen and have slots: their `__init__` takes three times as long as filling the slots.
        self._fill = [getattr(kind, name).__set__ for name in names]
        others = [item for item in fields(kind) if item.name not in kept]
        assert all(item.default is not MISSING for item in others), (
            f"{kind.__name__}: no default for a member"
        )
        self._others = [(item.name, getattr(kind, item.name).__set__, item.default) for item in others]

    def place(self, name: str) -> int:
        """The index in a row of the member of this name."""
        return self.start + self._names.index(name)

    def record(self, row: Sequence[Any], **others: Any) -> Record:
        """The record of this row; `others` are members that are not in the row."""
        record = object.__new__(self.kind)
        for fill, value in zip(self._fill, row[self.start : self.end], strict=True):
            fill(record, value)
        for name, fill, default in self._others:
            fill(record, others.get(name, default))
        return record

    def row(self, record: Record) -> dict[str, Any]:
        """The row of this record."""
        return dict(zip(self._names, self._values(record), strict=True))
