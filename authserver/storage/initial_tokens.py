"""Initial access tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Integer, bindparam, select

from authserver.engine.records import InitialAccessToken
from authserver.engine.upkeep_records import Place
from authserver.storage.rows import Rows
from authserver.storage.tables import initial_tokens
from authserver.storage.work import Work, change, changed, insert_new

_TOKEN = Rows(InitialAccessToken, initial_tokens)
_ADD = insert_new(initial_tokens)
_FIND = select(*_TOKEN.columns).where(initial_tokens.c.digest == bindparam("digest"))
_LIST = select(*_TOKEN.columns).order_by(initial_tokens.c.created_at.desc(), initial_tokens.c.token_id)
_FIND_BY_ID = select(*_TOKEN.columns).where(initial_tokens.c.token_id == bindparam("token_id"))
_PAGE = _LIST.limit(bindparam("limit", type_=Integer))
_NEXT_PAGE = _PAGE.where(
    initial_tokens.c.created_at <= bindparam("at"),
    (initial_tokens.c.created_at < bindparam("at")) | (initial_tokens.c.token_id > bindparam("last_id")),
)
_THIS = initial_tokens.c.token_id == bindparam("this")
# The row count is the answer, as for tokens (`storage.agreements`).
_CLAIM = (
    sa.update(initial_tokens)
    .where(
        _THIS,
        initial_tokens.c.revoked_at.is_(None),
        initial_tokens.c.expires_at > bindparam("now"),
        initial_tokens.c.uses.is_(None) | (initial_tokens.c.used < initial_tokens.c.uses),
    )
    .values(used=initial_tokens.c.used + 1)
)
# The number of uses is not compared, because it may change at any time.
_CHANGEABLE = ("policy", "note", "uses", "expires_at")
_CHANGE = change(initial_tokens, "token_id", *_CHANGEABLE)
_REVOKE = (
    sa.update(initial_tokens)
    .where(_THIS, initial_tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)


class SqlInitialTokens:
    """`engine.ports.InitialTokens` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, token: InitialAccessToken) -> None:
        self._work.add(_ADD, _TOKEN.row(token))

    def find(self, digest: bytes) -> InitialAccessToken | None:
        row = self._work.read(_FIND, {"digest": digest}).one_or_none()
        return _TOKEN.record(row) if row else None

    def list(self) -> Sequence[InitialAccessToken]:
        return [_TOKEN.record(row) for row in self._work.read(_LIST, {})]

    def find_by_id(self, token_id: str) -> InitialAccessToken | None:
        row = self._work.read(_FIND_BY_ID, {"token_id": token_id}).one_or_none()
        return _TOKEN.record(row) if row else None

    def page(self, *, after: Place | None = None, limit: int) -> Sequence[InitialAccessToken]:
        if after is None:
            found = self._work.read(_PAGE, {"limit": limit})
        else:
            found = self._work.read(_NEXT_PAGE, {"at": after[0], "last_id": after[1], "limit": limit})
        return [_TOKEN.record(row) for row in found]

    def claim(self, token_id: str, now: datetime) -> bool:
        return self._work.write(_CLAIM, {"this": token_id, "now": now}) == 1

    def change(self, before: InitialAccessToken, after: InitialAccessToken) -> bool:
        own = {"token_id": before.token_id}
        old, new = ({name: getattr(each, name) for name in _CHANGEABLE} | own for each in (before, after))
        return self._work.write(_CHANGE, changed(old, new)) == 1

    def revoke(self, token_id: str, now: datetime) -> bool:
        return self._work.write(_REVOKE, {"this": token_id, "now": now}) == 1
