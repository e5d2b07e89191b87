"""The identities of people at other servers."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine.records import JoinedIdentity
from authserver.storage.prepared import Remembered
from authserver.storage.rows import Rows
from authserver.storage.tables import identities
from authserver.storage.work import Work, insert_new

_IDENTITY = Rows(JoinedIdentity, identities)
_THIS = (identities.c.issuer == bindparam("this_issuer"), identities.c.subject == bindparam("this_subject"))
_ADD = insert_new(identities)
_FIND = Remembered(
    select(*_IDENTITY.columns).where(*_THIS), key=["this_issuer", "this_subject"], tables=[identities]
)
_OF_USER = (
    select(*_IDENTITY.columns)
    .where(identities.c.user_id == bindparam("user_id"))
    .order_by(identities.c.issuer, identities.c.subject)
)
_PAGE = (
    select(*_IDENTITY.columns)
    .where(identities.c.issuer == bindparam("issuer"), identities.c.subject > bindparam("after"))
    .order_by(identities.c.subject)
    .limit(bindparam("limit", type_=sa.Integer))
)
_REMOVE = sa.delete(identities).where(*_THIS)


class SqlIdentities:
    """`engine.ports.Identities` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def find(self, issuer: str, subject: str) -> JoinedIdentity | None:
        row = self._work.recall(_FIND, {"this_issuer": issuer, "this_subject": subject}).one_or_none()
        return _IDENTITY.record(row) if row else None

    def of_user(self, user_id: str) -> Sequence[JoinedIdentity]:
        return [_IDENTITY.record(row) for row in self._work.read(_OF_USER, {"user_id": user_id})]

    def page(self, issuer: str, *, after: str = "", limit: int) -> Sequence[JoinedIdentity]:
        parameters = {"issuer": issuer, "after": after, "limit": limit}
        return [_IDENTITY.record(row) for row in self._work.read(_PAGE, parameters)]

    def add(self, identity: JoinedIdentity) -> None:
        self._work.add(_ADD, _IDENTITY.row(identity))

    def remove(self, issuer: str, subject: str) -> bool:
        return self._work.write(_REMOVE, {"this_issuer": issuer, "this_subject": subject}) == 1
