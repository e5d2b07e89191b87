"""Values that are fetched and kept: by one thread at a time, and valid for a while after their source has failed."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

from authserver_resource.fetching import FetchFailed
from authserver_resource.refusals import Unavailable

# Seconds for which the last value may be used while no newer one can be fetched.
LAST_GOOD = 86_400.0
# Seconds until a failed fetch is tried again.
AFTER_FAILURE = 10.0
# Seconds between two fetches of a fresh value, for requests with something unknown, such as a new `kid`.
FORCED = 60.0

Value = TypeVar("Value")
log = logging.getLogger(__name__)


class WouldWait(Exception):
    """The answer needs the network, and the caller must not wait."""


class Kept(Generic[Value]):
    """A value with a source.

    Args:
        what: its description for the log.
        fetch: returns the value, and for how many seconds it is fresh. Raises FetchFailed.
    """

    def __init__(self, what: str, fetch: Callable[[], tuple[Value, float]]) -> None:
        self._what = what
        self._fetch = fetch
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._attempts = 0
        self._failed = False
        self._fresh_until = self._good_until = self._try_at = self._force_at = -math.inf

    def get(self, *, wait: bool) -> Value:
        """The value, fetched if it is no longer fresh; the last one if that fails.

        Raises:
            Unavailable: there is none.
            WouldWait: it must be fetched, and `wait` is false.
        """
        now = monotonic()
        if self._value is not None and now < self._fresh_until:
            return self._value
        if now >= self._try_at:
            self._fetch_once(wait=wait, patient=self._usable(now) is None)
        return self._present()

    def newer(self, *, wait: bool) -> Value:
        """The value, fetched again although it is fresh, unless that was done within the last minute.

        Raises:
            Unavailable: it could not be fetched again, so the present value is unknown.
            WouldWait: it must be fetched, and `wait` is false.
        """
        now = monotonic()
        if now >= self._force_at and now >= self._try_at:
            self._fetch_once(wait=wait, patient=True, forced=True)
        if self._failed:
            raise self._unavailable()
        return self._present()

    def _fetch_once(self, *, wait: bool, patient: bool, forced: bool = False) -> None:
        """Fetch, or wait for the thread that fetches; a caller that has an older value does not wait."""
        attempts = self._attempts
        if not patient and self._lock.locked():
            return
        if not wait:
            raise WouldWait
        if not self._lock.acquire(blocking=patient):
            return
        try:
            if attempts != self._attempts:
                return
            now = monotonic()
            try:
                self._value, seconds = self._fetch()
            except FetchFailed as problem:
                self._failed = True
                self._try_at = monotonic() + AFTER_FAILURE
                log.warning("%s: %s", self._what, problem)
            else:
                self._failed = False
                self._try_at = -math.inf
                if forced:
                    self._force_at = now + FORCED
                self._fresh_until = now + seconds
                self._good_until = now + max(seconds, LAST_GOOD)
            self._attempts += 1
        finally:
            self._lock.release()

    def _usable(self, now: float) -> Value | None:
        return self._value if now < self._good_until else None

    def _present(self) -> Value:
        value = self._usable(monotonic())
        if value is None:
            raise self._unavailable()
        return value

    def _unavailable(self) -> Unavailable:
        seconds = max(1, math.ceil(self._try_at - monotonic())) if self._try_at > 0 else 1
        return Unavailable("The authorization server cannot be reached.", retry_after=seconds)


class Cache(Generic[Value]):
    """Values with an end; when there are too many, the least recently used one is removed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, or None."""
        if key not in self._values:  # without the lock: most keys are unknown
            return None
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            if monotonic() >= found[0]:
                del self._values[key]
                return None
            self._values.move_to_end(key)
            return found[1]

    def put(self, key: Hashable, value: Value, seconds: float) -> None:
        """Keep a value for so many seconds."""
        if seconds <= 0:
            return
        with self._lock:
            self._values[key] = (monotonic() + seconds, value)
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)

    def __len__(self) -> int:
        return len(self._values)
