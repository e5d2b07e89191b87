"""A bound on how long a plugin may think: a caller waits so long and no longer.

Python cannot stop a thread, so a function that hangs keeps its thread; there is a fixed number of them, and
when all hang the next call is refused at once instead of piling up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class TooSlow(Exception):
    """The function did not answer in time, or every thread is held by one that does not."""


class TimeLimit:
    """Calls functions in threads of its own.

    Args:
        seconds: how long a caller waits.
        threads: how many calls may be under way at once.
    """

    def __init__(self, seconds: float, *, threads: int = 32) -> None:
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="policy")
        self._free = threading.BoundedSemaphore(threads)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises. Raises TooSlow."""
        if not self._free.acquire(blocking=False):
            raise TooSlow("every thread is held by a plugin that does not answer")
        future: Future[Any] = self._pool.submit(function, *arguments)
        future.add_done_callback(lambda _: self._free.release())
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # the function itself raised it
                raise
            raise TooSlow(f"no answer within {self._seconds} s") from None
