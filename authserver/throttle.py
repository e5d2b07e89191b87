"""Counts how often a caller did something within a minute, in this process."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

# Counts and reports have keys of their own.
_COUNTED, _TOLD = "counted", "told"


class Throttle:
    """Implements `engine.ports.Throttle`. A minute begins with the first time; each process counts for itself."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def count(self, what: str, who: str, *, limit: int) -> None:
        self._limiter.hit(RateLimitItemPerMinute(limit), _COUNTED, what, who)

    def seconds_to_wait(self, what: str, who: str, *, limit: int) -> int:
        item = RateLimitItemPerMinute(limit)
        if self._limiter.test(item, _COUNTED, what, who):
            return 0
        ends_at, _ = self._limiter.get_window_stats(item, _COUNTED, what, who)
        return max(1, math.ceil(ends_at - time.time()))

    def tell(self, what: str, who: str) -> bool:
        return self._limiter.hit(RateLimitItemPerMinute(1), _TOLD, what, who)
