"""What sessions are called outside: in grants, events and ID tokens (`sid`), and on the pages of people's accounts."""

from __future__ import annotations

from authserver.engine.crypto import digests
from authserver.engine.records import Session

_KIND = "session-handle"
# Among the details of a session: what it is called, if its person signed in again during another one.
HANDLE = "handle"


def session_handle(session: Session) -> str:
    """What names a session without revealing its stored digest."""
    kept: str | None = session.details.get(HANDLE)
    return kept or handle_of(session.digest)


def handle_of(digest: bytes) -> str:
    """What the session of this digest is called unless it says so itself, also if it has ended."""
    return digests.digest(_KIND, digest.hex()).hex()[:32]
