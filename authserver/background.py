"""What each server process reads or fetches in the background, so that no request waits for it."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from authserver.engine.context import Begin
from authserver.engine.tokens.issuer_keys import fetch_ahead

# Seconds from one look for keys that end soon to the next.
KEYS_EVERY = 60
# Seconds from one reading of what changes in the database to the next: less than `engine.offered.FOLLOW_SECONDS` and
# `engine.keys.following.AGING_SECONDS`, after which a request would have to read it.
FOLLOW_EVERY = 3
log = logging.getLogger(__name__)


class Repeated:
    """Work that a process does again and again in a thread of its own, from its start to its end.

    Args:
        name: of the thread.
        work: must not raise.
        every: seconds between two turns, about: processes that start together do not meet at every turn.
    """

    def __init__(self, name: str, work: Callable[[], None], every: float) -> None:
        self._work = work
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_ended(self) -> bool:
        """Whether it was told to stop."""
        return self._ended.is_set()

    def start(self) -> None:
        """Work until the process ends."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after what it is at, and wait for that no longer than one second."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def _run(self) -> None:
        self._work()
        while not self._ended.wait(self._every * (800 + secrets.randbelow(400)) / 1000):
            self._work()


class KeysAhead(Repeated):
    """Fetches the keys of trusted issuers before they are needed. Each process has them for itself.

    Args:
        begin: opens a transaction.
    """

    def __init__(self, begin: Begin) -> None:
        super().__init__("keys of issuers", self.work, KEYS_EVERY)
        self._begin = begin
        self._is_well = True

    def work(self) -> None:
        """Look once at each issuer. What fails is logged once, until it succeeds again."""
        try:
            for _ in fetch_ahead(self._begin):
                if self.is_ended:
                    return
        except Exception as error:
            if self._is_well:
                log.warning("cannot look for the keys of issuers (%s); trying again each minute", error)
            self._is_well = False
        else:
            self._is_well = True


class Following(Repeated):
    """Reads the signing keys, scopes and limits of the database again before a request has to.

    Args:
        follow: each reads one of them again, and raises nothing.
    """

    def __init__(self, *follow: Callable[[], None]) -> None:
        super().__init__("following", self.work, FOLLOW_EVERY)
        self._follow = follow

    def work(self) -> None:
        """Read each of them once."""
        for read in self._follow:
            read()
