"""A client that asks on its own behalf (OAuth 2.1, 4.2)."""

from __future__ import annotations

from authserver.engine.records import ClientMetadata
from authserver.testing.server import Server
from authserver.testing.stories import assert_json_error, stored


def test_a_confidential_client_gets_a_token_and_no_refresh_token(server: Server) -> None:
    """H-01, H-02, N-04: its subject is the client itself."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    answer = server.token(client, secret, grant_type="client_credentials", scope="files.read")
    assert answer.status_int == 200
    assert "refresh_token" not in answer.json
    assert answer.json["scope"] == "files.read"
    claims = server.claims(answer.json["access_token"])
    assert (claims["sub"], claims["client_id"]) == (client.client_id, client.client_id)
    assert claims["scope"] == "files.read"
    assert not server.rows("tokens")


def test_a_grant_type_is_given_to_each_client_by_name(server: Server) -> None:
    """H-05: neither an operator's client nor one that registers itself has it by default."""
    assert "client_credentials" not in ClientMetadata().grant_types
    body = {"redirect_uris": ["https://client.example/cb"], "scope": "profile"}
    registered = server.http.post_json("/oauth/register", body, status=201).json
    assert registered["grant_types"] == ["authorization_code"]
    before = stored(server)
    answer = server.http.post_json(
        "/oauth/register", {**body, "grant_types": ["client_credentials"]}, expect_errors=True
    )
    assert_json_error(answer, "invalid_client_metadata")
    body = {"grant_types": ["client_credentials"]}
    answer = server.http.post_json("/oauth/register", body, expect_errors=True)
    assert_json_error(answer, "invalid_client_metadata")
    assert stored(server) == before
    answer = server.http.post(
        "/oauth/token",
        {
            "grant_type": "client_credentials",
            "client_id": registered["client_id"],
        },
        headers={},
        expect_errors=True,
    )
    assert_json_error(answer, "invalid_client", status=401)
