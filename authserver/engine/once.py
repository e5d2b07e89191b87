"""What may be used once: remembered for all processes, in the transaction of the request that uses it."""

from __future__ import annotations

from datetime import datetime

from authserver.engine import digests
from authserver.engine.context import Engine
from authserver.engine.records import Client, Token, TokenKind


def first_use(engine: Engine, client: Client, purpose: str, text: str, until: datetime) -> bool:
    """Whether this is used for the first time, be it by many requests at once; kept only if this one succeeds.

    Args:
        client: who uses it.
        purpose: what it is used for, so that the same text for two purposes is two things.
        until: when it can no longer be used anyway, and need not be remembered.
    """
    return engine.stores.tokens.add_once(
        Token(
            kind=TokenKind.REQUEST,
            digest=digests.digest(purpose, text),
            grant_id=None,
            client_id=client.client_id,
            created_at=engine.now,
            expires_at=until,
            claimed_at=engine.now,
        )
    )
