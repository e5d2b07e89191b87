"""The secrets of clients, without web and database: what can be one, and how they replace each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine.clients import secrets
from authserver.engine.clients.secrets import handle, live_secrets, may_be_secret, stored_secret
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.records import ClientSecret
from authserver.testing.records import NOW, a_client
from authserver.testing.server import forged

KEYS = KeyRing([("k1", b"1" * 32)])
SECRET = ClientSecret(digest=b"d", key_id="k1", created_at=NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "short-and-easy-to-gue",
        "x" * 257,
        "x" * 100_000,
        "as_secret_",
        forged("as_secret_")[:-1],
        forged("as_secret_") + "x",
        forged("as_secret_") + "\n",
        forged("as_secret_")[:-1] + "é",
        forged("as_secret_").replace("A", "B", 1),
        forged("as_refresh_"),
        forged("as_code_"),
        forged("as_session_"),
        "as_access_" + "x" * 40,
    ],
    ids=lambda text: text[:30],
)
def test_what_nobody_can_have_is_no_secret(text: str) -> None:
    """R-02: too short to be random, too long, torn, mistyped, or a credential of another kind."""
    assert not may_be_secret(text)
    with pytest.raises(ValueError, match="22 to 256"):
        stored_secret(KEYS, "reports", text, NOW)


@pytest.mark.parametrize("text", ["x" * 22, "x" * 256, "s:e+c%r=t &é€" + "x" * 20])
def test_a_secret_that_was_made_elsewhere_may_come_along(text: str) -> None:
    assert may_be_secret(text)
    assert stored_secret(KEYS, "reports", text, NOW).created_at == NOW


@given(st.text())
def test_what_has_our_prefix_has_our_checksum(text: str) -> None:
    assert may_be_secret(digests.SECRET + text) == digests.well_formed(digests.SECRET, digests.SECRET + text)


def test_a_secret_is_of_one_client_and_one_key() -> None:
    """R-02, T038: the same text is stored differently for another client, and under another key."""
    text, stored = secrets.new_secret(KEYS, "reports", NOW)
    assert digests.well_formed(digests.SECRET, text)
    others = [
        stored_secret(KEYS, "notes", text, NOW),
        stored_secret(KeyRing([("k1", b"2" * 32)]), "reports", text, NOW),
    ]
    assert len({stored.digest, *(other.digest for other in others)}) == 3
    assert stored_secret(KEYS, "reports", text, NOW) == stored
    assert text.encode() not in stored.digest


def test_a_secret_counts_until_the_moment_it_ends() -> None:
    """R-05."""
    over = replace(SECRET, expires_at=NOW)
    ending = replace(SECRET, expires_at=NOW + timedelta(microseconds=1))
    client = a_client(secrets=(over, ending, SECRET))
    assert live_secrets(client, NOW) == (ending, SECRET)


def test_the_handle_of_a_secret_stays_and_tells_nothing_of_it() -> None:
    """R-05: what operators call it survives a new digest, and is not made of the digest."""
    assert handle(SECRET) == handle(
        replace(SECRET, digest=b"e", key_id="k2", expires_at=NOW, last_used_at=NOW)
    )
    assert handle(SECRET) != handle(replace(SECRET, created_at=NOW + timedelta(microseconds=1)))
    assert len(handle(SECRET)) == 8
