"""Threads in tests: the same thing done by many at the same moment, and what happens in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def at_once(count: int, run: Callable[[int], Result]) -> list[Result]:
    """Run it `count` times, with the numbers from 0 on, in as many threads that start together."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Result:
        barrier.wait(timeout=30)
        return run(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until this is so; False if it is not so after that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
