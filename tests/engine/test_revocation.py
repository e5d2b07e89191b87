"""Revocation (RFC 7009): a client ends what it was granted, and only that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine

from authserver.testing.rules import (
    Answer,
    Rules,
    assert_inactive,
    assert_refused,
    is_active,
)
from authserver.testing.server import forged
from authserver.testing.stories import Granted, records, stored

FORMATS = ("jwt", "opaque")


def assert_done(answer: Answer) -> None:
    """The one answer to every revocation that is no error (L-02, L-03)."""
    assert answer == Answer(status_int=200, json={})


def is_live(granted: Granted) -> bool:
    """Whether a refresh is answered; asked of a server whose tokens are still good, it rotates."""
    return bool(granted.renew(granted.refresh).status_int == 200)


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_any_token_of_a_grant_ends_all_of_it(kind: str, granted: Granted) -> None:
    """L-01, L-02, L-07, T074, T076: access and refresh tokens alike, at once; rows stay, an event tells."""
    assert is_active(granted.introspect(granted.access))
    assert is_active(granted.introspect(granted.refresh))
    tokens = granted.server.rows("tokens")
    assert_done(granted.revoke(getattr(granted, kind)))
    assert_inactive(granted.introspect(granted.access))
    assert_inactive(granted.introspect(granted.refresh))
    assert granted.server.rows("tokens") == tokens
    assert_refused(granted.server.refresh(granted.client, granted.secret, granted.refresh), "invalid_grant")
    assert granted.grant()["revoked_reason"] == "token-revoked"
    (event,) = granted.server.events("grant.revoked")
    assert (event["client_id"], event["grant_id"]) == (granted.client.client_id, granted.grant_id)
    assert event["details"] == {"kind": kind}
    assert (event["reason"], event["user_id"]) == (
        "token-revoked",
        granted.server.rows("users")[0]["user_id"],
    )
    assert granted.access not in str(event)
    assert granted.refresh not in str(event)


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post", "none"])
@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_every_client_revokes_as_it_authenticates(auth_method: str, kind: str, rules: Rules) -> None:
    """L-01, T074: a public client by its `client_id`, and its revocation counts as much."""
    granted = Granted(rules, auth_method)
    assert_done(granted.revoke(getattr(granted, kind)))
    assert not is_live(granted)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "garbage", ""])
@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_a_wrong_hint_hides_nothing(kind: str, hint: str, granted: Granted) -> None:
    """L-05, T077."""
    assert_done(granted.revoke(getattr(granted, kind), token_type_hint=hint))
    assert not is_live(granted)


def test_a_used_refresh_token_ends_the_grant_too(granted: Granted) -> None:
    """L-07: the client may have lost the one that came after it."""
    newer = granted.renew(granted.refresh).json
    assert_done(granted.revoke(granted.refresh))
    for token in (newer["refresh_token"], newer["access_token"], granted.access):
        assert_inactive(granted.introspect(token))


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revocation_beats_the_window_for_retries(kind: str, granted: Granted) -> None:
    """T067, L-07, I-12.a: a retry of the predecessor is no reuse, but nothing comes back to life by it."""
    newer = granted.renew(granted.refresh).json
    assert granted.renew(granted.refresh).json["refresh_token"] == newer["refresh_token"]
    assert_done(granted.revoke(newer[kind]))
    before = stored(granted.server)
    for token in (granted.refresh, newer["refresh_token"], granted.refresh):
        assert_refused(granted.renew(token), "invalid_grant")
    assert stored(granted.server) == before
    assert granted.grant()["revoked_reason"] == "token-revoked"
    assert_inactive(granted.introspect(newer["access_token"]))


def test_an_expired_refresh_token_ends_the_grant_too(granted: Granted, clock: time_machine.Traveller) -> None:
    """L-03, L-07: 200, and its client is done with the grant, whatever else still lives of it."""
    clock.shift(timedelta(days=10))
    newer = granted.renew(granted.refresh).json
    clock.shift(timedelta(days=10))
    assert_inactive(granted.introspect(granted.refresh))
    assert is_active(granted.introspect(newer["refresh_token"]))
    assert_done(granted.revoke(granted.refresh))
    assert_inactive(granted.introspect(newer["refresh_token"]))
    assert_refused(granted.renew(newer["refresh_token"]), "invalid_grant")


@pytest.mark.parametrize("token_format", FORMATS)
def test_a_client_revokes_a_token_of_its_own(token_format: str, make_rules: Callable[..., Rules]) -> None:
    """L-02, T076: without a person; a JWT that nothing was kept of is remembered as revoked, its siblings live."""
    rules = make_rules({"authserver.access_token_format": token_format})
    client, secret = rules.add_client(grant_types=("client_credentials",))
    tokens = [
        rules.token(client, secret, grant_type="client_credentials", scope="profile").json["access_token"]
        for _ in range(2)
    ]
    for _ in range(2):
        assert_done(rules.revoke(client, secret, tokens[0]))
    active = [rules.introspect(client, secret, token).json["active"] for token in tokens]
    assert active == [False, True]
    (event,) = rules.events("grant.revoked")
    assert (event["client_id"], event["user_id"], event["reason"]) == (
        client.client_id,
        None,
        "token-revoked",
    )
    revoked = [row for row in rules.rows("grants") if row["revoked_at"]]
    assert [row["grant_id"] for row in revoked] == [event["grant_id"]]


def test_what_is_kept_of_a_jwt_says_what_the_jwt_said(rules: Rules) -> None:
    """T076: a tombstone with the same facts, which may be swept out once the token has expired."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    token = rules.token(client, secret, grant_type="client_credentials", scope="profile").json["access_token"]
    claims = rules.claims(token)
    assert rules.rows("grants") == []
    assert_done(rules.revoke(client, secret, token))
    with rules.begin() as engine:
        grant = engine.stores.grants.find(claims["jti"].partition(".")[0])
    assert grant is not None
    assert (grant.client_id, grant.user_id) == (client.client_id, None)
    assert (grant.scopes, grant.resources) == (("profile",), (claims["aud"],))
    assert (grant.created_at.timestamp(), grant.expires_at.timestamp()) == (claims["iat"], claims["exp"])


def test_a_second_revocation_is_answered_alike(granted: Granted) -> None:
    """L-03: and told of once."""
    for token in (granted.refresh, granted.access, granted.refresh):
        assert_done(granted.revoke(token))
    assert len(granted.server.events("grant.revoked")) == 1


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
        forged("as_access_"),
        forged("as_refresh_"),
        forged("as_refresh_")[:-1],
        "\u00e9",
        "A" * 8000,
    ],
)
def test_what_was_never_issued_is_answered_alike(token: str, rules: Rules) -> None:
    """L-03: nothing is stored, and no event tells of it."""
    client, secret = rules.add_client()
    before, events = stored(rules), rules.events()
    assert_done(rules.revoke(client, secret, token))
    assert (stored(rules), rules.events()) == (before, events)


@pytest.mark.parametrize("token_format", FORMATS)
def test_an_expired_access_token_ends_nothing(
    token_format: str, make_rules: Callable[..., Rules], clock: time_machine.Traveller
) -> None:
    """L-03: whoever finds one in an old log cannot end the grant with it."""
    rules = make_rules({"authserver.access_token_format": token_format})
    rules.add_user()
    granted = Granted(rules)
    clock.shift(timedelta(seconds=901))
    before = records(rules)
    assert_done(granted.revoke(granted.access))
    assert records(rules) == before
    assert is_live(granted)


@pytest.mark.parametrize("kind", ["access", "refresh"])
@pytest.mark.parametrize("auth_method", ["client_secret_basic", "none"])
def test_another_client_revokes_nothing(auth_method: str, kind: str, granted: Granted) -> None:
    """L-04, T074: a neutral 200, so that it learns nothing; the token stays active, and an event tells of it."""
    rules = granted.server
    other, secret = rules.add_client(token_endpoint_auth_method=auth_method)
    before = records(rules)
    assert_done(rules.revoke(other, secret, getattr(granted, kind)))
    assert records(rules) == before
    assert is_active(granted.introspect(granted.access))
    assert is_active(granted.introspect(granted.refresh))
    (refused,) = rules.events("request.refused")
    assert (refused["client_id"], refused["grant_id"]) == (other.client_id, granted.grant_id)
    assert refused["reason"] == "token-of-another-client"
    assert not rules.events("grant.revoked")


def test_a_jwt_that_others_signed_ends_nothing(granted: Granted, make_rules: Callable[..., Rules]) -> None:
    """L-03, T079: nor one of ours that is no access token."""
    keys = granted.server.parts.signer
    claims = {
        "iss": "https://as.example",
        "sub": granted.client.client_id,
        "client_id": granted.client.client_id,
        "aud": "https://api.example/",
        "scope": "profile",
        "iat": 1,
        "exp": 32503680000,
        "jti": f"{granted.grant_id}.1",
    }
    for changes, typ in (
        ({"iss": "https://another.example"}, "at+jwt"),
        ({}, "JWT"),
        ({"iss": ""}, "at+jwt"),
    ):
        assert_done(granted.revoke(keys.sign({**claims, **changes}, typ=typ)))
    assert granted.grant()["revoked_at"] is None
    assert_done(granted.revoke(keys.sign(claims, typ="at+jwt")))
    assert granted.grant()["revoked_at"] is not None


def test_other_credentials_cannot_be_revoked(granted: Granted) -> None:
    """L-06.b: `unsupported_token_type` for a code, a client secret or a session; they stay as they are."""
    before = records(granted.server)
    for text in (granted.code, granted.secret, forged("as_code_"), forged("as_session_")):
        answer = granted.revoke(text or "")
        assert_refused(answer, "unsupported_token_type")
        assert answer.refusal.description == "Only access tokens and refresh tokens can be revoked."
    assert records(granted.server) == before
    assert len(granted.server.events("request.refused")) == 4
