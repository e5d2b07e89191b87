"""Where requests with a password wait for their turn without holding a thread.

To check one takes a processor for long by design. So few are checked at once, and those of a burst come one after the
other, within the same seconds as every other request that waits.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lane(Generic[Item]):
    """Lets few have their turn at once; of the others each source has one in turn. Not safe between threads.

    Args:
        at_once: how many have their turn at once.
        longest: how many wait at most; half as many of one source.
    """

    def __init__(self, at_once: int, longest: int) -> None:
        self._at_once, self._longest = at_once, longest
        self._running = self._waiting = 0
        # In the order in which sources have their turn. With each item, when its request arrived.
        self._of_source: dict[str, deque[tuple[float, Item]]] = {}

    def enter(self, item: Item, source: str, arrived: float) -> bool:
        """Whether it has its turn at once; otherwise `leave` returns it one day."""
        if self._running < self._at_once:
            self._running += 1
            return True
        self._of_source.setdefault(source, deque()).append((arrived, item))
        self._waiting += 1
        return False

    def leave(self) -> Item | None:
        """One that had its turn has ended. Returns the one that has its turn now."""
        for source, items in self._of_source.items():
            _, item = items.popleft()
            del self._of_source[source]
            if items:
                # Behind all others.
                self._of_source[source] = items
            self._waiting -= 1
            return item
        self._running -= 1
        return None

    def is_full(self, source: str, since: float) -> bool:
        """Whether no more of a source may wait: too many do, or one whose request arrived before that moment."""
        if self._waiting >= self._longest:
            return True
        items = self._of_source.get(source)
        return items is not None and (len(items) >= max(1, self._longest // 2) or items[0][0] < since)
