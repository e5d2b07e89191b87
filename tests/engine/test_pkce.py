"""PKCE: S256, said explicitly, and nothing else (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine import pkce
from authserver.engine.errors import InvalidRequest
from authserver.testing.rules import Rules, assert_redirect_error, assert_refused, location_of
from authserver.testing.server import CHALLENGE, VERIFIER
from authserver.testing.stories import records

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def test_the_example_of_the_rfc_verifies() -> None:
    """D-01"""
    # RFC 7636, appendix B
    challenge, verifier = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", VERIFIER
    assert verifier == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    pkce.check_challenge(challenge, "S256")
    assert pkce.verify(challenge, verifier)


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
    with pytest.raises(InvalidRequest, match=r"^code_challenge_method is missing; it must be S256$"):
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
    assert pkce.verifier_problem(verifier) == "code_verifier must be 43 to 128 unreserved characters"
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


def test_half_a_character_is_no_challenge() -> None:
    """T030: a stored text that UTF-8 does not have."""
    assert not pkce.verify("\ud800" * 43, VERIFIER)


def test_the_verifier_itself_is_not_accepted_as_its_challenge() -> None:
    """D-06, T029: that would be `plain`."""
    assert not pkce.verify(VERIFIER, VERIFIER)


def _challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


WRONG_CHALLENGE = {
    "no challenge (D-02, T027)": {"code_challenge": None, "code_challenge_method": None},
    "method without challenge (D-02)": {"code_challenge": None},
    "empty challenge (B-03)": {"code_challenge": ""},
    "no method means plain (D-05, T029)": {"code_challenge_method": None},
    "empty method (D-05)": {"code_challenge_method": ""},
    "plain (D-06, T029)": {"code_challenge_method": "plain"},
    "unknown method (D-04)": {"code_challenge_method": "S512"},
    "method of another case (D-04)": {"code_challenge_method": "s256"},
    "42 characters (D-07)": {"code_challenge": CHALLENGE[:-1]},
    "44 characters (D-07)": {"code_challenge": CHALLENGE + "A"},
    "padded (D-07)": {"code_challenge": CHALLENGE + "="},
    "128 characters (D-07)": {"code_challenge": "a" * 128},
    "129 characters (D-07)": {"code_challenge": "a" * 129},
    "not base64url (D-07)": {"code_challenge": "+" + CHALLENGE[1:]},
    "a line break at the end (D-07)": {"code_challenge": CHALLENGE + "\n"},
}


@pytest.mark.parametrize("auth_method", ["none", "client_secret_basic"])
@pytest.mark.parametrize("changes", WRONG_CHALLENGE.values(), ids=WRONG_CHALLENGE)
def test_a_request_without_a_good_challenge_is_refused(rules: Rules, changes: dict, auth_method: str) -> None:
    """D-02, D-03, D-04, D-05, D-06, D-07, T027, T029: for public and confidential clients alike."""
    client, _ = rules.add_client(token_endpoint_auth_method=auth_method)
    browser = rules.signed_in()
    before = records(rules)
    answer = rules.authorize(client, browser, **changes)
    assert_redirect_error(answer, "invalid_request")
    assert "code_challenge" in location_of(answer)
    assert records(rules) == before


def test_the_description_says_which_method_is_supported(rules: Rules) -> None:
    """D-04: so that the developer knows what to send."""
    client, _ = rules.add_client()
    answer = rules.authorize(client, rules.signed_in(), code_challenge_method="S512")
    assert "code_challenge_method%20is%20not%20supported" in location_of(answer)
    assert "S256" in location_of(answer)


def test_first_party_is_no_exemption(rules: Rules) -> None:
    """D-03: there is none, a nonce or not."""
    client, _ = rules.add_client(first_party=True)
    answer = rules.authorize(
        client, rules.signed_in(), code_challenge=None, code_challenge_method=None, nonce="n"
    )
    assert_redirect_error(answer, "invalid_request")


@pytest.mark.parametrize("length", [43, 128])
def test_a_matching_verifier_redeems(rules: Rules, length: int) -> None:
    """D-01: S256, with the shortest and the longest verifier and every character it may have."""
    verifier = ("-._~" + VERIFIER * 3)[:length]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    client, secret = rules.add_client()
    code = rules.code(client, code_challenge=challenge)
    assert rules.redeem(client, secret, code, code_verifier=verifier).status_int == 200


WRONG_VERIFIER = {
    "another one (D-08)": ("x" * 43, "invalid_grant"),
    "of another case (D-08)": (VERIFIER.swapcase(), "invalid_grant"),
    "the challenge itself (D-08, T029)": (CHALLENGE, "invalid_grant"),
    "missing (D-09, T028)": (None, "invalid_grant"),
    "empty (D-09)": ("", "invalid_grant"),
    "42 characters (D-11)": (VERIFIER[:-1], "invalid_request"),
    "129 characters (D-11)": ("a" * 129, "invalid_request"),
    "with a space (D-11)": (VERIFIER + " ", "invalid_request"),
    "with a line break (D-11)": (VERIFIER + "\n", "invalid_request"),
    "padded (D-11)": (VERIFIER + "=", "invalid_request"),
    "beyond ASCII (D-11)": (VERIFIER[:-1] + "ä", "invalid_request"),
    "repeated": ([VERIFIER, VERIFIER], "invalid_request"),
}


@pytest.mark.parametrize(("verifier", "error"), WRONG_VERIFIER.values(), ids=WRONG_VERIFIER)
def test_a_code_without_its_verifier_is_refused(rules: Rules, verifier: object, error: str) -> None:
    """D-08, D-09, D-11, T028: never truncated or normalised; the code stays good for who has the verifier."""
    client, secret = rules.add_client()
    code = rules.code(client)
    form = {} if verifier is None else {"code_verifier": verifier}
    answer = rules.token(client, secret, grant_type="authorization_code", code=code, **form)
    assert_refused(answer, error)
    assert {row["kind"] for row in rules.rows("tokens")} == {"code"}
    assert all(row["revoked_at"] is None for row in rules.rows("grants"))
    assert rules.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize("challenge", [None, "", VERIFIER, "a" * 43])
def test_a_code_stored_without_a_good_challenge_is_refused(rules: Rules, challenge: str | None) -> None:
    """D-10, D-12, T028, T029: should such a row ever exist, no verifier opens it; a plain one neither."""
    client, secret = rules.add_client()
    code = rules.code(client)
    (row,) = [row for row in rules.rows("tokens") if row["kind"] == "code"]
    details = {name: fact for name, fact in row["details"].items() if name != "code_challenge"}
    if challenge is not None:
        details["code_challenge"] = challenge
    rules.change("tokens", details=details)
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")
    without = rules.token(client, secret, grant_type="authorization_code", code=code)
    assert_refused(without, "invalid_grant")
    assert {row["kind"] for row in rules.rows("tokens")} == {"code"}
