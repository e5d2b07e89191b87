"""How many requests a process works on at once: as many as it takes to keep processors busy, and no more.

Python lets one thread run at a time. If a process worked on more requests than that keeps busy, each would take longer,
because they wait for each other, and some would take very long, because nothing makes threads take turns; and PostgreSQL's
processes would get in each other's way. If it worked on fewer while they wait for something else, such as a database that
is far away, it would answer fewer than it could. How many are right is found by looking at how busy the process and the
machine are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Seconds after which a request does not count any more: it checks a password or waits for somebody, and others must not
# wait for that.
BRISK = 0.02
# Seconds for which a request has waited where there are more than can be answered in time. Then all threads work: the one
# that refuses what is too much would otherwise get half of the time.
LATE = 0.1
# Seconds between two changes of the number.
WINDOW = 0.2
# Below this share of its time a process could run more; above the other one it runs all the time.
IDLE, BUSY = 0.9, 0.97
# The shares of the time of all processors that are idle: with more there is something to gain, and with less nothing.
SOME, NONE = 0.08, 0.03
_PROCESSORS = Path("/proc/stat")


class Used(NamedTuple):
    """Seconds since some moment: of the clock, of processors in this process, and in which processors were idle."""

    clock: float
    process: float
    idle: float


class Concurrency:
    """The requests that threads work on, and whether there may be more. Not thread-safe.

    Args:
        most: how many there are at once at most.
        used: what has been used until now; None if the system does not tell what is idle. Then there may be `most` at once.
        processors: how many the machine has.

    Attributes:
        limit: how many brisk requests there are at once.
    """

    def __init__(
        self, most: int, used: Callable[[], Used | None] | None = None, processors: int | None = None
    ) -> None:
        self._most, self._used = most, used or now_used
        self._processors = processors or os.cpu_count() or 1
        self._before = self._used()
        self.limit = most if self._before is None else 1
        # The threads that work on a brisk request, and since when.
        self._brisk: dict[int, float] = {}
        self._is_late = False

    @property
    def room(self) -> int:
        """How many more requests may begin."""
        return max(0, (self._most if self._is_late else self.limit) - len(self._brisk))

    def begin(self, thread: int) -> None:
        """This thread works on a request now."""
        self._brisk[thread] = time.monotonic()

    def end(self, thread: int) -> None:
        """It has ended."""
        self._brisk.pop(thread, None)

    def look(self, since: float) -> None:
        """Forget requests that take long, and adapt the limit; to be called again and again while requests wait.

        Args:
            since: when the first of them began to wait, by the monotonic clock.
        """
        now = time.monotonic()
        self._is_late = now - since > LATE
        for thread in [thread for thread, since in self._brisk.items() if now - since > BRISK]:
            del self._brisk[thread]
        if self._before is None or now - self._before.clock < WINDOW:
            return
        before, self._before = self._before, self._used()
        # In a longer time no request waited, so that it says nothing.
        if self._before is not None and now - before.clock < 2 * WINDOW:
            self._adapt(self._before, before)

    def _adapt(self, now: Used, before: Used) -> None:
        passed = now.clock - before.clock
        own = (now.process - before.process) / passed
        idle = (now.idle - before.idle) / passed / self._processors
        if own < IDLE and idle > SOME:
            self.limit = min(self.limit + 1, self._most)
        elif own > BUSY or idle < NONE:
            self.limit = max(self.limit - 1, 1)


def now_used() -> Used | None:
    """What was used until now; None where the system does not tell what is idle, as only Linux does."""
    try:
        _, *ticks = _PROCESSORS.read_text().partition("\n")[0].split()
        # That a processor waits for a disk does not keep it from other work.
        idle = (int(ticks[3]) + int(ticks[4])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return Used(time.monotonic(), time.process_time(), idle)
