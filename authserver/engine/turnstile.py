"""Bounds how many threads do expensive work at the same time; a few more wait briefly, and all others are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from authserver.engine.errors import TooBusy

WAIT_SECONDS = 1.0


class Turnstile:
    """Bounds how many do something at once in this process.

    The same number may wait for their turn: each of these blocks a thread of the server meanwhile, and other threads
    must remain free for everything else. Nobody has all places or, if there are several, all turns: one is left for
    somebody else.

    Args:
        at_once: how many may do it at the same time.

    Attributes:
        turned_away: how many were refused since the start.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        # Who has a place, and who has a turn; one entry for each.
        self._places: list[str] = []
        self._turns: list[str] = []
        self._changed = threading.Condition()
        self.turned_away = 0

    @property
    def running(self) -> int:
        """How many have a turn."""
        return len(self._turns)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return max(0, len(self._places) - len(self._turns))

    @contextmanager
    def turn(self, who: str) -> Iterator[None]:
        """Take a turn. Raises TooBusy if too many wait already, or no turn became free within a second.

        Args:
            who: for whom it is, such as a network.
        """
        with self._changed:
            if not _is_free(self._places, 2 * self._at_once, who):
                self.turned_away += 1
                raise TooBusy
            self._places.append(who)
        try:
            with self._changed:
                if not self._changed.wait_for(
                    lambda: _is_free(self._turns, self._at_once, who), WAIT_SECONDS
                ):
                    self.turned_away += 1
                    raise TooBusy
                self._turns.append(who)
            try:
                yield
            finally:
                with self._changed:
                    self._turns.remove(who)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._places.remove(who)


def _is_free(taken: list[str], most: int, who: str) -> bool:
    return len(taken) < most and taken.count(who) < max(1, most - 1)
