"""Scopes, limits and trusted issuers that are in the store, beside those of the INI."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.storage.prepared import Prepared, Remembered
from authserver.storage.rows import Rows
from authserver.storage.tables import stored_settings
from authserver.storage.work import Work, insert_or_replace

_SETTING = Rows(StoredSetting, stored_settings)
_LIST = select(*_SETTING.columns).order_by(stored_settings.c.kind, stored_settings.c.name)
_KEEP = insert_or_replace(stored_settings)
_THIS = (stored_settings.c.kind == bindparam("of_kind"), stored_settings.c.name == bindparam("called"))
_FIND = Remembered(
    select(*_SETTING.columns).where(*_THIS), key=["of_kind", "called"], tables=[stored_settings]
)
_HOLD = Prepared(select(*_SETTING.columns).where(*_THIS).with_for_update(read=True))
_REMOVE = sa.delete(stored_settings).where(*_THIS)


class SqlStoredSettings:
    """`engine.ports.StoredSettings` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def find(self, kind: DeclaredKind, name: str) -> StoredSetting | None:
        row = self._work.recall(_FIND, {"of_kind": kind, "called": name}).one_or_none()
        return _SETTING.record(row) if row else None

    def hold(self, kind: DeclaredKind, name: str) -> StoredSetting | None:
        this = {"of_kind": kind, "called": name}
        row = self._work.lock(_FIND, this) or self._work.held(_HOLD, this)
        return _SETTING.record(row) if row else None

    def list(self) -> Sequence[StoredSetting]:
        return [_SETTING.record(row) for row in self._work.read(_LIST, {})]

    def keep(self, setting: StoredSetting) -> None:
        self._work.insert(_KEEP, _SETTING.row(setting))

    def remove(self, kind: DeclaredKind, name: str) -> bool:
        return self._work.write(_REMOVE, {"of_kind": kind, "called": name}) == 1
