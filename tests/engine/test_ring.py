"""The key ring: what depends on it, and which rings a server does not start with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from authserver import app
from authserver.engine.clients import secrets
from authserver.engine.context import Engine
from authserver.engine.crypto.sealing import KeyRing, Unsealable, key_id_of
from authserver.engine.keys import ring, signing_keys
from authserver.engine.records import Client
from authserver.settings import SettingsError
from authserver.testing.records import NOW, a_client
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

OLD, NEW, WRONG = ("2024", b"o" * 32), ("2025", b"n" * 32), ("2024", b"x" * 32)
LATER = NOW + timedelta(hours=1)

Make = Callable[..., Engine]


@pytest.fixture
def stores() -> MemoryStores:
    return MemoryStores()


@pytest.fixture
def with_ring(stores: MemoryStores) -> Make:
    """An engine with these keys in its ring, first the one that seals."""
    parts = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}).parts

    def with_ring(*entries: tuple[str, bytes]) -> Engine:
        changed = replace(over(stores, parts), ring=KeyRing(entries))
        return Engine.of(changed, stores, LATER)

    return with_ring


def add_client(engine: Engine, client_id: str) -> Client:
    _, secret = secrets.new_secret(engine.ring, client_id, NOW)
    client = a_client(client_id=client_id, secrets=(secret,))
    engine.stores.clients.add(client)
    return client


def problems(engine: Engine) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        ring.check(engine)
    return list(refused.value.problems)


# ---- Whether it is still the same key --------------------------------------------------------------


def test_a_fingerprint_tells_keys_apart_and_gives_nothing_away() -> None:
    """T148: by id and by key, the same in every process; not what seals or signs anything."""
    both = KeyRing([NEW, OLD])
    assert both.fingerprint("2024") == KeyRing([OLD]).fingerprint("2024")
    other = KeyRing([("2026", OLD[1])])
    assert len({both.fingerprint("2024"), both.fingerprint("2025"), other.fingerprint("2026")}) == 3
    assert KeyRing([WRONG]).fingerprint("2024") != both.fingerprint("2024")
    assert both.fingerprint("2024") != KeyRing([OLD]).mac(b"2024", purpose="anything else")
    with pytest.raises(Unsealable):
        both.fingerprint("2023")


def test_the_ring_of_the_first_start_is_noted(with_ring: Make, stores: MemoryStores) -> None:
    """T148."""
    ring.check(with_ring(NEW, OLD))
    assert [(key.key_id, key.first_used_at) for key in stores.ring_keys.list()] == [
        ("2024", LATER),
        ("2025", LATER),
    ]
    ring.check(with_ring(OLD, NEW))
    ring.check(with_ring(OLD))
    assert len(stores.ring_keys.list()) == 2


def test_another_key_under_a_known_id_is_refused(with_ring: Make, stores: MemoryStores) -> None:
    """T148: it would seal what nobody else can open; the key, what depends on it and the way out are named."""
    engine = with_ring(OLD)
    ring.check(engine)
    signing_keys.prepare(engine)
    add_client(engine, "one")
    add_client(engine, "two")
    (problem,) = problems(with_ring(WRONG))
    assert problem.startswith(
        "authserver.secret_keys: 2024 is not the key that has had this id here since 2026"
    )
    assert "needed by 1 signing key and 2 client secrets" in problem
    assert "put it back, or give the other key a different id" in problem
    # Anywhere in the ring.
    assert problems(with_ring(NEW, WRONG)) == [problem]


def test_an_id_is_never_used_for_a_second_key(with_ring: Make) -> None:
    """T148: not even when nothing depends on the first; what it sealed may come back with a backup."""
    ring.check(with_ring(OLD))
    (problem,) = problems(with_ring(WRONG))
    assert "needed by nothing" in problem


# ---- Whether a key is missing ----------------------------------------------------------------------


def test_a_missing_key_is_named_with_what_depends_on_it(with_ring: Make) -> None:
    """T148: a server that started all the same would refuse those clients, and could not sign."""
    engine = with_ring(OLD)
    signing_keys.prepare(engine)
    signing_keys.rotate(engine)
    add_client(engine, "one")
    (problem,) = problems(with_ring(NEW))
    assert problem.startswith(
        "authserver.secret_keys: key 2024 is missing, and is needed by 2 signing keys and 1 client secret; "
        "put it back"
    )
    assert "authserver keys revoke" in problem
    ring.check(with_ring(NEW, OLD))


def test_every_missing_key_is_named(with_ring: Make) -> None:
    add_client(with_ring(OLD), "one")
    add_client(with_ring(NEW), "two")
    found = problems(with_ring(("2026", b"y" * 32)))
    assert [problem.split()[2] for problem in found] == ["2024", "2025"]


@pytest.mark.parametrize("ended", ["secret expired", "client disabled", "key ended"])
def test_what_is_over_needs_no_key(with_ring: Make, stores: MemoryStores, ended: str) -> None:
    """T148: else an old key could never leave the ring."""
    engine = with_ring(OLD)
    match ended:
        case "secret expired":
            client = add_client(engine, "one")
            (secret,) = client.secrets
            stores.clients.change_secret("one", secret, replace(secret, expires_at=NOW))
        case "client disabled":
            add_client(engine, "one")
            stores.clients.disable("one", NOW)
        case "key ended":
            signing_keys.prepare(engine)
            signing_keys.revoke(with_ring(NEW, OLD), stores.signing_keys.list()[0].kid, reason="old")
    ring.check(with_ring(NEW))


def test_who_lost_a_key_of_the_ring_has_a_way_out(with_ring: Make, stores: MemoryStores) -> None:
    """T148: the signing keys that it sealed are given up; the one in their place is sealed by what there is."""
    signing_keys.prepare(with_ring(OLD))
    engine = with_ring(NEW)
    ring.check_known(engine)
    successor = signing_keys.revoke(
        engine, stores.signing_keys.list()[0].kid, reason="ring key lost"
    ).successor
    assert successor is not None and successor.sealed_private_jwk
    assert key_id_of(successor.sealed_private_jwk) == "2025"
    ring.check(engine)


# ---- Sealing anew ----------------------------------------------------------------------------------


def test_sealing_anew_moves_every_private_part_to_the_first_key(
    with_ring: Make, stores: MemoryStores
) -> None:
    """T148: with the same contents, also that of a key that only verifies; nothing else of a key changes."""
    engine = with_ring(OLD)
    signing_keys.prepare(engine)
    signing_keys.rotate(engine)
    before = {key.kid: key for key in stores.signing_keys.list()}
    both = KeyRing([NEW, OLD])
    assert list(ring.reseal(stores, both, list(before))) == ["", ""]
    for key in stores.signing_keys.list():
        assert key.sealed_private_jwk and key_id_of(key.sealed_private_jwk) == "2025"
        assert signing_keys.open_private(KeyRing([NEW]), key) == signing_keys.open_private(
            KeyRing([OLD]), before[key.kid]
        )
        assert replace(key, sealed_private_jwk=before[key.kid].sealed_private_jwk) == before[key.kid]
    ring.check(with_ring(NEW))


def test_sealing_anew_goes_on_where_it_stopped(with_ring: Make, stores: MemoryStores) -> None:
    """T148: a half-way rotation is a state like any other, and everything opens in it."""
    engine = with_ring(OLD)
    signing_keys.prepare(engine)
    signing_keys.rotate(engine)
    both = KeyRing([NEW, OLD])
    waiting = [key.kid for key in ring.outdated(stores, both)]
    work = ring.reseal(stores, both, waiting)
    next(work)
    work.close()
    left = [key.kid for key in ring.outdated(stores, both)]
    assert left == waiting[1:]
    assert all(signing_keys.open_private(both, key) for key in stores.signing_keys.list())
    assert ring.dependents(stores, LATER) == {
        "2024": ring.Dependents(signing_keys=1),
        "2025": ring.Dependents(signing_keys=1),
    }
    done = {key.kid: key for key in stores.signing_keys.list()}[waiting[0]]
    list(ring.reseal(stores, both, left))
    assert ring.outdated(stores, both) == []
    assert {key.kid: key for key in stores.signing_keys.list()}[waiting[0]] == done


def test_a_key_that_changes_meanwhile_keeps_both_changes(with_ring: Make, stores: MemoryStores) -> None:
    """T148: it is rotated between the reading of the list and its turn."""
    signing_keys.prepare(with_ring(OLD))
    both = KeyRing([NEW, OLD])
    waiting = [key.kid for key in ring.outdated(stores, both)]
    retires_at = signing_keys.rotate(with_ring(OLD)).new.activates_at
    list(ring.reseal(stores, both, waiting))
    key = {key.kid: key for key in stores.signing_keys.list()}[waiting[0]]
    assert key.retires_at == retires_at
    assert key.sealed_private_jwk and key_id_of(key.sealed_private_jwk) == "2025"


def test_a_value_that_does_not_open_is_named_and_the_others_go_on(
    with_ring: Make, stores: MemoryStores
) -> None:
    """T148: it stays as it was."""
    engine = with_ring(OLD)
    signing_keys.prepare(engine)
    signing_keys.rotate(engine)
    one, two = stores.signing_keys.list()
    stores.tables.signing_keys[one.kid] = replace(one, sealed_private_jwk=two.sealed_private_jwk)
    answers = list(ring.reseal(stores, KeyRing([NEW, OLD]), [one.kid, two.kid]))
    assert answers[0].startswith(f"signing key {one.kid} (signing_keys.sealed_private_jwk) does not open")
    assert answers[1] == ""
    assert stores.tables.signing_keys[one.kid].sealed_private_jwk == two.sealed_private_jwk


def test_the_clients_that_need_an_older_key_are_named(with_ring: Make, stores: MemoryStores) -> None:
    for name in ("b", "a"):
        add_client(with_ring(OLD), name)
    add_client(with_ring(NEW), "c")
    add_client(with_ring(OLD), "gone")
    stores.clients.disable("gone", NOW)
    assert ring.clients_of(stores, {"2024", "2023"}, LATER) == {"2024": ["a", "b"]}
    assert ring.clients_of(stores, set(), LATER) == {}
