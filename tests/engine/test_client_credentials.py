"""A client that asks on its own behalf (OAuth 2.1, 4.2)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authserver.engine.clients.registration import add_client
from authserver.engine.errors import InvalidClientMetadata
from authserver.engine.records import Client, ClientMetadata
from authserver.testing.rules import (
    Rules,
    assert_refused,
)
from authserver.testing.stories import stored

Registered = tuple[Client, str]


@pytest.fixture
def service(rules: Rules) -> Registered:
    client, secret = rules.add_client(
        grant_types=("client_credentials",), scopes=("profile", "files.read", "admin")
    )
    assert secret
    return client, secret


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_a_confidential_client_gets_a_token_and_no_refresh_token(rules: Rules, auth_method: str) -> None:
    """H-01, H-02, N-04: its subject is the client itself."""
    client, secret = rules.add_client(
        grant_types=("client_credentials",), token_endpoint_auth_method=auth_method
    )
    answer = rules.token(client, secret, grant_type="client_credentials", scope="files.read")
    assert answer.status_int == 200
    assert "refresh_token" not in answer.json
    assert answer.json["scope"] == "files.read"
    claims = rules.claims(answer.json["access_token"])
    assert (claims["sub"], claims["client_id"]) == (client.client_id, client.client_id)
    assert claims["scope"] == "files.read"
    assert not rules.rows("tokens")


def test_no_refresh_token_though_the_client_may_refresh(rules: Rules) -> None:
    """H-02: its secret is all that it needs."""
    client, secret = rules.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials")
    )
    assert "refresh_token" not in rules.token(client, secret, grant_type="client_credentials").json


def test_a_public_client_is_refused(rules: Rules) -> None:
    """H-01: even one whose record says otherwise."""
    client, _ = rules.add_client(token_endpoint_auth_method="none")
    before = stored(rules)
    assert_refused(rules.token(client, None, grant_type="client_credentials"), "unauthorized_client")
    assert stored(rules) == before
    rules.change("clients", grant_types=("client_credentials",))
    before = stored(rules)
    answer = rules.token(client, None, grant_type="client_credentials")
    assert_refused(answer, "unauthorized_client")
    assert stored(rules) == before


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
def test_a_scope_that_is_not_its_own_is_refused(rules: Rules, service: Registered, scope: str) -> None:
    """H-03, T081: other, unknown and malformed scopes alike."""
    before = stored(rules)
    answer = rules.token(*service, grant_type="client_credentials", scope=scope)
    assert_refused(answer, "invalid_scope")
    assert stored(rules) == before


def test_the_answer_says_which_scope_a_request_without_one_got(rules: Rules, service: Registered) -> None:
    """F-08, H-03, N-04: the default, not all that the client is registered for."""
    answer = rules.token(*service, grant_type="client_credentials")
    assert answer.json["scope"] == "profile"
    assert rules.claims(answer.json["access_token"])["scope"] == "profile"


def test_a_request_without_scope_is_refused_where_there_is_no_default(rules: Rules) -> None:
    """H-03: silence of the policies is not every scope."""
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=("files.read",))
    before = stored(rules)
    assert_refused(rules.token(client, secret, grant_type="client_credentials"), "invalid_scope")
    assert stored(rules) == before


def test_repeated_scopes_count_once(rules: Rules, service: Registered) -> None:
    """F-08: the answer names each scope once, in the order asked for."""
    answer = rules.token(*service, grant_type="client_credentials", scope="files.read profile files.read")
    assert answer.json["scope"] == "files.read profile"


def test_a_subject_is_either_a_user_or_a_client(rules: Rules) -> None:
    """H-04, T080: a resource server tells them apart: only a client's token has its client as subject."""
    user = rules.rows("users")[0]["user_id"]
    client, secret = rules.add_client(
        grant_types=("authorization_code", "client_credentials"), scopes=("profile",)
    )
    own = rules.claims(rules.token(client, secret, grant_type="client_credentials").json["access_token"])
    theirs = rules.claims(rules.redeem(client, secret, rules.code(client)).json["access_token"])
    assert (own["sub"], theirs["sub"]) == (client.client_id, user)
    assert own["sub"] == own["client_id"]
    assert theirs["sub"] != theirs["client_id"]
    assert user.startswith("user_")
    assert "auth_time" not in own


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # nothing is kept of a refusal
@given(rest=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_no_client_id_looks_like_a_user(rules: Rules, rest: str) -> None:
    """H-04, T080: not even an operator can choose one."""
    metadata = ClientMetadata(grant_types=("client_credentials",), response_types=(), scopes=("profile",))
    with rules.begin() as engine, pytest.raises(InvalidClientMetadata):
        add_client(engine, metadata, client_id=f"user_{rest}")
