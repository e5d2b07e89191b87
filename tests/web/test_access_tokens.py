"""What an access token is to those who receive it: a JWT (RFC 9068), or opaque."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine

from authserver.engine.crypto import digests
from authserver.testing.server import ISSUER, RESOURCE, Server, forged
from authserver.testing.stories import assert_json_error, stored, verified

FILES = "https://files.example/"
ALGORITHMS = ["ES256", "RS256", "EdDSA"]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # in favour of Ed25519, says joserfc of RFC 9864
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_anybody_can_verify_a_jwt_with_the_published_keys(
    make_server: Callable[..., Server], algorithm: str
) -> None:
    """N-02, N-03, N-04, N-05, N-06, N-07, N-08, T079: `typ`, `kid`, an asymmetric algorithm, and every claim of RFC 9068."""
    server = make_server({"authserver.signing_algorithm": algorithm})
    user = server.add_user()
    client, secret = server.add_client()
    answer = server.redeem(client, secret, server.code(client, scope="profile files.read")).json
    header, claims = verified(server, answer["access_token"], [algorithm])
    jwks = server.http.get("/oauth/jwks").json["keys"]
    assert header == {"alg": algorithm, "typ": "at+jwt", "kid": header["kid"]}
    assert [key["kid"] for key in jwks] == [header["kid"]]
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & {name for key in jwks for name in key}
    assert claims.keys() == {
        *("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope", "auth_time", "amr")
    }
    assert (claims["iss"], claims["aud"]) == (ISSUER, RESOURCE)
    assert (claims["sub"], claims["client_id"]) == (user.user_id, client.client_id)
    assert claims["scope"] == "profile files.read"
    assert type(claims["exp"]) is type(claims["iat"]) is type(claims["auth_time"]) is int
    assert claims["exp"] == claims["iat"] + answer["expires_in"]
    assert claims["amr"] == ["pwd"]


def test_a_key_is_published_before_it_signs_and_after_it_did(
    make_server: Callable[..., Server], clock: time_machine.Traveller
) -> None:
    """N-06, N-07: a change of algorithm takes place when everybody can know the new key; older tokens still verify."""

    def issued(server: Server) -> str:
        client, secret = server.add_client(grant_types=("client_credentials",))
        return str(server.token(client, secret, grant_type="client_credentials").json["access_token"])

    def published(server: Server) -> set[str]:
        return {key["kid"] for key in server.http.get("/oauth/jwks").json["keys"]}

    before = make_server({"authserver.signing_algorithm": "ES256"})
    tokens = [issued(before)]
    first = published(before)
    tokens.append(issued(make_server({"authserver.signing_algorithm": "RS256"})))
    clock.shift(timedelta(hours=1))
    after = make_server({"authserver.signing_algorithm": "RS256"})
    tokens.append(issued(after))
    headers = [verified(after, token, ALGORITHMS)[0] for token in tokens]
    assert [header["alg"] for header in headers] == ["ES256", "ES256", "RS256"]
    assert {header["kid"] for header in headers[:2]} == first
    assert first | {headers[2]["kid"]} == published(after)


def test_every_jwt_is_another(server: Server) -> None:
    """N-03: `jti` is unique, within a second too."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    tokens = [
        server.token(client, secret, grant_type="client_credentials").json["access_token"] for _ in range(5)
    ]
    assert len({server.claims(token)["jti"] for token in tokens}) == 5


def test_an_opaque_token_reveals_nothing(make_server: Callable[..., Server]) -> None:
    """N-01, R-01, R-03: 256 random bits; what it is good for is kept here, under its digest."""
    server = make_server({"authserver.access_token_format": "opaque"})
    client, secret = server.add_client(grant_types=("client_credentials",))
    answers = [
        server.token(client, secret, grant_type="client_credentials", scope="files.read").json
        for _ in range(3)
    ]
    tokens = {answer["access_token"] for answer in answers}
    assert len(tokens) == 3
    assert all(digests.well_formed(digests.ACCESS, token) and "." not in token for token in tokens)
    rows = server.rows("tokens")
    assert {row["digest"] for row in rows} == {digests.digest("access", token) for token in tokens}
    assert {(row["kind"], row["scopes"], row["resources"]) for row in rows} == {
        ("access", "files.read", RESOURCE)
    }
    assert {row["grant_id"] for row in rows} == {row["grant_id"] for row in server.rows("grants")}


def test_an_opaque_token_belongs_to_the_grant_of_its_code(make_server: Callable[..., Server]) -> None:
    """G-05, I-06, T064: so a replay of the code, or reuse of a refresh token, ends it too."""
    server = make_server({"authserver.access_token_format": "opaque"})
    server.add_user()
    client, secret = server.add_client()
    code = server.code(client)
    answer = server.redeem(client, secret, code).json
    server.refresh(client, secret, answer["refresh_token"])
    server.redeem(client, secret, code)
    (grant,) = server.rows("grants")
    kept = [row for row in server.rows("tokens") if row["kind"] == "access"]
    assert [row["grant_id"] for row in kept] == [grant["grant_id"]] * 2
    assert grant["revoked_at"] is not None
    with server.application.begin() as engine:
        digest = digests.digest("access", answer["access_token"])
        found = engine.stores.tokens.find(kept[0]["kind"], digest)
    assert found is not None
    assert found.grant.revoked_at is not None


def test_the_format_may_depend_on_the_resource(make_server: Callable[..., Server]) -> None:
    """N-01, N-05: one resource asks for opaque tokens, another reads JWTs; together nobody reads."""
    server = make_server({"authserver.opaque_resources": FILES})
    client, secret = server.add_client(grant_types=("client_credentials",))

    def token(*resources: str) -> str:
        form = {"grant_type": "client_credentials", "scope": "files.read", "resource": list(resources)}
        return str(server.token(client, secret, **form).json["access_token"])

    assert server.claims(token(RESOURCE))["aud"] == RESOURCE
    assert token(FILES).startswith("as_access_")
    assert token(RESOURCE, FILES).startswith("as_access_")


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_no_token_passes_for_another_kind(make_server: Callable[..., Server], token_format: str) -> None:
    """I-15, T038: an access token refreshes nothing, and renewing it ends nothing."""
    server = make_server({"authserver.access_token_format": token_format})
    server.add_user()
    client, secret = server.add_client()
    answer = server.redeem(client, secret, server.code(client)).json
    before = stored(server)
    assert_json_error(server.refresh(client, secret, answer["access_token"]), "invalid_grant")
    assert_json_error(server.refresh(client, secret, forged("as_access_")), "invalid_grant")
    assert_json_error(server.redeem(client, secret, answer["refresh_token"]), "invalid_grant")
    assert stored(server) == before
    assert answer["refresh_token"].count(".") == 0
    assert server.refresh(client, secret, answer["refresh_token"]).status_int == 200


def test_the_audience_is_never_the_client(server: Server) -> None:
    """N-05, O-08, T079: without a `resource` it is the configured default."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    claims = server.claims(server.token(client, secret, grant_type="client_credentials").json["access_token"])
    assert claims["aud"] == RESOURCE
    assert type(claims["sub"]) is str
