"""The cookie of a browser in which somebody signed in before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authserver import app
from authserver.engine.context import Engine
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.people.known_devices import MAXIMUM_PEOPLE, cookie_with, device_id_of
from authserver.testing.records import NOW, a_user
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

OLD, NEW = ("2024", b"o" * 32), ("2025", b"n" * 32)
ANN, BOB = a_user(user_id="user_ann", username="ann"), a_user(user_id="user_bob", username="bob")
# The id, and for each person a period and a MAC of 128 or 256 bits in base64.
MAXIMUM_LENGTH = 22 + MAXIMUM_PEOPLE * 64


def engine_with(*entries: tuple[str, bytes]) -> Engine:
    parts = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}).parts
    stores = MemoryStores()
    changed = replace(over(stores, parts), ring=KeyRing(entries))
    return Engine.of(changed, stores, NOW)


def test_a_device_stays_known_while_keys_are_replaced() -> None:
    """T103: and is forgotten with the key that made its cookie; the next sign-in renews it."""
    cookie = cookie_with(engine_with(OLD), "", ANN)
    both, later = engine_with(NEW, OLD), engine_with(NEW)
    assert device_id_of(both, cookie, ANN) == cookie.split(".")[0]
    assert device_id_of(later, cookie, ANN) is None
    renewed = cookie_with(both, cookie, ANN)
    assert renewed.count(".") == 1
    assert device_id_of(later, renewed, ANN) == cookie.split(".")[0]


def test_it_is_good_for_those_who_signed_in_there_alone() -> None:
    """T103: it can be neither used for somebody else, nor put together from two, nor made up."""
    engine = engine_with(NEW)
    of_ann, of_bob = cookie_with(engine, "", ANN), cookie_with(engine, "", BOB)
    assert device_id_of(engine, of_bob, ANN) is None
    assert device_id_of(engine, of_ann, None) is None
    joined = f"{of_ann.split('.')[0]}.{of_bob.split('.')[1]}"
    assert device_id_of(engine, joined, BOB) is None
    assert device_id_of(engine_with(OLD), of_ann, ANN) is None


@pytest.mark.parametrize(
    "cookie", ["", "x", "a" * 22, "a" * 22 + ".", "a" * 22 + ".b" * 6, "a" * 22 + ".é", "a" * 22 + ".b\n"]
)
def test_what_is_not_of_the_form_is_nobody_s(cookie: str) -> None:
    engine = engine_with(NEW)
    assert device_id_of(engine, cookie, ANN) is None
    assert device_id_of(engine, cookie_with(engine, cookie, ANN), ANN)


def test_its_size_is_bounded() -> None:
    """T154: however many people use the browser."""
    engine, cookie = engine_with(NEW), ""
    people = [a_user(user_id=f"user_{number}", username=f"u{number}") for number in range(20)]
    for person in people:
        cookie = cookie_with(engine, cookie, person)
        assert len(cookie) <= MAXIMUM_LENGTH
    known = [device_id_of(engine, cookie, person) is not None for person in people]
    assert known == [False] * (20 - MAXIMUM_PEOPLE) + [True] * MAXIMUM_PEOPLE
