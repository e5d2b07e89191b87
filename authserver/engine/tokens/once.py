"""Things that may be used once: each use is stored for all processes, in the transaction of the request that uses it.

A database that was restored from a backup lacks the uses after the backup. Therefore a thing that could have been used
before the restore is refused (T149).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from authserver.engine.context import Engine, SingleUse
from authserver.engine.crypto import digests
from authserver.engine.records import NOTHING, Client, Kept

# One kind for all purposes: the purpose is part of the digest.
KIND = "used"


def of_this_generation(engine: Engine, since: datetime) -> bool:
    """Whether all uses since then are known, because the database was not restored in between.

    Args:
        since: when it was made; if others made it, the earliest time by our clock at which it could be used.
    """
    return engine.restored_at is None or since >= engine.restored_at


def first_use(
    engine: Engine,
    client: Client,
    purpose: str,
    text: str,
    *,
    since: datetime,
    until: datetime,
    details: Mapping[str, Any] = NOTHING,
) -> bool:
    """Whether this is the first use, even among simultaneous requests; stored only if this request succeeds.

    False, too, when that cannot be known: it could be used before the database was restored from a backup.

    Args:
        client: the client that uses it.
        purpose: its use; the same text with two purposes is two different things.
        since: the earliest time at which it could be used.
        until: the time from which it cannot be used anyway, and need not be remembered.
        details: what `earlier_use` returns when it is used again.
    """
    return of_this_generation(engine, since) and engine.stores.kept.add_once(
        Kept(
            kind=KIND,
            digest=digests.digest(purpose, text),
            client_id=client.client_id,
            created_at=engine.now,
            expires_at=until,
            claimed_at=engine.now,
            details=details,
        )
    )


def claim(engine: Engine, client: Client, use: SingleUse) -> None:
    """Use it up. Raises its refusal when this is not the first time."""
    if not first_use(engine, client, use.purpose, use.text, since=use.since, until=use.until):
        raise use.refusal


def is_used(engine: Engine, use: SingleUse) -> bool:
    """Whether it was used before, or that cannot be known. A simultaneous request may still use it first (`claim`)."""
    return not of_this_generation(engine, use.since) or earlier_use(engine, use.purpose, use.text) is not None


def earlier_use(engine: Engine, purpose: str, text: str) -> Kept | None:
    """The record of the first use; None if there was none."""
    return engine.stores.kept.find(KIND, digests.digest(purpose, text))
