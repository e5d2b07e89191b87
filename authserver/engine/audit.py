"""Searches the events: who did what to whom, and why something was refused.

Commands, pages and an API call this. An impossible search is refused with a sentence (`BadSearch`), lists are pages of
limited length, and a place in a list is a text (`cursor_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any

from authserver.engine.ports import Events, StorageUnavailable, Stores
from authserver.engine.records import REFUSALS, Event, EventFilter, EventType
from authserver.engine.upkeep_records import Place

# How many events a page has at most (T146), and how many an export reads at a time.
MAXIMUM_PAGE = 100
BATCH = 500
# After this time no event of an earlier time is stored any more: requests have ended, and so have the minutes of
# `engine.floods`, even if the database could not be written when they ended.
SETTLED = timedelta(minutes=5)
_TIME = "%Y%m%dT%H%M%S.%fZ"
# Filters that need a time if no other filter is given.
_WIDE = frozenset({"actor", "source", "request_id"})


class BadSearch(ValueError):
    """The search is not allowed; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events, and the cursor after which the next page begins; None at the end."""

    events: tuple[Event, ...]
    next: str | None = None


def search(stored: Events, wanted: EventFilter, *, after: str | None = None, limit: int) -> Page:
    """A page of these events, newest first.

    Args:
        after: the cursor of the page before; None begins with the newest.
        limit: 1 to MAXIMUM_PAGE.

    Raises:
        BadSearch: a malformed cursor, times in the wrong order, or a search that reads too much.
        StorageUnavailable: the storage did not answer.
    """
    if not 1 <= limit <= MAXIMUM_PAGE:
        raise BadSearch(f"a page has 1 to {MAXIMUM_PAGE} events")
    _check(wanted)
    # Events without a reason are not in the index of reasons.
    of_all = _WIDE if wanted.reason else _WIDE | {"reason"}
    wide = " and ".join(name for name in wanted.texts if name in of_all)
    if wide and wanted.texts.keys() <= of_all and wanted.since is None and not wanted.types:
        raise BadSearch(
            f"to search by {wide} alone, every event of a time is read: give the time since when, or name "
            "a client, a user, a grant or an event type as well"
        )
    try:
        # One more than is shown, to know whether there is another page.
        found = stored.search(wanted, after=_after(after), limit=limit + 1)
    except StorageUnavailable as error:
        if not wide or wanted.texts.keys() - of_all:
            raise
        raise BadSearch(
            f"the database did not answer in time: to search by {wide}, every event of the time is read. Name a shorter "
            "time, or a client, a user or a grant as well"
        ) from error
    shown = tuple(found[:limit])
    return Page(events=shown, next=cursor_of(shown[-1]) if len(found) > limit else None)


def find(stored: Events, event_id: str) -> Event | None:
    """The event of this id; a refusal's id is the error id that the client got. Raises BadSearch."""
    _check_text("event_id", event_id)
    return stored.find(event_id)


def export(stored: Events, wanted: EventFilter, *, after: str | None = None) -> Iterator[Event]:
    """All these events, oldest first, read in batches as they are used.

    Raises:
        BadSearch: at once, as `search`.
    """
    _check(wanted)
    return _all(stored, wanted, _after(after))


def _all(stored: Events, wanted: EventFilter, place: Place | None) -> Iterator[Event]:
    while True:
        batch = stored.search(wanted, after=place, oldest_first=True, limit=BATCH)
        yield from batch
        if len(batch) < BATCH:
            return
        place = batch[-1].at, batch[-1].event_id


def cursor_of(event: Event) -> str:
    """The place of an event in the order of time, as a text that neither a shell nor a URL changes."""
    return cursor_at(event.at, event.event_id)


def cursor_at(at: datetime, identifier: str) -> str:
    """The cursor for this time and id, as `cursor_of`."""
    return f"{at.astimezone(UTC).strftime(_TIME)}_{identifier}"


def place_of(cursor: str) -> Place:
    """The place that a cursor names. Raises BadSearch."""
    time, _, event_id = cursor.partition("_")
    try:
        at = datetime.strptime(time, _TIME).replace(tzinfo=UTC)
        _check_text("cursor", event_id)
    except ValueError:
        at = None
    if at is None or not event_id:
        raise BadSearch(f"{cursor!r} is not a cursor: copy the one at the end of the previous page")
    return at, event_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The events that a reader has not read yet: their number, including deleted ones, and the time of the first.

    `set_aside` is the number of events that it never accepted and that no longer hold up the others.
    """

    reader: str
    waiting: int
    since: datetime | None = None
    set_aside: int = 0


def backlogs(stores: Stores) -> Sequence[Backlog]:
    """The backlog of each reader that ever began, by name."""
    last = stores.events.last_number()
    set_aside, found = stores.event_positions.set_aside(), []
    for reader, number in stores.event_positions.list():
        following = stores.events.following(number, limit=1)
        waiting = max(0, last - number) if following else 0
        found.append(
            Backlog(
                reader=reader,
                waiting=waiting,
                since=following[0][1].at if following else None,
                set_aside=set_aside.get(reader, 0),
            )
        )
    return found


def as_json(event: Event) -> dict[str, Any]:
    """All members of an event, as values for JSON; its time in ISO 8601."""
    return {
        "event_id": event.event_id,
        "type": event.type.value,
        "at": event.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "actor": event.actor,
        "source": event.source,
        "request_id": event.request_id,
        "client_id": event.client_id,
        "user_id": event.user_id,
        "grant_id": event.grant_id,
        "reason": event.reason,
        "decisions": [dict(decision) for decision in event.decisions],
        "details": dict(event.details),
    }


def types_of(names: Iterable[str]) -> frozenset[EventType]:
    """The event types with these names. Raises BadSearch, which names similar ones."""
    return frozenset(map(_type_of, names))


def _type_of(name: str) -> EventType:
    try:
        return EventType(name)
    except ValueError:
        known = [type.value for type in EventType]
        subject, _, outcome = name.lower().partition(".")
        near = [type for type in known if type.startswith(f"{subject}.") and not outcome]
        near = near or get_close_matches(name.lower(), known, n=3, cutoff=0.6)
        near = near or [type for type in known if type.startswith(f"{subject}.")]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
        raise BadSearch(f"{name!r} is no event type; {hint}") from None


def refused_types(named: frozenset[EventType]) -> frozenset[EventType]:
    """The types for refused and failed requests, among these types or, if none is named, among all.

    Raises BadSearch when none of them is such a type.
    """
    refused = named & REFUSALS or (frozenset() if named else REFUSALS)
    if not refused:
        raise BadSearch(
            f"{', '.join(sorted(named))} is no type of refusals: leave out either the type or `refused`"
        )
    return refused


def source_of(text: str) -> str:
    """A network address in the form of events. Raises BadSearch."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise BadSearch(f"{text!r} is not a network address such as 192.0.2.7 or 2001:db8::7") from None


def _after(cursor: str | None) -> Place | None:
    return None if cursor is None else place_of(cursor)


def _check(wanted: EventFilter) -> None:
    if wanted.since and wanted.until and wanted.since >= wanted.until:
        raise BadSearch("the beginning of the time is not before its end: nothing can be found")
    for name, value in wanted.texts.items():
        _check_text(name, value)


def _check_text(name: str, value: str) -> None:
    """Raises BadSearch for characters that a database cannot compare."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadSearch(f"{name}: no event contains such characters")
