"""Values of the proof that events are unchanged (`engine.event_seals`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSeal:
    """A link of the chain that proves events unchanged (`engine.event_seals`).

    Attributes:
        number: the number of the seal; 1, 2, 3 and so on.
        first, last: the numbers of its first and last event; `first` follows the `last` of the previous seal.
        sealed_at: when it was made.
        form: the version of the encoding of its events for their digests.
        types: the types of its events, to which the entries refer.
        entries: for each event its number, type, time and digest.
        previous: the hash of the previous seal; zeros for the first.
        hash: the hash of all of the above, with the digest of the entries.
        key_id, mac: a code of the hash under this key of the ring.
    """

    number: int
    first: int
    last: int
    sealed_at: datetime
    form: int
    types: tuple[str, ...]
    entries: bytes
    previous: bytes
    hash: bytes
    key_id: str
    mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionMark:
    """The place up to which events of one kind, or seals, were deleted because they had expired.

    Attributes:
        kind: a kind of `Disposable`, or `seals`.
        until: a time, or the number of a seal: a text that sorts as they do.
        key_id, mac: a code of both under this key of the ring.
    """

    kind: str
    until: str
    key_id: str
    mac: bytes
