"""The events in the order in which they were stored, for readers that must not miss any.

An event gets its number before its transaction commits: of two events, the one with the higher number may become visible
first. A reader that continued after it would never see the other. Therefore a reader stops at a missing number until that
number cannot appear any more: its transaction failed, or its event was deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import takewhile

from authserver.engine.ports import Events
from authserver.engine.records import Event

# Seconds after which a transaction with a number has ended. It writes its events last, and the database ends a statement
# after five seconds.
SETTLED = 60.0

Numbered = tuple[int, Event]


class EventStream:
    """The events that one reader has not taken yet, in order.

    Args:
        clock: seconds of a clock that nobody can set.
        decisions: whether the events have their decisions.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, decisions: bool = True) -> None:
        self._clock = clock
        self._decisions = decisions
        # All numbers up to the first that will ever appear have appeared; the second will be the next such number.
        self._settled = 0
        self._settling: tuple[float, int] | None = None

    def following(self, stored: Events, number: int, *, limit: int) -> Sequence[Numbered]:
        """The next events after this number, `limit` at most; none where the next one may still be missing.

        Raises:
            StorageUnavailable: the storage did not answer.
        """
        # In this order, because a number that is settled now was settled before the events are read.
        self._settle(stored)
        found = stored.following(number, limit=limit, decisions=self._decisions)
        last = number

        def comes_next(item: Numbered) -> bool:
            nonlocal last
            fits = item[0] == last + 1 or item[0] <= self._settled
            last = item[0]
            return fits

        return tuple(takewhile(comes_next, found))

    def _settle(self, stored: Events) -> None:
        now = self._clock()
        if self._settling is not None:
            since, number = self._settling
            if now - since < SETTLED:
                return
            self._settled = number
        self._settling = now, stored.last_number()
