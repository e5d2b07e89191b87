"""Threads in tests: one call made by many threads at the same moment, and waiting for work in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def at_once(count: int, run: Callable[[int], Result]) -> list[Result]:
    """Call the function `count` times with the numbers from 0 on, each in a thread; all threads start together."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Result:
        barrier.wait(timeout=30)
        return run(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; False if it does not hold within that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
