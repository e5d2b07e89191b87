"""Lets few do at once what takes much work; a few more wait briefly, and everybody else is sent away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from authserver.engine.errors import TooBusy

WAIT_SECONDS = 1.0


class Turnstile:
    """Bounds how many do something at once in this process.

    As many again may wait for their turn: each holds a thread of the server meanwhile, and others of its threads must stay
    free for everything else.

    Args:
        at_once: how many.
    """

    def __init__(self, at_once: int) -> None:
        self._turns = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(2 * at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have a turn. Raises TooBusy when too many wait already, or none became free within a second."""
        if not self._places.acquire(blocking=False):
            raise TooBusy
        try:
            if not self._turns.acquire(timeout=WAIT_SECONDS):
                raise TooBusy
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._places.release()
