"""What may be used once: remembered for all processes, in the transaction of the request that uses it.

A database that was restored from a backup has forgotten what was used since. So what could have been used
before that is not used again (T149).
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
    """Whether everything that happened since then is known: the database was not restored in between.

    Args:
        since: when it was made; of what others made, when it could be used at the earliest by our clock.
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
        client: who uses it.
        purpose: what it is used for, so that the same text for two purposes is two things.
        since: when it could be used at the earliest.
        until: when it can no longer be used anyway, and need not be remembered.
        details: what is to be known when it is used again.
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
    """Whether it was used before, or that cannot be known; a request at the same time may still be first (`claim`)."""
    return not of_this_generation(engine, use.since) or earlier_use(engine, use.purpose, use.text) is not None


def earlier_use(engine: Engine, purpose: str, text: str) -> Kept | None:
    """What `first_use` kept of the first use; None when there was none."""
    return engine.stores.kept.find(KIND, digests.digest(purpose, text))
