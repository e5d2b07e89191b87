"""The signing keys in use, which every process reads from the database every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from authserver.engine.crypto import jose
from authserver.engine.crypto.sealing import KeyRing, Unsealable, key_id_of
from authserver.engine.keys import signing_keys
from authserver.engine.ports import Storage, StorageUnavailable
from authserver.engine.records import KeyState, SigningKey
from authserver.settings import SettingsError

# Seconds. Keys that were read longer ago are read again by one thread, while the others use them.
AGING_SECONDS = 8.0
# Keys that were read longer ago than this are not used: one may have been revoked since.
OLD_SECONDS = float(signing_keys.REFRESH_SECONDS)
# After a failure.
RETRY_SECONDS = 1.0
log = logging.getLogger(__name__)


class FollowedSigningKeys:
    """Implements `engine.ports.Signer` over the key store.

    Args:
        storage: where the keys are.
        ring: opens their private parts.
        algorithm: the algorithm of new tokens, as soon as a key of it is active.
        clock: seconds of a clock that nobody sets, for the age of the keys that were read.
    """

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        algorithm: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._ring = ring
        self._algorithm = algorithm
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded: jose.KeySet | None = None
        self._made_of: object = None
        self._living: Sequence[SigningKey] = ()
        # Opened once, so that this process need not have the new key when they are sealed again.
        self._private: Mapping[str, dict[str, Any]] = {}
        self._aging_at = self._old_at = 0.0

    def sign(self, claims: Mapping[str, Any], *, typ: str, algorithm: str | None = None) -> str:
        """A JWT of these claims, signed with the active key (RFC 7515, 3.1).

        Args:
            typ: the `typ` of its header, `at+jwt` for example.
            algorithm: another algorithm than that of access tokens, with an active key.
        """
        return self._current().sign(claims, typ=typ, algorithm=algorithm)

    def jwks(self) -> Mapping[str, Any]:
        """The JWK set that is published (RFC 7517, 5): public keys alone."""
        return self._current().jwks()

    def known_jwks(self) -> Mapping[str, Any] | None:
        """The same without the database; None if the keys have to be read again first."""
        known = self._known()
        return None if known is None else known.jwks()

    def verify(self, token: str, *, typ: str) -> Mapping[str, Any]:
        """The claims of a token that these keys signed. Raises ValueError."""
        return self._current().verify(token, typ=typ)

    def living(self) -> Sequence[SigningKey]:
        """The keys that are not removed, as of the last reading."""
        return self._living

    def load(self) -> None:
        """Read all keys.

        Raises:
            SettingsError: a key that signs, or is to sign, cannot be used; it is named.
        """
        with self._lock:
            problems = self._read()
        if problems:
            raise SettingsError(problems)

    def follow(self) -> None:
        """Read them again, unless another thread does; if that fails, go on with those that were read before."""
        if self._loaded is not None and self._lock.acquire(blocking=False):
            try:
                self._read_again()
            finally:
                self._lock.release()

    def _current(self) -> jose.KeySet:
        """The loaded keys, which are read again in time; they remain in use while the database cannot be reached."""
        if (known := self._known()) is not None:
            return known
        if self._lock.acquire(blocking=self._loaded is None or self._clock() >= self._old_at):
            try:
                # Another thread may have read them while this one waited for the lock.
                if self._clock() >= self._aging_at:
                    self._read_again()
            finally:
                self._lock.release()
        assert self._loaded is not None
        return self._loaded

    def _read_again(self) -> None:
        try:
            for problem in self._read():
                log.error("%s; going on without it", problem)
        except Exception as error:
            if self._loaded is None:
                raise
            passing = isinstance(error, StorageUnavailable)
            log.log(
                logging.WARNING if passing else logging.ERROR,
                "cannot read the signing keys; using those that were read before (%s)",
                error,
                exc_info=None if passing else error,
            )
            self._aging_at = max(self._aging_at, self._clock() + RETRY_SECONDS)
            self._old_at = max(self._old_at, self._aging_at + OLD_SECONDS - AGING_SECONDS)

    def _known(self) -> jose.KeySet | None:
        """The loaded keys; None if it is time to read them again, and no other thread does, or if they are too old."""
        now = self._clock()
        is_known = now < self._aging_at or (now < self._old_at and self._lock.locked())
        return self._loaded if is_known else None

    def _read(self) -> list[str]:
        """Use the present keys of the database. Returns which keys cannot sign although they should, and why."""
        began, now = self._clock(), datetime.now(UTC)
        with self._storage.begin() as stores:
            found = stores.signing_keys.list()
        living = [(key, key.state(now)) for key in found if key.state(now) is not KeyState.REMOVED]
        private, problems = self._opened(living)
        self._living = [key for key, _ in living]
        made_of = (living, private.keys())
        if made_of != self._made_of:
            self._loaded = self._key_set(living, private, now)
            self._made_of, self._private = made_of, private
        self._aging_at, self._old_at = began + AGING_SECONDS, began + OLD_SECONDS
        return problems

    def _opened(
        self, living: Sequence[tuple[SigningKey, KeyState]]
    ) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """The private parts of the keys that sign or will sign, opened before they are needed, and the problems found."""
        private, problems = {}, []
        for key, state in living:
            if state is KeyState.RETIRING:
                continue
            try:
                private[key.kid] = self._private.get(key.kid) or signing_keys.open_private(self._ring, key)
            except Unsealable:
                problems.append(unopened(self._ring, key))
        return private, problems

    def _key_set(
        self,
        living: Sequence[tuple[SigningKey, KeyState]],
        private: Mapping[str, dict[str, Any]],
        now: datetime,
    ) -> jose.KeySet:
        usable = [key for key, _ in living if key.kid in private]
        # No key is active only if the clock was set back after the first one was made: then that one signs (T150).
        first = min(usable, key=lambda key: key.activates_at, default=None)
        signs = signing_keys.signing_key(usable, self._algorithm, now) or first
        try:
            return jose.KeySet(
                [
                    (
                        key.kid,
                        key.algorithm,
                        dict(key.public_jwk),
                        private.get(key.kid),
                        key.kid in private and (state is KeyState.ACTIVE or key is signs),
                    )
                    for key, state in living
                ],
                algorithm=signs.algorithm if signs else self._algorithm,
            )
        except ValueError as error:
            raise SettingsError([f"the table signing_keys was altered: {error}"]) from None


def unopened(ring: KeyRing, key: SigningKey) -> str:
    """Why the sealed part of a key does not open, and what to do (T148)."""
    row = f"signing key {key.kid} (signing_keys.sealed_private_jwk)"
    undo = f"remove it with `authserver keys revoke {key.kid}`"
    try:
        key_id = key_id_of(key.sealed_private_jwk or b"")
    except Unsealable:
        key_id = ""
    if key_id and key_id not in ring.key_ids:
        return f"authserver.secret_keys: key {key_id} is missing, and {row} needs it; put it back, or {undo}"
    return f"{row} does not open: it was altered or moved from another row; restore that row, or {undo}"
