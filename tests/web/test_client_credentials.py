"""A client that asks on its own behalf (OAuth 2.1, 4.2)."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine.clients.registration import add_client
from authserver.engine.errors import InvalidClientMetadata
from authserver.engine.records import Client, ClientMetadata
from authserver.testing.server import Server
from authserver.testing.stories import assert_json_error, stored

Registered = tuple[Client, str]


@pytest.fixture(scope="module")
def service(shared_server: Server) -> Registered:
    client, secret = shared_server.add_client(
        grant_types=("client_credentials",), scopes=("profile", "files.read", "admin")
    )
    assert secret
    return client, secret


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_a_confidential_client_gets_a_token_and_no_refresh_token(server: Server, auth_method: str) -> None:
    """H-01, H-02, N-04: its subject is the client itself."""
    client, secret = server.add_client(
        grant_types=("client_credentials",), token_endpoint_auth_method=auth_method
    )
    answer = server.token(client, secret, grant_type="client_credentials", scope="files.read")
    assert answer.status_int == 200
    assert "refresh_token" not in answer.json
    assert answer.json["scope"] == "files.read"
    claims = server.claims(answer.json["access_token"])
    assert (claims["sub"], claims["client_id"]) == (client.client_id, client.client_id)
    assert claims["scope"] == "files.read"
    assert not server.rows("tokens")


def test_no_refresh_token_though_the_client_may_refresh(server: Server) -> None:
    """H-02: its secret is all that it needs."""
    client, secret = server.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials")
    )
    assert "refresh_token" not in server.token(client, secret, grant_type="client_credentials").json


def test_a_public_client_is_refused(server: Server) -> None:
    """H-01: even one whose record says otherwise."""
    client, _ = server.add_client(token_endpoint_auth_method="none")
    before = stored(server)
    assert_json_error(server.token(client, None, grant_type="client_credentials"), "unauthorized_client")
    assert stored(server) == before
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET grant_types = 'client_credentials'"))
    before = stored(server)
    answer = server.token(client, None, grant_type="client_credentials")
    assert_json_error(answer, "unauthorized_client")
    assert stored(server) == before


@pytest.mark.parametrize(
    "scope",
    [
        "files.write",
        "profile files.write",
        "nonsense",
        "profile nonsense",
        "PROFILE",
        " profile",
        "profile ",
        "profile  files.read",
        'pro"file',
        "pro\\file",
        "profile\tfiles.read",
        "profilé",
        "profile,files.read",
        "*",
        " ".join(f"s{number}" for number in range(51)),
    ],
)
def test_a_scope_that_is_not_its_own_is_refused(
    shared_server: Server, service: Registered, scope: str
) -> None:
    """H-03, T081: other, unknown and malformed scopes alike."""
    before = stored(shared_server)
    answer = shared_server.token(*service, grant_type="client_credentials", scope=scope)
    assert_json_error(answer, "invalid_scope")
    assert stored(shared_server) == before


def test_the_answer_says_which_scope_a_request_without_one_got(
    shared_server: Server, service: Registered
) -> None:
    """F-08, H-03, N-04: the default, not all that the client is registered for."""
    answer = shared_server.token(*service, grant_type="client_credentials")
    assert answer.json["scope"] == "profile"
    assert shared_server.claims(answer.json["access_token"])["scope"] == "profile"


def test_a_request_without_scope_is_refused_where_there_is_no_default(server: Server) -> None:
    """H-03: silence of the policies is not every scope."""
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("files.read",))
    before = stored(server)
    assert_json_error(server.token(client, secret, grant_type="client_credentials"), "invalid_scope")
    assert stored(server) == before


def test_repeated_scopes_count_once(shared_server: Server, service: Registered) -> None:
    """F-08: the answer names each scope once, in the order asked for."""
    answer = shared_server.token(
        *service, grant_type="client_credentials", scope="files.read profile files.read"
    )
    assert answer.json["scope"] == "files.read profile"


def test_a_subject_is_either_a_user_or_a_client(server: Server) -> None:
    """H-04, T080: a resource server tells them apart: only a client's token has its client as subject."""
    user = server.rows("users")[0]["user_id"]
    client, secret = server.add_client(
        grant_types=("authorization_code", "client_credentials"), scopes=("profile",)
    )
    own = server.claims(server.token(client, secret, grant_type="client_credentials").json["access_token"])
    theirs = server.claims(server.redeem(client, secret, server.code(client)).json["access_token"])
    assert (own["sub"], theirs["sub"]) == (client.client_id, user)
    assert own["sub"] == own["client_id"]
    assert theirs["sub"] != theirs["client_id"]
    assert user.startswith("user_")
    assert "auth_time" not in own


@given(rest=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_no_client_id_looks_like_a_user(shared_server: Server, rest: str) -> None:
    """H-04, T080: not even an operator can choose one."""
    metadata = ClientMetadata(grant_types=("client_credentials",), response_types=(), scopes=("profile",))
    with shared_server.application.begin() as engine, pytest.raises(InvalidClientMetadata):
        add_client(engine, metadata, client_id=f"user_{rest}")


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
