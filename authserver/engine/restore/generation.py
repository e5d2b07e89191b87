"""After a restore from a backup, nothing that ended since the backup may be valid again (T149).

A backup does not contain later revocations, uses, rotations and sign-outs. Therefore a new generation begins: every
grant, session and consent of the backup ends, and other keys sign. Things that are not stored but are from the time
before (a pending request, an assertion, a proof) are refused because of their age (`engine.tokens.once`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from authserver.engine.context import Engine
from authserver.engine.keys import signing_keys
from authserver.engine.ports import Storage, StorageUnavailable
from authserver.engine.records import KeyState, SigningKey

REASON = "database-restored"
# At most this many rows change in one transaction, so that none takes long.
BATCH = 1000
# Seconds after which a process reads this again.
FOLLOW_SECONDS = 8.0
log = logging.getLogger(__name__)

# An engine in a transaction of its own.
Begin = Callable[[], AbstractContextManager[Engine]]


class FollowedGeneration:
    """Implements `engine.ports.Generation` over the storage: read at start, and again every few seconds.

    Args:
        clock: seconds that nobody sets (T150).
    """

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._clock = clock
        self._lock = threading.Lock()
        self._began_at: datetime | None = None
        self._read_at: float | None = None

    def began_at(self) -> datetime | None:
        """Cached; one thread reads it again every few seconds while the others use the cached value."""
        read_at = self._read_at
        if read_at is None:
            self.read()
        elif self._clock() - read_at > FOLLOW_SECONDS and self._lock.acquire(blocking=False):
            try:
                self.read()
            except StorageUnavailable as error:
                log.warning("when the database was restored is not read again, while it is away: %s", error)
            except Exception:
                log.exception(
                    "cannot read when the database was restored; using the value that was read before"
                )
            finally:
                self._lock.release()
        return self._began_at

    def read(self) -> None:
        """Read it now. Raises StorageUnavailable."""
        with self._storage.begin() as stores:
            self._began_at = stores.generations.began_at()
        self._read_at = self._clock()


def revoke_grants(begin: Begin) -> Iterator[int]:
    """Revoke all grants, a batch in each transaction. Yields how many grants of each batch were not revoked before."""
    last = ""
    while True:
        with begin() as engine:
            done = engine.stores.grants.revoke_next(engine.now, REASON, after=last, limit=BATCH)
        if done is None:
            return
        last, revoked = done
        yield revoked


def end_sessions(begin: Begin) -> Iterator[int]:
    """Sign everybody out, a batch in each transaction. Yields the number of sessions in each."""
    return _drop(begin, lambda engine: engine.stores.sessions.end_some(BATCH))


def forget_consents(begin: Begin) -> Iterator[int]:
    """Delete all consents, because withdrawn ones are valid again, in batches. Yields the number of each batch."""
    return _drop(begin, lambda engine: engine.stores.consents.forget_some(BATCH))


def _drop(begin: Begin, drop: Callable[[Engine], int]) -> Iterator[int]:
    while True:
        with begin() as engine:
            dropped = drop(engine)
        if not dropped:
            return
        yield dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedKeys:
    """The ids of the signing keys that ended, and of the present ones."""

    ended: tuple[str, ...]
    fresh: tuple[str, ...]


def replace_signing_keys(engine: Engine) -> ReplacedKeys:
    """End every signing key now, and make a new one, which signs at once.

    There is no record of what the keys of the backup signed after it, so no such signature may be accepted anywhere.

    Raises:
        CannotChange: somebody else changes the keys.
    """
    ended = sorted(_living(engine), key=partial(_order, engine))
    for key in ended:
        signing_keys.revoke(engine, key.kid, reason=REASON)
    signing_keys.prepare(engine)
    return ReplacedKeys(
        ended=tuple(key.kid for key in ended), fresh=tuple(key.kid for key in _living(engine))
    )


def _living(engine: Engine) -> list[SigningKey]:
    return [key for key in engine.stores.signing_keys.list() if key.state(engine.now) is not KeyState.REMOVED]


def _order(engine: Engine, key: SigningKey) -> tuple[bool, bool]:
    """Staged keys end first, so that none begins to sign; that of the configured algorithm last: a new one replaces it."""
    is_active = key.state(engine.now) is KeyState.ACTIVE
    return is_active, key.algorithm == engine.settings.signing_algorithm
