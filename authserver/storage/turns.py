"""A lock that threads get in the order in which they asked for it, and processes in shifts."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

# Seconds in which the threads of a process follow each other while others wait, and between two tries of another process.
SHIFT = 0.02
_TRY_EVERY = 0.001


class Shifts:
    """Of several processes, the one whose threads take turns now.

    A process that finds SQLite's file locked sleeps up to a tenth of a second, and mostly finds it locked again. Here it
    looks often, and whoever has had a shift lets others look first. In a shift several threads follow each other, because
    a change of processes costs each of them what it has read of the file.

    Args:
        path: of a file that is locked (`flock`) and that nothing is written to; the first one who needs a shift makes it.
            Where that cannot be done, there is an order among threads alone. It is not SQLite's own: closing that would end
            locks that SQLite has in this process.
    """

    __slots__ = ("_descriptor", "_is_polite", "_path", "_since")

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path
        self._descriptor: int | None = None
        # When this process began its shift; None outside of one.
        self._since: float | None = None
        self._is_polite = False

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @property
    def is_over(self) -> bool:
        """Whether others should have one now."""
        return self._since is None or time.monotonic() - self._since > SHIFT

    def begin(self, seconds: float) -> bool:
        """Wait for a shift, unless this process has it; False if it has not come in so many seconds."""
        if self._path is not None:
            path, self._path = self._path, None
            with suppress(OSError):
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._descriptor is None or self._since is not None:
            return True
        end = time.monotonic() + seconds
        if self._is_polite:
            time.sleep(2 * _TRY_EVERY)
            self._is_polite = False
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(_TRY_EVERY)
            except OSError:
                return True
            else:
                self._since = time.monotonic()
                return True

    def end(self, *, comes_again: bool) -> None:
        """Let another process have the next shift.

        Args:
            comes_again: whether a thread of this process waits for one, too.
        """
        if self._since is not None and self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._since, self._is_polite = None, comes_again


class Turns:
    """A queue of threads. A thread that leaves gives the turn to the one that has waited longest, never to a later one.

    A lock of `threading` may be taken again by the thread that has just released it, any number of times.

    Args:
        shifts: of the processes that wait for the same; None if there is only this one.
    """

    __slots__ = ("_guard", "_is_taken", "_shifts", "_waiting")

    def __init__(self, shifts: Shifts | None = None) -> None:
        self._shifts = shifts
        self._guard = threading.Lock()
        self._is_taken = False
        # Each waiting thread has a lock of its own, which the thread before it releases.
        self._waiting: deque[threading.Lock] = deque()

    def take(self, seconds: float) -> bool:
        """Wait for a turn; False if it has not come in so many seconds."""
        end = time.monotonic() + seconds
        if not self._take(seconds):
            return False
        try:
            is_ours = self._shifts is None or self._shifts.begin(end - time.monotonic())
        except BaseException:
            self.leave()
            raise
        if not is_ours:
            self.leave()
        return is_ours

    def _take(self, seconds: float) -> bool:
        with self._guard:
            if not self._is_taken:
                self._is_taken = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            has_come = turn.acquire(timeout=seconds)
        except BaseException:
            if not self._withdraw(turn):
                self.leave()
            raise
        # The turn may have come just after the timeout.
        return has_come or not self._withdraw(turn)

    def leave(self) -> None:
        """Give the turn to the next one."""
        with self._guard:
            if self._shifts is not None and (not self._waiting or self._shifts.is_over):
                self._shifts.end(comes_again=bool(self._waiting))
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def _withdraw(self, turn: threading.Lock) -> bool:
        """Stop waiting; False if the turn has come."""
        with self._guard:
            if turn not in self._waiting:
                return False
            self._waiting.remove(turn)
            return True
