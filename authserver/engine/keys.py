"""The signing keys in use: made once, kept sealed, followed from the database by every process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from authserver.engine import digests, jose, strict_json
from authserver.engine.ports import Storage, Stores
from authserver.engine.records import Event, EventType, KeyState, SigningKey
from authserver.engine.sealing import KeyRing, Unsealable
from authserver.settings import SettingsError

PURPOSE = "signing-key"
# Every process sees a change of keys within this many seconds.
REFRESH_SECONDS = 10.0
log = logging.getLogger(__name__)


class SigningKeys:
    """Implements `engine.ports.Signer` over the key store.

    Args:
        storage: where the keys are.
        ring: opens their private parts.
        algorithm: of new tokens.
    """

    def __init__(self, storage: Storage, ring: KeyRing, algorithm: str) -> None:
        self._storage = storage
        self._ring = ring
        self._algorithm = algorithm
        self._lock = threading.Lock()
        self._loaded: jose.KeySet | None = None
        self._loaded_at = 0.0

    def sign(self, claims: Mapping[str, Any], *, typ: str, algorithm: str | None = None) -> str:
        return self._current().sign(claims, typ=typ, algorithm=algorithm or self._algorithm)

    def jwks(self) -> Mapping[str, Any]:
        return self._current().jwks()

    def verify(self, token: str, *, typ: str) -> Mapping[str, Any]:
        """The claims of a token that these keys signed. Raises InvalidToken."""
        return self._current().verify(token, typ=typ)

    def prepare(self, now: datetime) -> None:
        """Make the first key of the algorithm if there is none, and load all.

        Raises:
            SettingsError: the key ring does not open the stored keys.
        """
        with self._storage.begin() as stores:
            if not any(
                key.algorithm == self._algorithm and key.state(now) is KeyState.ACTIVE
                for key in stores.keys.list()
            ):
                make_first_key(stores, self._ring, self._algorithm, now)
        self._load()

    def _current(self) -> jose.KeySet:
        """The loaded keys, read again when they are old; one thread reads, the others go on meanwhile."""
        loaded = self._loaded
        if loaded is None:
            return self._load()
        if time.monotonic() - self._loaded_at > REFRESH_SECONDS and self._lock.acquire(blocking=False):
            try:
                loaded = self._load()
            except Exception:
                # The keys at hand stay good; the next request tries again.
                log.exception("cannot read the signing keys; going on with those at hand")
            finally:
                self._lock.release()
        return loaded

    def _load(self) -> jose.KeySet:
        now = datetime.now(UTC)
        with self._storage.begin() as stores:
            keys = [key for key in stores.keys.list() if key.state(now) is not KeyState.REMOVED]
        loaded = jose.KeySet(
            [
                (
                    key.kid,
                    key.algorithm,
                    dict(key.public_jwk),
                    _opened(self._ring, key) if key.state(now) is KeyState.ACTIVE else None,
                    key.state(now) is KeyState.ACTIVE,
                )
                for key in keys
            ]
        )
        self._loaded, self._loaded_at = loaded, time.monotonic()
        return loaded


def make_first_key(stores: Stores, ring: KeyRing, algorithm: str, now: datetime) -> bool:
    """Make the active key of an algorithm; False when another process was quicker (T113)."""
    kid, public, private = jose.new_signing_key(algorithm)
    key = SigningKey(
        kid=kid,
        algorithm=algorithm,
        public_jwk=public,
        sealed_private_jwk=ring.seal(strict_json.dumps(private), purpose=PURPOSE, context=_context(kid)),
        created_at=now,
        activates_at=now,
    )
    if not stores.keys.add(key):
        return False
    stores.events.add(
        Event(
            event_id=digests.new_identifier(),
            type=EventType.KEY_CREATED,
            at=now,
            details={"kid": kid, "algorithm": algorithm},
        )
    )
    return True


def _opened(ring: KeyRing, key: SigningKey) -> dict[str, Any]:
    try:
        opened = ring.open(key.sealed_private_jwk or b"", purpose=PURPOSE, context=_context(key.kid))
    except Unsealable:
        raise SettingsError(
            [f"authserver.secret_keys: none opens signing key {key.kid}; put back the one that sealed it"]
        ) from None
    private: dict[str, Any] = strict_json.loads(opened)
    return private


def _context(kid: str) -> str:
    """Table, column and row, so that a sealed value moved elsewhere does not open (T148)."""
    return f"signing_keys.sealed_private_jwk:{kid}"
