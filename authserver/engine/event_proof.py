"""Verifies the stored events against their seals (`engine.event_seals`), and finds the first wrong record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hmac import compare_digest

from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.event_seals import (
    FORMS,
    NOTHING_BEFORE,
    READER,
    SEALS,
    Entry,
    digest_of,
    entries_of,
    hash_of,
    head_of,
    is_deletable,
    is_ours,
    removed_until,
)
from authserver.engine.ports import Storage, Stores
from authserver.engine.seal_records import DeletionMark, EventSeal

# The errors of reading a row that was changed by hand to another type: SQLite stores any type in any column.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Older events are sealed while a server runs.
LATE = timedelta(minutes=5)
_HEAD = re.compile(r"([0-9]{1,18})-([0-9a-f]{64})")

RESTORE = "Compare with an earlier backup or export (`authserver audit export`), and find out who can write to the database"


class BadHead(ValueError):
    """The text is not the head of a chain; the message describes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The first record that is wrong or cannot be verified.

    Attributes:
        record: the record, such as `event 512` or `seal 7`.
        problem: the rest of a sentence that begins with the record.
        advice: what to do next.
        event_id: the id of an event, if it exists.
    """

    record: str
    problem: str
    advice: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The result of a verification.

    Attributes:
        whole: True if nothing is wrong, False if something is, None if that cannot be determined.
        finding: the record that is wrong or cannot be verified; None if `whole` is True.
        seals, events, deleted: the numbers of checked seals, of their events that exist, and of their events that were
            deleted because they had expired.
        since: when the first of these seals was made.
        head: the head of the chain at the last seal; None without any.
        sealed_at: when the last seal was made.
        unsealed: the number of events, at most, that are not sealed yet.
        unsealed_since: the time of the first of them.
    """

    whole: bool | None
    finding: Finding | None = None
    seals: int = 0
    events: int = 0
    deleted: int = 0
    since: datetime | None = None
    head: str | None = None
    sealed_at: datetime | None = None
    unsealed: int = 0
    unsealed_since: datetime | None = None

    def is_late(self, now: datetime) -> bool:
        """Whether an event should have been sealed by now."""
        return self.unsealed_since is not None and now - self.unsealed_since > LATE


def verify(
    storage: Storage,
    ring: KeyRing,
    *,
    now: datetime,
    since: datetime | None = None,
    head: str | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Check each seal and each event in it until something is wrong. Servers may write meanwhile.

    Args:
        now: the time of the clock; events that are older than a minute or two must be sealed.
        since: begin with the first seal that was made from this time on.
        head: a head that was noted before; its seal must still be in the chain.
        told: called from time to time with the number of checked events and their total.

    Raises:
        BadHead: `head` is malformed.
        StorageUnavailable: the storage did not answer.
    """
    noted = None if head is None else _read_head(head)
    return _Walk(storage, ring, now, since, noted, told).proof()


class _Wrong(Exception):
    """Stops the walk at the first record that is wrong."""

    def __init__(self, record: str, problem: str, advice: str = RESTORE, event_id: str | None = None) -> None:
        super().__init__(record, problem)
        self.finding = Finding(record=record, problem=problem, advice=f"{advice}.", event_id=event_id)


@dataclass(frozen=True, slots=True)
class _Marks:
    """The marks that this server has made, and those that cannot be verified."""

    ours: Sequence[DeletionMark]
    doubtful: Sequence[DeletionMark]


class _Walk:
    """One walk from a seal to the end of the chain."""

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        now: datetime,
        since: datetime | None,
        noted: tuple[int, bytes] | None,
        told: Callable[[int, int], None],
    ) -> None:
        self._storage = storage
        self._ring = ring
        self._now = now
        self._since = since
        self._noted = noted
        self._told = told
        self._found = Proof(whole=True)
        self._keys: Mapping[str, bool] = {}
        self._before: EventSeal | None = None
        # Records that cannot be verified, because a key of seals or marks is not in the ring: the first seal that no
        # later one proves, and a missing record that may have expired.
        self._missing_key = ""
        self._unproven: EventSeal | None = None
        # The first seal that begins a new chain, and the first one before it that no seal proves.
        self._apart: EventSeal | None = None
        self._lost: EventSeal | None = None
        self._doubt: str | None = None
        # The number of a noted seal that was deleted.
        self._too_old: int | None = None

    def proof(self) -> Proof:
        try:
            with self._storage.begin() as stores:
                # Read before the seals: an event that counts as sealed now must be found in them.
                position = stores.event_positions.of(READER) or 0
                self._keys = _known_keys(stores, self._ring)
                total = stores.events.last_number()
            self._marks()
            self._walk(total)
            self._check_end(position)
            if self._noted is not None:
                self._check_noted(*self._noted)
            self._note_end()
        except _Wrong as wrong:
            return self._broken(wrong)
        except _UNREADABLE:
            number = self._before.number + 1 if self._before else 1
            problem = "cannot be read, or its notes cannot: it was changed by hand"
            return self._broken(_Wrong(f"seal {number}", problem))
        unknown = self._unknown()
        return replace(self._found, whole=None, finding=unknown) if unknown else self._found

    def _broken(self, wrong: _Wrong) -> Proof:
        with suppress(*_UNREADABLE):
            self._note_end()
        return replace(self._found, whole=False, finding=wrong.finding)

    # ---- the chain ----------------------------------------------------------------------------------

    def _walk(self, total: int) -> None:
        number, start = 0, None
        if self._since is not None:
            with self._storage.begin() as stores:
                start = stores.event_seals.since(self._since) or stores.event_seals.last()
            number = start.number - 1 if start else 0
        while True:
            with self._storage.begin() as stores:
                seals = stores.event_seals.following(number, limit=SEALS)
            if not seals:
                return
            for seal in seals:
                self._check_place(seal, trusted=start is not None and seal.number == start.number)
                self._check_seal(seal)
                self._check_events(seal)
                self._found = replace(
                    self._found, seals=self._found.seals + 1, since=self._found.since or seal.sealed_at
                )
                self._before, number = seal, seal.number
                self._told(seal.last, max(total, seal.last))

    def _check_place(self, seal: EventSeal, *, trusted: bool) -> None:
        """Check that the seal follows the previous one, or is the first one that is stored."""
        name, before = f"seal {seal.number}", self._before
        if before is not None and seal.number == before.number + 1:
            if seal.previous not in (before.hash, NOTHING_BEFORE) or seal.first != before.last + 1:
                raise _Wrong(name, f"does not follow seal {before.number}: one of the two was replaced")
            if seal.previous == NOTHING_BEFORE:
                # This seal and the following ones prove nothing about earlier seals.
                self._apart, self._lost = self._apart or seal, self._lost or self._unproven
                self._unproven = None
            return
        if trusted:
            return
        # Read after the seal: if earlier seals were deleted, that was noted in the same transaction.
        marks = self._marks()
        removed, perhaps = removed_until(marks.ours), removed_until(marks.doubtful)
        if removed + 1 < seal.number <= perhaps + 1:
            self._doubt = self._doubt or f"seal {removed + 1}"
        elif seal.number != removed + 1:
            missing = max(removed, before.number if before else 0) + 1
            problem = "is missing, although not all of its events were deleted by this server"
            raise _Wrong(f"seal {missing}", problem)
        with self._storage.begin() as stores:
            (first, *_) = [*stores.events.following(0, limit=1), None]
        if before is None and first is not None and first[0] < seal.first:
            raise _Wrong(f"event {first[0]}", "was put in before the first seal", event_id=first[1].event_id)

    def _check_seal(self, seal: EventSeal) -> None:
        name = f"seal {seal.number}"
        if seal.form not in FORMS:
            raise _Wrong(
                name,
                f"is of form {seal.form}, which this version does not know, or was changed",
                "Verify with the version that the servers run",
            )
        if not compare_digest(hash_of(seal), seal.hash):
            raise _Wrong(name, "was changed: its content does not have its hash")
        if not self._has_key(seal, name):
            self._unproven = self._unproven or seal
        elif is_ours(self._ring, seal):
            self._unproven = None
        else:
            among = f"seals {self._unproven.number} to {seal.number}" if self._unproven else "it"
            raise _Wrong(
                name, f"has no code of key {seal.key_id} of this server: {among} may have been replaced"
            )

    def _check_events(self, seal: EventSeal) -> None:
        known = {entry.number: entry for entry in entries_of(seal)}
        with self._storage.begin() as stores:
            # One more than is possible shows that one was added.
            found = stores.events.following(seal.first - 1, limit=len(known) + 1)
        events = {number: event for number, event in found if number <= seal.last}
        # Read after the events: if one was deleted, that was noted in the same transaction.
        marks = self._marks() if known.keys() - events.keys() else None
        for number in sorted(known.keys() | events.keys()):
            name, entry, event = f"event {number}", known.get(number), events.get(number)
            if event is None and entry is not None and marks is not None:
                self._check_missing(name, entry, marks)
            elif event is not None and entry is None:
                problem = f"was put in after seal {seal.number} had been made, or its transaction took longer than a minute"
                raise _Wrong(name, problem, event_id=event.event_id)
            elif event is not None and entry is not None:
                if not compare_digest(digest_of(number, event, seal.form), entry.digest):
                    problem = f"was changed after it had been sealed as {_told_of(entry)}"
                    raise _Wrong(name, problem, event_id=event.event_id)
                self._found = replace(self._found, events=self._found.events + 1)

    def _check_missing(self, name: str, entry: Entry, marks: _Marks) -> None:
        if is_deletable(entry, marks.ours):
            self._found = replace(self._found, deleted=self._found.deleted + 1)
        elif is_deletable(entry, marks.doubtful):
            self._doubt = self._doubt or name
        else:
            raise _Wrong(name, f"was deleted before it had expired: it was sealed as {_told_of(entry)}")

    def _check_end(self, position: int) -> None:
        """Check that the chain reaches to the last sealed event, and count the events after it."""
        last = self._before
        reached = last.last if last else 0
        if position > reached:
            problem = (
                f"is missing: events up to number {position} were sealed, and this is the end of the chain"
            )
            raise _Wrong(f"seal {last.number + 1 if last else 1}", problem)

    def _check_noted(self, number: int, noted: bytes) -> None:
        """Check that the seal whose head was noted elsewhere is in the chain."""
        with self._storage.begin() as stores:
            found, last = stores.event_seals.find(noted), stores.event_seals.last()
        if found is not None and found.number == number:
            return
        if number <= removed_until(self._marks().ours):
            self._too_old = number
        elif last is None or number > last.number:
            problem = "is missing: the end of the chain was cut off, or the database was restored from an older backup"
            raise _Wrong(f"seal {number}", problem)
        else:
            raise _Wrong(f"seal {number}", "was replaced: it does not have the hash that was noted")

    # ---- the keys -----------------------------------------------------------------------------------

    def _marks(self) -> _Marks:
        """The marks of deletions. Raises _Wrong for a mark that this server has not made."""
        with self._storage.begin() as stores:
            marks = stores.event_seals.deletions()
        ours: list[DeletionMark] = []
        doubtful: list[DeletionMark] = []
        for mark in marks:
            name = f"the note that {mark.kind} were deleted until {mark.until}"
            if not self._has_key(mark, name):
                doubtful.append(mark)
            elif is_ours(self._ring, mark):
                ours.append(mark)
            else:
                raise _Wrong(
                    name, f"has no code of key {mark.key_id} of this server: it was made by somebody else"
                )
        return _Marks(ours, doubtful)

    def _has_key(self, record: EventSeal | DeletionMark, name: str) -> bool:
        """Whether its key is in the ring. Raises _Wrong for a key that this server never had."""
        known = self._keys.get(record.key_id)
        if known is None:
            raise _Wrong(name, f"has a code of key {record.key_id}, which this server never had")
        if not known:
            self._missing_key = record.key_id
        return known

    def _unknown(self) -> Finding | None:
        """The record that cannot be verified, if nothing is wrong."""
        put_back = (
            f"Put key {self._missing_key} back into authserver.secret_keys, behind the first, and verify again; then "
            "`authserver db reencrypt` lets it leave. If it is lost, nothing can prove this part any more."
        )
        if unproven := self._lost or self._unproven:
            problem = (
                f"and those after it have codes of key {self._missing_key}, which is not in the key ring"
            )
            return Finding(record=f"seal {unproven.number}", problem=problem, advice=put_back)
        if self._doubt is not None:
            problem = f"is missing; the note that it had expired has a code of key {self._missing_key}, which is not in the key ring"
            return Finding(record=self._doubt, problem=problem, advice=put_back)
        if self._apart is not None:
            problem = "begins a chain of its own: the code of the seal before it could not be checked when it was made"
            advice = (
                "Was a key missing in authserver.secret_keys then, as the log says? Compare with an earlier head that was "
                "noted elsewhere (--head)."
            )
            return Finding(record=f"seal {self._apart.number}", problem=problem, advice=advice)
        if self._too_old is not None:
            problem = "was deleted, because all its events had expired"
            advice = "Note the present head, and compare with one that is newer than the oldest event."
            return Finding(record=f"seal {self._too_old}", problem=problem, advice=advice)
        if self._before is None and self._found.is_late(self._now):
            problem = "is not there yet: no event is sealed"
            advice = "Servers seal events within a minute: is one running, of this version?"
            return Finding(record="seal 1", problem=problem, advice=advice)
        return None

    def _note_end(self) -> None:
        """Note the end of the chain in the result."""
        with self._storage.begin() as stores:
            last = stores.event_seals.last()
            following = stores.events.following(last.last if last else 0, limit=1)
            count = stores.events.last_number() - following[0][0] + 1 if following else 0
        self._found = replace(
            self._found,
            head=head_of(last) if last else None,
            sealed_at=last.sealed_at if last else None,
            unsealed=count,
            unsealed_since=following[0][1].at if following else None,
        )


def _known_keys(stores: Stores, ring: KeyRing) -> Mapping[str, bool]:
    """For each key that was ever used here, whether the ring has it."""
    keys = dict.fromkeys(ring.key_ids, True)
    for key in stores.ring_keys.list():
        keys[key.key_id] = key.key_id in keys and compare_digest(
            ring.fingerprint(key.key_id), key.fingerprint
        )
    return keys


def _told_of(entry: Entry) -> str:
    return f"{entry.type} of {entry.at:%Y-%m-%d %H:%M:%SZ}"


def _read_head(text: str) -> tuple[int, bytes]:
    found = _HEAD.fullmatch(text.strip().lower())
    if found is None:
        raise BadHead(
            f"{text!r} is no head of a chain: it is a number, a hyphen and 64 hexadecimal digits, as "
            "`authserver audit verify` and the log show it"
        )
    return int(found[1]), bytes.fromhex(found[2])
