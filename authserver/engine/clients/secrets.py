"""The secrets of clients: making, recognising, noting their use, and replacing with an overlap (R-02, R-05).

The store has a digest under a key of the key ring, so that nobody can check a guess with a copy of the database alone.
A change is conditional on the values that were read: the second of two simultaneous changes reads again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import KeyRing, Unsealable
from authserver.engine.records import Client, ClientSecret, EventType
from authserver.limits import MAXIMUM_CLIENT_SECRET

log = logging.getLogger(__name__)

PURPOSE = "client-secret"

# The most live secrets of a client: a new one and the one that it replaces. A third one would be a forgotten one.
MAXIMUM_LIVE = 2
# A token request costs one lookup and one event. Noting each use would double the writes, and requests of one client
# would wait for each other.
NOTED_EVERY = timedelta(minutes=5)

# A secret that was made elsewhere: 22 characters of base64url can hold 128 random bits.
MINIMUM_CLIENT_SECRET = 22


class SecretsUnchanged(Exception):
    """The secrets of this client stay as they are; the message says why."""


class TwoLiveSecrets(SecretsUnchanged):
    """The client has two live secrets already; in `live` the older is the first."""

    def __init__(self, client_id: str, live: Sequence[ClientSecret]) -> None:
        super().__init__(f"{client_id} has two live secrets already")
        self.live = live


class LastSecret(SecretsUnchanged):
    """It is the last secret: without it the client could not authenticate any more."""


def needs_secret(auth_method: str) -> bool:
    """Whether a client with this authentication method has secrets that are stored here."""
    return auth_method.startswith("client_secret_")


def new_secret(keys: KeyRing, client_id: str, now: datetime) -> tuple[str, ClientSecret]:
    """A fresh client secret, and its stored form: a keyed digest (R-02)."""
    secret = digests.new_credential(digests.SECRET)
    return secret, stored_secret(keys, client_id, secret, now)


def stored_secret(keys: KeyRing, client_id: str, secret: str, now: datetime) -> ClientSecret:
    """The stored form of a secret, also of one that was made elsewhere; it should have at least 128 random bits.

    Raises ValueError for a text that `may_be_secret` refuses.
    """
    if not may_be_secret(secret):
        raise ValueError(
            f"a client secret has {MINIMUM_CLIENT_SECRET} to {MAXIMUM_CLIENT_SECRET} characters and no prefix of "
            "another kind"
        )
    key_id, digest = keys.keyed_digest(_material(client_id, secret), purpose=PURPOSE)
    return ClientSecret(digest=digest, key_id=key_id, created_at=now)


def may_be_secret(text: str) -> bool:
    """Whether this text can be a secret; any other text need not be looked up.

    Secrets made here have prefix and checksum. Secrets of clients that were imported have neither, and no such prefix.
    """
    if text.startswith(digests.PREFIXES):
        return digests.well_formed(digests.SECRET, text)
    return MINIMUM_CLIENT_SECRET <= len(text) <= MAXIMUM_CLIENT_SECRET


def matching(engine: Engine, client: Client | None, client_id: str, text: str) -> ClientSecret | None:
    """The live secret with this text. All are compared; an unknown client costs one comparison, too (T047)."""
    material = _material(client_id, text)
    live = live_secrets(client, engine.now) if client else ()
    if not live:
        digests.equal(engine.ring.keyed_digest(material, purpose=PURPOSE)[1], bytes(32))
        return None
    found = None
    for secret in live:
        try:
            _, digest = engine.ring.keyed_digest(material, purpose=PURPOSE, key_id=secret.key_id)
        except Unsealable:
            log.error(
                "client %s: its secret needs key %s, which is not in the ring any more",
                client_id,
                secret.key_id,
            )
            continue
        if digests.equal(digest, secret.digest):
            found = secret
    return found


def is_secret_of(engine: Engine, client: Client, value: object) -> bool:
    """Whether this value, as sent in JSON, is a live secret of this client."""
    return (
        isinstance(value, str)
        and may_be_secret(value)
        and matching(engine, client, client.client_id, value) is not None
    )


def note_use(engine: Engine, client: Client, used: ClientSecret, text: str) -> None:
    """Note now and then that this secret is in use; stored only if the request is granted (T071).

    At this moment its text is known, so it moves to the first key of the ring, and older keys can be removed. It moves only
    then: two processes whose rings begin with different keys would change it at each request.
    """
    if used.last_used_at is not None and engine.now - used.last_used_at < NOTED_EVERY:
        return
    if used.expires_at is not None:
        log.warning(
            "client %s still uses its secret %s, which ends at %s: replace it before then",
            client.client_id,
            handle(used),
            used.expires_at.isoformat(timespec="seconds"),
        )
    key_id, digest = engine.ring.keyed_digest(_material(client.client_id, text), purpose=PURPOSE)
    after = replace(used, key_id=key_id, digest=digest, last_used_at=engine.now)
    engine.stores.clients.note_secret(client.client_id, used, after)


def client_with_secrets(engine: Engine, client_id: str) -> Client:
    """A client that authenticates with secrets stored here, disabled or not. Raises SecretsUnchanged."""
    client = engine.stores.clients.find(client_id, engine.now)
    if client is None:
        if engine.find_client(client_id) is not None:
            raise SecretsUnchanged(f"{client_id} belongs to a plugin, and so do its secrets, if it has any")
        raise SecretsUnchanged(f"{client_id}: no such client")
    if not needs_secret(client.auth_method):
        raise SecretsUnchanged(f"{client_id} has no secrets: it is registered for {client.auth_method}")
    return client


def live_secrets(client: Client, now: datetime) -> tuple[ClientSecret, ...]:
    """The live secrets of a client, oldest first."""
    return tuple(secret for secret in client.secrets if secret.expires_at is None or secret.expires_at > now)


def handle(secret: ClientSecret) -> str:
    """The name of a secret for operators.

    It reveals only the time when the secret was made, and stays the same when keys change.
    """
    made = secret.created_at.isoformat(timespec="microseconds")
    return hashlib.sha256(made.encode()).hexdigest()[:8]


def rotate_secret(engine: Engine, client_id: str, overlap: timedelta, *, text: str | None = None) -> str:
    """Give a client one more secret, and let those it has end after the overlap; an earlier end stays (R-05).

    Args:
        overlap: the time for which the older secrets are still accepted; zero ends them at once.
        text: the new secret, if it was made elsewhere (`may_be_secret`). If the client has it already, its end is removed.

    Returns:
        The new secret, which is not readable again.

    Raises:
        TwoLiveSecrets: it has two, and the overlap is not zero.
        SecretsUnchanged: it is unknown here, disabled, or a client without secrets.
    """
    engine.journal.client_id = client_id
    ends_at = engine.now + overlap
    ending: list[ClientSecret] = []
    while True:
        client = client_with_secrets(engine, client_id)
        if not client.is_enabled:
            raise SecretsUnchanged(f"{client_id} is disabled for good")
        same = matching(engine, client, client_id, text) if text is not None else None
        if text is not None and same is not None and same.expires_at is None:
            return text
        live = [secret for secret in live_secrets(client, engine.now) if secret != same]
        if overlap and len(live) >= MAXIMUM_LIVE:
            raise TwoLiveSecrets(client_id, live)
        changed = [secret for secret in live if end_at(engine, client_id, secret, ends_at)]
        ending += changed
        if len(changed) == len(live):
            break
    text = add_secret(engine, client_id, text=text, others_end_at=ends_at if ending else None)
    if not overlap:
        for secret in ending:
            engine.record(EventType.CLIENT_SECRET_ENDED, details={"secret": handle(secret)})
    return text


def add_secret(
    engine: Engine, client_id: str, *, text: str | None = None, others_end_at: datetime | None = None
) -> str:
    """Store one more secret of a client, a new one or this text, and return it: it is not readable again."""
    if text is None:
        text, added = new_secret(engine.ring, client_id, engine.now)
    else:
        added = stored_secret(engine.ring, client_id, text, engine.now)
    engine.stores.clients.add_secret(client_id, added)
    engine.journal.client_id = client_id
    engine.record(
        EventType.CLIENT_SECRET_ADDED,
        details={
            "secret": handle(added),
            "others_end_at": others_end_at.isoformat() if others_end_at else None,
        },
    )
    return text


def end_all_secrets(engine: Engine, client_id: str) -> None:
    """End all live secrets of a client now, also if it is registered for another method."""
    engine.journal.client_id = client_id
    # Read again if the use of one was noted meanwhile.
    while (client := engine.stores.clients.find(client_id, engine.now)) and (
        live := live_secrets(client, engine.now)
    ):
        for secret in live:
            if end_at(engine, client_id, secret, engine.now):
                engine.record(EventType.CLIENT_SECRET_ENDED, details={"secret": handle(secret)})


def end_secret(engine: Engine, client_id: str, named: str, *, last_too: bool = False) -> None:
    """End a live secret now.

    Args:
        named: its `handle`.
        last_too: whether the last live secret may be ended, too.

    Raises:
        LastSecret: it is the last live one.
        SecretsUnchanged: there is no such live secret, or no such client with secrets.
    """
    while True:
        live = live_secrets(client_with_secrets(engine, client_id), engine.now)
        found = next((secret for secret in live if handle(secret) == named), None)
        if found is None:
            raise SecretsUnchanged(f"{client_id} has no live secret {named}")
        if len(live) == 1 and not last_too:
            raise LastSecret(f"{named} is the last live secret of {client_id}")
        if end_at(engine, client_id, found, engine.now):
            break
    engine.journal.client_id = client_id
    engine.record(EventType.CLIENT_SECRET_ENDED, details={"secret": named})


def end_at(engine: Engine, client_id: str, secret: ClientSecret, at: datetime) -> bool:
    """Set its end, if it has no earlier one; False if it changed since it was read, when its use was noted for example.

    When it ends at once, its digest is overwritten, so that setting the clock back does not undo it (T150).
    """
    ends_at = min(at, secret.expires_at or at)
    ended = replace(secret, expires_at=ends_at)
    if ends_at <= engine.now:
        # A different value each time: a secret that was made elsewhere may be added again, and end again.
        made = secret.created_at.isoformat().encode()
        ended = replace(ended, digest=hashlib.sha256(secret.digest + made).digest())
    return engine.stores.clients.change_secret(client_id, secret, ended)


def _material(client_id: str, text: str) -> str:
    """The client id is part of the digest, so a secret works for its own client only."""
    return f"{client_id}\0{text}"
