"""Counts frequent refusals of strangers instead of storing each, so that a flood leaves few events.

In each minute the first refusals of a kind are stored. Of those that follow, the first is held, and the others are
counted with it; at the end of the minute, it is stored with their number. All of them share its id, which their answers
and pages show. The log has a line for each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from authserver.engine.ports import Storage
from authserver.engine.records import Event, EventType

# Seconds.
WINDOW = 60.0
# Seconds until the next attempt after the database could not be written.
RETRY = 30.0
# The limit for all kinds together in each minute, as a multiple of the limit for one kind.
TOGETHER = 10
# How many events are held at a time, in addition to one for each type.
MAXIMUM_KINDS = 100
# How many source addresses are counted separately for each kind.
MAXIMUM_SOURCES = 200
log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """Refusals that are counted together. `client_id` and `user_id` are their client and user, if known."""

    type: EventType
    reason: str
    endpoint: str
    client_id: str | None = None
    user_id: str | None = None
    grant_type: str = ""


@dataclass(slots=True)
class _Held:
    """The first event of a kind that was not stored at once, and what was counted with it."""

    event: Event
    several_kinds: bool
    more: int = 0
    until: datetime | None = None
    sources: set[str] = field(default_factory=set)

    def as_event(self) -> Event:
        if not self.more or self.until is None:
            return self.event
        more = {
            "count": self.more,
            "until": self.until.isoformat(timespec="seconds"),
            "sources": len(self.sources),
            **({"several_kinds": True} if self.several_kinds else {}),
        }
        return replace(self.event, details={**self.event.details, "more": more})


class Floods:
    """The refusals of strangers in this process. Safe between threads, and of limited size.

    Args:
        storage: where the events are stored.
        stored: how many of a kind are stored in each minute.
        tell: called with each event that was stored.
        clock: seconds that never go back.

    Attributes:
        counted: how many were not stored, by type, since the start.
    """

    def __init__(
        self,
        storage: Storage,
        stored: int,
        tell: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counted: Counter[EventType] = Counter()
        self._storage = storage
        self._stored_of_each = stored
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._ends_at = 0.0
        self._of_kind: Counter[Kind] = Counter()
        self._held: dict[Kind, _Held] = {}
        self._over: list[Event] = []
        self._try_at = 0.0

    def hold(
        self, kind: Kind, source: str, now: datetime, event: Callable[[], Event], *, stores_first: bool = True
    ) -> str | None:
        """Count a refusal, or say that it is to be stored.

        Args:
            source: the address that it came from.
            event: makes its event, within its limit in bytes; called if the event is held for others.
        stores_first: False if no refusal of the kind is stored by itself.

        Returns:
            the id of the event that it is counted with; None if its own event is to be stored.
        """
        with self._lock:
            self._begin_window()
            if stores_first and self._may_store(kind):
                return None
            held = self._held_for(kind, event)
            if held.until is not None:
                held.more += 1
                self.counted[kind.type] += 1
            held.until = now
            if len(held.sources) < MAXIMUM_SOURCES:
                held.sources.add(source)
            return held.event.event_id

    def is_due(self) -> bool:
        """Whether there is something to store. It costs next to nothing, because every request asks."""
        if not self._held and not self._over:
            return False
        now = self._clock()
        return now >= self._try_at and (bool(self._over) or now >= self._ends_at)

    def store(self, *, everything: bool = False) -> None:
        """Store the held events of past minutes; at the end of the process all of them. Never raises."""
        if not everything and not self.is_due():
            return
        with self._lock:
            if everything:
                self._ends_at = self._clock()
            self._begin_window()
            events, self._over = self._over, []
        if not events:
            return
        try:
            with self._storage.begin() as stores:
                for event in events:
                    stores.events.add(event)
        except Exception as error:
            self._put_back(events, error)
            return
        for event in events:
            self._tell(event)

    def _begin_window(self) -> None:
        now = self._clock()
        if now < self._ends_at:
            return
        self._ends_at = now + WINDOW
        self._over += [held.as_event() for held in self._held.values()]
        self._held = {}
        self._of_kind = Counter()

    def _may_store(self, kind: Kind) -> bool:
        """Whether the limits of this minute, for the kind and for all kinds together, allow one more stored event."""
        kind = _of_anybody(kind)
        if self._of_kind[kind] >= self._stored_of_each:
            return False
        if self._of_kind.total() >= TOGETHER * self._stored_of_each:
            return False
        self._of_kind[kind] += 1
        return True

    def _held_for(self, kind: Kind, event: Callable[[], Event]) -> _Held:
        """The held event that a refusal is counted with: of the same kind if there is room, else of a more general one."""
        for candidate in (kind, _of_anybody(kind)):
            found = self._held.get(candidate)
            if found is None and len(self._held) < MAXIMUM_KINDS:
                found = self._held[candidate] = _Held(event(), several_kinds=False)
            if found is not None:
                return found
        rest = Kind(kind.type, "", "")
        if rest not in self._held:
            self._held[rest] = _Held(event(), several_kinds=True)
        return self._held[rest]

    def _put_back(self, events: list[Event], error: Exception) -> None:
        with self._lock:
            self._try_at = self._clock() + RETRY
            together = events + self._over
            self._over, lost = together[: 2 * MAXIMUM_KINDS], together[2 * MAXIMUM_KINDS :]
        log.warning("counted refusals could not be stored; trying again in %d seconds: %s", RETRY, error)
        for event in lost:
            more = event.details.get("more", {}).get("count", 0)
            log.warning(
                "%s %s error_id=%s and %d more are in this log only",
                event.type,
                event.reason,
                event.event_id,
                more,
            )


def _of_anybody(kind: Kind) -> Kind:
    return kind._replace(client_id=None, user_id=None, grant_type="")
