"""The resources that operators registered."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine.records import Resource
from authserver.storage.prepared import Prepared
from authserver.storage.rows import Rows
from authserver.storage.tables import DEFAULT_RESOURCE, resources
from authserver.storage.work import Work, change, changed, insert_new, spelt_out

_RESOURCE = Rows(Resource, resources)
_ADD = insert_new(resources)
_FIND = Prepared(select(*_RESOURCE.columns).where(resources.c.form == bindparam("form")))
_DEFAULT = Prepared(select(*_RESOURCE.columns).where(spelt_out(DEFAULT_RESOURCE)).limit(1))
_LIST = select(*_RESOURCE.columns).order_by(resources.c.form)
_PAGE = (
    select(*_RESOURCE.columns)
    .where(resources.c.form > bindparam("after"))
    .order_by(resources.c.form)
    .limit(bindparam("limit", type_=sa.Integer))
)
_CHANGE = change(resources, *(column.name for column in resources.columns))
_HOLD = Prepared(
    select(resources.c.form)
    .where(resources.c.form == bindparam("form"))
    .with_for_update(read=True, key_share=True)
)
_REMOVE = sa.delete(resources).where(resources.c.form == bindparam("this"))


class SqlResources:
    """`engine.ports.Resources` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def find(self, form: str) -> Resource | None:
        row = self._work.read(_FIND, {"form": form}).one_or_none()
        return _RESOURCE.record(row) if row else None

    def default(self) -> Resource | None:
        row = self._work.read(_DEFAULT, {}).one_or_none()
        return _RESOURCE.record(row) if row else None

    def list(self) -> Sequence[Resource]:
        return [_RESOURCE.record(row) for row in self._work.read(_LIST, {})]

    def page(self, *, after: str = "", limit: int) -> Sequence[Resource]:
        return [_RESOURCE.record(row) for row in self._work.read(_PAGE, {"after": after, "limit": limit})]

    def add(self, resource: Resource) -> None:
        self._work.add(_ADD, _RESOURCE.row(resource))

    def change(self, before: Resource, after: Resource) -> bool:
        own = {"form": before.form, "created_at": before.created_at}
        row = _RESOURCE.row(after) | own
        try:
            return self._work.write(_CHANGE, changed(_RESOURCE.row(before), row)) == 1
        except sa.exc.IntegrityError:  # another became the default at the same time
            return False

    def hold(self, form: str) -> bool:
        return self._work.hold(_HOLD, {"form": form})

    def remove(self, form: str) -> bool:
        return self._work.write(_REMOVE, {"this": form}) == 1
