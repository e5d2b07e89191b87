"""A queue in which requests with a password wait for their turn without holding a thread.

To check a password takes a processor for a long time, by design. Therefore only a few are checked at once, and the others
wait, for as many seconds as every other request may wait.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lane(Generic[Item]):
    """Gives turns to a limited number of items at once; the sources of the waiting items take turns. Not thread-safe.

    Args:
        at_once: how many items have their turn at once.
        longest: how many items wait at most; half as many from one source.
    """

    def __init__(self, at_once: int, longest: int) -> None:
        self._at_once, self._longest = at_once, longest
        self._running = self._waiting = 0
        # The sources in the order of their turns, each with its waiting items and the times when their requests arrived.
        self._of_source: dict[str, deque[tuple[float, Item]]] = {}

    def enter(self, item: Item, source: str, arrived: float) -> bool:
        """Whether the item has its turn at once; otherwise it waits, and `leave` returns it later."""
        if self._running < self._at_once:
            self._running += 1
            return True
        self._of_source.setdefault(source, deque()).append((arrived, item))
        self._waiting += 1
        return False

    def leave(self) -> Item | None:
        """End the turn of an item. Returns the item that has its turn now, or None."""
        for source, items in self._of_source.items():
            _, item = items.popleft()
            del self._of_source[source]
            if items:
                # The source goes behind all others.
                self._of_source[source] = items
            self._waiting -= 1
            return item
        self._running -= 1
        return None

    def is_full(self, source: str, since: float) -> bool:
        """Whether no more items of this source may wait: too many wait, or one waits that arrived before this moment."""
        if self._waiting >= self._longest:
            return True
        items = self._of_source.get(source)
        return items is not None and (len(items) >= max(1, self._longest // 2) or items[0][0] < since)
