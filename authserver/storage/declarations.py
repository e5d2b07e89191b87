"""The marks of records that files declare."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine.setting_records import Declaration, DeclaredKind
from authserver.storage.rows import Rows
from authserver.storage.tables import declarations
from authserver.storage.work import Work, insert_or_replace

_DECLARATION = Rows(Declaration, declarations)
_LIST = select(*_DECLARATION.columns).order_by(declarations.c.kind, declarations.c.name)
_KEEP = insert_or_replace(declarations)
_FORGET = sa.delete(declarations).where(
    declarations.c.kind == bindparam("of_kind"), declarations.c.name == bindparam("called")
)


class SqlDeclarations:
    """`engine.ports.Declarations` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def list(self) -> Sequence[Declaration]:
        return [_DECLARATION.record(row) for row in self._work.read(_LIST, {})]

    def keep(self, declaration: Declaration) -> None:
        self._work.insert(_KEEP, _DECLARATION.row(declaration))

    def forget(self, kind: DeclaredKind, name: str) -> bool:
        return self._work.write(_FORGET, {"of_kind": kind, "called": name}) == 1
