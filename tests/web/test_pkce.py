"""PKCE at both endpoints: S256, always, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
import sqlalchemy as sa

from authserver.testing.server import CHALLENGE, ISSUER, VERIFIER, Server
from authserver.testing.stories import assert_json_error, assert_redirect_error, records, signed_in

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
def test_a_request_without_a_good_challenge_is_refused(
    server: Server, changes: dict, auth_method: str
) -> None:
    """D-02, D-03, D-04, D-05, D-06, D-07, T027, T029: for public and confidential clients alike."""
    client, _ = server.add_client(token_endpoint_auth_method=auth_method)
    browser = signed_in(server)
    before = records(server)
    answer = browser.get(server.authorization_url(client, **changes))
    assert_redirect_error(answer, "invalid_request")
    assert "code_challenge" in answer.location
    assert records(server) == before


def test_the_description_says_which_method_is_supported(server: Server) -> None:
    """D-04: so that the developer knows what to send."""
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, code_challenge_method="S512"))
    assert "code_challenge_method%20is%20not%20supported" in answer.location
    assert "S256" in answer.location


def test_first_party_is_no_exemption(server: Server) -> None:
    """D-03: there is none, a nonce or not."""
    client, _ = server.add_client(first_party=True)
    url = server.authorization_url(client, code_challenge=None, code_challenge_method=None, nonce="n")
    assert_redirect_error(signed_in(server).get(url), "invalid_request")


def test_metadata_names_s256_alone(server: Server) -> None:
    """D-01, D-06: plain is never in metadata."""
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["issuer"] == ISSUER


@pytest.mark.parametrize("length", [43, 128])
def test_a_matching_verifier_redeems(server: Server, length: int) -> None:
    """D-01: S256, with the shortest and the longest verifier and every character it may have."""
    verifier = ("-._~" + VERIFIER * 3)[:length]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    client, secret = server.add_client()
    code = server.code(client, code_challenge=challenge)
    assert server.redeem(client, secret, code, code_verifier=verifier).status_int == 200


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
def test_a_code_without_its_verifier_is_refused(server: Server, verifier: object, error: str) -> None:
    """D-08, D-09, D-11, T028: never truncated or normalised; the code stays good for who has the verifier."""
    client, secret = server.add_client()
    code = server.code(client)
    form = {} if verifier is None else {"code_verifier": verifier}
    answer = server.token(client, secret, grant_type="authorization_code", code=code, **form)
    assert_json_error(answer, error)
    assert {row["kind"] for row in server.rows("tokens")} == {"code"}
    assert all(row["revoked_at"] is None for row in server.rows("grants"))
    assert server.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize("challenge", [None, "", VERIFIER, "a" * 43])
def test_a_code_stored_without_a_good_challenge_is_refused(server: Server, challenge: str | None) -> None:
    """D-10, D-12, T028, T029: should such a row ever exist, no verifier opens it; a plain one neither."""
    client, secret = server.add_client()
    code = server.code(client)
    (row,) = [row for row in server.rows("tokens") if row["kind"] == "code"]
    details = json.loads(row["details"])
    del details["code_challenge"]
    if challenge is not None:
        details["code_challenge"] = challenge
    with server.application.storage.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE tokens SET details = :details WHERE kind = 'code'"),
            {"details": json.dumps(details)},
        )
    assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    without = server.token(client, secret, grant_type="authorization_code", code=code)
    assert_json_error(without, "invalid_grant")
    assert {row["kind"] for row in server.rows("tokens")} == {"code"}
