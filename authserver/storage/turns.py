"""Lets threads do one after the other what only one may do, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A queue of threads. Who leaves gives the turn to the one that has waited longest, and to nobody who comes later.

    A lock of `threading` may be taken again by the thread that has just released it, any number of times.
    """

    __slots__ = ("_guard", "_is_taken", "_waiting")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_taken = False
        # Each waits for a lock of its own, which is released for it.
        self._waiting: deque[threading.Lock] = deque()

    def take(self, seconds: float) -> bool:
        """Wait for a turn; False if it has not come in so many seconds."""
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
        # It may have come just after the time was over.
        return has_come or not self._withdraw(turn)

    def leave(self) -> None:
        """Give the turn to the next one."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def _withdraw(self, turn: threading.Lock) -> bool:
        """Wait no longer; False if the turn has come."""
        with self._guard:
            if turn not in self._waiting:
                return False
            self._waiting.remove(turn)
            return True
