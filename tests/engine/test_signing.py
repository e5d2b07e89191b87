"""A process and its signing keys: what it publishes, signs with and verifies, and how it follows the database."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine

from authserver import app
from authserver.engine.context import Engine
from authserver.engine.crypto import jose
from authserver.engine.crypto.jose import NotVerified
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.keys import signing_keys
from authserver.engine.keys.following import AGING_SECONDS, FollowedSigningKeys
from authserver.engine.ports import StorageUnavailable, Stores
from authserver.engine.records import SigningKey
from authserver.settings import SettingsError, SigningAlgorithm
from authserver.testing.records import NOW
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

CLAIMS = {"sub": "user_ann"}
WAIT = timedelta(seconds=315)
OLD, NEW = ("2024", b"o" * 32), ("2025", b"n" * 32)


class World:
    """Stores, the time, and a database that may be away or slow."""

    def __init__(self) -> None:
        self.stores = MemoryStores()
        self.seconds = 0.0
        self.away: Exception | None = None
        self.reading = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        parts = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}).parts
        self.sleep: Callable[[float], None]
        self.parts = replace(over(self.stores, parts), ring=KeyRing([OLD]))

    @contextmanager
    def begin(self) -> Iterator[Stores]:
        self.reading.set()
        assert self.may_read.wait(10)
        if self.away:
            raise self.away
        with self.stores.begin() as stores:
            yield stores

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def engine(self, **settings: Any) -> Engine:
        parts = replace(self.parts, settings=replace(self.parts.settings, **settings))
        return Engine.of(parts, self.stores, self.now)

    def process(self, *ring: tuple[str, bytes], algorithm: str = "ES256") -> FollowedSigningKeys:
        """A process that starts now, without its web."""
        process = FollowedSigningKeys(self, KeyRing(ring or [OLD]), algorithm, clock=lambda: self.seconds)
        process.load()
        return process


@pytest.fixture
def world() -> Iterator[World]:
    """A server that has just been started for the first time; nobody waits for its clock."""
    world = World()
    signing_keys.prepare(world.engine())
    with time_machine.travel(world.now, tick=False) as traveller:
        world.sleep = sleeper(world, traveller)
        world.sleep(1)
        yield world


def sleeper(world: World, traveller: time_machine.Coordinates) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        world.seconds += seconds
        traveller.move_to(world.now, tick=False)

    return sleep


def published(process: FollowedSigningKeys) -> list[str]:
    return [key["kid"] for key in process.jwks()["keys"]]


def kid_of(token: str) -> str:
    header = token.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def signs(process: FollowedSigningKeys) -> str:
    return kid_of(process.sign(CLAIMS, typ="at+jwt"))


def accepts(process: FollowedSigningKeys, token: str) -> bool:
    try:
        return process.verify(token, typ="at+jwt") == CLAIMS
    except NotVerified:
        return False


# ---- Following -------------------------------------------------------------------------------------


def test_two_processes_publish_before_either_signs_and_switch_by_the_clock(world: World) -> None:
    """R-06, N-07, T144: nobody tells them; both verify what the other signed at every moment."""
    one, two = world.process(), world.process()
    old, before = signs(one), one.sign(CLAIMS, typ="at+jwt")
    new = signing_keys.rotate(world.engine()).new.kid
    world.sleep(10)
    for process in (one, two):
        assert published(process) == [old, new]
        assert signs(process) == old
    world.sleep(304)
    assert [signs(one), signs(two)] == [old, old]
    # From here on only the time changes.
    world.sleep(11)
    for signer, other in ((one, two), (two, one)):
        token = signer.sign(CLAIMS, typ="at+jwt")
        assert kid_of(token) == new
        assert accepts(other, token)
        assert accepts(other, before)
        assert published(other) == [old, new]
    world.sleep(86400 + 15)
    for process in (one, two):
        assert published(process) == [new]
        assert not accepts(process, before)


def test_a_revoked_key_is_gone_within_ten_seconds(world: World) -> None:
    """R-06, T144: not published, nothing that it signed accepted, and nothing more signed with it."""
    process = world.process()
    token = process.sign(CLAIMS, typ="at+jwt")
    signing_keys.revoke(world.engine(), kid_of(token), reason="stolen")
    world.sleep(10)
    assert not accepts(process, token)
    assert kid_of(token) not in published(process)
    assert signs(process) != kid_of(token)


def test_old_keys_serve_nobody_while_they_are_read_again(world: World) -> None:
    """T144: of many requests after a quiet hour, none finds the key that was revoked meanwhile."""
    process = world.process()
    token = process.sign(CLAIMS, typ="at+jwt")
    signing_keys.revoke(world.engine(), kid_of(token), reason="stolen")
    world.sleep(3600)
    world.may_read.clear()
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(accepts, process, token) for _ in range(4)]
        assert not any(answer.done() for answer in answers)
        world.may_read.set()
        assert [answer.result(10) for answer in answers] == [False] * 4


def test_young_keys_are_read_again_without_anybody_waiting(world: World) -> None:
    """Speed: after eight seconds one request reads; the others go on with what is less than ten seconds old."""
    process = world.process()
    token = process.sign(CLAIMS, typ="at+jwt")
    world.sleep(8)
    world.reading.clear()
    world.may_read.clear()
    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(accepts, process, token)
        assert world.reading.wait(10)
        assert threads.submit(accepts, process, token).result(5)
        assert not reader.done()
        world.may_read.set()
        assert reader.result(10)


def test_while_the_database_is_away_the_keys_at_hand_go_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """T114: and from the moment it is back, it counts again."""
    process = world.process()
    token = process.sign(CLAIMS, typ="at+jwt")
    world.away = StorageUnavailable("away")
    world.sleep(3600)
    assert accepts(process, token)
    assert "cannot read the signing keys; using those that were read before" in caplog.text
    signing_keys.revoke(world.engine(), kid_of(token), reason="stolen")
    world.away = None
    world.sleep(3)
    assert not accepts(process, token)


def test_nothing_is_made_anew_while_nothing_changes(world: World) -> None:
    """Speed: keys are parsed when they change, not each time they are read."""
    process = world.process()
    before = process.jwks()
    world.sleep(10)
    assert process.jwks() is before
    signing_keys.rotate(world.engine(), algorithm="EdDSA")
    world.sleep(10)
    assert process.jwks() is not before


# ---- Algorithms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_a_change_of_algorithm_never_signs_with_an_unpublished_key(world: World, algorithm: str) -> None:
    """N-06, N-07, T144: the key before signs on until the new one has been published long enough."""
    before = world.process()
    signing_keys.prepare(world.engine(signing_algorithm=SigningAlgorithm(algorithm)))
    after = world.process(algorithm=algorithm)
    assert signs(after) == signs(before)
    assert len(published(after)) == 2
    world.sleep(WAIT.total_seconds() + 10)
    token = after.sign(CLAIMS, typ="at+jwt")
    assert kid_of(token) == published(after)[-1] != signs(before)
    # A process that was not restarted yet verifies it all the same.
    assert accepts(before, token)
    assert accepts(after, before.sign(CLAIMS, typ="at+jwt"))


# ---- What does not open ----------------------------------------------------------------------------


def test_a_staged_key_that_does_not_open_stops_the_start(world: World) -> None:
    """T148, T144: long before its turn, so that the switch cannot fail; the row and the way out are named."""
    staged = signing_keys.rotate(replace(world.engine(), ring=KeyRing([NEW, OLD]))).new
    with pytest.raises(SettingsError) as refused:
        world.process(OLD)
    (problem,) = refused.value.problems
    assert problem.startswith("authserver.secret_keys: key 2025 is missing")
    assert f"signing key {staged.kid} (signing_keys.sealed_private_jwk)" in problem
    assert f"authserver keys revoke {staged.kid}" in problem
    assert published(world.process(NEW, OLD))[1] == staged.kid


def test_a_running_process_publishes_a_key_that_it_cannot_open(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """T148: it can still verify what others sign; that it cannot sign is said again and again before its turn."""
    without = world.process(OLD)
    old = signs(without)
    staged = signing_keys.rotate(replace(world.engine(), ring=KeyRing([NEW, OLD]))).new
    world.sleep(10)
    assert published(without) == [old, staged.kid]
    assert signs(without) == old
    assert f"key 2025 is missing, and signing key {staged.kid}" in caplog.text
    world.sleep(WAIT.total_seconds())
    assert accepts(without, world.process(NEW, OLD).sign(CLAIMS, typ="at+jwt"))
    # Not with the retired key, whose last token would outlive it.
    with pytest.raises(LookupError):
        without.sign(CLAIMS, typ="at+jwt")


def test_what_was_opened_stays_open(world: World) -> None:
    """T148: sealing anew under a key that a running process lacks takes nothing from it."""
    process = world.process(OLD)
    old = signs(process)
    (key,) = world.stores.signing_keys.list()
    private = signing_keys.open_private(KeyRing([OLD]), key)
    sealed = signing_keys.seal_private(KeyRing([NEW]), key.kid, private)
    assert world.stores.signing_keys.change(key, replace(key, sealed_private_jwk=sealed))
    world.sleep(10)
    assert signs(process) == old


def moved(world: World, key: SigningKey) -> SigningKey:
    """The key with the private part of another, as it stands in that row."""
    other = signing_keys.add_key(world.engine(), "EdDSA", activates_at=world.now, why="another")
    assert other is not None
    return replace(key, sealed_private_jwk=other.sealed_private_jwk)


def altered(world: World, key: SigningKey) -> SigningKey:
    assert key.sealed_private_jwk
    return replace(key, sealed_private_jwk=key.sealed_private_jwk[:-1] + b"?")


@pytest.mark.parametrize("change", [moved, altered])
def test_a_sealed_value_that_was_moved_or_altered_names_its_row(
    world: World, change: Callable[[World, SigningKey], SigningKey]
) -> None:
    """T148: associated data is the row and the column."""
    (key,) = world.stores.signing_keys.list()
    world.stores.tables.signing_keys[key.kid] = change(world, key)
    with pytest.raises(SettingsError) as refused:
        world.process()
    (problem,) = refused.value.problems
    assert problem.startswith(f"signing key {key.kid} (signing_keys.sealed_private_jwk) does not open")


def test_a_public_part_that_was_exchanged_stops_the_start(world: World) -> None:
    """T148: nobody who can write to the database makes us publish a key of their own under ours."""
    (key,) = world.stores.signing_keys.list()
    _, foreign, _ = jose.new_signing_key("ES256")
    world.stores.tables.signing_keys[key.kid] = replace(key, public_jwk=foreign)
    with pytest.raises(SettingsError, match=f"signing_keys was altered: .*{key.kid}"):
        world.process()


def test_keys_that_are_read_in_the_background_leave_nothing_to_requests(world: World) -> None:
    """T136: a reading in time makes them new, and one that fails makes them no older than they are."""
    process = world.process()
    world.sleep(AGING_SECONDS - 1)
    process.follow()
    world.sleep(AGING_SECONDS - 1)
    assert process.known_jwks() is not None
    process.follow()
    world.away = StorageUnavailable("it is away")
    world.sleep(1)
    process.follow()
    world.sleep(AGING_SECONDS - 2)
    assert process.known_jwks() is not None
    world.sleep(2)
    assert process.known_jwks() is None
