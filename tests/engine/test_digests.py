"""Random credentials, digests and passwords."""

from __future__ import annotations

import ast
import base64
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import authserver
from authserver.engine.crypto import digests


@pytest.fixture(scope="module", autouse=True)
def real_passwords(cheap_passwords: pytest.MonkeyPatch) -> Iterator[None]:
    """Hashes at their real cost."""
    cheap = digests.PASSWORD_MEMORY, digests.PASSWORD_PASSES
    cheap_passwords.undo()
    yield
    cheap_passwords.setattr(digests, "PASSWORD_MEMORY", cheap[0])
    cheap_passwords.setattr(digests, "PASSWORD_PASSES", cheap[1])


PREFIXES = [digests.CODE, digests.ACCESS, digests.REFRESH, digests.SECRET, digests.SESSION]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_credential_has_256_random_bits_behind_its_prefix(prefix: str) -> None:
    """R-03, N-01, T039"""
    made = {digests.new_credential(prefix) for _ in range(200)}
    assert len(made) == 200
    for text in made:
        assert text.startswith(prefix)
        assert len(text) == len(prefix) + 43 + 6
        assert len(base64.urlsafe_b64decode(text[len(prefix) : -6] + "=")) == 32
        assert digests.well_formed(prefix, text)


def test_every_random_bit_varies() -> None:
    """R-03: over 200 credentials no bit of the 256 keeps one value."""
    randoms = [
        int.from_bytes(base64.urlsafe_b64decode(digests.new_credential("")[:43] + "="), "big")
        for _ in range(200)
    ]
    ever_set = ever_clear = 0
    for number in randoms:
        ever_set |= number
        ever_clear |= ~number
    assert ever_set & ever_clear & (2**256 - 1) == 2**256 - 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 56), st.characters())
def test_a_changed_credential_is_not_well_formed(place: int, other: str) -> None:
    """A typing error or a guess is refused without asking the database; 1 in 2**36 passes by chance."""
    text = "as_code_" + "iCTQnPWyVO6GAbsf7bUVVY0Ms8gYsvPWpZq7ecKBfnk" + "ZzZzZz"
    text = text[:-6] + digests.checksum(text[:-6])
    assert digests.well_formed(digests.CODE, text)
    changed = text[:place] + other + text[place + 1 :]
    assert digests.well_formed(digests.CODE, changed) == (changed == text)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_credential_of_one_kind_is_not_well_formed_as_another(prefix: str) -> None:
    """T038"""
    text = digests.new_credential(prefix)
    assert [other for other in PREFIXES if digests.well_formed(other, text)] == [prefix]


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_garbage_is_not_well_formed(text: str) -> None:
    assert not digests.well_formed(digests.ACCESS, text)
    assert not digests.well_formed(digests.ACCESS, digests.ACCESS + text)
    assert not digests.well_formed(digests.ACCESS, digests.new_credential(digests.ACCESS) + (text or "\n"))


def test_an_identifier_has_128_random_bits() -> None:
    """R-03, N-01"""
    assert len({digests.new_identifier("user_") for _ in range(200)}) == 200
    assert len(base64.urlsafe_b64decode(digests.new_identifier() + "==")) == 16
    assert digests.new_identifier("user_").startswith("user_")


def test_a_digest_depends_on_the_kind() -> None:
    """T038: the same text is another credential as another kind, and the border cannot be moved."""
    made = {digests.digest(kind, "x") for kind in ("code", "access", "refresh", "request", "session")}
    assert len(made) == 5
    assert digests.digest("cod", "ex") != digests.digest("code", "x")
    assert digests.digest("code", "x") == digests.digest("code", "x")
    assert len(digests.digest("code", "\ud800é")) == 32


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary(), st.text() | st.binary())
def test_comparing_never_raises(a: bytes | str, b: bytes | str) -> None:
    """T046"""
    assert digests.equal(a, a)
    if type(a) is type(b):
        assert digests.equal(a, b) == (a == b)


@pytest.mark.parametrize("text", ["passord-ærlig", "\ud800", "", "a\0b"])
def test_unusual_text_is_compared_by_its_bytes(text: str) -> None:
    """T046: `hmac.compare_digest` raises TypeError for such strings."""
    assert digests.equal(text, text)
    assert digests.equal(text, text.encode("utf-8", "surrogatepass"))
    assert not digests.equal(text, text + "a")


def test_a_password_verifies_against_its_hash_alone() -> None:
    made = digests.hash_password("correct horse ø")
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert digests.verify_password("correct horse ø", made)
    assert not digests.verify_password("correct horse o", made)
    assert digests.hash_password("correct horse ø") != made


@pytest.mark.parametrize(
    "stored",
    [None, "", "!", "plain", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=8,t=1,p=1$$", "$argon2id$\ud800",
     "$argon2id$v=19$m=0,t=0,p=0$" + "a" * 22 + "$" + "a" * 43,
     "$argon2id$v=19$m=1,t=1,p=1$" + "A" * 22 + "$" + "A" * 43],
)  # fmt: skip
def test_no_password_verifies_against_an_unusable_hash(stored: str | None) -> None:
    """T100"""
    assert not digests.verify_password("", stored)
    assert not digests.verify_password("anything", stored)


def test_an_unknown_user_costs_as_much_time_as_a_known_one() -> None:
    """T100: the same Argon2id work, measured in processor time."""
    known = digests.hash_password("right")

    def cost(stored: str | None) -> float:
        times = []
        for _ in range(5):
            started = time.process_time()
            digests.verify_password("wrong", stored)
            times.append(time.process_time() - started)
        return statistics.median(times)

    assert 0.5 < cost(None) / cost(known) < 2
    assert 0.5 < cost("unusable") / cost(known) < 2


def test_a_giant_password_is_refused_before_hashing() -> None:
    """T104: above 1024 bytes of UTF-8; up to there nothing is cut off."""
    longest = "é" * 512
    made = digests.hash_password(longest)
    assert digests.verify_password(longest, made)
    assert not digests.verify_password(longest[:-1] + "e", made)
    with pytest.raises(ValueError, match="1024"):
        digests.hash_password(longest + "a")
    started = time.process_time()
    for _ in range(100):
        assert not digests.verify_password("a" * 100_000, made)
        assert not digests.verify_password("a" * 100_000, None)
    assert time.process_time() - started < 0.5


def test_no_module_of_ours_imports_random() -> None:
    """T039, R-03: `secrets` alone makes what must not be guessed."""
    package = Path(authserver.__file__).parent
    # The one file that must know it: it looks for policies that draw random numbers, and no server imports it.
    sources = [path for path in package.rglob("*.py") if path != package / "testing" / "watching.py"]
    assert len(sources) > 10
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"random"}, source
