"""Readers of the events that work by themselves: each gets every event, in order, in one process at a time.

A reader gets an event after its commit, and again if it could not finish with it, also after a crash: at least once. What
it stores is stored together with how far it has got, and so exactly once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from authserver.background import Background
from authserver.engine.crypto import digests
from authserver.engine.event_stream import EventStream, Numbered
from authserver.engine.ports import Storage, StorageUnavailable, Stores
from authserver.engine.records import Event, EventType

log = logging.getLogger(__name__)

# Seconds for which a process is the one that a reader works in, unless it says so again.
LEASE = 30.0
# Seconds of the pauses after which another process asks whether the reader works nowhere.
ELSEWHERE = 10.0
# Seconds of the longest pause after failures; the first is a second, and each is twice as long as the one before.
MAXIMUM_PAUSE = 60.0
# After this many failures in a row, events are tried one by one, this many at a time: an event that fails while another
# one is, is set aside.
ATTEMPTS = 10
ALONE = 5
# Seconds after which the first event is set aside although none of these is taken.
PATIENCE = 3 * 86_400.0


class Reader(Protocol):
    """What gets every event."""

    @property
    def name(self) -> str:
        """What it is called in the database; another name begins with the first event again."""

    @property
    def begins_with_the_first(self) -> bool:
        """Whether it gets the events that were stored before it came, too."""

    @property
    def interval(self) -> float:
        """Seconds of the pauses after which it looks for events, when there are none."""

    @property
    def batch(self) -> int:
        """How many events it gets at most at a time."""

    @property
    def may_miss_events(self) -> bool:
        """Whether an event that it never takes is set aside, so that those after it need not wait for ever."""

    @property
    def needs_decisions(self) -> bool:
        """Whether it gets the events with their decisions, which are most of what there is to read."""

    def take(self, events: Sequence[Numbered]) -> None:
        """Do with these events what takes time, such as sending them. No transaction is open.

        What it raises is logged; it gets these events again after a pause.
        """

    def keep(self, stores: Stores, events: Sequence[Numbered]) -> None:
        """Store what is to be stored of these events, in the transaction that says that they were taken."""


class Reading(Background):
    """One reader at work in this process, or waiting in case no other process works for it.

    Args:
        storage: where the events are.
        reader: who gets them.

    Attributes:
        failures: how often in a row it failed; 0 while it is well.
        clock: seconds that nobody sets.
    """

    def __init__(self, storage: Storage, reader: Reader, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(f"events-{reader.name}")
        self.reader = reader
        self.failures = 0
        self._clock = clock
        self._fails_since = 0.0
        self._storage = storage
        self._stream = EventStream(decisions=reader.needs_decisions)
        self._holder = digests.new_identifier()
        self._lease = f"events: {reader.name}"
        self._held_until = 0.0

    def begin(self) -> None:
        """Let a reader that is new begin. Raises StorageUnavailable."""
        with self._storage.begin() as stores:
            self._begun(stores)

    def stop(self) -> None:
        """Stop after the present batch, and wait for it no longer than one second; then another process may work."""
        super().stop()
        if self._held_until:
            self._held_until = 0.0
            try:
                with self._storage.begin() as stores:
                    stores.upkeep.end_lease(self._lease, self._holder)
            except StorageUnavailable:
                pass  # It ends by itself.

    def backlog(self) -> int:
        """How many events it has not taken yet, deleted ones included. Raises StorageUnavailable."""
        with self._storage.begin() as stores:
            position = stores.event_positions.of(self.reader.name)
            return 0 if position is None else max(0, stores.events.last_number() - position)

    def work(self) -> int:
        """Take the next batch; how many events it has. Raises StorageUnavailable, and what the reader raises."""
        name = self.reader.name
        with self._storage.begin() as stores:
            before = self._begun(stores)
            events = self._stream.following(stores.events, before, limit=self.reader.batch)
        if not events:
            return 0
        refused: Sequence[Numbered] = ()
        if self.failures >= ATTEMPTS and self.reader.may_miss_events:
            events, refused = self._one_by_one(events[:ALONE])
        else:
            self.reader.take(events)
        with self._storage.begin() as stores:
            if stores.event_positions.move(name, before, events[-1][0]):
                self.reader.keep(stores, [event for event in events if event not in refused])
                self._set_aside(stores, refused)
        return len(events)

    def _one_by_one(self, events: Sequence[Numbered]) -> tuple[Sequence[Numbered], Sequence[Numbered]]:
        """Let the reader take what it takes of these; those that it is done with, and which of them it never took.

        Raises:
            Exception: it takes none of them, and did not for a shorter time than PATIENCE: the other side may come back.
        """
        refused: list[Numbered] = []
        failure: Exception | None = None
        for event in events:
            try:
                self.reader.take([event])
            except Exception as error:
                refused.append(event)
                failure = error
        if failure is None or len(refused) < len(events):
            return events, refused
        if self._clock() - self._fails_since < PATIENCE:
            raise failure
        self._fails_since = self._clock()
        return events[:1], events[:1]

    def _set_aside(self, stores: Stores, refused: Sequence[Numbered]) -> None:
        """Count these, and note which they are."""
        if not refused:
            return
        name = self.reader.name
        log.error(
            "%s: set aside, because it never takes them, so that others need not wait: %s",
            name,
            ", ".join(event.event_id for _, event in refused),
        )
        stores.event_positions.count_set_aside(name, len(refused))
        stores.events.add(
            Event(
                event_id=digests.new_identifier(),
                type=EventType.EVENT_SET_ASIDE,
                at=datetime.now(UTC),
                actor="server",
                details={"reader": name, "events": [event.event_id for _, event in refused]},
            )
        )

    def _begun(self, stores: Stores) -> int:
        """The number of the last event that the reader has taken."""
        position = stores.event_positions.of(self.reader.name)
        if position is None:
            position = 0 if self.reader.begins_with_the_first else stores.events.last_number()
            stores.event_positions.begin(self.reader.name, position)
        return position

    def _run(self) -> None:
        pause = self.reader.interval
        while not self._ended.wait(pause):
            try:
                if not self._is_here():
                    pause = ELSEWHERE
                    continue
                taken = self.work()
            except Exception as error:
                self._tell(error)
                pause = min(2.0 ** min(self.failures, 10), MAXIMUM_PAUSE)
                self.note_failure()
            else:
                self.failures = 0
                pause = 0 if taken == self.reader.batch else self.reader.interval

    def note_failure(self) -> None:
        """Count a failure in a row."""
        if not self.failures:
            self._fails_since = self._clock()
        self.failures += 1

    def _is_here(self) -> bool:
        """Whether this is the process in which the reader works."""
        clock = time.monotonic()
        if clock < self._held_until - LEASE / 2:
            return True
        now = datetime.now(UTC)
        with self._storage.begin() as stores:
            taken = stores.upkeep.take_lease(self._lease, self._holder, now, now + timedelta(seconds=LEASE))
        self._held_until = clock + LEASE if taken else 0.0
        return taken

    def _tell(self, error: Exception) -> None:
        """Log a failure once, until the reader is well again."""
        if not self.failures:
            passing = isinstance(error, StorageUnavailable)
            log.warning(
                "%s: events wait, because it failed (%s); trying again, at least every %d seconds",
                self.reader.name,
                error,
                MAXIMUM_PAUSE,
                exc_info=None if passing else error,
            )
