"""The states of a signing key: published, then signing, then only verifying, then removed.

Each step is a time in the key's record (`SigningKey.state`), so it happens by itself.

A key is published before it signs (T144), and is removed only when the last token that it signed has expired
(N-07).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.crypto import jose, strict_json
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.ports import Stores
from authserver.engine.records import EventType, KeyState, SigningKey
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME, Settings

PURPOSE = "signing-key"
# The reason of a revocation if none is given.
REVOKED_BY_OPERATOR = "operator"
# Every process sees a change of keys within this many seconds.
REFRESH_SECONDS = 10
# Seconds for the difference between the clocks of our machines, and for reading and answering.
MARGIN_SECONDS = 5
MAXIMUM_TOKEN_LIFETIME = timedelta(seconds=MAXIMUM_ACCESS_TOKEN_LIFETIME)
# How long a key is published after it retires. It follows from the longest token lifetime that the settings allow, not
# from the present one: if that is raised later, no token may outlive its key. Another process may sign until it reads
# the keys again.
VERIFIES_AFTERWARDS = MAXIMUM_TOKEN_LIFETIME + timedelta(seconds=REFRESH_SECONDS + MARGIN_SECONDS)

# How many characters of a key id must be given, because it is typed in an emergency.
SHORTEST_BEGINNING = 8

# Why a key was made.
FIRST = "first-key"
NEW_ALGORITHM = "algorithm-changed"
NEEDED = "algorithm-needed"
ROTATED = "rotated"
REPLACES_REVOKED = "replaces-revoked"


class CannotChange(Exception):
    """The keys cannot be changed like that; the message says why, and what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A new key, and the one that it takes over from; None for the first of its algorithm."""

    new: SigningKey
    old: SigningKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """The keys after one was revoked.

    Attributes:
        revoked: the key, as it is now.
        was: its state until now.
        successor: the key that signs in its place at once; it is staged no longer, or new.
        restored: the key that it would have replaced, which continues to sign.
    """

    revoked: SigningKey
    was: KeyState
    successor: SigningKey | None = None
    restored: SigningKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The effects of a revocation.

    Attributes:
        key: the key.
        was: its state until then.
        successor: the staged key that would sign in its place at once.
        makes_key: whether a new key would be made, because no staged one can.
        restored: the key that it would have replaced, which would continue to sign.
    """

    key: SigningKey
    was: KeyState
    successor: SigningKey | None
    makes_key: bool
    restored: SigningKey | None


def publication_time(settings: Settings) -> timedelta:
    """How long a new key is published before it signs: until all processes and all caches of their answers have it."""
    return timedelta(seconds=settings.jwks_maximum_age + REFRESH_SECONDS + MARGIN_SECONDS)


def signing_key(keys: Sequence[SigningKey], algorithm: str, now: datetime) -> SigningKey | None:
    """The key that signs: the active one of the algorithm, or while there is none, the newest of any other."""
    active = [key for key in keys if key.state(now) is KeyState.ACTIVE]
    return max(active, key=lambda key: (key.algorithm == algorithm, key.activates_at), default=None)


def prepare(engine: Engine) -> None:
    """Make a key of each algorithm that is needed, unless there is one, however many processes start at once (T113).

    The first key of the configured algorithm signs at once. If another algorithm signed so far, the key is staged as in
    a rotation. A key of an algorithm of plugins signs at once, because nobody has verified signatures with that
    algorithm before.
    """
    erase_ended(engine.stores, engine.now)
    algorithm, keys = engine.settings.signing_algorithm, engine.stores.signing_keys.list()
    for other in engine.further_algorithms:
        if other != algorithm and _last(keys, other) is None:
            add_key(engine, other, activates_at=engine.now, why=NEEDED)
    if _last(keys, algorithm) is not None:
        return
    if signing_key(keys, algorithm, engine.now) is None:
        add_key(engine, algorithm, activates_at=engine.now, why=FIRST)
    else:
        activates_at = engine.now + publication_time(engine.settings)
        add_key(engine, algorithm, activates_at=activates_at, why=NEW_ALGORITHM)


def rotate(engine: Engine, *, algorithm: str | None = None, after: timedelta | None = None) -> Rotation:
    """Make a new key that replaces the present one of its algorithm, which can still verify (R-06).

    Args:
        algorithm: of the key; the configured one unless given. One without a key gets its first.
        after: the time until it signs; by default, and at least, its publication time.

    Raises:
        CannotChange: `after` is too short, a successor is staged already, or another process was first.
    """
    algorithm = algorithm or engine.settings.signing_algorithm
    stores, now, least = engine.stores, engine.now, publication_time(engine.settings)
    if after is not None and after < least:
        raise CannotChange(
            f"a new key is published for at least {least.total_seconds():.0f} seconds before it signs: "
            f"{engine.settings.jwks_maximum_age} in which others may keep the keys (authserver.jwks_maximum_age), "
            f"{REFRESH_SECONDS} until every process has read it, and {MARGIN_SECONDS} for clocks that differ"
        )
    erase_ended(stores, now)
    keys = stores.signing_keys.list()
    old = _last(keys, algorithm)
    if old is not None and old.state(now) is KeyState.STAGED:
        raise _already_changed(engine, algorithm)
    nobody_signs = signing_key(keys, algorithm, now) is None
    activates_at = now if nobody_signs else now + (after or least)
    if old is not None:
        retiring = replace(old, retires_at=activates_at, ends_at=activates_at + VERIFIES_AFTERWARDS)
        if not stores.signing_keys.change(old, retiring):
            raise _already_changed(engine, algorithm)
        old = retiring
    new = add_key(engine, algorithm, activates_at=activates_at, why=FIRST if nobody_signs else ROTATED)
    if new is None:
        raise _already_changed(engine, algorithm)
    return Rotation(new=new, old=old)


def revoke(engine: Engine, kid: str, *, reason: str) -> Revocation:
    """Take a key out of use at once: no token that it signed is valid any more, and its private part is erased.

    Args:
        kid: its id, or a beginning of at least eight characters that no other key has.
        reason: for the event, such as `stolen`.

    Raises:
        CannotChange: there is no such key, it has ended, or somebody else changed the keys meanwhile.
    """
    now = engine.now
    erase_ended(engine.stores, now)
    found = prospect(engine, kid)
    key, successor, restored = found.key, found.successor, found.restored
    # Always the staged key first, and then the one that it replaces, so that two processes cannot wait for each other.
    if successor is not None:
        successor = _change(engine, successor, replace(successor, activates_at=now))
    retired_at = min(key.retires_at or now, now)
    revoked = _change(engine, key, replace(key, retires_at=retired_at, ends_at=now, sealed_private_jwk=None))
    if restored is not None:
        restored = _change(engine, restored, replace(restored, retires_at=None, ends_at=None))
    if found.makes_key:
        algorithm = _in_place_of(engine, key)
        successor = add_key(engine, algorithm, activates_at=now, why=REPLACES_REVOKED)
        if successor is None:
            raise _already_changed(engine, key.algorithm)
    details = {"kid": key.kid, "algorithm": key.algorithm, "was": str(found.was)}
    engine.record(EventType.KEY_REVOKED, reason=reason, details=details)
    return Revocation(revoked=revoked, was=found.was, successor=successor, restored=restored)


def prospect(engine: Engine, kid: str) -> Prospect:
    """What `revoke` would do to this key now. Raises CannotChange as `revoke` does."""
    keys, now = engine.stores.signing_keys.list(), engine.now
    key = _named(keys, kid)
    was = key.state(now)
    if was is KeyState.REMOVED:
        raise CannotChange(
            f"{key.kid}: it ended at {_told(key.ends_at)}, and nothing it signed counts any more"
        )
    successor = _successor(engine, keys, key)
    return Prospect(
        key=key,
        was=was,
        successor=successor,
        makes_key=successor is None and _leaves_a_gap(engine, keys, key),
        restored=_to_be_replaced_by(key, keys) if was is KeyState.STAGED else None,
    )


def verifies_until(key: SigningKey, now: datetime) -> datetime:
    """The time at which the last token of this key has certainly expired; without a successor, as if it retired now."""
    return key.ends_at or now + VERIFIES_AFTERWARDS


def erase_ended(stores: Stores, now: datetime) -> int:
    """Erase the private parts of keys that have ended; how many there were."""
    ended = [
        key
        for key in stores.signing_keys.list()
        if key.sealed_private_jwk is not None and key.state(now) is KeyState.REMOVED
    ]
    return sum(stores.signing_keys.change(key, replace(key, sealed_private_jwk=None)) for key in ended)


def seal_private(ring: KeyRing, kid: str, private_jwk: dict[str, Any]) -> bytes:
    """The private part of a key as it is stored, under the first key of the ring."""
    return ring.seal(strict_json.dumps(private_jwk), purpose=PURPOSE, context=_context(kid))


def open_private(ring: KeyRing, key: SigningKey) -> dict[str, Any]:
    """The private part of a key. Raises Unsealable."""
    opened = ring.open(key.sealed_private_jwk or b"", purpose=PURPOSE, context=_context(key.kid))
    private_jwk: dict[str, Any] = strict_json.loads(opened)
    return private_jwk


def _context(kid: str) -> str:
    """Table, column and row, so that a sealed value that was moved to another place does not open (T148)."""
    return f"signing_keys.sealed_private_jwk:{kid}"


def _named(keys: Sequence[SigningKey], kid: str) -> SigningKey:
    meant = [key for key in keys if key.kid == kid]
    if not meant and len(kid) >= SHORTEST_BEGINNING:
        meant = [key for key in keys if key.kid.startswith(kid)]
    if len(meant) != 1:
        raise CannotChange(f"{kid}: no such key; see `authserver keys list`")
    return meant[0]


def _last(keys: Sequence[SigningKey], algorithm: str) -> SigningKey | None:
    """The key of an algorithm without a successor: the staged one if there is one, else the active one."""
    return next((key for key in keys if key.algorithm == algorithm and key.retires_at is None), None)


def _staged(keys: Sequence[SigningKey], algorithm: str, now: datetime) -> SigningKey | None:
    last = _last(keys, algorithm)
    return last if last is not None and last.state(now) is KeyState.STAGED else None


def _to_be_replaced_by(staged: SigningKey, keys: Sequence[SigningKey]) -> SigningKey | None:
    """The key that a staged one would take over from."""
    return next(
        (key for key in keys if key.algorithm == staged.algorithm and key.retires_at == staged.activates_at),
        None,
    )


def _successor(engine: Engine, keys: Sequence[SigningKey], revoked: SigningKey) -> SigningKey | None:
    """The staged key that must sign from now on, because this one is revoked."""
    if revoked.state(engine.now) is not KeyState.ACTIVE:
        return None
    own = _staged(keys, revoked.algorithm, engine.now)
    if own is None and _leaves_a_gap(engine, keys, revoked):
        return _staged(keys, _in_place_of(engine, revoked), engine.now)
    return own


def _in_place_of(engine: Engine, revoked: SigningKey) -> str:
    """The algorithm of the key that replaces this one: the same, if that is needed."""
    needed = engine.further_algorithms
    return revoked.algorithm if revoked.algorithm in needed else engine.settings.signing_algorithm


def _leaves_a_gap(engine: Engine, keys: Sequence[SigningKey], revoked: SigningKey) -> bool:
    """Whether there would be no signing key without this one, or none of an algorithm that is needed."""
    others = [key for key in keys if key.kid != revoked.kid]
    is_needed = revoked.algorithm in (engine.settings.signing_algorithm, *engine.further_algorithms)
    return revoked.state(engine.now) is KeyState.ACTIVE and (
        is_needed or signing_key(others, revoked.algorithm, engine.now) is None
    )


def add_key(engine: Engine, algorithm: str, *, activates_at: datetime, why: str) -> SigningKey | None:
    """Store a new key; None when another process was first (T113)."""
    kid, public, private = jose.new_signing_key(algorithm)
    key = SigningKey(
        kid=kid,
        algorithm=algorithm,
        public_jwk=public,
        sealed_private_jwk=seal_private(engine.ring, kid, private),
        created_at=engine.now,
        activates_at=activates_at,
    )
    if not engine.stores.signing_keys.add(key):
        return None
    details = {"kid": kid, "algorithm": algorithm, "activates_at": activates_at.isoformat()}
    engine.record(EventType.KEY_CREATED, reason=why, details=details)
    return key


def _change(engine: Engine, before: SigningKey, after: SigningKey) -> SigningKey:
    if not engine.stores.signing_keys.change(before, after):
        raise _already_changed(engine, before.algorithm)
    return after


def _already_changed(engine: Engine, algorithm: str) -> CannotChange:
    """The refusal, with the key that another process made."""
    staged = _staged(engine.stores.signing_keys.list(), algorithm, engine.now)
    if staged is None:
        return CannotChange("somebody changed the keys meanwhile; see `authserver keys list` and try again")
    return CannotChange(
        f"{algorithm} key {staged.kid} is staged already, and signs from {_told(staged.activates_at)}; "
        f"rotate again after that, or remove it with `authserver keys revoke {staged.kid}`"
    )


def _told(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}" if at else "no time"
