"""The life of a signing key, step by step: what is published, what signs, what verifies, and what is erased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from authserver import app
from authserver.engine.context import Engine
from authserver.engine.crypto import jose
from authserver.engine.crypto.sealing import Unsealable
from authserver.engine.keys import signing_keys
from authserver.engine.keys.signing_keys import CannotChange, publication_time, rotate, signing_key
from authserver.engine.records import EventType, KeyState, SigningKey
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME, SigningAlgorithm
from authserver.testing.records import NOW
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

SECOND = timedelta(seconds=1)
# With the settings as they come: 300 seconds of caches, 10 of following, 5 of clocks.
WAIT = timedelta(seconds=315)
T = NOW + WAIT
END = T + timedelta(seconds=MAXIMUM_ACCESS_TOKEN_LIFETIME + 15)
STAGED, ACTIVE, RETIRING, REMOVED = KeyState

Make = Callable[..., Engine]


@pytest.fixture
def stores() -> MemoryStores:
    return MemoryStores()


@pytest.fixture
def at(stores: MemoryStores) -> Make:
    """An engine at a time, over the same stores: `at(NOW, signing_algorithm=…)`."""
    parts = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}).parts
    parts = over(stores, parts)

    def at(now: datetime, **settings: Any) -> Engine:
        changed = replace(parts, settings=replace(parts.settings, **settings))
        return Engine.of(changed, stores, now)

    return at


@pytest.fixture
def first(at: Make, stores: MemoryStores) -> SigningKey:
    """The key of a server that has just been started for the first time."""
    signing_keys.prepare(at(NOW))
    (key,) = stores.signing_keys.list()
    return key


def states(stores: MemoryStores, now: datetime) -> dict[str, KeyState]:
    return {key.kid: key.state(now) for key in stores.signing_keys.list()}


def signs(stores: MemoryStores, now: datetime, algorithm: str = "ES256") -> str:
    key = signing_key(stores.signing_keys.list(), algorithm, now)
    assert key is not None
    return key.kid


def key_events(stores: MemoryStores) -> list[tuple[EventType, str, Any]]:
    events = stores.tables.events.values()
    return [(event.type, event.reason, event.details["kid"]) for event in events if "kid" in event.details]


# ---- The first key ---------------------------------------------------------------------------------


def test_the_first_key_of_an_empty_database_signs_at_once(at: Make, stores: MemoryStores) -> None:
    """R-06: nobody can have cached anything yet."""
    signing_keys.prepare(at(NOW))
    (key,) = stores.signing_keys.list()
    assert (key.algorithm, key.state(NOW), key.created_at, key.activates_at) == ("ES256", ACTIVE, NOW, NOW)
    assert (key.retires_at, key.ends_at) == (None, None)
    assert key_events(stores) == [(EventType.KEY_CREATED, "first-key", key.kid)]


def test_a_later_start_makes_no_other_key(at: Make, stores: MemoryStores, first: SigningKey) -> None:
    """T113."""
    signing_keys.prepare(at(NOW + SECOND))
    assert stores.signing_keys.list() == [first]


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_a_new_algorithm_is_published_before_it_signs(
    at: Make, stores: MemoryStores, first: SigningKey, algorithm: str
) -> None:
    """R-06, N-06, N-07, T144: until its key is active, the newest key of the algorithm before goes on signing."""
    signing_keys.prepare(at(NOW + SECOND, signing_algorithm=SigningAlgorithm(algorithm)))
    _, new = sorted(stores.signing_keys.list(), key=lambda key: key.created_at)
    assert (new.algorithm, new.state(NOW + SECOND), new.activates_at) == (algorithm, STAGED, T + SECOND)
    assert signs(stores, T, algorithm) == first.kid
    assert signs(stores, T + SECOND, algorithm) == new.kid
    assert states(stores, T + SECOND) == {first.kid: ACTIVE, new.kid: ACTIVE}
    # A second process, or a second start, finds it there.
    signing_keys.prepare(at(NOW + 2 * SECOND, signing_algorithm=SigningAlgorithm(algorithm)))
    assert len(stores.signing_keys.list()) == 2
    assert key_events(stores)[-1] == (EventType.KEY_CREATED, "algorithm-changed", new.kid)


def test_of_two_first_keys_one_is_kept(at: Make, stores: MemoryStores, first: SigningKey) -> None:
    """T113: who comes second writes neither key nor event."""
    assert signing_keys.add_key(at(NOW), "ES256", activates_at=NOW, why="first-key") is None
    assert stores.signing_keys.list() == [first]
    assert len(key_events(stores)) == 1


# ---- Rotation --------------------------------------------------------------------------------------


def test_a_rotation_publishes_then_signs_then_retires_then_ends(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """R-06, N-07, T144: each step by the clock alone, and at every moment exactly one key signs."""
    rotation = rotate(at(NOW))
    new = rotation.new
    assert rotation.old == replace(first, retires_at=T, ends_at=END)
    assert stores.signing_keys.list() == sorted([rotation.old, new], key=lambda key: key.kid)
    for moment, old_state, new_state, signer in (
        (NOW, ACTIVE, STAGED, first.kid),
        (T - SECOND, ACTIVE, STAGED, first.kid),
        (T, RETIRING, ACTIVE, new.kid),
        (END - SECOND, RETIRING, ACTIVE, new.kid),
        (END, REMOVED, ACTIVE, new.kid),
    ):
        assert states(stores, moment) == {first.kid: old_state, new.kid: new_state}
        assert signs(stores, moment) == signer
    assert key_events(stores)[-1] == (EventType.KEY_CREATED, "rotated", new.kid)


def test_a_retiring_key_outlives_every_token_that_the_settings_will_ever_allow(
    at: Make, first: SigningKey
) -> None:
    """N-07: whoever raises the lifetime after the rotation, up to its bound, orphans no token."""
    old = rotate(at(NOW, access_token_lifetime=10)).old
    assert old is not None and old.retires_at is not None and old.ends_at is not None
    # The last one is signed by a process that reads the keys again ten seconds later, by a slow clock.
    assert old.ends_at - old.retires_at >= timedelta(seconds=MAXIMUM_ACCESS_TOKEN_LIFETIME + 10)


@pytest.mark.parametrize("maximum_age", [1, 300, 86400])
def test_a_key_is_published_for_longer_than_others_may_keep_the_keys(at: Make, maximum_age: int) -> None:
    """T144: and for the ten seconds until every process publishes it."""
    signing_keys.prepare(at(NOW))
    new = rotate(at(NOW, jwks_maximum_age=maximum_age)).new
    assert new.activates_at - new.created_at >= timedelta(seconds=maximum_age + signing_keys.REFRESH_SECONDS)


def test_a_rotation_can_be_put_off_but_not_hurried(at: Make, stores: MemoryStores, first: SigningKey) -> None:
    """T144: the refusal says why, and changes nothing."""
    with pytest.raises(CannotChange, match=r"at least 315 seconds before it signs.*jwks_maximum_age"):
        rotate(at(NOW), after=WAIT - SECOND)
    assert stores.signing_keys.list() == [first]
    assert rotate(at(NOW), after=timedelta(days=7)).new.activates_at == NOW + timedelta(days=7)


def test_a_second_rotation_is_told_who_is_staged_until_when(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """T144: a successor that waits is not replaced by another."""
    new = rotate(at(NOW)).new
    before = stores.signing_keys.list()
    with pytest.raises(CannotChange) as refused:
        rotate(at(T - SECOND))
    assert f"{new.kid} is staged already, and signs from 2026-03-01 12:05:15Z" in str(refused.value)
    assert f"authserver keys revoke {new.kid}" in str(refused.value)
    assert stores.signing_keys.list() == before
    assert rotate(at(T)).old == replace(new, retires_at=T + WAIT, ends_at=END + WAIT)


def test_an_algorithm_without_a_key_gets_one_beside_the_others(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """N-06: RS256 is published for who can verify nothing else; nothing signs with it unless it is configured."""
    rotation = rotate(at(NOW), algorithm="RS256")
    assert (rotation.old, rotation.new.state(NOW)) == (None, STAGED)
    assert states(stores, T) == {first.kid: ACTIVE, rotation.new.kid: ACTIVE}
    assert signs(stores, T, "ES256") == first.kid
    assert signs(stores, T, "RS256") == rotation.new.kid


def test_the_first_rotation_of_an_empty_database_is_the_first_key(at: Make, stores: MemoryStores) -> None:
    assert rotate(at(NOW)).new.state(NOW) is ACTIVE
    assert key_events(stores)[0][1] == "first-key"


# ---- Revocation ------------------------------------------------------------------------------------


def test_revoking_the_key_that_signs_makes_one_that_signs_at_once(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """R-06, T144, R-12: an emergency has no time for caches."""
    done = signing_keys.revoke(at(NOW + SECOND), first.kid, reason="stolen")
    assert done.revoked == replace(
        first, retires_at=NOW + SECOND, ends_at=NOW + SECOND, sealed_private_jwk=None
    )
    assert done.successor is not None and done.successor.activates_at == NOW + SECOND
    assert (done.was, done.restored) == (ACTIVE, None)
    assert states(stores, NOW + SECOND) == {first.kid: REMOVED, done.successor.kid: ACTIVE}
    assert signs(stores, NOW + SECOND) == done.successor.kid
    assert key_events(stores)[1:] == [
        (EventType.KEY_CREATED, "replaces-revoked", done.successor.kid),
        (EventType.KEY_REVOKED, "stolen", first.kid),
    ]


def test_revoking_the_key_that_signs_activates_the_staged_one(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """T144: it is published already, so fewer notice."""
    staged = rotate(at(NOW)).new
    done = signing_keys.revoke(at(NOW + SECOND), first.kid, reason="stolen")
    assert done.successor == replace(staged, activates_at=NOW + SECOND)
    assert states(stores, NOW + SECOND) == {first.kid: REMOVED, staged.kid: ACTIVE}
    assert len(stores.signing_keys.list()) == 2


def test_revoking_a_staged_key_gives_its_predecessor_its_future_back(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """T144: else nothing would sign from then on."""
    staged = rotate(at(NOW)).new
    done = signing_keys.revoke(at(NOW + SECOND), staged.kid, reason="mistake")
    assert (done.was, done.successor, done.restored) == (STAGED, None, first)
    assert states(stores, END) == {first.kid: ACTIVE, staged.kid: REMOVED}
    # And it can be rotated again, at once.
    assert rotate(at(NOW + 2 * SECOND)).old is not None


def test_revoking_a_retiring_key_leaves_its_successor_alone(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    new = rotate(at(NOW)).new
    done = signing_keys.revoke(at(T + SECOND), first.kid, reason="stolen")
    assert (done.was, done.successor, done.restored) == (RETIRING, None, None)
    # When it stopped signing stays on record.
    assert (done.revoked.retires_at, done.revoked.ends_at) == (T, T + SECOND)
    assert states(stores, T + SECOND) == {first.kid: REMOVED, new.kid: ACTIVE}


def test_a_key_of_another_algorithm_needs_no_replacement(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """N-06: what is configured goes on signing."""
    rsa = rotate(at(NOW), algorithm="RS256").new
    done = signing_keys.revoke(at(T), rsa.kid, reason="unused")
    assert (done.was, done.successor) == (ACTIVE, None)
    assert states(stores, T) == {first.kid: ACTIVE, rsa.kid: REMOVED}


def test_the_configured_algorithm_goes_on_signing_whatever_stands_beside_it(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """N-06: APIs that verify one algorithm only must not meet another because a key was revoked."""
    rsa = rotate(at(NOW), algorithm="RS256").new
    done = signing_keys.revoke(at(T), first.kid, reason="stolen")
    assert done.successor is not None and done.successor.algorithm == "ES256"
    assert signs(stores, T) == done.successor.kid
    assert states(stores, T)[rsa.kid] is ACTIVE


def test_the_last_key_that_signs_is_replaced_whatever_its_algorithm(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """T144: while the configured algorithm waits for its turn, its turn comes at once."""
    rsa = {"signing_algorithm": SigningAlgorithm.RS256}
    signing_keys.prepare(at(NOW, **rsa))
    done = signing_keys.revoke(at(NOW + SECOND, **rsa), first.kid, reason="stolen")
    assert done.successor is not None and done.successor.algorithm == "RS256"
    assert states(stores, NOW + SECOND) == {first.kid: REMOVED, done.successor.kid: ACTIVE}
    assert len(stores.signing_keys.list()) == 2


def test_a_key_is_named_by_its_beginning(at: Make, stores: MemoryStores, first: SigningKey) -> None:
    """In an emergency nobody wants to type 43 characters; too few of them name nothing."""
    for wrong in (first.kid[:7], "", "nothing like it", first.kid + "x"):
        with pytest.raises(CannotChange, match="no such key; see `authserver keys list`"):
            signing_keys.revoke(at(NOW), wrong, reason="stolen")
    assert stores.signing_keys.list() == [first]
    assert signing_keys.revoke(at(NOW), first.kid[:8], reason="stolen").revoked.kid == first.kid


def test_a_key_ends_once(at: Make, first: SigningKey) -> None:
    signing_keys.revoke(at(NOW), first.kid, reason="stolen")
    with pytest.raises(CannotChange, match="ended at 2026-03-01 12:00:00Z"):
        signing_keys.revoke(at(NOW + SECOND), first.kid, reason="stolen")


def test_no_sequence_of_changes_leaves_nothing_or_two_keys_to_sign(at: Make, stores: MemoryStores) -> None:
    """T113, T144: every way through staged, active and retiring keys; one key of the algorithm signs all along."""
    for path in range(3**5):
        stores.tables.signing_keys.clear()
        now = NOW
        signing_keys.prepare(at(now))
        for step in range(5):
            living = [key for key in stores.signing_keys.list() if key.state(now) is not REMOVED]
            match path // 3**step % 3:
                case 0 if not any(key.state(now) is STAGED for key in living):
                    rotate(at(now))
                case 1:
                    signing_keys.revoke(at(now), living[-1].kid, reason="tried")
                case 2:
                    signing_keys.revoke(at(now), living[0].kid, reason="tried")
            for moment in (now, now + WAIT, now + 2 * WAIT):
                active = [key for key in stores.signing_keys.list() if key.state(moment) is ACTIVE]
                assert len(active) == 1, (path, step)
            now += WAIT / 2


# ---- What is kept of a key -------------------------------------------------------------------------


def test_the_private_part_of_an_ended_key_is_erased(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """N-07, R-04: at the end, not before; the public part and the times stay as a record."""
    new = rotate(at(NOW)).new
    assert signing_keys.erase_ended(stores, END - SECOND) == 0
    assert signing_keys.erase_ended(stores, END) == 1
    kept = {key.kid: key for key in stores.signing_keys.list()}
    assert kept[first.kid] == replace(first, retires_at=T, ends_at=END, sealed_private_jwk=None)
    assert kept[new.kid] == new
    assert signing_keys.erase_ended(stores, END) == 0


@pytest.mark.parametrize("change", ["start", "rotation", "revocation"])
def test_every_change_erases_what_has_ended(
    at: Make, stores: MemoryStores, first: SigningKey, change: str
) -> None:
    """R-04: clean-up does not depend on anybody calling it."""
    new = rotate(at(NOW)).new
    match change:
        case "start":
            signing_keys.prepare(at(END))
        case "rotation":
            rotate(at(END))
        case "revocation":
            signing_keys.revoke(at(END), new.kid, reason="stolen")
    assert {key.kid: key for key in stores.signing_keys.list()}[first.kid].sealed_private_jwk is None


def test_a_private_part_opens_in_its_own_row_and_column_only(
    at: Make, stores: MemoryStores, first: SigningKey
) -> None:
    """T148: whoever moves it to another key, or another kind of value, moves it in vain."""
    ring = at(NOW).ring
    other = rotate(at(NOW)).new
    assert "d" in signing_keys.open_private(ring, first)
    with pytest.raises(Unsealable):
        signing_keys.open_private(ring, replace(other, sealed_private_jwk=first.sealed_private_jwk))
    assert first.sealed_private_jwk is not None
    for place in (f"tokens.sealed_successor:{first.kid}", "signing_keys.public_jwk:" + first.kid, ""):
        with pytest.raises(Unsealable):
            ring.open(first.sealed_private_jwk, purpose=signing_keys.PURPOSE, context=place)


@pytest.mark.parametrize("algorithm", jose.ALGORITHMS)
def test_what_is_stored_of_a_key_gives_nothing_away(at: Make, algorithm: str) -> None:
    """R-04, N-06: no repr, event or column shows the private part, for any algorithm."""
    engine = at(NOW)
    key = signing_keys.add_key(engine, algorithm, activates_at=NOW, why="first-key")
    assert key is not None
    private = signing_keys.open_private(engine.ring, key)["d"]
    seen = f"{key!r} {key.sealed_private_jwk!r} {engine.journal.events!r}"
    assert private not in seen
    assert not jose.SECRET_MEMBERS & key.public_jwk.keys()


def test_the_shortest_wait_is_told_in_one_place(at: Make) -> None:
    """Documentation and refusals speak of the same number."""
    assert publication_time(at(NOW).settings) == WAIT
