"""A cache of answers, by the exact question, limited in time and number."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict

from authserver_webhook_policy.answers import Answer


class Cache:
    """Remembers answers. Safe for many threads.

    Args:
        seconds: how long an answer is valid; 0 remembers nothing.
        size: how many are kept; the oldest is removed first.
    """

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()

    def find(self, question: bytes) -> Answer | None:
        """The answer to exactly this question, if it is still valid."""
        if not self._seconds:
            return None
        with self._lock:
            good_until, answer = self._kept.get(_name(question), (0.0, None))
        return answer if time.monotonic() < good_until else None

    def keep(self, question: bytes, answer: Answer) -> None:
        """Remember an answer from now on."""
        if not self._seconds:
            return
        name = _name(question)
        with self._lock:
            self._kept[name] = (time.monotonic() + self._seconds, answer)
            self._kept.move_to_end(name)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


def _name(question: bytes) -> bytes:
    return hashlib.sha256(question).digest()
