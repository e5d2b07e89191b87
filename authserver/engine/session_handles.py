"""The names of sessions in grants, events and ID tokens (`sid`), and on the account pages."""

from __future__ import annotations

from authserver.engine.crypto import digests
from authserver.engine.records import Session

_KIND = "session-handle"
# A detail of a session: its name, if its person signed in again during an earlier session.
HANDLE = "handle"


def session_handle(session: Session) -> str:
    """The name of a session, which does not reveal its stored digest."""
    kept: str | None = session.details.get(HANDLE)
    return kept or handle_of(session.digest)


def handle_of(digest: bytes) -> str:
    """The name of the session of this digest unless its details have another one; also for an ended session."""
    return digests.digest(_KIND, digest.hex()).hex()[:32]
