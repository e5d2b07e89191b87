"""What the server keeps about itself: events, its keys, and when it was restored from a backup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, func, insert, select, tuple_

from authserver.engine.records import Event, EventType, RingKey, SigningKey
from authserver.storage.columns import UtcDateTime
from authserver.storage.rows import Rows
from authserver.storage.tables import events, generations, ring_keys, signing_keys
from authserver.storage.work import Work, change, changed, insert_new

# How many events are read at a time.
BATCH = 500

_EVENT = Rows(Event, events)
_ADD_EVENT = insert(events)
_FIND_EVENT = select(*_EVENT.columns).where(events.c.event_id == bindparam("event_id"))
_OF_TYPE = events.c.type.in_(bindparam("types", expanding=True))
_NEXT_EVENTS = (
    select(*_EVENT.columns)
    .where(
        tuple_(events.c.at, events.c.event_id)
        > tuple_(bindparam("at", type_=UtcDateTime), bindparam("last_id", type_=events.c.event_id.type)),
        _OF_TYPE,
    )
    .order_by(events.c.at, events.c.event_id)
    .limit(bindparam("limit"))
)
_LAST_EVENTS = (
    select(*_EVENT.columns)
    .where(
        tuple_(events.c.at, events.c.event_id)
        < tuple_(bindparam("at", type_=UtcDateTime), bindparam("last_id", type_=events.c.event_id.type))
    )
    .order_by(events.c.at.desc(), events.c.event_id.desc())
    .limit(bindparam("limit"))
)
_COUNT_EVENTS = select(func.count()).where(events.c.at >= bindparam("at"), _OF_TYPE).select_from(events)

_KEY = Rows(SigningKey, signing_keys)
_ADD_KEY = insert_new(signing_keys)
_LIST_KEYS = select(*_KEY.columns).order_by(signing_keys.c.created_at, signing_keys.c.kid)
_CHANGE_KEY = change(signing_keys, "sealed_private_jwk", "activates_at", "retires_at", "ends_at")

_RING_KEY = Rows(RingKey, ring_keys)
_ADD_RING_KEY = insert_new(ring_keys)
_LIST_RING_KEYS = select(*_RING_KEY.columns).order_by(ring_keys.c.key_id)

_LAST_GENERATION = select(func.max(generations.c.began_at))
_BEGIN_GENERATION = insert_new(generations)


class SqlEvents:
    """`engine.ports.Events` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, event: Event) -> None:
        """Written last, because nothing in the same transaction depends on it."""
        self._work.defer(_ADD_EVENT, _EVENT.row(event))

    def find(self, event_id: str) -> Event | None:
        row = self._work.read(_FIND_EVENT, {"event_id": event_id}).one_or_none()
        return _EVENT.record(row) if row else None

    def since(self, since: datetime, *, type: EventType | None = None) -> Iterator[Event]:
        """By keyset: each batch begins after the last event of the one before."""
        after, last_id = since, ""
        while True:
            parameters = {"at": after, "last_id": last_id, "types": _types(type), "limit": BATCH}
            batch = [_EVENT.record(row) for row in self._work.read(_NEXT_EVENTS, parameters)]
            yield from batch
            if len(batch) < BATCH:
                return
            after, last_id = batch[-1].at, batch[-1].event_id

    def latest(self) -> Iterator[Event]:
        """By keyset, as `since`."""
        before, last_id = datetime.max.replace(tzinfo=UTC), ""
        while True:
            parameters = {"at": before, "last_id": last_id, "limit": BATCH}
            batch = [_EVENT.record(row) for row in self._work.read(_LAST_EVENTS, parameters)]
            yield from batch
            if len(batch) < BATCH:
                return
            before, last_id = batch[-1].at, batch[-1].event_id

    def count(self, since: datetime, *, type: EventType | None = None) -> int:
        return int(self._work.read(_COUNT_EVENTS, {"at": since, "types": _types(type)}).scalar_one())


class SqlSigningKeys:
    """`engine.ports.Keys` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def list(self) -> Sequence[SigningKey]:
        return [_KEY.record(row) for row in self._work.read(_LIST_KEYS, {})]

    def add(self, key: SigningKey) -> bool:
        """The unique index over keys without a successor decides, however many processes start at once (T113)."""
        return self._work.insert(_ADD_KEY, _KEY.row(key))

    def change(self, before: SigningKey, after: SigningKey) -> bool:
        return self._work.write(_CHANGE_KEY, changed(_KEY.row(before), _KEY.row(after))) == 1


class SqlRingKeys:
    """`engine.ports.RingKeys` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def list(self) -> Sequence[RingKey]:
        return [_RING_KEY.record(row) for row in self._work.read(_LIST_RING_KEYS, {})]

    def add(self, key: RingKey) -> bool:
        return self._work.insert(_ADD_RING_KEY, _RING_KEY.row(key))


class SqlGenerations:
    """`engine.ports.Generations` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def began_at(self) -> datetime | None:
        found: datetime | None = self._work.read(_LAST_GENERATION, {}).scalar_one()
        return found

    def begin(self, now: datetime) -> None:
        self._work.insert(_BEGIN_GENERATION, {"began_at": now})


def _types(type: EventType | None) -> list[EventType]:
    return list(EventType) if type is None else [type]
