"""Readers of the events that work by themselves: each gets every event, in order, in one process at a time.

A reader gets an event after its commit, and again if it could not finish with it, also after a crash: at least once. What
it stores is stored together with how far it has got, and so exactly once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from authserver.engine.crypto import digests
from authserver.engine.event_stream import EventStream, Numbered
from authserver.engine.ports import Storage, StorageUnavailable, Stores

log = logging.getLogger(__name__)

# Seconds for which a process is the one that a reader works in, unless it says so again.
LEASE = 30.0
# Seconds of the pauses after which another process asks whether the reader works nowhere.
ELSEWHERE = 10.0
# Seconds of the longest pause after failures; the first is a second, and each is twice as long as the one before.
MAXIMUM_PAUSE = 60.0


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

    def take(self, events: Sequence[Numbered]) -> None:
        """Do with these events what takes time, such as sending them. No transaction is open.

        What it raises is logged; it gets these events again after a pause.
        """

    def keep(self, stores: Stores, events: Sequence[Numbered]) -> None:
        """Store what is to be stored of these events, in the transaction that says that they were taken."""


class Reading:
    """One reader at work in this process, or waiting in case no other process works for it.

    Args:
        storage: where the events are.
        reader: who gets them.

    Attributes:
        failures: how often in a row it failed; 0 while it is well.
    """

    def __init__(self, storage: Storage, reader: Reader) -> None:
        self.reader = reader
        self.failures = 0
        self._storage = storage
        self._stream = EventStream()
        self._holder = digests.new_identifier()
        self._lease = f"events: {reader.name}"
        self._held_until = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"events-{reader.name}", daemon=True)

    def begin(self) -> None:
        """Let a reader that is new begin. Raises StorageUnavailable."""
        with self._storage.begin() as stores:
            self._begun(stores)

    def start(self) -> None:
        """Work until the process ends."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present batch, and wait for it no longer than one second."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)
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
        self.reader.take(events)
        with self._storage.begin() as stores:
            if stores.event_positions.move(name, before, events[-1][0]):
                self.reader.keep(stores, events)
        return len(events)

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
                self.failures += 1
            else:
                self.failures = 0
                pause = 0 if taken == self.reader.batch else self.reader.interval

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
