"""A time limit for plugins: a caller waits so long and no longer.

Python cannot stop a thread, so a function that hangs keeps its thread; there may be a fixed number of them, and
when all hang the next call is refused at once instead of piling up. They are daemons: a plugin that hangs does
not keep the process from ending, as a pool of `concurrent.futures` would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from authserver.containment import contained

# How long loading waits for the import of a plugin, for its construction and for its `prepare`: enough for large
# libraries on a slow disk.
LOADING_SECONDS = 30.0


class TooSlow(Exception):
    """The function did not answer in time, or every thread is held by one that does not."""


class NoThread(RuntimeError):
    """No thread can be started: there are too many, or the interpreter is ending."""


class TimeLimit:
    """Calls functions in threads of their own.

    Args:
        seconds: how long a caller waits.
        threads: how many calls may be under way at once.
    """

    def __init__(self, seconds: float, *, threads: int = 32) -> None:
        self._seconds = seconds
        self._free = threading.BoundedSemaphore(threads)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises, contained. Raises TooSlow, and NoThread when it was not called."""
        if not self._free.acquire(blocking=False):
            raise TooSlow("every thread is held by a call that does not answer")
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(contained(function, *arguments))
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._free.release()

        try:
            # It works for the same request (`engine.timeline`).
            context = copy_context()
            threading.Thread(target=context.run, args=(run,), name="policy", daemon=True).start()
        except BaseException as error:
            self._free.release()
            if isinstance(error, RuntimeError):
                raise NoThread(str(error)) from error
            raise
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # the function itself raised it
                raise
            raise TooSlow(f"no answer within {self._seconds} s") from None
