"""What the server keeps about itself: events, and its signing keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select

from authserver.engine.records import Event, KeyState, SigningKey
from authserver.storage.rows import Rows
from authserver.storage.tables import events, signing_keys
from authserver.storage.work import Work, insert_new

_EVENT = Rows(Event, events)
_ADD_EVENT = insert(events)

_KEY = Rows(SigningKey, signing_keys)
_ADD_KEY = insert_new(signing_keys)
_LIST_KEYS = (
    select(*_KEY.columns)
    .where(signing_keys.c.state != KeyState.REMOVED)
    .order_by(signing_keys.c.created_at, signing_keys.c.kid)
)


class SqlEvents:
    """`engine.ports.Events` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, event: Event) -> None:
        """Written last: nothing in the same transaction depends on it."""
        self._work.defer(_ADD_EVENT, _EVENT.row(event))


class SqlKeys:
    """`engine.ports.Keys` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def list(self) -> Sequence[SigningKey]:
        return [_KEY.record(row) for row in self._work.read(_LIST_KEYS, {})]

    def add_first(self, key: SigningKey) -> bool:
        """The unique index over active keys decides, however many processes start at once (T113)."""
        return self._work.insert(_ADD_KEY, _KEY.row(key))
