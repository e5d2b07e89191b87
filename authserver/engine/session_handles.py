"""What sessions are called outside: in grants, events and ID tokens (`sid`), and on the pages of people's accounts."""

from __future__ import annotations

from authserver.engine.crypto import digests
from authserver.engine.records import Session

_KIND = "session-handle"


def session_handle(session: Session) -> str:
    """What names a session without revealing its stored digest."""
    return handle_of(session.digest)


def handle_of(digest: bytes) -> str:
    """The same of the session of this digest, also if it has ended."""
    return digests.digest(_KIND, digest.hex()).hex()[:32]
