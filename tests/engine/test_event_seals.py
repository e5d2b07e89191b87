"""T147: what was stored can be proven unchanged, and what was not is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine import event_seals
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.event_proof import BadHead, Finding, Proof, verify
from authserver.engine.event_seals import Sealer, digest_of, head_of, note_deletion, recode, remove_old
from authserver.engine.records import Event, EventType, RingKey
from authserver.engine.upkeep_records import Disposable
from authserver.event_readers import Reading
from authserver.testing.records import NOW, an_event
from authserver.testing.stores import MemoryStores

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
LATER = NOW + timedelta(minutes=1)
FIRST, SECOND_KEY = ("2025", b"1" * 32), ("2026", b"2" * 32)
RING = KeyRing([FIRST])
ROTATED = KeyRing([SECOND_KEY, FIRST])


class Small(Sealer):
    """Seals three events at a time."""

    batch = 3


def seal(storage: Any, ring: KeyRing = RING) -> None:
    """Seal all that there is, three events at a time."""
    reading = Reading(storage, Small(ring, now=lambda: NOW))
    while reading.work():
        pass


def store(storage: Any, *event_ids: str, **changes: Any) -> None:
    with storage.begin() as stores:
        for event_id in event_ids:
            stores.events.add(an_event(event_id=event_id, **changes))


@pytest.fixture
def storage() -> MemoryStores:
    """Seven sealed events, in three seals: a refusal, an issuance, a change and so on."""
    storage = MemoryStores()
    for number in range(7):
        kinds = EventType.TOKEN_REFUSED, EventType.TOKEN_ISSUED, EventType.CLIENT_CHANGED
        store(storage, f"e{number + 1}", type=kinds[number % 3], at=NOW + number * SECOND)
    seal(storage)
    return storage


def change(storage: MemoryStores, event_id: str, /, **members: Any) -> None:
    storage.tables.events[event_id] = replace(storage.tables.events[event_id], **members)


def proven(storage: Any, ring: KeyRing, **options: Any) -> Proof:
    return verify(storage, ring, now=NOW + DAY, **options)


def found(storage: Any, ring: KeyRing = RING, **options: Any) -> tuple[bool | None, str]:
    """Whether it is whole, and the record that is not."""
    proof = proven(storage, ring, **options)
    return proof.whole, proof.finding.record if proof.finding else ""


def test_what_nobody_changed_is_whole(storage: MemoryStores) -> None:
    proof = proven(storage, RING)
    assert proof.whole is True
    assert (proof.seals, proof.events, proof.deleted, proof.unsealed) == (3, 7, 0, 0)
    assert proof.head == head_of(storage.tables.event_seals[3])
    assert [seal.number for _, seal in sorted(storage.tables.event_seals.items())] == [1, 2, 3]
    stretches = [(seal.first, seal.last) for _, seal in sorted(storage.tables.event_seals.items())]
    assert stretches == [(1, 3), (4, 6), (7, 7)]


CHANGES: dict[str, Any] = {
    "event_id": "another",
    "type": EventType.TOKEN_REFUSED,
    "at": LATER,
    "actor": "client:other",
    "source": "198.51.100.1",
    "request_id": "another",
    "client_id": None,
    "user_id": "user_ada",
    "grant_id": "g",
    "reason": "other",
    "decisions": ({"slot": "x"},),
    "details": {"more": 1},
}


@pytest.mark.parametrize("member", CHANGES)
def test_a_change_of_any_member_is_named(storage: MemoryStores, member: str) -> None:
    change(storage, "e5", **{member: CHANGES[member]})
    proof = proven(storage, RING)
    assert proof.whole is False
    assert proof.finding is not None
    assert proof.finding.record == "event 5"
    assert "token.issued of 2026" in proof.finding.problem
    # All before it is known to be well.
    assert (proof.seals, proof.events) == (1, 4)


def test_every_member_of_an_event_is_sealed() -> None:
    """A new member needs a new form, or it could be changed."""
    texts, values = event_seals.FORMS[event_seals.FORM]
    assert {*texts, *values} == set(Event.__slots__) == set(CHANGES)


def drop_event(storage: MemoryStores) -> None:
    del storage.tables.events["e5"]


def put_in_event(storage: MemoryStores) -> None:
    storage.tables.events["new"] = an_event(event_id="new")
    storage.tables.event_numbers["new"] = 5
    drop_event(storage)


def put_in_between(storage: MemoryStores) -> None:
    """As one would whose number nobody used."""
    tables = storage.tables
    del tables.events["e6"]
    sealer = Sealer(RING, now=lambda: NOW)
    with storage.begin() as stores:
        stores.event_seals.remove_until(9)
        events = stores.events.following(0, limit=9)
        sealer.take(events)
        sealer.keep(stores, events)
    assert found(storage) == (True, "")
    tables.events["new"] = an_event(event_id="new")
    tables.event_numbers["new"] = 6


def swap_numbers(storage: MemoryStores) -> None:
    numbers = storage.tables.event_numbers
    numbers["e5"], numbers["e6"] = 6, 5


def drop_seal(number: int) -> Callable[[MemoryStores], None]:
    def drop(storage: MemoryStores) -> None:
        del storage.tables.event_seals[number]

    return drop


def drop_all_seals(storage: MemoryStores) -> None:
    storage.tables.event_seals.clear()


def change_seal(**members: Any) -> Callable[[MemoryStores], None]:
    def change(storage: MemoryStores) -> None:
        storage.tables.event_seals[2] = replace(storage.tables.event_seals[2], **members)

    return change


def forge(storage: MemoryStores) -> None:
    """As well as somebody can who has everything but a key."""
    seals = storage.tables.event_seals
    change(storage, "e5", reason="nothing happened")
    entries = [
        event_seals._ENTRY.pack(
            entry.number, seals[2].types.index(entry.type), event_seals._micros(entry.at), digest
        )
        for entry in event_seals.entries_of(seals[2])
        for digest in [digest_of(5, storage.tables.events["e5"]) if entry.number == 5 else entry.digest]
    ]
    forged = replace(seals[2], entries=b"".join(entries))
    seals[2] = replace(forged, hash=event_seals.hash_of(forged))
    following = replace(seals[3], previous=seals[2].hash)
    seals[3] = replace(following, hash=event_seals.hash_of(following))


def forge_with_another_ring(storage: MemoryStores) -> None:
    """With a key of their own under the same id."""
    with storage.begin() as stores:
        stores.event_seals.remove_until(9)
    storage.tables.event_positions.clear()
    seal(storage, KeyRing([("2025", b"x" * 32)]))


def forge_with_unknown_key(storage: MemoryStores) -> None:
    with storage.begin() as stores:
        stores.event_seals.remove_until(9)
    storage.tables.event_positions.clear()
    seal(storage, KeyRing([("theirs", b"x" * 32)]))


def forge_mark(storage: MemoryStores) -> None:
    """So that nobody misses what is deleted."""
    drop_event(storage)
    with storage.begin() as stores:
        note_deletion(stores, KeyRing([("2025", b"x" * 32)]), "events", LATER)


def copy_mark(storage: MemoryStores) -> None:
    """Of one kind to another."""
    with storage.begin() as stores:
        note_deletion(stores, RING, "refusals", LATER)
        (mark,) = stores.event_seals.deletions()
        stores.event_seals.mark(replace(mark, kind="events"))
    drop_event(storage)


@pytest.mark.parametrize(
    ("act", "record"),
    [
        (drop_event, "event 5"),
        (put_in_event, "event 5"),
        (put_in_between, "event 6"),
        (swap_numbers, "event 5"),
        (drop_seal(1), "seal 1"),
        (drop_seal(2), "seal 2"),
        (drop_seal(3), "seal 3"),
        (drop_all_seals, "seal 1"),
        (change_seal(entries=b"nonsense"), "seal 2"),
        (change_seal(types=("token.issued",)), "seal 2"),
        (change_seal(last=9), "seal 2"),
        (change_seal(sealed_at=LATER), "seal 2"),
        (change_seal(previous=bytes(32)), "seal 2"),
        (change_seal(hash=bytes(32)), "seal 2"),
        (change_seal(mac=bytes(32)), "seal 2"),
        (change_seal(key_id="theirs"), "seal 2"),
        (change_seal(form=2), "seal 2"),
        (forge, "seal 2"),
        (forge_with_another_ring, "seal 1"),
        (forge_with_unknown_key, "seal 1"),
        (forge_mark, f"the note that events were deleted until {event_seals._sortable(LATER)}"),
        (copy_mark, f"the note that events were deleted until {event_seals._sortable(LATER)}"),
    ],
)  # fmt: skip
def test_whatever_somebody_does_to_the_database_is_named(
    storage: MemoryStores, act: Callable[[MemoryStores], None], record: str
) -> None:
    act(storage)
    assert found(storage) == (False, record)


def test_the_seal_that_follows_another_chain_is_named(storage: MemoryStores) -> None:
    """One that this server made, but after other events."""
    other = MemoryStores()
    store(other, *"abcdefg")
    seal(other)
    storage.tables.event_seals[2] = other.tables.event_seals[2]
    assert found(storage) == (False, "seal 2")


def test_an_end_that_was_cut_off_shows_by_a_head_that_was_noted(storage: MemoryStores) -> None:
    head = proven(storage, RING).head
    assert found(storage, head=head) == (True, "")
    store(storage, "e8")
    seal(storage)
    assert found(storage, head=head) == (True, "")
    del storage.tables.event_seals[3], storage.tables.event_seals[4]
    del storage.tables.events["e7"], storage.tables.events["e8"]
    storage.tables.event_positions["seals"] = 6
    assert found(storage) == (True, "")
    assert found(storage, head=head) == (False, "seal 3")
    store(storage, "instead")
    seal(storage)
    assert found(storage) == (True, "")
    assert found(storage, head=head) == (False, "seal 3")


@pytest.mark.parametrize("text", ["", "3", "3-", "3-12ab", "x-" + "0" * 64, "3-" + "g" * 64])
def test_what_is_no_head_is_refused(storage: MemoryStores, text: str) -> None:
    with pytest.raises(BadHead, match="64 hexadecimal digits"):
        proven(storage, RING, head=text)


def test_a_reader_that_was_set_back_seals_nothing_twice(storage: MemoryStores) -> None:
    storage.tables.event_positions.clear()
    store(storage, "e8")
    seal(storage)
    assert found(storage) == (True, "")
    seals = [seal for _, seal in sorted(storage.tables.event_seals.items())]
    assert [seal.number for seal in seals] == [1, 2, 3, 4]
    assert all(after.first == before.last + 1 for before, after in pairwise(seals))


def test_what_is_not_sealed_yet_is_said() -> None:
    storage = MemoryStores()
    assert proven(storage, RING) == Proof(whole=True)
    store(storage, "a", "b")
    proof = proven(storage, RING)
    assert (proof.whole, proof.unsealed, proof.unsealed_since) == (None, 2, NOW)
    assert verify(storage, RING, now=LATER).whole is True
    seal(storage)
    store(storage, "c", at=LATER)
    proof = proven(storage, RING)
    assert (proof.whole, proof.events, proof.unsealed, proof.unsealed_since) == (True, 2, 1, LATER)


# ---- retention ----------------------------------------------------------------------------------------


def clean_up(storage: MemoryStores, kind: Disposable, before: Any, *, ring: KeyRing = RING) -> None:
    with storage.begin() as stores:
        stores.upkeep.remove(kind, before, limit=100)
        note_deletion(stores, ring, kind, before)


def test_events_whose_time_is_over_may_be_missing_and_the_others_are_proven(storage: MemoryStores) -> None:
    clean_up(storage, Disposable.REFUSALS, LATER)
    proof = proven(storage, RING)
    assert (proof.whole, proof.events, proof.deleted) == (True, 4, 3)
    # Neither another kind, nor a later one of that kind.
    change(storage, "e5", reason="other")
    assert found(storage) == (False, "event 5")
    del storage.tables.events["e5"]
    assert found(storage) == (False, "event 5")


@pytest.mark.parametrize("kind", [Disposable.REFUSALS, Disposable.ISSUANCES, Disposable.EVENTS])
def test_one_that_was_deleted_before_its_time_is_named(storage: MemoryStores, kind: Disposable) -> None:
    until = NOW + 2 * SECOND
    clean_up(storage, kind, until)
    assert found(storage) == (True, "")
    for event_id, event in dict(storage.tables.events).items():
        if event.at > until:
            kept = storage.tables.events.pop(event_id)
            assert found(storage) == (False, f"event {event_id[1:]}")
            storage.tables.events[event_id] = kept


def test_a_mark_is_never_taken_back(storage: MemoryStores) -> None:
    """Where a lifetime was made longer, what was deleted before stays explained."""
    clean_up(storage, Disposable.EVENTS, NOW + 3 * SECOND)
    clean_up(storage, Disposable.EVENTS, NOW)
    assert found(storage) == (True, "")


def test_the_oldest_seals_are_deleted_with_their_events(storage: MemoryStores) -> None:
    clean_up(storage, Disposable.REFUSALS, LATER)
    assert remove_old(storage, RING) == 0
    clean_up(storage, Disposable.EVENTS, NOW + 4 * SECOND)
    assert remove_old(storage, RING) == 1
    assert set(storage.tables.event_seals) == {2, 3}
    assert found(storage) == (True, "")
    clean_up(storage, Disposable.EVENTS, LATER)
    # The last one stays: the chain goes on from it.
    assert remove_old(storage, RING) == 1
    assert set(storage.tables.event_seals) == {3}
    assert found(storage) == (True, "")
    store(storage, "e8")
    seal(storage)
    assert found(storage) == (True, "")
    # Nobody else may do so.
    del storage.tables.event_seals[3]
    assert found(storage) == (False, "seal 3")


def test_a_seal_that_was_changed_or_whose_events_vanished_stays_as_evidence(storage: MemoryStores) -> None:
    for event_id in ("e1", "e2", "e3"):
        del storage.tables.events[event_id]
    assert remove_old(storage, RING) == 0
    clean_up(storage, Disposable.EVENTS, LATER)
    storage.tables.event_seals[1] = replace(storage.tables.event_seals[1], mac=bytes(32))
    assert remove_old(storage, RING) == 0
    assert found(storage) == (False, "seal 1")


def test_a_head_whose_seal_was_deleted_cannot_be_compared(storage: MemoryStores) -> None:
    head = head_of(storage.tables.event_seals[1])
    clean_up(storage, Disposable.EVENTS, LATER)
    remove_old(storage, RING)
    assert found(storage, head=head) == (None, "seal 1")


def test_an_event_before_the_first_seal_is_named(storage: MemoryStores) -> None:
    clean_up(storage, Disposable.EVENTS, LATER)
    remove_old(storage, RING)
    storage.tables.events["e1"] = an_event(event_id="e1")
    assert found(storage) == (False, "event 1")


def test_only_a_part_is_verified_where_that_is_asked_for() -> None:
    storage = MemoryStores()
    for number in range(3):
        store(storage, f"e{number + 1}")
        Reading(storage, Sealer(RING, now=lambda number=number: NOW + number * DAY)).work()
    change(storage, "e1", reason="changed")
    assert found(storage) == (False, "event 1")
    proof = proven(storage, RING, since=NOW + SECOND)
    assert (proof.whole, proof.seals, proof.since) == (True, 2, NOW + DAY)
    change(storage, "e3", reason="changed")
    assert found(storage, since=NOW + SECOND) == (False, "event 3")
    assert found(storage, since=NOW + 9 * DAY) == (False, "event 3")


# ---- keys ---------------------------------------------------------------------------------------------


def noted(storage: MemoryStores, *keys: tuple[str, bytes]) -> None:
    """As servers note their keys at their start."""
    with storage.begin() as stores:
        for key_id, key in keys:
            fingerprint = KeyRing([(key_id, key)]).fingerprint(key_id)
            stores.ring_keys.add(RingKey(key_id=key_id, fingerprint=fingerprint, first_used_at=NOW))


def test_a_lost_key_is_said_to_be_lost(storage: MemoryStores) -> None:
    noted(storage, FIRST)
    proof = proven(storage, KeyRing([SECOND_KEY]))
    assert proof.whole is None
    assert proof.finding == Finding(
        record="seal 1",
        problem="and those after it have codes of key 2025, which is not in the key ring",
        advice=(
            "Put key 2025 back into authserver.secret_keys, behind the first, and verify again; then `authserver db reencrypt` "
            "lets it leave. If it is lost, nothing can prove this part any more."
        ),
    )
    # What is wrong without any key is wrong.
    drop_event(storage)
    assert found(storage, KeyRing([SECOND_KEY])) == (False, "event 5")


def test_another_key_under_the_same_id_is_a_lost_key(storage: MemoryStores) -> None:
    noted(storage, FIRST)
    assert found(storage, KeyRing([("2025", b"other".ljust(32))])) == (None, "seal 1")


def test_seals_of_an_old_key_are_proven_by_those_that_follow(storage: MemoryStores) -> None:
    noted(storage, FIRST, SECOND_KEY)
    store(storage, "e8")
    seal(storage, ROTATED)
    assert storage.tables.event_seals[4].key_id == "2026"
    assert found(storage, ROTATED) == (True, "")
    assert found(storage, KeyRing([SECOND_KEY])) == (True, "")
    forge(storage)
    assert found(storage, KeyRing([SECOND_KEY])) == (False, "seal 4")


def test_no_seal_proves_those_that_somebody_without_a_key_put_before_it(storage: MemoryStores) -> None:
    """T147: whoever writes the database can note a key there, and make all seals anew with it."""
    noted(storage, FIRST, ("theirs", b"x" * 32))
    change(storage, "e5", reason="nothing happened")
    forge_with_unknown_key(storage)
    assert found(storage) == (None, "seal 1")
    store(storage, "e8")
    seal(storage)
    assert storage.tables.event_seals[4].key_id == "2025"
    assert found(storage) == (None, "seal 1")


def test_no_seal_follows_one_that_this_server_did_not_make(
    storage: MemoryStores, caplog: pytest.LogCaptureFixture
) -> None:
    """T147: also where the code is put right afterwards."""
    genuine = storage.tables.event_seals[3]
    storage.tables.event_seals[3] = replace(genuine, mac=bytes(32))
    store(storage, "e8")
    seal(storage)
    assert "seal 3 has no code of a key in authserver.secret_keys" in caplog.text
    assert found(storage) == (False, "seal 3")
    storage.tables.event_seals[3] = genuine
    assert found(storage) == (None, "seal 4")
    store(storage, "e9")
    seal(storage)
    assert found(storage) == (None, "seal 4")
    change(storage, "e2", reason="nothing happened")
    assert found(storage) == (False, "event 2")


def test_after_a_lost_key_events_are_sealed_by_the_present_one(storage: MemoryStores) -> None:
    noted(storage, FIRST, SECOND_KEY)
    ring = KeyRing([SECOND_KEY])
    store(storage, "e8")
    seal(storage, ring)
    assert found(storage, ring) == (None, "seal 1")
    # The key is found again: all of it is proven, but not that nothing was exchanged at that seal.
    assert found(storage, ROTATED) == (None, "seal 4")
    change(storage, "e8", reason="nothing happened")
    assert found(storage, ring) == (False, "event 8")


def test_before_a_key_leaves_its_codes_are_made_with_the_first(storage: MemoryStores) -> None:
    noted(storage, FIRST, SECOND_KEY)
    head = proven(storage, RING).head
    clean_up(storage, Disposable.REFUSALS, LATER)
    assert recode(storage, ROTATED) == 2
    assert recode(storage, ROTATED) == 0
    assert found(storage, KeyRing([SECOND_KEY]), head=head) == (True, "")


def test_what_a_lost_key_noted_explains_nothing(storage: MemoryStores) -> None:
    noted(storage, FIRST, SECOND_KEY)
    clean_up(storage, Disposable.REFUSALS, LATER)
    store(storage, "e8")
    seal(storage, ROTATED)
    assert found(storage, KeyRing([SECOND_KEY])) == (None, "event 1")


# ---- digests ------------------------------------------------------------------------------------------


def test_the_digest_of_an_event_stays_what_it_is() -> None:
    """Seals of earlier versions must stay provable: this value never changes."""
    event = an_event(
        event_id="e1",
        details={"b": 1.0, "a": [True, None, 0.5, 10**22, "ü\u2028"]},
        decisions=({"slot": "scope_decision"},),
    )
    assert digest_of(7, event, 1).hex() == "f872be6300edfddfe9553d7101bd9f79436a2766a29b7abf4827b3a811241acd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.integers(2**62, 2**70) | st.just(float(2**65)) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3).map(repr), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from("abc"), JSON), st.dictionaries(st.sampled_from("abc"), JSON))
def test_two_events_have_the_same_digest_only_if_they_are_the_same(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    same = digest_of(1, an_event(event_id="e", details=one)) == digest_of(
        1, an_event(event_id="e", details=other)
    )
    assert same == (spelt(one) == spelt(other))


def spelt(value: Any) -> str:
    """Where 1 is 1.0 and not True."""
    match value:
        case bool() | None | str():
            return repr(value)
        case dict():
            return "object" + repr(sorted((name, spelt(member)) for name, member in value.items()))
        case list():
            return repr([spelt(item) for item in value])
        case _:
            return repr(int(value) if value == int(value) else value)
