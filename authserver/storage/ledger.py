"""The server's records about itself: events, keys, and when it was restored from a backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Executable,
    Integer,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from authserver.engine.records import ISSUANCES, REFUSALS, Event, EventFilter, EventType, RingKey, SigningKey
from authserver.engine.seal_records import DeletionMark, EventSeal
from authserver.engine.upkeep_records import Place
from authserver.storage.columns import UtcDateTime
from authserver.storage.prepared import Prepared, Row
from authserver.storage.rows import Rows
from authserver.storage.tables import (
    RARE,
    REASONED,
    REFUSED,
    event_deletions,
    event_positions,
    event_seals,
    events,
    generations,
    ring_keys,
    signing_keys,
)
from authserver.storage.work import Work, change, changed, insert_new, insert_or_replace, spelt_out

# How many events are read at a time.
BATCH = 500

_EVENT = Rows(Event, events)
# The database numbers it; nobody needs the number now.
_ADD_EVENT = Prepared(insert(events).inline())
_NUMBERED = Rows(Event, events, at=1)
_UNDECIDED = Rows(Event, events, at=1, without=("decisions",))
_FOLLOWING, _FOLLOWING_UNDECIDED = (
    Prepared(
        select(events.c.number, *rows.columns)
        .where(events.c.number > bindparam("number"))
        .order_by(events.c.number)
        .limit(bindparam("limit", type_=Integer))
    )
    for rows in (_NUMBERED, _UNDECIDED)
)
_PLACE = tuple_(events.c.at, events.c.event_id)
_NUMBERED_OF_TIME = (
    select(events.c.number, *_NUMBERED.columns)
    .where(
        events.c.at >= bindparam("since"),
        events.c.at < bindparam("until"),
        tuple_(bindparam("at", type_=UtcDateTime), bindparam("last_id", type_=events.c.event_id.type))
        < _PLACE,
    )
    .order_by(events.c.at, events.c.event_id)
    .limit(bindparam("limit", type_=Integer))
)
_LAST_NUMBER = select(func.coalesce(func.max(events.c.number), 0))
_POSITION = select(event_positions.c.number).where(event_positions.c.reader == bindparam("reader"))
_LIST_POSITIONS = select(event_positions.c.reader, event_positions.c.number).order_by(
    event_positions.c.reader
)
_BEGIN_POSITION = insert_new(event_positions)
_MOVE = change(event_positions, "number")
_COUNT_SET_ASIDE = (
    update(event_positions)
    .where(event_positions.c.reader == bindparam("called"))
    .values(set_aside=event_positions.c.set_aside + bindparam("count", type_=Integer))
)
_SET_ASIDE = (
    select(event_positions.c.reader, event_positions.c.set_aside)
    .where(event_positions.c.set_aside > 0)
    .order_by(event_positions.c.reader)
)
_FIND_EVENT = select(*_EVENT.columns).where(events.c.event_id == bindparam("event_id"))
_OF_TYPE = events.c.type.in_(bindparam("types", expanding=True))
_IS_REFUSAL = spelt_out(REFUSED)
_IS_RARE = spelt_out(RARE)
_HAS_REASON = spelt_out(REASONED)
# Few events have the same value of one of these, and an index finds them in the order of time.
_NARROW = frozenset({"event_id", "client_id", "user_id", "grant_id"})
_BEGINNING: Place = (datetime.min.replace(tzinfo=UTC), "")
_END: Place = (datetime.max.replace(tzinfo=UTC), "")
_COUNT_EVENTS = select(func.count()).where(events.c.at >= bindparam("at"), _OF_TYPE).select_from(events)

_SEAL = Rows(EventSeal, event_seals)
_ADD_SEAL = insert_new(event_seals)
_SEALS = select(*_SEAL.columns)
_LAST_SEAL = _SEALS.order_by(event_seals.c.number.desc()).limit(1)
_NEXT_SEALS = (
    _SEALS.where(event_seals.c.number > bindparam("number"))
    .order_by(event_seals.c.number)
    .limit(bindparam("limit", type_=Integer))
)
_SEALS_SINCE = (
    _SEALS.where(event_seals.c.sealed_at >= bindparam("since"))
    .order_by(event_seals.c.sealed_at, event_seals.c.number)
    .limit(1)
)
_FIND_SEAL = _SEALS.where(event_seals.c.hash == bindparam("hash"))
_CHANGE_SEAL = change(event_seals, "key_id", "mac")
_REMOVE_SEALS = delete(event_seals).where(event_seals.c.number <= bindparam("until"))
_DELETION = Rows(DeletionMark, event_deletions)
_DELETIONS = select(*_DELETION.columns).order_by(event_deletions.c.kind, event_deletions.c.until)
_MARK_DELETION = insert_or_replace(event_deletions)
_FORGET_DELETIONS = delete(event_deletions).where(
    event_deletions.c.kind == bindparam("of_kind"), event_deletions.c.until < bindparam("before")
)

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
        return self._all(EventFilter(since=since, types=frozenset([type] if type else ())), oldest_first=True)

    def latest(self) -> Iterator[Event]:
        return self._all(EventFilter(), oldest_first=False)

    def count(self, since: datetime, *, type: EventType | None = None) -> int:
        return int(self._work.read(_COUNT_EVENTS, {"at": since, "types": _types(type)}).scalar_one())

    def search(
        self, wanted: EventFilter, *, after: Place | None = None, oldest_first: bool = False, limit: int
    ) -> Sequence[Event]:
        statement, parameters = _search(wanted, after, oldest_first)
        found = self._work.read(statement, {**parameters, "limit": limit})
        return [_EVENT.record(row) for row in found]

    def following(self, number: int, *, limit: int, decisions: bool = True) -> Sequence[tuple[int, Event]]:
        statement, rows = (_FOLLOWING, _NUMBERED) if decisions else (_FOLLOWING_UNDECIDED, _UNDECIDED)
        found = self._work.read(statement, {"number": number, "limit": limit})
        return [(row[0], rows.record(row)) for row in found]

    def numbered(
        self, since: datetime, until: datetime, *, after: Place | None = None, limit: int
    ) -> Sequence[tuple[int, Event]]:
        at, last_id = after or _BEGINNING
        parameters = {"since": since, "until": until, "at": at, "last_id": last_id, "limit": limit}
        return [(row[0], _NUMBERED.record(row)) for row in self._work.read(_NUMBERED_OF_TIME, parameters)]

    def last_number(self) -> int:
        return int(self._work.read(_LAST_NUMBER, {}).scalar_one())

    def _all(self, wanted: EventFilter, *, oldest_first: bool) -> Iterator[Event]:
        """In batches, each of which begins after the last event of the previous one."""
        place: Place | None = None
        while True:
            batch = self.search(wanted, after=place, oldest_first=oldest_first, limit=BATCH)
            yield from batch
            if len(batch) < BATCH:
                return
            place = batch[-1].at, batch[-1].event_id


class SqlEventPositions:
    """`engine.ports.EventPositions` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def of(self, reader: str) -> int | None:
        found: int | None = self._work.read(_POSITION, {"reader": reader}).scalar()
        return found

    def list(self) -> Sequence[tuple[str, int]]:
        return [(row.reader, row.number) for row in self._work.read(_LIST_POSITIONS, {})]

    def begin(self, reader: str, number: int) -> bool:
        return self._work.insert(_BEGIN_POSITION, {"reader": reader, "number": number})

    def move(self, reader: str, before: int, after: int) -> bool:
        old, new = {"reader": reader, "number": before}, {"reader": reader, "number": after}
        return self._work.write(_MOVE, changed(old, new)) == 1

    def count_set_aside(self, reader: str, count: int) -> None:
        self._work.write(_COUNT_SET_ASIDE, {"called": reader, "count": count})

    def set_aside(self) -> Mapping[str, int]:
        return {row.reader: row.set_aside for row in self._work.read(_SET_ASIDE, {})}


class SqlEventSeals:
    """`engine.ports.EventSeals` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, seal: EventSeal) -> None:
        self._work.add(_ADD_SEAL, _SEAL.row(seal))

    def last(self) -> EventSeal | None:
        return self._one(_LAST_SEAL, {})

    def following(self, number: int, *, limit: int) -> Sequence[EventSeal]:
        return [_SEAL.record(row) for row in self._work.read(_NEXT_SEALS, {"number": number, "limit": limit})]

    def since(self, since: datetime) -> EventSeal | None:
        return self._one(_SEALS_SINCE, {"since": since})

    def find(self, sought: bytes) -> EventSeal | None:
        return self._one(_FIND_SEAL, {"hash": sought})

    def change(self, before: EventSeal, after: EventSeal) -> bool:
        return self._work.write(_CHANGE_SEAL, changed(_SEAL.row(before), _SEAL.row(after))) == 1

    def remove_until(self, number: int) -> int:
        return self._work.write(_REMOVE_SEALS, {"until": number})

    def deletions(self) -> Sequence[DeletionMark]:
        return [_DELETION.record(row) for row in self._work.read(_DELETIONS, {})]

    def mark(self, mark: DeletionMark) -> None:
        self._work.insert(_MARK_DELETION, _DELETION.row(mark))
        self._work.write(_FORGET_DELETIONS, {"of_kind": mark.kind, "before": mark.until})

    def _one(self, statement: Executable, parameters: Row) -> EventSeal | None:
        row = self._work.read(statement, parameters).one_or_none()
        return _SEAL.record(row) if row else None


class SqlSigningKeys:
    """`engine.ports.SigningKeys` in the database."""

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


def _search(wanted: EventFilter, after: Place | None, oldest_first: bool) -> tuple[Executable, Row]:
    """The statement that finds these events in order, and its parameters but the `limit`."""
    place = tuple_(events.c.at, events.c.event_id)
    last = tuple_(bindparam("at", type_=UtcDateTime), bindparam("last_id", type_=events.c.event_id.type))
    at, last_id = after or (_BEGINNING if oldest_first else _END)
    parameters: dict[str, Any] = {**wanted.texts, "at": at, "last_id": last_id}
    conditions = [events.c[name] == bindparam(name) for name in wanted.texts]
    conditions.append(place > last if oldest_first else place < last)
    if wanted.since is not None:
        parameters["since"] = wanted.since
        conditions.append(events.c.at >= bindparam("since"))
    if wanted.until is not None:
        parameters["until"] = wanted.until
        conditions.append(events.c.at < bindparam("until"))
    # Written into the statement: for an unknown value PostgreSQL expects a tenth of the table, and an average type.
    limit = bindparam("limit", type_=Integer, literal_execute=True)

    def ordered(statement: Any, columns: Any) -> Any:
        order = (columns.at, columns.event_id)
        return statement.order_by(*order if oldest_first else [column.desc() for column in order]).limit(
            limit
        )

    matching = select(*_EVENT.columns).where(*conditions)
    if wanted.reason:
        matching = matching.where(_HAS_REASON)
    if wanted.types == REFUSALS:
        return ordered(matching.where(_IS_REFUSAL), events.c), parameters
    names = [f"type_{number}" for number, _ in enumerate(wanted.types)]
    parameters |= zip(names, sorted(wanted.types), strict=True)
    of_type = [
        and_(
            events.c.type == bindparam(name, type_=events.c.type.type, literal_execute=True),
            *(() if type in ISSUANCES else (_IS_RARE,)),
        )
        for name, type in zip(names, sorted(wanted.types), strict=True)
    ]
    if len(names) < 2 or _NARROW & wanted.texts.keys():
        return ordered(matching.where(or_(*of_type)) if names else matching, events.c), parameters
    # The index has the events of one type in order, but not those of several types together.
    together = union_all(*(select(ordered(matching.where(each), events.c).subquery()) for each in of_type))
    return ordered(together, together.selected_columns), parameters


def _types(type: EventType | None) -> list[EventType]:
    return list(EventType) if type is None else [type]
