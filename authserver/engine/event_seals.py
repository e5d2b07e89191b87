"""Seals: a chain over the stored events with which the holder of a key of the ring can prove them unchanged (T147).

Events are sealed after their commit, in the order of their numbers and many at a time, so that no request waits for it. A
seal has a digest of each of its events, and the hash of the previous seal. A code of its own hash under a key of the ring
proves that this server made the seal, and so all seals before it. A person who can write the database but has no key can
make no seal. After a seal whose code cannot be checked, a new chain begins, which proves nothing about earlier events.

Events that have expired are deleted, each kind at its own time. The digests of the others stay. A mark with a code of the
same kind says up to which event each kind was deleted (`note_deletion`). When all events of the oldest seals are deleted,
these seals are deleted (`remove_old`).
"""

from __future__ import annotations

import hashlib
import logging
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Any, TypeVar

import msgspec

from authserver.engine.crypto.sealing import KeyRing, Unsealable
from authserver.engine.event_stream import Numbered
from authserver.engine.ports import Storage, Stores
from authserver.engine.records import ISSUANCES, REFUSALS, Event
from authserver.engine.seal_records import DeletionMark, EventSeal
from authserver.engine.upkeep_records import Disposable

log = logging.getLogger(__name__)

# The encoding of an event for its digest: the members of each form, in this order, those with JSON apart. A form in which
# seals were made is never changed: another member needs another form.
FORMS: Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    1: (
        (
            "event_id",
            "type",
            "at",
            "actor",
            "source",
            "request_id",
            "client_id",
            "user_id",
            "grant_id",
            "reason",
        ),
        ("decisions", "details"),
    )
}
FORM = 1
READER = "seals"
# Seconds between two looks for events, and how many are sealed together: an event is sealed within about a minute.
INTERVAL = 60.0
BATCH = 500
# The pause after a full batch as a multiple of its work, so that requests get the processor meanwhile.
PAUSE = 2.0
# Seconds between two lines in the log that have the head of the chain.
TOLD_EVERY = 600.0
# How many seals are read at a time.
SEALS = 20

NOTHING_BEFORE = bytes(32)
_PURPOSE, _DELETIONS = "event seal", "event deletion"
# The number of the event, the place of its type among those of the seal, its time in microseconds, its digest.
_ENTRY = struct.Struct(">QHq32s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The kinds of events with ends of their own.
_KINDS = {
    Disposable.EVENTS: None,
    Disposable.REFUSALS: frozenset(map(str, REFUSALS)),
    Disposable.ISSUANCES: frozenset(map(str, ISSUANCES)),
}


Coded = TypeVar("Coded", EventSeal, DeletionMark)


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry of one event in a seal."""

    number: int
    type: str
    at: datetime
    digest: bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """The present end of the chain of seals.

    Attributes:
        head: the number of its last seal; 0 for none.
        sealed_at: when that seal was made; None for none.
        unsealed: the number of events that are not sealed yet, with deleted ones.
    """

    head: int
    sealed_at: datetime | None
    unsealed: int


def chain_of(stores: Stores) -> Chain:
    """The present chain."""
    last, number = stores.event_seals.last(), stores.events.last_number()
    if last is None:
        return Chain(head=0, sealed_at=None, unsealed=number)
    return Chain(head=last.number, sealed_at=last.sealed_at, unsealed=max(0, number - last.last))


def digest_of(number: int, event: Event, form: int = FORM) -> bytes:
    """The digest of a stored event in this form; the same on each database that it is copied to."""
    texts, values = FORMS[form]
    known = [_micros(event.at) if name == "at" else getattr(event, name) for name in texts]
    return hashlib.sha256(
        b"authserver event %d\0%b\0%b"
        # Only JSON can have numbers that databases write in several ways.
        % (form, _encode([number, *known]), _written([getattr(event, name) for name in values]))
    ).digest()


def entries_of(seal: EventSeal) -> Iterator[Entry]:
    """The entries of a seal, in order. Raises ValueError if they were changed to something else."""
    try:
        for number, place, at, digest in _ENTRY.iter_unpack(seal.entries):
            yield Entry(number, seal.types[place], _EPOCH + at * _MICROSECOND, digest)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError("these are no entries") from error


def head_of(seal: EventSeal) -> str:
    """The name of a seal outside: its number and hash. If the last seal is in the chain, so are all before it."""
    return f"{seal.number}-{seal.hash.hex()}"


def hash_of(seal: EventSeal) -> bytes:
    """The correct hash of a seal."""
    values = [
        seal.number,
        seal.first,
        seal.last,
        _micros(seal.sealed_at),
        seal.form,
        list(seal.types),
        hashlib.sha256(seal.entries).hexdigest(),
        seal.previous.hex(),
    ]
    return hashlib.sha256(b"authserver event seal\0%b" % _written(values)).digest()


def is_ours(ring: KeyRing, record: EventSeal | DeletionMark) -> bool:
    """Whether the code of a seal or mark was made with its key of the ring. Raises Unsealable without that key."""
    text, purpose = _signed(record)
    _, expected = ring.keyed_digest(text, purpose=purpose, key_id=record.key_id)
    return compare_digest(expected, record.mac)


class Sealer:
    """The reader of the events that seals them (`event_readers.Reader`).

    Args:
        ring: its first key makes the codes of new seals.
        now: the clock.
    """

    name = READER
    begins_with_the_first = True
    may_miss_events = False
    needs_decisions = True
    interval = INTERVAL
    batch = BATCH

    def __init__(self, ring: KeyRing, now: Callable[[], datetime]) -> None:
        self._ring = ring
        self._now = now
        self._digests: Mapping[int, bytes] = {}
        self._made: EventSeal | None = None
        self._told = -TOLD_EVERY

    def take(self, events: Sequence[Numbered]) -> None:
        """Compute the digests, while no transaction is open."""
        self._tell(events[0][0])
        begun = time.thread_time()
        self._digests = {number: digest_of(number, event) for number, event in events}
        if len(events) == self.batch:
            time.sleep(PAUSE * (time.thread_time() - begun))

    def keep(self, stores: Stores, events: Sequence[Numbered]) -> None:
        """Add a seal of these events to the chain."""
        before = stores.event_seals.last()
        # A sealed event comes again only if somebody set the position of this reader back.
        new = [(number, event) for number, event in events if before is None or number > before.last]
        if new:
            self._made = self._seal(before, new)
            stores.event_seals.add(self._made)

    def _seal(self, before: EventSeal | None, events: Sequence[Numbered]) -> EventSeal:
        types = tuple(sorted({str(event.type) for _, event in events}))
        entries = (
            _ENTRY.pack(number, types.index(event.type), _micros(event.at), self._digests[number])
            for number, event in events
        )
        is_proven = before is not None and _proven(self._ring, before)
        if before is not None and not is_proven:
            log.warning(
                "seal %d has no code of a key in authserver.secret_keys, so seal %d does not follow it, and proves nothing of "
                "what is before; `authserver audit verify` says more",
                before.number,
                before.number + 1,
            )
        seal = EventSeal(
            number=before.number + 1 if before else 1,
            first=before.last + 1 if before else 1,
            last=events[-1][0],
            sealed_at=self._now(),
            form=FORM,
            types=types,
            entries=b"".join(entries),
            # Else somebody without a key could insert seals, and this one would prove them (T147).
            previous=before.hash if before and is_proven else NOTHING_BEFORE,
            hash=b"",
            key_id="",
            mac=b"",
        )
        return _coded(self._ring, replace(seal, hash=hash_of(seal)))

    def _tell(self, next_number: int) -> None:
        """Log the head of the chain now and then: a person who removes the end of the chain cannot remove it there."""
        made, now = self._made, time.monotonic()
        # It is stored if the next events are those after it.
        if made is not None and next_number > made.last and now - self._told >= TOLD_EVERY:
            self._told = now
            log.info(
                "events up to number %d are sealed; the head of the chain is %s", made.last, head_of(made)
            )


def note_deletion(stores: Stores, ring: KeyRing, kind: str, until: datetime | int) -> None:
    """Note, in the transaction that deletes them, up to which place events of a kind, or seals, were deleted."""
    mark = DeletionMark(kind=kind, until=_sortable(until), key_id="", mac=b"")
    stores.event_seals.mark(_coded(ring, mark))


def is_deletable(entry: Entry, marks: Sequence[DeletionMark]) -> bool:
    """Whether an event may have been deleted because it had expired; `marks` are those of this server."""
    return any(_covers(mark, entry.type, entry.at) for mark in marks)


def removed_until(marks: Sequence[DeletionMark]) -> int:
    """The number of the last seal that was deleted with its events; `marks` are those of this server."""
    return max((int(mark.until) for mark in marks if mark.kind == READER), default=0)


def remove_old(storage: Storage, ring: KeyRing) -> int:
    """Delete the oldest seals whose events were all deleted because they had expired. Returns their number.

    A changed seal stays, and so does the last one. Raises StorageUnavailable.
    """
    with storage.begin() as stores:
        last = stores.event_seals.last()
        seals = stores.event_seals.following(0, limit=SEALS)
        marks = [mark for mark in stores.event_seals.deletions() if _proven(ring, mark)]
        lowest = next((number for number, _ in stores.events.following(0, limit=1)), None)
        over: EventSeal | None = None
        for seal in seals:
            events_exist = lowest is not None and lowest <= seal.last
            is_last = last is None or seal.number == last.number
            if is_last or events_exist or not _is_over(ring, seal, marks):
                break
            over = seal
        if over is None:
            return 0
        note_deletion(stores, ring, READER, over.number)
        return stores.event_seals.remove_until(over.number)


def recode(storage: Storage, ring: KeyRing) -> int:
    """Make the codes of older keys again with the first key of the ring, so that those can be removed. Returns how many.

    Only the last seal gets a new code, because it proves all before it. Raises StorageUnavailable.
    """
    with storage.begin() as stores:
        return recode_here(stores, ring)


def recode_here(stores: Stores, ring: KeyRing) -> int:
    """As `recode`, in this transaction."""
    count = 0
    for mark in stores.event_seals.deletions():
        if mark.key_id != ring.key_ids[0] and _proven(ring, mark):
            stores.event_seals.mark(_coded(ring, mark))
            count += 1
    last = stores.event_seals.last()
    if last is not None and last.key_id != ring.key_ids[0] and _proven(ring, last):
        # If not, another server has sealed under its own first key, and will again.
        count += stores.event_seals.change(last, _coded(ring, last))
    return count


def _is_over(ring: KeyRing, seal: EventSeal, marks: Sequence[DeletionMark]) -> bool:
    try:
        return (
            hash_of(seal) == seal.hash
            and _proven(ring, seal)
            and all(is_deletable(entry, marks) for entry in entries_of(seal))
        )
    except ValueError:
        return False


def _proven(ring: KeyRing, record: EventSeal | DeletionMark) -> bool:
    try:
        return is_ours(ring, record)
    except (Unsealable, AttributeError, TypeError):
        # Its key is not in the ring, or it was changed by hand.
        return False


def _covers(mark: DeletionMark, type: str, at: datetime) -> bool:
    if mark.kind not in _KINDS or _sortable(at) > mark.until:
        return False
    types = _KINDS[Disposable(mark.kind)]
    return types is None or type in types


def _coded(ring: KeyRing, record: Coded) -> Coded:
    """The same record with a code under the first key of the ring."""
    text, purpose = _signed(record)
    key_id, mac = ring.keyed_digest(text, purpose=purpose)
    return replace(record, key_id=key_id, mac=mac)


def _signed(record: EventSeal | DeletionMark) -> tuple[str, str]:
    """The signed text of the code, and its purpose."""
    if isinstance(record, EventSeal):
        return record.hash.hex(), _PURPOSE
    return f"{record.kind}\0{record.until}", _DELETIONS


def _sortable(until: datetime | int) -> str:
    if isinstance(until, int):
        return f"{until:020d}"
    return until.astimezone(UTC).isoformat(timespec="microseconds")


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _written(value: Any) -> bytes:
    """JSON with one spelling: members in order, and numbers as in `_plain`."""
    try:
        text = _encode(value)
    except (OverflowError, ValueError):
        return _encode(_plain(value))
    # Few events have a number with a point or an exponent; texts begin with a quotation mark.
    return _encode(_plain(value)) if _MAY_HAVE_FLOATS.search(text) else text


def _plain(value: Any) -> Any:
    """The value with whole numbers as integers: PostgreSQL returns 1e3 as 1000."""
    match value:
        case float() | int() if not isinstance(value, bool):
            whole = int(value) if value == int(value) else None
            if whole is None:
                return value
            return whole if abs(whole) < _LARGE else f"int:{whole}"
        case Mapping():
            return {name: _plain(member) for name, member in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _encodable(value: Any) -> Any:
    """An encodable value for types that msgspec does not know: read-only mappings, and the text of any other."""
    return dict(value) if isinstance(value, Mapping) else str(value)


_encode = msgspec.json.Encoder(order="sorted", enc_hook=_encodable).encode
_MAY_HAVE_FLOATS = re.compile(rb"[\[:,]-?[0-9]+[.eE]")
_LARGE = 2**63
