"""Races for tests: the same thing done by many at the same moment."""

from __future__ import annotations

import threading
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
