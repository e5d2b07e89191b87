"""Checks the key ring: whether each key is still the same, and what needs the older keys."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime

from authserver.engine.context import Engine
from authserver.engine.crypto.sealing import KeyRing, Unsealable, key_id_of
from authserver.engine.keys import signing_keys
from authserver.engine.keys.following import unopened
from authserver.engine.ports import Storage, Stores
from authserver.engine.records import EventType, RingKey, SigningKey
from authserver.settings import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependents:
    """How many sealed signing keys and live client secrets need a key of the ring."""

    signing_keys: int = 0
    client_secrets: int = 0

    def __str__(self) -> str:
        counts = ((self.signing_keys, "signing key"), (self.client_secrets, "client secret"))
        told = [f"{count} {noun}{'s' * (count != 1)}" for count, noun in counts if count]
        return " and ".join(told) or "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A present or former key of the ring, and what needs it.

    Attributes:
        seals: whether it is the first key of the ring, which seals and signs everything new.
        is_present: whether it is in the ring.
        first_used_at: None for one that was not used yet.
        proves_events: whether it proves the last seal of the events, or a mark of deleted ones.
    """

    key_id: str
    seals: bool
    is_present: bool
    first_used_at: datetime | None
    needed_by: Dependents
    proves_events: bool

    @property
    def may_leave(self) -> bool:
        """Whether it can be taken out of the ring: nothing needs it, and another one seals."""
        return self.is_present and not self.seals and self.needed_by == Dependents()


def standings(engine: Engine) -> Sequence[Standing]:
    """The keys of the ring in its order, and those that were in it before, the latest first."""
    ids, needed = engine.ring.key_ids, dependents(engine.stores, engine.now)
    used = {key.key_id: key.first_used_at for key in engine.stores.ring_keys.list()}
    seals, last = engine.stores.event_seals, engine.stores.event_seals.last()
    proving = {mark.key_id for mark in seals.deletions()} | ({last.key_id} if last else set())
    former = sorted(
        {*used, *needed, *proving} - {*ids}, key=lambda key_id: used.get(key_id, engine.now), reverse=True
    )
    return [
        Standing(
            key_id=key_id,
            seals=key_id == ids[0],
            is_present=key_id in ids,
            first_used_at=used.get(key_id),
            needed_by=needed.get(key_id, Dependents()),
            proves_events=key_id in proving,
        )
        for key_id in (*ids, *former)
    ]


def dependents(stores: Stores, now: datetime) -> Mapping[str, Dependents]:
    """What depends on each key that anything depends on, by the id of the key.

    Values that are sealed in small records do not count: these expire soon, and are refused if they do not open.
    """
    sealed = [sealed_by(key) for key in stores.signing_keys.list() if key.sealed_private_jwk is not None]
    secrets = stores.clients.count_secrets(now)
    return {
        key_id: Dependents(signing_keys=sealed.count(key_id), client_secrets=secrets.get(key_id, 0))
        for key_id in sorted({*sealed, *secrets} - {""})
    }


def clients_of(stores: Stores, key_ids: Set[str], now: datetime) -> Mapping[str, Sequence[str]]:
    """The enabled clients with a live secret that one of these keys made, by the id of the key."""
    found: dict[str, list[str]] = {}
    for client in stores.clients.list(now) if key_ids else ():
        for key_id in sorted({secret.key_id for secret in client.secrets} & key_ids):
            if client.is_enabled:
                found.setdefault(key_id, []).append(client.client_id)
    return found


def check(engine: Engine) -> None:
    """Refuse a ring that lacks a key which is still needed, or has another one under its id (T148).

    Raises:
        SettingsError: it names the keys, what depends on them, and what to do.
    """
    check_known(engine)
    missing = {
        key_id: needed
        for key_id, needed in dependents(engine.stores, engine.now).items()
        if key_id not in engine.ring.key_ids
    }
    if missing:
        raise SettingsError(
            f"authserver.secret_keys: key {key_id} is missing, and is needed by {needed}; put it back behind the first. "
            "If it is lost: `authserver keys revoke KID` for each signing key that `authserver keys list` shows, and "
            "`authserver client rotate-secret CLIENT_ID --overlap 0` for each client"
            for key_id, needed in missing.items()
        )


def check_known(engine: Engine) -> None:
    """Refuse a ring with another key under an id that was used here before; note the keys that are new.

    Raises:
        SettingsError: it names the keys, what depends on them, and what to do.
    """
    ring, stores = engine.ring, engine.stores
    known = {key.key_id: key for key in stores.ring_keys.list()}
    # All processes use one order, so that processes that start at the same time do not wait for each other in a circle.
    added = [_note(ring, stores, key_id, engine.now) for key_id in sorted({*ring.key_ids} - known.keys())]
    if not all(added):
        known = {key.key_id: key for key in stores.ring_keys.list()}
    wrong = [
        known[key_id]
        for key_id in ring.key_ids
        if key_id in known and not hmac.compare_digest(known[key_id].fingerprint, ring.fingerprint(key_id))
    ]
    if wrong:
        needed = dependents(stores, engine.now)
        raise SettingsError(
            f"authserver.secret_keys: {key.key_id} is not the key that has had this id here since "
            f"{key.first_used_at:%Y-%m-%d %H:%M:%SZ}, and that one is needed by {needed.get(key.key_id, Dependents())}; "
            "put it back, or give the other key a different id"
            for key in wrong
        )


def outdated(stores: Stores, ring: KeyRing) -> list[SigningKey]:
    """The signing keys that an older key of the ring sealed."""
    return [
        key
        for key in stores.signing_keys.list()
        if key.sealed_private_jwk is not None and sealed_by(key) != ring.key_ids[0]
    ]


def reseal(storage: Storage, ring: KeyRing, kids: Iterable[str]) -> Iterator[str]:
    """Seal the private parts of these keys again, under the first key of the ring.

    Each is changed in a separate short transaction, so this may be stopped at any time and run again. Yields for each
    key, when it is stored: "", or the problem of a key that does not open.
    """
    for kid in kids:
        yield _reseal(storage, ring, kid)


def _reseal(storage: Storage, ring: KeyRing, kid: str) -> str:
    problem: str | None = None
    while problem is None:
        with storage.begin() as stores:
            problem = _reseal_once(stores, ring, kid)
    return problem


def reseal_all(engine: Engine) -> Sequence[str]:
    """As `reseal`, of all keys and in this transaction, recorded as the operator's act.

    Returns:
        the problems of the keys that do not open.

    Raises:
        CannotChange: somebody else changed a key meanwhile.
    """
    problems, sealed = [], []
    for key in outdated(engine.stores, engine.ring):
        problem = _reseal_once(engine.stores, engine.ring, key.kid)
        if problem is None:
            raise signing_keys.CannotChange("somebody changed the keys meanwhile; try again")
        if problem:
            problems.append(problem)
        else:
            sealed.append(key.kid)
    record_resealed(engine, sealed)
    return problems


def record_resealed(engine: Engine, kids: Sequence[str]) -> None:
    """Record that the private parts of these keys were sealed again; nothing if there are none."""
    if kids:
        details = {"kids": list(kids), "under": engine.ring.key_ids[0]}
        engine.record(EventType.KEY_RESEALED, reason="operator", details=details)


def _reseal_once(stores: Stores, ring: KeyRing, kid: str) -> str | None:
    """As `reseal` for one key; None when it was rotated or revoked in between: then it must be read again."""
    key = next((each for each in outdated(stores, ring) if each.kid == kid), None)
    if key is None:
        return ""
    try:
        sealed = signing_keys.seal_private(ring, kid, signing_keys.open_private(ring, key))
    except Unsealable:
        return unopened(ring, key)
    return "" if stores.signing_keys.change(key, replace(key, sealed_private_jwk=sealed)) else None


def _note(ring: KeyRing, stores: Stores, key_id: str, now: datetime) -> bool:
    fingerprint = ring.fingerprint(key_id)
    return stores.ring_keys.add(RingKey(key_id=key_id, fingerprint=fingerprint, first_used_at=now))


def sealed_by(key: SigningKey) -> str:
    """The id of the ring key that sealed its private part; "" when that cannot be known."""
    try:
        return key_id_of(key.sealed_private_jwk or b"")
    except Unsealable:
        return ""
