"""A lock that threads get in the order in which they asked for it."""

from __future__ import annotations

import threading
from collections import deque


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
        """Wait for a turn; False if it has not come within `patience` seconds."""
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
