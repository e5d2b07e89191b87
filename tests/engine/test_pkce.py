"""PKCE: S256, said explicitly, and nothing else (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine import pkce
from authserver.engine.errors import InvalidRequest

# RFC 7636, appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def test_the_example_of_the_rfc_verifies() -> None:
    """D-01"""
    pkce.check_challenge(CHALLENGE, "S256")
    assert pkce.verify(CHALLENGE, VERIFIER)


def test_a_missing_challenge_is_refused() -> None:
    """D-02, D-03, T027"""
    with pytest.raises(InvalidRequest, match=r"^code_challenge is missing"):
        pkce.check_challenge(None, None)
    with pytest.raises(InvalidRequest, match=r"^code_challenge is missing"):
        pkce.check_challenge(None, "S256")


@pytest.mark.parametrize("method", ["plain", "s256", "S512", "S256 ", "none", "S256\n"])
def test_another_method_is_refused_and_the_description_says_so(method: str) -> None:
    """D-04, D-06, T029"""
    with pytest.raises(InvalidRequest, match=r"^code_challenge_method is not supported"):
        pkce.check_challenge(CHALLENGE, method)


def test_a_challenge_without_a_method_is_not_taken_for_s256() -> None:
    """D-05, T029"""
    with pytest.raises(InvalidRequest, match=r"^code_challenge_method is missing"):
        pkce.check_challenge(CHALLENGE, None)


@pytest.mark.parametrize(
    "challenge",
    ["", "a" * 42, "a" * 44, "a" * 129, "a" * 42 + "=", CHALLENGE + "=", "a" * 42 + "+", "a" * 42 + "~",
     "a" * 42 + "\0", "a" * 42 + "é", "a" * 42 + "٣", "a" * 43 + "\n"],
)  # fmt: skip
def test_a_challenge_that_is_not_43_base64url_characters_is_refused(challenge: str) -> None:
    """D-07, T030"""
    with pytest.raises(InvalidRequest, match=r"^code_challenge must be 43"):
        pkce.check_challenge(challenge, "S256")


@pytest.mark.parametrize(
    "verifier",
    [
        "",
        "a" * 42,
        "a" * 129,
        "a" * 43 + "=",
        "a" * 43 + " ",
        "a" * 43 + "\n",
        "a" * 43 + "\0",
        "é" * 43,
        "\ud800" * 43,
    ],
)
def test_a_malformed_verifier_has_a_problem_and_never_verifies(verifier: str) -> None:
    """D-11, T030"""
    assert pkce.verifier_problem(verifier)
    assert not pkce.verify(CHALLENGE, verifier)


@settings(max_examples=200, deadline=None)
@given(st.text(UNRESERVED, min_size=43, max_size=128), st.integers(0, 127), st.sampled_from(UNRESERVED))
def test_only_the_very_verifier_verifies(verifier: str, place: int, other: str) -> None:
    """D-08, T030: also with lengths up to 128, none of it truncated."""
    challenge = _challenge_of(verifier)
    pkce.check_challenge(challenge, "S256")
    assert pkce.verifier_problem(verifier) is None
    assert pkce.verify(challenge, verifier)
    place %= len(verifier)
    changed = verifier[:place] + other + verifier[place + 1 :]
    assert pkce.verify(challenge, changed) == (changed == verifier)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=140), st.text(max_size=140))
def test_no_text_makes_verification_raise(challenge: str, verifier: str) -> None:
    """T030"""
    assert not pkce.verify(challenge, verifier)


def test_the_verifier_itself_is_not_accepted_as_its_challenge() -> None:
    """D-06, T029: that would be `plain`."""
    assert not pkce.verify(VERIFIER, VERIFIER)


def _challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
