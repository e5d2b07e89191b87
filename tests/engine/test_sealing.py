"""Sealed values: only ours, only for their purpose, only where they belong."""

from __future__ import annotations

import contextlib
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine.crypto import sealing
from authserver.engine.crypto.sealing import KeyRing, Unsealable

OLD, NEW = ("2024", b"o" * 32), ("2025", b"n" * 32)
RING = KeyRing([OLD])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=500), st.text("abc", max_size=5), st.text("xyzæ", max_size=5))
def test_what_was_sealed_opens_for_its_purpose_and_context(
    plaintext: bytes, purpose: str, context: str
) -> None:
    sealed = RING.seal(plaintext, purpose=purpose, context=context)
    assert RING.open(sealed, purpose=purpose, context=context) == plaintext
    for other_purpose, other_context in ((purpose + "x", context), (purpose, context + "x")):
        with pytest.raises(Unsealable):
            RING.open(sealed, purpose=other_purpose, context=other_context)


def test_sealing_twice_gives_different_values_that_hide_the_plaintext() -> None:
    sealed = {RING.seal(b"the private part of a key", purpose="p") for _ in range(100)}
    assert len(sealed) == 100
    assert not any(b"private" in value for value in sealed)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_altered_value_does_not_open(data: st.DataObject) -> None:
    """Any bit, the key's id included, and any length."""
    sealed = RING.seal(b"request", purpose="p", context="session")
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    altered = bytearray(sealed)
    altered[place // 8] ^= 1 << place % 8
    for wrong in (bytes(altered), sealed[: place // 8], sealed + b"\0"):
        with pytest.raises(Unsealable):
            RING.open(wrong, purpose="p", context="session")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_garbage_does_not_open(garbage: bytes) -> None:
    with pytest.raises(Unsealable):
        RING.open(garbage, purpose="p")
    with pytest.raises(Unsealable):
        sealing.open_under("as_refresh_x", garbage)


def test_after_a_rotation_the_new_key_seals_and_the_old_one_still_opens() -> None:
    rotated = KeyRing([NEW, OLD])
    assert rotated.open(RING.seal(b"x", purpose="p"), purpose="p") == b"x"
    with pytest.raises(Unsealable):
        RING.open(rotated.seal(b"x", purpose="p"), purpose="p")
    with pytest.raises(Unsealable):
        KeyRing([NEW]).open(RING.seal(b"x", purpose="p"), purpose="p")


def test_a_key_under_a_reused_id_does_not_open() -> None:
    with pytest.raises(Unsealable):
        KeyRing([(OLD[0], b"z" * 32)]).open(RING.seal(b"x", purpose="p"), purpose="p")


def test_a_mac_is_for_one_purpose_and_survives_rotation() -> None:
    mac = RING.mac(b"data", purpose="csrf")
    rotated = KeyRing([NEW, OLD])
    assert RING.mac_matches(b"data", mac, purpose="csrf")
    assert rotated.mac_matches(b"data", mac, purpose="csrf")
    assert rotated.mac(b"data", purpose="csrf") != mac
    assert not RING.mac_matches(b"data", mac, purpose="session")
    assert not RING.mac_matches(b"date", mac, purpose="csrf")
    assert not RING.mac_matches(b"data", mac[:-1], purpose="csrf")
    assert not KeyRing([NEW]).mac_matches(b"data", mac, purpose="csrf")


def test_a_keyed_digest_names_its_key_and_is_found_again_after_a_rotation() -> None:
    """R-02: worthless without the ring."""
    key_id, made = RING.keyed_digest("as_secret_x", purpose="client secret")
    assert key_id == "2024"
    rotated = KeyRing([NEW, OLD])
    assert rotated.keyed_digest("as_secret_x", purpose="client secret", key_id=key_id) == (key_id, made)
    assert rotated.keyed_digest("as_secret_x", purpose="client secret")[0] == "2025"
    assert rotated.keyed_digest("as_secret_x", purpose="client secret")[1] != made
    assert RING.keyed_digest("as_secret_x", purpose="other")[1] != made
    assert len(RING.keyed_digest("\ud800é", purpose="client secret")[1]) == 32
    with pytest.raises(Unsealable):
        KeyRing([NEW]).keyed_digest("as_secret_x", purpose="client secret", key_id=key_id)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [("a", b"x" * 31)],
        [("a", b"x" * 33)],
        [("", b"x" * 32)],
        [("a" * 65, b"x" * 32)],
        [("ø", b"x" * 32)],
        [("a", b"x" * 32), ("a", b"y" * 32)],
    ],
)
def test_a_malformed_ring_is_refused_without_showing_a_key(keys: list[tuple[str, bytes]]) -> None:
    """R-04"""
    with pytest.raises(ValueError) as refused:
        KeyRing(keys)
    assert "xxx" not in str(refused.value)


def test_a_ring_and_a_failure_show_no_secret() -> None:
    """R-04"""
    assert "oooo" not in repr(RING)
    with pytest.raises(Unsealable) as refused:
        RING.open(b"oooo", purpose="p")
    assert str(refused.value) == "the sealed value cannot be opened"


def test_a_successor_opens_only_for_whoever_presents_its_predecessor() -> None:
    """R-01"""
    sealed = sealing.seal_under("as_refresh_old", b"as_refresh_new")
    assert sealing.open_under("as_refresh_old", sealed) == b"as_refresh_new"
    assert b"new" not in sealed
    for secret in ("as_refresh_other", "", "\ud800"):
        with pytest.raises(Unsealable):
            sealing.open_under(secret, sealed)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_the_text_form_is_url_safe_and_read_back(sealed: bytes) -> None:
    text = sealing.to_text(sealed)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert sealing.from_text(text) == sealed


@pytest.mark.parametrize(
    "text", ["QQ==", "QR", "Q", "Q Q", "QQ\n", "+/+/", "QQ=", "é", "\ud800", "Q.Q", "QQQ=A"]
)
def test_another_spelling_of_the_text_is_refused(text: str) -> None:
    """T060: one value has one spelling."""
    with pytest.raises(Unsealable):
        sealing.from_text(text)


@settings(max_examples=200, deadline=None)
@given(st.text("AQRgw-_+/=", max_size=12) | st.text(max_size=12))
def test_any_text_is_canonical_or_refused(text: str) -> None:
    with contextlib.suppress(Unsealable):
        assert sealing.to_text(sealing.from_text(text)) == text


def test_two_rings_of_random_keys_have_nothing_in_common() -> None:
    one, other = (KeyRing([("k", secrets.token_bytes(32))]) for _ in range(2))
    with pytest.raises(Unsealable):
        other.open(one.seal(b"x", purpose="p"), purpose="p")
