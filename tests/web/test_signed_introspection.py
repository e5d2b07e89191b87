"""Signed answers of the introspection endpoint (RFC 9701): for whom they are, and that they are nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestResponse

from authserver.engine.clients.authentication import disable_client
from authserver.engine.people.login import disable_user
from authserver.testing.server import ISSUER, Server, basic, forged
from authserver.testing.stories import Granted, assert_inactive, assert_json_error, records, verified

JSON = "application/json"
JWT = "application/token-introspection+jwt"
METADATA = "/.well-known/oauth-authorization-server"


def ask(
    granted: Granted, token: str, *, accept: str | None = JWT, as_api: bool = False, **form: str
) -> TestResponse:
    """Introspection with this Accept header."""
    client, secret = (granted.api, granted.api_secret) if as_api else (granted.client, granted.secret)
    headers = {"Authorization": basic(client.client_id, secret or "")}
    if accept is not None:
        headers["Accept"] = accept
    return granted.server.http.post(
        "/oauth/introspect", {"token": token, **form}, headers=headers, expect_errors=True
    )


def told(granted: Granted, answer: TestResponse, caller_id: str) -> Any:
    """What a signed answer says, read by somebody who knows the metadata and nothing else."""
    assert answer.status_int == 200, answer.text
    assert answer.headers["Content-Type"] == JWT
    assert answer.headers["Cache-Control"] == "no-store"
    header, claims = verified(granted.server, answer.text, ["ES256"])
    assert header == {"alg": "ES256", "typ": "token-introspection+jwt", "kid": header["kid"]}
    # Neither `sub` nor `exp`, which would make a token of it (RFC 9701, 5 and 8.1).
    assert claims.keys() == {"iss", "aud", "iat", "token_introspection"}
    assert (claims["iss"], claims["aud"], type(claims["iat"])) == (ISSUER, caller_id, int)
    return claims["token_introspection"]


def test_a_signed_answer_says_what_the_json_says(granted: Granted) -> None:
    """M-10: of every kind of token, for whoever asks; signed with a published key, never cached."""
    client_id = granted.client.client_id
    for token in (granted.access, granted.refresh):
        plain = granted.introspect(token).json
        assert plain["active"] is True
        assert told(granted, ask(granted, token), client_id) == plain
    plain = granted.introspect_as_api(granted.access).json
    assert told(granted, ask(granted, granted.access, as_api=True), "api") == plain


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # in favour of Ed25519, says joserfc of RFC 9864
@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_the_metadata_name_the_algorithm(algorithm: str, make_server: Callable[..., Server]) -> None:
    """M-12, M-10, A-13 (RFC 9701, 7): the one that signs access tokens."""
    server = make_server({"authserver.signing_algorithm": algorithm})
    client, secret = server.add_client()
    answer = server.http.post(
        "/oauth/introspect",
        {"token": "garbage"},
        headers={"Authorization": basic(client.client_id, secret or ""), "Accept": JWT},
    )
    assert server.http.get(METADATA).json["introspection_signing_alg_values_supported"] == [algorithm]
    header, claims = verified(server, answer.text, [algorithm])
    assert header["alg"] == algorithm
    assert claims["token_introspection"] == {"active": False}


def test_an_inactive_token_is_signed_for_as_well(granted: Granted) -> None:
    """M-11, M-03, M-10, T078: `active` is false, and nothing else is said; what it was once does not show."""
    granted.server.add_client(client_id="other")
    client_id = granted.client.client_id
    for text in ("garbage", forged("as_access_"), granted.code):
        assert told(granted, ask(granted, text), client_id) == {"active": False}
    assert told(granted, ask(granted, granted.refresh, as_api=True), "api") == {"active": False}
    granted.renew(granted.refresh)
    assert told(granted, ask(granted, granted.refresh), client_id) == {"active": False}
    granted.revoke(granted.access)
    assert told(granted, ask(granted, granted.access, as_api=True), "api") == {"active": False}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (JWT, JWT),
        (JWT.upper(), JWT),
        (f"{JWT};q=0.001", JWT),
        (f"{JSON}, {JWT}", JSON),
        (f"{JWT}, {JSON}", JSON),
        (f"{JSON};q=0.9, {JWT}", JWT),
        (f"{JWT};q=0.9, {JSON}", JSON),
        (f"{JWT}, */*;q=0.1", JWT),
        (f"{JWT};q=0, */*", JSON),
        (f"{JSON};q=0, */*", JWT),
        # Neither will do: JSON, as RFC 7662 lets every caller expect.
        (f"{JWT};q=0", JSON),
        ("text/html", JSON),
        ("application/jwt", JSON),
        ("garbage", JSON),
        (f"{JWT};q=x", JSON),
    ],
)
def test_only_who_prefers_a_signed_answer_gets_one(accept: str | None, expected: str, server: Server) -> None:
    """M-10 (RFC 9701, 4; RFC 9110, 12.5.1): JSON stays the default, and wins where both are as welcome."""
    granted = Granted(server)
    answer = ask(granted, granted.access, accept=accept)
    assert (answer.status_int, answer.headers["Content-Type"]) == (200, expected)
    if expected == JSON:
        assert answer.json["active"] is True


def test_errors_are_never_signed(granted: Granted) -> None:
    """M-01, M-02.a: JSON with the status and code of any other request."""
    assert_json_error(ask(granted, ""), "invalid_request")
    with granted.server.application.begin() as engine:
        disable_client(engine, "api")
    assert_json_error(ask(granted, granted.access, as_api=True), "invalid_client", status=401)


def test_a_signed_answer_is_no_token(granted: Granted) -> None:
    """N-09, M-10 (RFC 9701, 8.1; RFC 8725, 3.12): whatever it is presented as, its `typ` gives it away."""
    server, client, secret = granted.server, granted.client, granted.secret
    answer = ask(granted, granted.access).text
    before = records(server)
    assert_inactive(granted.introspect(answer))
    assert granted.revoke(answer).status_int == 200
    assert_json_error(server.refresh(client, secret, answer), "invalid_grant")
    assert_json_error(server.redeem(client, secret, answer), "invalid_grant")
    assert_json_error(
        server.http.post(
            "/oauth/introspect",
            {"token": granted.access},
            headers={"Authorization": f"Bearer {answer}"},
            expect_errors=True,
        ),
        "invalid_client",
        status=401,
    )
    assert records(server) == before
    assert granted.introspect(granted.access).json["active"] is True


def test_a_signed_answer_names_nobody(granted: Granted) -> None:
    """M-05: a name of the person is not in it either."""
    members = told(granted, ask(granted, granted.access, as_api=True), "api")
    assert "ann" not in members.values()
    with granted.server.application.begin() as engine:
        disable_user(engine, "ann")
    assert told(granted, ask(granted, granted.access), granted.client.client_id) == {"active": False}
