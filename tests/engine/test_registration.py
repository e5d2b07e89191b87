"""What a client that registers itself gets, and what it cannot give itself (RFC 7591)."""

from __future__ import annotations

import pytest

from authserver.engine.authorize import AskConsent
from authserver.testing.rules import (
    Rules,
    assert_code,
    assert_redirect_error,
    assert_refused,
)

WEB = {"redirect_uris": ["https://client.example/cb"]}


def test_what_is_left_out_is_stated_with_its_default(rules: Rules) -> None:
    """K-03: client_secret_basic, authorization_code, code; and the response says so."""
    answer = rules.register(WEB)
    assert answer.status_int == 201
    assert answer.json["token_endpoint_auth_method"] == "client_secret_basic"
    assert answer.json["grant_types"] == ["authorization_code"]
    assert answer.json["response_types"] == ["code"]


def test_a_public_client_gets_no_secret(rules: Rules) -> None:
    """K-02.b: nothing of a secret, neither in the answer nor in the database."""
    answer = rules.register({**WEB, "token_endpoint_auth_method": "none"})
    assert answer.status_int == 201
    assert not [name for name in answer.json if "secret" in name]
    assert rules.rows("client_secrets") == []


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_a_registered_client_can_be_used_at_once(rules: Rules, method: str) -> None:
    """K-01, K-02.a: what was answered is what counts: code, tokens and refresh."""
    registered = rules.register(
        {**WEB, "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": method},
    ).json
    with rules.begin() as engine:
        client = engine.stores.clients.find(registered["client_id"], engine.now)
    secret = registered.get("client_secret")
    tokens = rules.redeem(client, secret, rules.code(client))
    assert tokens.status_int == 200
    assert rules.refresh(client, secret, tokens.json["refresh_token"]).status_int == 200


def test_unknown_members_are_ignored_and_not_answered(rules: Rules) -> None:
    """K-04: neither refused nor kept nor claimed to be in effect."""
    answer = rules.register(
        {**WEB, "x_favourite_colour": {"deep": ["blue"]}, "require_pushed_authorization_requests": True},
    )
    assert answer.status_int == 201
    assert "x_favourite_colour" not in answer.json
    assert "favourite" not in repr(rules.rows("clients"))


def test_a_repeated_value_is_kept_once_and_the_answer_shows_it(rules: Rules) -> None:
    """K-04: what was changed shows."""
    answer = rules.register({"redirect_uris": WEB["redirect_uris"] * 3, "scope": "profile profile"})
    assert answer.json["redirect_uris"] == WEB["redirect_uris"]
    assert answer.json["scope"] == "profile"


def test_the_server_picks_the_client_id(rules: Rules) -> None:
    """K-10, T132: no member of the request changes it, and it never looks like a URL."""
    wished = {
        **WEB,
        "client_id": "https://client.example/metadata.json",
        "client_secret": "chosen-by-me-chosen-by-me-chosen",
        "client_id_issued_at": 1,
        "client_secret_expires_at": 1,
        "registration_access_token": "mine",
    }
    first, second = rules.register(wished), rules.register(wished)
    assert first.status_int == second.status_int == 201
    assert first.json["client_id"] != second.json["client_id"]
    assert first.json["client_id"].startswith("client_")
    assert first.json["client_secret"] != wished["client_secret"]
    assert first.json["client_secret_expires_at"] == 0
    assert first.json["client_id_issued_at"] > 1
    assert "registration_access_token" not in first.json


def test_a_registration_leaves_its_event(rules: Rules) -> None:
    """R-12: with the decision behind it, and no secret."""
    answer = rules.register(WEB)
    (event,) = rules.events("client.registered")
    assert event["client_id"] == answer.json["client_id"]
    assert "open-registration" in str(event["decisions"])
    assert answer.json["client_secret"] not in repr(event)


def test_privileged_members_are_never_stored(rules: Rules) -> None:
    """T132: the list of members is closed; everything else has no effect."""
    answer = rules.register(
        {
            **WEB,
            "first_party": True,
            "is_first_party": True,
            "trusted": True,
            "skip_consent": True,
            "registered_by": "operator",
            "access_token_lifetime": 10**9,
            "disabled_at": None,
            "details": {"first_party": True},
            "secrets": ["x"],
        },
    )
    assert answer.status_int == 201
    (row,) = rules.rows("clients")
    assert not row["first_party"]
    assert row["registered_by"] == "self"
    for name in ("trusted", "skip_consent", "access_token_lifetime", "details"):
        assert name not in answer.json
    with rules.begin() as engine:
        client = engine.stores.clients.find(answer.json["client_id"], engine.now)
    assert client.is_self_registered
    assert not set(client.details) & {"first_party", "trusted", "skip_consent", "access_token_lifetime"}


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("profile", "profile"),
        ("profile admin", "profile"),
        ("profile files.read files.write", "profile files.read"),
        (None, "profile files.read"),
    ],
)
def test_open_registration_is_confined_to_its_scopes(rules: Rules, asked: str | None, given: str) -> None:
    """K-04, K-11, T132: more is not given, and the answer says what is."""
    answer = rules.register({**WEB, **({"scope": asked} if asked else {})})
    assert answer.status_int == 201
    assert answer.json["scope"] == given
    with rules.begin() as engine:
        assert engine.stores.clients.find(answer.json["client_id"], engine.now).scopes == tuple(given.split())


def test_open_registration_gives_no_client_credentials(rules: Rules) -> None:
    """K-11: unless the operator lists that grant type."""
    answer = rules.register({"grant_types": ["client_credentials"]})
    assert_refused(answer, "invalid_client_metadata")
    assert rules.rows("clients") == []


def test_a_client_that_asks_for_scopes_of_other_servers_gets_its_own(rules: Rules) -> None:
    """B-27, K-28, G-08: the same list at registration and authorization; the answers say what it got."""
    client = rules.self_registered(scope="openid profile email offline_access")
    assert client.scopes == ("profile",)
    browser = rules.signed_in()
    asked = rules.authorize(client, browser, scope="openid profile email offline_access")
    assert isinstance(asked, AskConsent)
    assert [name for name, _ in asked.scopes] == ["profile"]
    tokens = rules.redeem(client, None, assert_code(rules.consent(asked)))
    assert tokens.json["scope"] == "profile"
    (event,) = rules.events("consent.given")
    assert "scopes-left-out" in str(event["decisions"])


@pytest.mark.parametrize("scope", ["openid email", "admin", "files.write", 'pro"file'])
def test_a_client_that_asks_for_nothing_it_has_gets_nothing(rules: Rules, scope: str) -> None:
    """B-10, B-27: scopes that do not exist, or that it is not registered for."""
    client = rules.self_registered(scope="profile")
    browser = rules.signed_in()
    assert_code(rules.consent(rules.authorize(client, browser)))
    assert_redirect_error(rules.authorize(client, browser, scope=scope), "invalid_scope")


def test_a_client_of_an_operator_must_ask_for_what_it_has(rules: Rules) -> None:
    """B-10, B-27: nothing is left out for it."""
    client, _ = rules.add_client(scopes=("profile",))
    browser = rules.signed_in()
    answer = rules.authorize(client, browser, scope="openid profile")
    assert_redirect_error(answer, "invalid_scope")
