"""Clean-up that runs by itself: which rows are deleted and when, in small batches, by one process at a time.

Each row is deleted long after nothing depends on it any more. Used codes and rotated refresh tokens, by which
a replay is recognised, are deleted with their grant and not before.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from authserver.background import Background
from authserver.engine import counting, ending, statistics
from authserver.engine.count_records import Step
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.event_seals import note_deletion, remove_old
from authserver.engine.floods import Floods
from authserver.engine.keys import signing_keys
from authserver.engine.ports import Storage, StorageUnavailable
from authserver.engine.upkeep_records import Batch, Disposable, Place
from authserver.settings import Settings

log = logging.getLogger(__name__)

# Expired rows are kept this much longer, so that a clock that is one hour ahead deletes nothing valid, and no
# row disappears during a request that uses it (T150).
GRACE = timedelta(hours=1, minutes=5)
# An operator who asks why a secret stopped working can still see when it ended.
SECRET_KEPT = timedelta(days=7)
# Rows of one table that are deleted in one transaction. On SQLite, other writers wait for it.
BATCH = 500
# Batches of one turn; with the pauses between them they take less than the usual interval.
BATCHES = 200
# Seconds of the shortest pause, in which other writers can use SQLite.
PAUSE = 0.02
# A backlog is counted up to this number; nobody needs an exact count above it.
BACKLOG = 10_000
LEASE = "upkeep"
# These are sealed: that they were deleted must be provable.
EVENTS = frozenset({Disposable.REFUSALS, Disposable.ISSUANCES, Disposable.EVENTS})
# Seconds that a lease lasts at least: longer than a batch can take (`storage.database`).
SHORTEST_LEASE = 10


def cutoffs(settings: Settings, now: datetime) -> dict[Disposable, datetime]:
    """For each kind, the time before which its rows must have expired to be deleted; not for kinds kept for ever."""
    lifetimes = {
        Disposable.TOKENS: timedelta(),
        Disposable.KEPT_RECORDS: timedelta(),
        Disposable.GRANTS: timedelta(),
        Disposable.SESSIONS: timedelta(),
        Disposable.CLIENT_SECRETS: SECRET_KEPT,
    }
    if settings.unused_client_lifetime:
        lifetimes[Disposable.UNUSED_CLIENTS] = timedelta(seconds=settings.unused_client_lifetime)
    if settings.idle_client_lifetime:
        lifetimes[Disposable.CLIENTS] = timedelta(seconds=settings.idle_client_lifetime)
    if settings.refusal_lifetime:
        lifetimes[Disposable.REFUSALS] = timedelta(seconds=settings.refusal_lifetime)
    if settings.issuance_lifetime:
        lifetimes[Disposable.ISSUANCES] = timedelta(seconds=settings.issuance_lifetime)
    if settings.event_lifetime:
        lifetimes[Disposable.EVENTS] = timedelta(seconds=settings.event_lifetime)
    if settings.hourly_statistics_lifetime:
        lifetimes[Disposable.HOURLY_COUNTS] = timedelta(seconds=settings.hourly_statistics_lifetime)
    if settings.statistics_lifetime:
        lifetimes[Disposable.COUNTS] = timedelta(seconds=settings.statistics_lifetime)
        lifetimes[Disposable.SAMPLES] = timedelta(seconds=settings.statistics_lifetime)
    before = {kind: now - GRACE - lifetime for kind, lifetime in lifetimes.items()}
    if settings.session_timeout_delay:
        before[Disposable.SESSIONS] = now - timedelta(seconds=settings.session_timeout_delay)
        idle = timedelta(seconds=settings.session_idle_lifetime)
        before[Disposable.IDLE_SESSIONS] = before[Disposable.SESSIONS] - idle
    return before


def remove_all(
    storage: Storage,
    ring: KeyRing,
    before: Mapping[Disposable, datetime],
    pause: Callable[[float], object],
    places: dict[Disposable, Place] | None = None,
) -> Iterator[tuple[Disposable, Batch]]:
    """Delete batch after batch, of each kind in turn, until nothing is left of any kind.

    Args:
        ring: proves that events were deleted here.
        before: see `cutoffs`.
        pause: waits this many seconds, twice as long as the batch before took, so that others can write.
        places: where each kind continues; kept up to date, so that the next call continues where this one
        ended.

    Raises:
        StorageUnavailable: what was yielded is done.
    """
    places = {} if places is None else places
    unfinished = list(before)
    while unfinished:
        for kind in tuple(unfinished):
            begun = time.monotonic()
            with storage.begin() as stores:
                batch = stores.upkeep.remove(kind, before[kind], places.get(kind), limit=BATCH)
                if batch.removed and kind in EVENTS:
                    note_deletion(stores, ring, kind, before[kind])
                if Disposable.IDLE_SESSIONS in before:
                    ending.record_timed_out(stores, batch.sessions, datetime.now(UTC))
            took = time.monotonic() - begun
            if batch.next is None:
                places.pop(kind, None)
                unfinished.remove(kind)
            else:
                places[kind] = batch.next
            yield kind, batch
            if batch.removed or batch.dependents:
                pause(max(PAUSE, 2 * took))


def erase_keys(storage: Storage, now: datetime) -> int:
    """Erase the private parts of signing keys that ended long ago; how many. Raises StorageUnavailable."""
    with storage.begin() as stores:
        return signing_keys.erase_ended(stores, now - GRACE)


def backlog(storage: Storage, before: Mapping[Disposable, datetime], limit: int) -> dict[Disposable, int]:
    """How many rows of each kind could be deleted now, counted up to `limit`. Raises StorageUnavailable."""
    with storage.begin() as stores:
        return {kind: stores.upkeep.count(kind, over, limit=limit) for kind, over in before.items()}


class Caretaker(Background):
    """Cleans up in the background of a server process, whenever no other process does.

    Args:
        storage: where the rows are.
        ring: proves that events were deleted here.
        settings: how often, and how long what is kept.
        floods: what it stores at each turn.
        look_after: what plugins do at each turn, and when the server starts; None if there is nothing.

    Attributes:
        removed: how many rows this process deleted, by kind, with their dependent rows.
        last_run: when this process last did the work; None when it never did.
        last_finished: when it last left nothing that could be deleted; None when it never did.
    """

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        settings: Settings,
        floods: Floods,
        look_after: Callable[[], None] | None = None,
    ) -> None:
        super().__init__("upkeep")
        self.removed: Counter[Disposable] = Counter()
        self.last_run: datetime | None = None
        self.last_finished: datetime | None = None
        self._storage = storage
        self._ring = ring
        self._settings = settings
        self._floods = floods
        self._look_after = look_after
        self._interval = settings.cleanup_interval
        self._lease = max(2 * self._interval, SHORTEST_LEASE)
        self._holder = digests.new_identifier()
        self._places: dict[Disposable, Place] = {}
        self._is_well = True
        self._sampled_at: datetime | None = None

    def start(self) -> None:
        """Work until the process ends; if `authserver.cleanup_interval` is 0, do only what plugins do at the start."""
        if self._interval or self._look_after:
            super().start()
            atexit.register(self.stop)

    def backlog(self) -> Mapping[Disposable, int]:
        """How many rows of each kind could be deleted now, up to `BACKLOG`; nothing when the database is away."""
        try:
            return backlog(self._storage, cutoffs(self._settings, datetime.now(UTC)), BACKLOG)
        except StorageUnavailable:
            return {}

    def work(self) -> int:
        """Take the lease and delete a bounded number of rows; how many they were.

        Raises:
            StorageUnavailable: what was deleted until then stays deleted.
        """
        if not self._take_lease():
            return 0
        self.last_run = datetime.now(UTC)
        removed: Counter[Disposable] = Counter()
        try:
            self._work(removed)
            if removed.keys() & EVENTS:
                remove_old(self._storage, self._ring)
        finally:
            if removed:
                log.info("cleaned up: %s", ", ".join(f"{count} {kind}" for kind, count in removed.items()))
            with self._storage.begin() as stores:
                stores.upkeep.end_lease(LEASE, self._holder)
        return removed.total()

    def _work(self, removed: Counter[Disposable]) -> None:
        renewed = time.monotonic()
        now = datetime.now(UTC)
        if erased := erase_keys(self._storage, now):
            log.info("erased the private parts of %s signing keys that have ended", erased)
        self._take_sample(now)
        before = cutoffs(self._settings, now)
        batches = remove_all(self._storage, self._ring, before, self._ended.wait, self._places)
        for number, (kind, batch) in enumerate(batches, start=1):
            rows = Counter({kind: batch.removed + batch.dependents})
            removed += rows
            self.removed += rows
            if number >= BATCHES or self._ended.is_set():
                return
            if time.monotonic() - renewed > self._lease / 2:
                if not self._take_lease():
                    return
                renewed = time.monotonic()
        self.last_finished = now

    def _let_plugins(self) -> None:
        """What plugins do, unless another process is at it."""
        if self._look_after is None or not self._take_lease():
            return
        try:
            self._look_after()
        finally:
            with self._storage.begin() as stores:
                stores.upkeep.end_lease(LEASE, self._holder)

    def _take_sample(self, now: datetime) -> None:
        """Note how much there is, once an hour. If it takes longer than the database lets it, the rest is done anyway."""
        hour = counting.begin_of(Step.HOUR, now)
        if hour == self._sampled_at:
            return
        self._sampled_at = hour
        try:
            with self._storage.begin() as stores:
                statistics.take_sample(stores, self._settings, now)
        except StorageUnavailable as error:
            log.warning("how many grants, sessions, clients and people there are is not noted: %s", error)

    def _take_lease(self) -> bool:
        now = datetime.now(UTC)
        with self._storage.begin() as stores:
            return stores.upkeep.take_lease(LEASE, self._holder, now, now + timedelta(seconds=self._lease))

    def _run(self) -> None:
        if self._look_after:
            self._turn(self._let_plugins)
        while self._interval and self._pause(self._interval):
            self._floods.store()
            self._turn(self._work_and_let_plugins)

    def _work_and_let_plugins(self) -> None:
        self.work()
        self._let_plugins()

    def _turn(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self._tell(error)
        else:
            self._is_well = True

    def _tell(self, error: Exception) -> None:
        """Log a failure once, until the work succeeds again."""
        if self._is_well:
            passing = isinstance(error, StorageUnavailable)
            log.warning(
                "cannot clean up (%s); trying again every %s seconds",
                error,
                self._interval,
                exc_info=None if passing else error,
            )
        self._is_well = False
