"""Work in the background of a server process: its base, and what is read there so that no request waits for it."""

from __future__ import annotations

import logging
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from authserver.engine.context import Begin
from authserver.engine.tokens.issuer_keys import fetch_ahead

# Seconds from one look for keys that end soon to the next.
KEYS_EVERY = 60
# Seconds from one reading of what changes in the database to the next: less than `engine.offered.FOLLOW_SECONDS` and
# `engine.keys.following.AGING_SECONDS`, after which a request would have to read it.
FOLLOW_EVERY = 3
log = logging.getLogger(__name__)


class Background(ABC):
    """Work in a thread of its own, from the start of a process to its end.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Work until the process ends."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after what it is at, and wait for that no longer than one second."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    @abstractmethod
    def _run(self) -> None:
        """The work, until `_ended` is set; it raises nothing."""

    def _pause(self, seconds: float) -> bool:
        """Wait about so long: processes that start together do not meet at every turn. Returns False at the end.

        The wait does not depend on a clock that can be set.
        """
        return not self._ended.wait(seconds * (800 + secrets.randbelow(400)) / 1000)


class KeysAhead(Background):
    """Fetches the keys of trusted issuers before they are needed. Each process has them for itself.

    Args:
        begin: opens a transaction.
    """

    def __init__(self, begin: Begin) -> None:
        super().__init__("keys of issuers")
        self._begin = begin
        self._is_well = True

    def work(self) -> None:
        """Look once at each issuer. What fails is logged once, until it succeeds again."""
        try:
            for _ in fetch_ahead(self._begin):
                if self._ended.is_set():
                    return
        except Exception as error:
            if self._is_well:
                log.warning("cannot look for the keys of issuers (%s); trying again each minute", error)
            self._is_well = False
        else:
            self._is_well = True

    def _run(self) -> None:
        self.work()
        while self._pause(KEYS_EVERY):
            self.work()


class Following(Background):
    """Reads the signing keys, scopes and limits of the database again before a request has to.

    Args:
        follow: each reads one of them again, and raises nothing.
    """

    def __init__(self, *follow: Callable[[], None]) -> None:
        super().__init__("following")
        self._follow = follow

    def _run(self) -> None:
        while self._pause(FOLLOW_EVERY):
            for read in self._follow:
                read()
