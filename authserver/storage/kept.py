"""Small records of any kind, each of which expires."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, select, update

from authserver.engine.records import Kept
from authserver.storage.prepared import Prepared
from authserver.storage.rows import Rows
from authserver.storage.tables import kept
from authserver.storage.work import Work, change, changed, insert_new, insert_or_fail

_KEPT = Rows(Kept, kept)
_ADD = Prepared(insert_new(kept))
_ADD_OR_FAIL = Prepared(insert_or_fail(kept))
_FIND = Prepared(
    select(*_KEPT.columns).where(kept.c.kind == bindparam("kind"), kept.c.digest == bindparam("digest"))
)
_CHANGE = Prepared(change(kept, "client_id", "grant_id", "expires_at", "claimed_at", "details"))
# The row count is the answer, as for tokens (`storage.agreements`).
_CLAIM = Prepared(
    update(kept)
    .where(
        kept.c.kind == bindparam("by_kind"),
        kept.c.digest == bindparam("by_digest"),
        kept.c.claimed_at.is_(None),
        kept.c.expires_at > bindparam("now"),
    )
    .values(claimed_at=bindparam("now"))
)


class SqlKeptRecords:
    """`engine.ports.KeptRecords` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add_once(self, record: Kept) -> bool:
        if self._work.is_optimistic:
            self._work.along(_ADD_OR_FAIL, _KEPT.row(record))
            return True
        return self._work.insert(_ADD, _KEPT.row(record))

    def find(self, kind: str, digest: bytes) -> Kept | None:
        row = self._work.read(_FIND, {"kind": kind, "digest": digest}).one_or_none()
        return _KEPT.record(row) if row else None

    def change(self, before: Kept, after: Kept) -> bool:
        return self._work.write(_CHANGE, changed(_KEPT.row(before), _KEPT.row(after))) == 1

    def claim(self, record: Kept, now: datetime) -> bool:
        parameters = {"by_kind": record.kind, "by_digest": record.digest, "now": now}
        return self._work.write(_CLAIM, parameters) == 1
