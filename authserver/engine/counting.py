"""Counts events, hour by hour: each event is counted once, after it was stored.

An event is counted in its hour, its day and its month of UTC, for all clients together and for its own client. So a
year is read from some hundred rows, however many events there were, and the counts remain when events are deleted.
`engine.statistics` reads them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from authserver.engine.count_records import Count, Span, Step, Total
from authserver.engine.ports import Storage, Stores
from authserver.engine.records import REFUSALS, Event, EventFilter, EventType
from authserver.engine.upkeep_records import Place

log = logging.getLogger(__name__)

# The name of the reader of events that counts them.
READER = "statistics"
# How many clients that no operator registered have counts of their own in one hour, day or month. Strangers can make any
# number of them; the others are counted for all clients together.
MAXIMUM_STRANGERS = 1_000
# How many events are counted at a time.
BATCH = 500
# Seconds between two lines of the log while there are many events to count.
TOLD = 30.0
# Seconds of the longest pause between two batches, in which others can write to SQLite.
MAXIMUM_PAUSE = 1.0
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

_REVOCATIONS = frozenset({EventType.GRANT_REVOKED, EventType.GRANTS_REVOKED})
# The reasons of other events are not counted apart.
_WITH_REASON = REFUSALS | _REVOCATIONS
# Each client is registered once: for one client there is nothing to count.
_OF_NO_CLIENT = frozenset({EventType.CLIENT_REGISTERED})


class What(NamedTuple):
    """The events that are counted together in one hour, day or month. `client_id` is empty for no client."""

    type: EventType
    client_id: str
    grant_type: str
    reason: str


Tally = Counter[tuple[Step, datetime, What]]


def begin_of(step: Step, at: datetime) -> datetime:
    """The beginning of the hour, day or month of UTC that this time is in."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if step is Step.HOUR:
        return hour
    day = hour.replace(hour=0)
    return day if step is Step.DAY else day.replace(day=1)


def end_of(step: Step, at: datetime) -> datetime:
    """The beginning of the next hour, day or month."""
    begin = begin_of(step, at)
    if step is Step.MONTH:
        return begin_of(Step.MONTH, begin + 31 * DAY)
    return begin + (HOUR if step is Step.HOUR else DAY)


def counted(event: Event) -> Iterator[tuple[What, int]]:
    """The key under which an event counts, and how often it counts.

    A refusal with which others were counted counts for all of them (`engine.floods`), and an event that ends grants,
    such as a change of a password, also counts for the end of each. An event of a type that this version does not know
    is not counted.
    """
    if not isinstance(event.type, EventType):
        return
    details = event.details
    client_id = event.client_id or ""
    grant_type = _text(details.get("grant_type"))
    reason = event.reason if event.type in _WITH_REASON else ""
    grants = 0 if event.type in REFUSALS else _number(details.get("grants"))
    if event.type in _REVOCATIONS:
        yield What(event.type, client_id, grant_type, reason), grants or 1
        return
    yield What(event.type, client_id, grant_type, reason), 1
    if grants:
        yield What(EventType.GRANTS_REVOKED, client_id, "", event.reason or event.type.value), grants
    more = details.get("more")
    if event.type in REFUSALS and isinstance(more, dict) and (number := _number(more.get("count"))):
        several = bool(more.get("several_kinds"))
        yield (
            What(event.type, "", "", "") if several else What(event.type, client_id, grant_type, reason),
            number,
        )


def add(stores: Stores, events: Iterable[Event], now: datetime) -> None:
    """Add these events to the counts. Raises StorageUnavailable."""
    # First in memory, because events that come together are from few hours.
    hours: Counter[tuple[datetime, What]] = Counter()
    for event in events:
        hour = begin_of(Step.HOUR, event.at)
        for what, number in counted(event):
            hours[hour, what] += number
    tally: Tally = Counter()
    for (hour, what), number in hours.items():
        for step in Step:
            tally[step, begin_of(step, hour), what] += number
    stores.statistics.add(_counts(stores, tally, now))


@dataclass(slots=True)
class Counting:
    """The reader of events that counts them (`event_readers.Reader`)."""

    name: str = READER
    begins_with_the_first: bool = True
    may_miss_events = False
    needs_decisions = False
    interval: float = 5.0
    batch: int = BATCH
    _pause: float = 0.0
    _told_at: float = field(default_factory=time.monotonic)

    def take(self, events: Sequence[tuple[int, Event]]) -> None:
        """While there are many events, wait as long as the last batch took: an old trail is counted in the background."""
        if len(events) == self.batch:
            time.sleep(self._pause)

    def keep(self, stores: Stores, events: Sequence[tuple[int, Event]]) -> None:
        """Add these to the counts."""
        begun = time.monotonic()
        add(stores, (event for _, event in events), datetime.now(UTC))
        ended = time.monotonic()
        self._pause = min(ended - begun, MAXIMUM_PAUSE)
        if len(events) == self.batch and ended - self._told_at >= TOLD:
            self._told_at = ended
            log.info("statistics: counted event %d of %d", events[-1][0], stores.events.last_number())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """A day that was recounted: how many events it has, and how many days follow."""

    day: datetime
    events: int
    left: int


def whole_day_after(deleted_until: datetime | None) -> datetime | None:
    """The first day of which no event may have been deleted, or be deleted soon; None if events are never deleted."""
    return None if deleted_until is None else end_of(Step.DAY, deleted_until) + DAY


def rebuild_counts(
    storage: Storage,
    now: datetime,
    *,
    since: datetime | None,
    refusals_since: datetime | None,
    hours_since: datetime | None,
) -> Iterator[Rebuilt]:
    """Recount the stored events, day by day; each day is replaced as a whole, in one transaction.

    Servers may run meanwhile: each event is counted once. Earlier days than those that are named do not change.

    Args:
        since: all events from this time on are still stored; the first day that begins then or later is recounted.
            None: all events are stored.
        refusals_since: the same for refusals, which are deleted sooner.
        hours_since: the same for the counts of hours, which are deleted sooner, too.

    Raises:
        StorageUnavailable: the days that were yielded are done.
    """
    with storage.begin() as stores:
        oldest = stores.events.search(EventFilter(), oldest_first=True, limit=1)
    first = begin_of(Step.DAY, oldest[0].at if oldest else now)
    if since is not None:
        first = max(first, _whole_day(since))
    # An event that another machine stored may have a time of tomorrow.
    last = begin_of(Step.DAY, now) + DAY
    day = first
    while day <= last:
        types = frozenset(EventType)
        if refusals_since is not None and day < _whole_day(refusals_since):
            types -= REFUSALS
        with_hours = hours_since is None or day >= _whole_day(hours_since)
        events = _Day(storage, day, types, with_hours=with_hours).rebuild(now)
        following = day + DAY
        if following.day == 1 or following > last:
            _rebuild_month(storage, day, now)
        yield Rebuilt(day=day, events=events, left=(last - day).days)
        day = following


def _whole_day(at: datetime) -> datetime:
    """The beginning of the first day that begins at this time or later."""
    begin = begin_of(Step.DAY, at)
    return begin if begin == at else begin + DAY


class _Day:
    """One day that is recounted."""

    def __init__(
        self, storage: Storage, day: datetime, types: frozenset[EventType], *, with_hours: bool
    ) -> None:
        self._storage = storage
        self._span = Span(step=Step.DAY, since=day, until=day + DAY)
        self._types = types
        self._steps = (Step.DAY, Step.HOUR) if with_hours else (Step.DAY,)
        self._tally: Tally = Counter()
        self._events = 0

    def rebuild(self, now: datetime) -> int:
        with self._storage.begin() as stores:
            position = _reached(stores)
        place: Place | None = None
        while True:
            with self._storage.begin() as stores:
                found = stores.events.numbered(self._span.since, self._span.until, after=place, limit=BATCH)
            self._take(event for number, event in found if number <= position)
            if len(found) < BATCH:
                break
            place = found[-1][1].at, found[-1][1].event_id
        while (further := self._replace(position, now)) is not None:
            position = further
        return self._events

    def _replace(self, position: int, now: datetime) -> int | None:
        """Store the counts up to this position, unless more events were counted meanwhile: then take the next of those.

        Returns:
            the position up to which events are taken; None if all counted events are stored.
        """
        with self._storage.begin() as stores:
            reached = _reached(stores)
            found = stores.events.following(position, limit=BATCH, decisions=False)
            later = [(number, event) for number, event in found if number <= reached]
            if later:
                self._take(event for _, event in later if self._span.since <= event.at < self._span.until)
                return later[-1][0]
            if not _holds(stores, reached):
                return position
            for step in self._steps:
                stores.statistics.forget(replace(self._span, step=step), self._types)
            stores.statistics.add(_counts(stores, self._tally, now))
            return None

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            self._events += 1
            for what, number in counted(event):
                if what.type in self._types:
                    for step in self._steps:
                        self._tally[step, begin_of(step, event.at), what] += number


def _rebuild_month(storage: Storage, day: datetime, now: datetime) -> None:
    """Add up the days of the month that this day is in."""
    begin, end = begin_of(Step.MONTH, day), end_of(Step.MONTH, day)
    days = Span(step=Step.DAY, since=begin, until=end)
    is_done = False
    while not is_done:
        with storage.begin() as stores:
            is_done = _holds(stores, _reached(stores))
            if not is_done:
                continue
            everything = frozenset(EventType)
            of_all = stores.statistics.totals([days], everything)
            of_clients = stores.statistics.totals_of_clients(days, everything)
            stores.statistics.forget(replace(days, step=Step.MONTH), everything)
            stores.statistics.add(
                [
                    *_as_counts(_tally_of(of_all, begin)),
                    *_as_counts(_with_room(stores, _tally_of(of_clients, begin), now)),
                ]
            )


def _reached(stores: Stores) -> int:
    """The number of the last event that is counted."""
    position = stores.event_positions.of(READER)
    if position is None:
        stores.event_positions.begin(READER, 0)
    return position or 0


def _holds(stores: Stores, position: int) -> bool:
    """Whether events are counted up to this number; if so, nobody else counts any before the end of this transaction."""
    return stores.event_positions.move(READER, position, position)


def _tally_of(totals: Iterable[Total], month: datetime) -> Tally:
    return Counter(
        {
            (
                Step.MONTH,
                month,
                What(total.type, total.client_id, total.grant_type, total.reason),
            ): total.count
            for total in totals
        }
    )


def _counts(stores: Stores, tally: Tally, now: datetime) -> Sequence[Count]:
    """The counts for all clients together, and those of the clients that have counts of their own."""
    together: Tally = Counter()
    own: Tally = Counter()
    for (step, at, what), number in tally.items():
        together[step, at, what._replace(client_id="")] += number
        if what.client_id and what.type not in _OF_NO_CLIENT:
            own[step, at, what] = number
    return [*_as_counts(together), *_as_counts(_with_room(stores, own, now))]


def _with_room(stores: Stores, tally: Tally, now: datetime) -> Tally:
    """The counts for which there is room: those of all clients of operators, and of a limited number of others."""
    named = sorted({what.client_id for _, _, what in tally})
    operators = {
        client.client_id
        for start in range(0, len(named), BATCH)
        for client in stores.clients.find_all(named[start : start + BATCH], now)
        if not client.is_self_registered
    }
    strangers: dict[tuple[Step, datetime], Counter[str]] = {}
    for (step, at, what), number in tally.items():
        if what.client_id not in operators:
            strangers.setdefault((step, at), Counter())[what.client_id] += number
    counted_apart = {
        (step, at): _chosen(stores.statistics.strangers(step, at, limit=MAXIMUM_STRANGERS), sums)
        for (step, at), sums in strangers.items()
    }
    return Counter(
        {
            (step, at, what): number
            for (step, at, what), number in tally.items()
            if what.client_id in operators or what.client_id in counted_apart[step, at]
        }
    )


def _chosen(present: Sequence[str], sums: Counter[str]) -> frozenset[str]:
    """The clients that are counted already, and then those with the highest counts, while there is room."""
    others = sorted(sums.keys() - set(present), key=lambda client_id: (-sums[client_id], client_id))
    return frozenset([*present, *others[: MAXIMUM_STRANGERS - len(present)]])


def _as_counts(tally: Tally) -> Sequence[Count]:
    # In one order, so that two transactions never wait for each other's rows.
    return [
        Count(
            step=step,
            at=at,
            client_id=what.client_id,
            type=what.type,
            grant_type=what.grant_type,
            reason=what.reason,
            count=number,
        )
        for (step, at, what), number in sorted(tally.items())
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
