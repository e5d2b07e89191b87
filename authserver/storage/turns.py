"""Locks that threads get in the order in which they asked for them, and that processes get by turns."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Turns:
    """A queue of threads. A thread that leaves gives the turn to the one that has waited longest, never to a later one.

    With a lock of `threading`, the thread that has just released it may take it again, any number of times.
    """

    __slots__ = ("_guard", "_is_taken", "_waiting")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_taken = False
        # Each waiting thread has a lock of its own, which the thread before it releases.
        self._waiting: deque[threading.Lock] = deque()

    def take(self, seconds: float) -> bool:
        """Wait for a turn; False if it has not come within so many seconds."""
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


# Seconds after which a process tries again to get a turn that another one has.
POLL = 0.0005
# Seconds for which a process writes one transaction after the other before it lets others go first, and for how long.
STRETCH, PAUSE = 0.005, 0.001
# Seconds after which a process forgets that there was another one.
REMEMBERED = 1.0


class ProcessTurn:
    """The turn of this process among all that write to one SQLite file. One thread uses it at a time.

    A connection that waits in SQLite sleeps for longer and longer, up to a tenth of a second, while another process writes
    one transaction after the other. Here it tries again soon, and a process that has met another one lets go for a moment.

    This only decides who waits, and SQLite's own lock protects the file. So there is no harm in going without: where
    the system has no such locks, and while the log does not exist.

    Args:
        log: the log beside the file (`-wal`); None: there is no other process. The lock is on this, because closing the
            file itself would end the locks that SQLite has on it (POSIX).
    """

    __slots__ = ("_began", "_descriptor", "_left", "_log", "_met_at")

    def __init__(self, log: Path | None) -> None:
        self._log = log if sys.platform != "win32" else None
        self._descriptor: int | None = None
        # When this stretch of writing began, when the last transaction ended, and when another process was met.
        self._began = self._left = self._met_at = -math.inf

    def take(self, seconds: float) -> bool:
        """Wait for the turn; False if it has not come within so many seconds."""
        if not self._is_open():
            return True
        now = time.monotonic()
        if now - self._left > POLL:
            # Others could have taken it.
            self._began = now
        elif now - self._began > STRETCH and now - self._met_at < REMEMBERED:
            time.sleep(PAUSE)
            self._began = time.monotonic()
        end = now + seconds
        while not self._has_taken():
            self._began = self._met_at = time.monotonic()
            if self._met_at > end:
                return False
            time.sleep(POLL)
        return True

    def leave(self) -> None:
        """Let another process write. Does nothing without a turn."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._left = time.monotonic()

    def close(self) -> None:
        """Let another process write, and forget the log."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _is_open(self) -> bool:
        """Whether there is a log; it is removed with the last connection of all processes, and made again later."""
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            self.close()
        if self._descriptor is None and self._log is not None:
            with suppress(OSError):
                self._descriptor = os.open(self._log, os.O_RDONLY)
        return self._descriptor is not None

    def _has_taken(self) -> bool:
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # The file system has no locks.
            self._log = None
            self.close()
        return True


class Writers:
    """The queue of all that write to one SQLite file: the threads of this process in order, and other processes by turns.

    Args:
        log: as for `ProcessTurn`.
    """

    __slots__ = ("_process", "_threads")

    def __init__(self, log: Path | None) -> None:
        self._threads = Turns()
        self._process = ProcessTurn(log)

    def take(self, seconds: float) -> bool:
        """Wait for a turn; False if it has not come within so many seconds."""
        end = time.monotonic() + seconds
        if not self._threads.take(seconds):
            return False
        has_come = False
        try:
            has_come = self._process.take(end - time.monotonic())
        finally:
            if not has_come:
                self._threads.leave()
        return has_come

    def leave(self) -> None:
        """Give the turn to the next one."""
        try:
            self._process.leave()
        finally:
            self._threads.leave()

    def close(self) -> None:
        """Keep no file open."""
        self._process.close()
