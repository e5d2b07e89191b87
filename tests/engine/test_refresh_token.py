"""Renewing access (OAuth 2.1, 4.3): rotation, retry and reuse, seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authserver.engine.clients.authentication import disable_client
from authserver.engine.context import Issue
from authserver.engine.grants.refresh_token import redeem
from authserver.engine.parameters import Parameters
from authserver.engine.people.login import disable_user
from authserver.engine.questions import ScopeQuestion
from authserver.engine.records import Client, TokenKind
from authserver.testing.rules import (
    Rules,
    assert_refused,
)
from authserver.testing.server import RESOURCE, forged
from authserver.testing.stories import FILES, TokenFamily, stored

DAY = timedelta(days=1)


INSTANT = timedelta(microseconds=1)


@pytest.fixture
def family(rules: Rules) -> TokenFamily:
    return TokenFamily(rules)


def make_family(make_rules: Callable[..., Rules], **changes: str) -> TokenFamily:
    rules = make_rules({f"authserver.{name}": value for name, value in changes.items()})
    rules.add_user()
    return TokenFamily(rules)


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post", "none"])
def test_every_use_rotates(rules: Rules, auth_method: str) -> None:
    """I-04, I-05: a new token each time, public client or not; the old one knows its successor."""
    family = TokenFamily(rules, auth_method)
    tokens = [family.token]
    for _ in range(3):
        answer = family.refresh(tokens[-1])
        assert answer.status_int == 200
        tokens.append(answer.json["refresh_token"])
    assert len(set(tokens)) == 4
    rows = [row for row in rules.rows("tokens") if row["kind"] == "refresh"]
    links = {row["digest"]: row["successor_digest"] for row in rows}
    assert sum(successor is None for successor in links.values()) == 1
    assert {successor for successor in links.values() if successor} < links.keys()


def test_a_client_without_the_grant_type_gets_no_refresh_token(rules: Rules) -> None:
    """I-01: whether there is one is part of the client's registration."""
    client, secret = rules.add_client(grant_types=("authorization_code",))
    assert "refresh_token" not in rules.redeem(client, secret, rules.code(client)).json
    assert "refresh" not in {row["kind"] for row in rules.rows("tokens")}


def test_no_refresh_token_where_the_server_offers_none(
    rules: Rules, make_rules: Callable[..., Rules]
) -> None:
    """I-01: a token that could not be used is not given."""
    client, secret = rules.add_client()
    rules = make_rules({"authserver.grant_types": "authorization_code"}, rules.stores)
    assert "refresh_token" not in rules.redeem(client, secret, rules.code(client)).json


def test_another_client_cannot_refresh(family: TokenFamily) -> None:
    """I-02, T069: it gets the answer of an unknown token, and the family is not touched."""
    rules = family.server
    other, secret = rules.add_client()
    before = stored(rules)
    answer = rules.refresh(other, secret, family.token)
    assert_refused(answer, "invalid_grant")
    unknown = rules.refresh(other, secret, forged("as_refresh_"))
    assert_refused(unknown, "invalid_grant")
    assert answer.json["error_description"] == unknown.json["error_description"]
    assert stored(rules) == before
    assert family.refresh().status_int == 200


def test_another_client_cannot_end_the_family(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-02, T069: a rotated token that somebody else presents is no reuse, and reveals nothing."""
    newest = family.refresh().json["refresh_token"]
    clock.shift(11)
    rules = family.server
    other, secret = rules.add_client()
    before = stored(rules)
    assert_refused(rules.refresh(other, secret, family.token), "invalid_grant")
    assert stored(rules) == before
    assert family.refresh(newest).status_int == 200


def test_a_confidential_client_authenticates(family: TokenFamily) -> None:
    """I-03, T069, T071: without or with a wrong secret nothing changes."""
    rules, client = family.server, family.client
    before = stored(rules)
    for wrong in (forged("as_secret_"), "wrong"):
        assert_refused(rules.refresh(client, wrong, family.token), "invalid_client", status=401)
    form = {"grant_type": "refresh_token", "client_id": client.client_id, "refresh_token": family.token}
    answer = rules.post("/oauth/token", urlencode(form))
    assert_refused(answer, "invalid_client", status=401)
    assert stored(rules) == before
    assert family.refresh().status_int == 200


def test_reuse_ends_the_family(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-06, I-07, R-08, T064: the old token, its live successor and the grant are dead, and stay so."""
    rules = family.server
    newest = family.refresh().json["refresh_token"]
    clock.shift(11)
    before = len(rules.events("token.issued"))
    assert_refused(family.refresh(), "invalid_grant")
    assert family.is_dead(newest, family.token)
    assert_refused(rules.redeem(family.client, family.secret, family.code), "invalid_grant")
    assert len(rules.events("token.issued")) == before
    (grant,) = rules.rows("grants")
    assert grant["revoked_reason"] == "refresh-token-reused"
    (event,) = rules.events("grant.revoked")
    assert event["grant_id"] == grant["grant_id"]


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_reuse_ends_the_access_tokens_too(
    make_rules: Callable[..., Rules], clock: time_machine.Traveller, token_format: str
) -> None:
    """I-06, T064, M-04: all that the family ever got, as far as somebody asks."""
    family = make_family(make_rules, access_token_format=token_format)
    rules, client, secret = family.server, family.client, family.secret
    second = family.refresh().json
    tokens = [family.first["access_token"], second["access_token"], second["refresh_token"]]
    assert all(rules.introspect(client, secret, token).json["active"] for token in tokens)
    clock.shift(11)
    assert_refused(family.refresh(), "invalid_grant")
    assert [rules.introspect(client, secret, token).json for token in tokens] == [{"active": False}] * 3


def test_reuse_is_reuse_whatever_else_is_asked(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-06: a scope or resource that was never granted does not hide it."""
    newest = family.refresh().json["refresh_token"]
    clock.shift(11)
    assert_refused(family.refresh(scope="files.write", resource="https://other.example/"), "invalid_grant")
    assert family.is_dead(newest)


def test_a_lost_answer_can_be_asked_for_again(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-08, I-09, T063, T065: inside the window the predecessor gets the same successor, not another."""
    first = family.refresh().json
    clock.shift(10)
    again = family.refresh().json
    assert again["refresh_token"] == first["refresh_token"]
    assert again["scope"] == first["scope"]
    rows = [row for row in family.server.rows("tokens") if row["kind"] == "refresh"]
    assert len(rows) == 2
    assert family.refresh(first["refresh_token"]).status_int == 200
    retried = [event for event in family.server.events("token.issued") if event["details"].get("retry")]
    assert len(retried) == 1


def test_a_used_successor_ends_the_window(family: TokenFamily) -> None:
    """I-08, T066: a grandparent is reuse at any time, also a moment later."""
    second = family.refresh().json["refresh_token"]
    third = family.refresh(second).json["refresh_token"]
    assert_refused(family.refresh(family.token), "invalid_grant")
    assert family.is_dead(second, third)


def test_without_a_window_every_second_use_is_reuse(make_rules: Callable[..., Rules]) -> None:
    """I-08, T065: 0 switches the window off."""
    family = make_family(make_rules, refresh_token_retry_window="0")
    newest = family.refresh().json["refresh_token"]
    assert_refused(family.refresh(), "invalid_grant")
    assert family.is_dead(newest)


def test_revocation_beats_the_window(family: TokenFamily) -> None:
    """T067, I-12.a: a retry revives nothing that was deliberately revoked."""
    newest = family.refresh().json["refresh_token"]
    rules = family.server
    with rules.begin() as engine:
        engine.stores.grants.revoke(rules.rows("grants")[0]["grant_id"], engine.now, "operator")
    before = stored(rules)
    assert family.is_dead(family.token, newest)
    assert stored(rules) == before
    assert rules.rows("grants")[0]["revoked_reason"] == "operator"


def test_a_narrower_request_narrows_one_access_token(family: TokenFamily) -> None:
    """I-10.b, I-11, T070: the refresh token keeps what it had, so the next request may have it all again."""
    narrow = family.refresh(scope="files.read").json
    assert narrow["scope"] == "files.read"
    assert family.server.claims(narrow["access_token"])["scope"] == "files.read"
    wide = family.refresh(narrow["refresh_token"]).json
    assert wide["scope"] == "profile files.read"
    rows = [row for row in family.server.rows("tokens") if row["kind"] == "refresh"]
    assert {row["scopes"] for row in rows} == {("profile", "files.read")}
    assert {row["resources"] for row in rows} == {(RESOURCE, FILES)}


REFUSED = [
    ({"scope": "files.write"}, "invalid_scope"),
    ({"scope": "profile files.write"}, "invalid_scope"),
    ({"scope": "admin"}, "invalid_scope"),
    ({"scope": "nonsense"}, "invalid_scope"),
    ({"scope": "pro\\file"}, "invalid_scope"),
    ({"scope": "profile", "resource": FILES}, "invalid_scope"),
    ({"resource": "https://other.example/"}, "invalid_target"),
    ({"resource": [FILES, "https://other.example/"]}, "invalid_target"),
    ({"resource": "files"}, "invalid_target"),
    ({"resource": FILES + "#x"}, "invalid_target"),
    ({"scope": ["profile", "profile"]}, "invalid_request"),
    ({"refresh_token": ""}, "invalid_request"),
    ({"refresh_token": "x"}, "invalid_grant"),
    ({"refresh_token": forged("as_refresh_")}, "invalid_grant"),
    ({"refresh_token": "é"}, "invalid_grant"),
]


def test_a_refused_request_changes_nothing(family: TokenFamily) -> None:
    """I-10.a, I-16, T070, T071: more than granted, or malformed: refused, with every row as it was."""
    before = stored(family.server)
    for form, error in REFUSED:
        form = {"grant_type": "refresh_token", "refresh_token": family.token, **form}
        answer = family.server.token(family.client, family.secret, **form)
        assert_refused(answer, error)
        assert stored(family.server) == before, form
    assert family.refresh().status_int == 200


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # one family for all examples: each begins where the last one left it
@given(
    scopes=st.lists(st.sampled_from(["profile", "files.read", "files.write", "admin"]), max_size=3),
    resources=st.lists(st.sampled_from([RESOURCE, FILES, "https://other.example/"]), max_size=3),
)
def test_nothing_is_widened(family: TokenFamily, scopes: list[str], resources: list[str]) -> None:
    """T070: whatever is asked for, what comes is within the grant and within the request."""
    answer = family.refresh(scope=" ".join(scopes), resource=resources)
    if answer.status_int == 200:
        family.token = answer.json["refresh_token"]
        claims = family.server.claims(answer.json["access_token"])
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        assert set(audience) == set(resources or [RESOURCE, FILES])
        assert set(claims["scope"].split()) <= set(scopes or ["profile", "files.read"])
        assert set(audience) <= {RESOURCE, FILES}
        assert set(claims["scope"].split()) <= {"profile", "files.read"}
    else:
        assert answer.json["error"] in ("invalid_scope", "invalid_target")


def disable_ann(rules: Rules, client: Client) -> None:
    with rules.begin() as engine:
        assert disable_user(engine, "ann")


def end_grant(rules: Rules, client: Client) -> None:
    with rules.begin() as engine:
        engine.stores.grants.revoke(rules.rows("grants")[0]["grant_id"], engine.now, "operator")


@pytest.mark.parametrize("happening", [disable_ann, end_grant])
def test_a_refresh_token_dies_with_what_it_stands_for(
    family: TokenFamily, happening: Callable[[Rules, Client], None]
) -> None:
    """I-12.a, R-09, T073: a disabled user, a revoked grant: `invalid_grant` on the next request."""
    newest = family.refresh().json["refresh_token"]
    happening(family.server, family.client)
    before = stored(family.server)
    assert family.is_dead(newest, family.token)
    assert stored(family.server) == before


def test_a_disabled_client_cannot_refresh(family: TokenFamily) -> None:
    """I-12.b, R-09, T073: 401 on the next request."""
    with family.server.begin() as engine:
        assert disable_client(engine, family.client.client_id)
    before = stored(family.server)
    assert_refused(family.refresh(), "invalid_client", status=401)
    assert stored(family.server) == before


def test_a_client_that_lost_the_grant_type_cannot_refresh(family: TokenFamily) -> None:
    """I-01, F-06: the registration counts at every use."""
    family.server.change("clients", grant_types=("authorization_code",))
    before = stored(family.server)
    assert_refused(family.refresh(), "unauthorized_client")
    assert stored(family.server) == before


def test_a_scope_the_client_lost_is_not_renewed(family: TokenFamily) -> None:
    """I-10.a, T081: the registration counts at every use: what is left is renewed, and what was lost is refused."""
    scopes = family.client.scopes
    family.server.change("clients", scopes=("profile",))
    assert family.refresh().json["scope"] == "profile"
    before = stored(family.server)
    assert_refused(family.refresh(scope="files.read"), "invalid_scope")
    family.server.change("clients", scopes=("files.write",))
    assert_refused(family.refresh(), "invalid_scope")
    family.server.change("clients", scopes=("profile",))
    assert stored(family.server) == before
    # The grant still has what the person agreed to.
    family.server.change("clients", scopes=scopes)
    assert family.refresh().json["scope"] == "profile files.read"


def test_an_unused_refresh_token_dies(
    make_rules: Callable[..., Rules], clock: time_machine.Traveller
) -> None:
    """I-13.a, T072: to the second; each rotation starts the time anew."""
    family = make_family(make_rules, refresh_token_idle_lifetime=str(10 * 86400))
    clock.shift(10 * DAY - INSTANT)
    answer = family.refresh()
    assert answer.status_int == 200
    clock.shift(10 * DAY)
    before = stored(family.server)
    assert_refused(family.refresh(answer.json["refresh_token"]), "invalid_grant")
    assert stored(family.server) == before


def test_no_rotation_moves_the_end_of_a_grant(
    make_rules: Callable[..., Rules], clock: time_machine.Traveller
) -> None:
    """I-13.b, T072: access tokens are clipped to what is left, and at the end there is `invalid_grant`."""
    family = make_family(
        make_rules, refresh_token_idle_lifetime=str(10 * 86400), grant_lifetime=str(30 * 86400)
    )
    end = family.server.rows("grants")[0]["expires_at"]
    token = family.token
    for days in (9, 9, 9):
        clock.shift(days * DAY)
        token = family.refresh(token).json["refresh_token"]
    clock.shift(3 * DAY - timedelta(seconds=100))
    answer = family.refresh(token).json
    assert answer["expires_in"] == 100
    claims = family.server.claims(answer["access_token"])
    assert claims["exp"] - claims["iat"] == 100
    assert {row["expires_at"] for row in family.server.rows("tokens") if row["kind"] == "refresh"} >= {end}
    clock.shift(timedelta(seconds=99.5))
    answer = family.refresh(answer["refresh_token"])
    assert (answer.status_int, answer.json["expires_in"]) == (200, 0)
    clock.shift(timedelta(seconds=0.5))
    assert_refused(family.refresh(answer.json["refresh_token"]), "invalid_grant")
    assert family.server.rows("grants")[0]["expires_at"] == end


def test_when_the_user_signed_in_does_not_change(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """N-08: a refresh is no sign-in."""
    first = family.server.claims(family.first["access_token"])
    clock.shift(3600)
    second = family.server.claims(family.refresh().json["access_token"])
    for name in ("auth_time", "amr", "sub"):
        assert second[name] == first[name]
    assert second["iat"] >= first["iat"] + 3600
    assert second["jti"] != first["jti"]


# ---- What a client is told, and what the operator is --------------------------------------------------


NOT_VALID = "The refresh token is not valid."
WAYS: dict[str, Callable[[TokenFamily], Any]] = {
    "refresh-token-malformed": lambda family: family.refresh("as_refresh_x"),
    "refresh-token-unknown": lambda family: family.refresh(forged("as_refresh_")),
    "grant-revoked": lambda family: _changed(family, "grants", revoked_at=family.server.now),
    "grant-expired": lambda family: _changed(family, "grants", expires_at=family.server.now),
    "user-disabled": lambda family: _changed(family, "users", disabled_at=family.server.now),
    "refresh-token-idle": lambda family: _changed(family, "tokens", expires_at=family.server.now),
}


def _changed(family: TokenFamily, table: str, **fields: Any) -> Any:
    family.server.change(table, **fields)
    return family.refresh()


@pytest.mark.parametrize("reason", WAYS)
def test_every_refusal_reads_alike_and_its_reason_is_for_the_operator(
    family: TokenFamily, reason: str, clock: time_machine.Traveller
) -> None:
    """I-02, I-12.a, I-13.b: nobody learns from the answer what became of a token."""
    answer = WAYS[reason](family)
    assert_refused(answer, "invalid_grant")
    assert (answer.refusal.description, answer.refusal.reason) == (NOT_VALID, reason)
    assert answer.refusal.revoke_grant is None


def ordered(family: TokenFamily, token: str, **changes: Any) -> tuple[Issue, ScopeQuestion]:
    """What a refresh may issue, and what policies were asked about its scopes."""
    client = replace(family.client, **changes)
    with family.server.begin() as engine:
        order = redeem(engine, client, Parameters.of([("refresh_token", token)]))
        (asked,) = (ruling.question for ruling in engine.journal.decisions if ruling.hook == "scope_decision")
    assert isinstance(asked, ScopeQuestion)
    return order, asked


def test_an_order_of_a_refresh_says_what_it_spends(family: TokenFamily) -> None:
    """I-04, I-05: the token, so that it is rotated, with what its successor is sealed under."""
    order, asked = ordered(family, family.token)
    assert order.spends is not None
    assert order.spends.kind is TokenKind.REFRESH
    assert (order.presented, order.keeps, order.refresh_token) == (family.token, None, None)
    assert (order.refreshable, order.is_new, order.bound) == (True, False, {})
    assert order.scopes == ("profile", "files.read")
    assert set(order.resources) == {RESOURCE, FILES}
    assert order.user is not None
    assert (asked.user, asked.grant_type) == (order.user, "refresh_token")
    assert order.grant.user_id == order.user.user_id


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({"rotates_refresh_tokens": False}, True),
        ({"rotates_refresh_tokens": False, "auth_method": "none"}, False),
        ({"rotates_refresh_tokens": True}, False),
    ],
)
def test_a_confidential_client_may_keep_its_refresh_token(
    family: TokenFamily, changes: dict[str, Any], keeps: bool
) -> None:
    """I-04: never a public one; what is kept is not spent, and no other refresh token is issued."""
    order, _ = ordered(family, family.token, **changes)
    assert (order.keeps is not None, order.spends is not None) == (keeps, not keeps)
    assert order.refreshable is not keeps
    assert order.presented == (None if keeps else family.token)


def test_an_order_of_a_retry_spends_nothing(family: TokenFamily, clock: time_machine.Traveller) -> None:
    """I-08: it has the same successor, also for a client that keeps its tokens by now."""
    successor = family.refresh().json["refresh_token"]
    for changes in ({}, {"rotates_refresh_tokens": False}):
        order, _ = ordered(family, family.token, **changes)
        assert (order.refresh_token, order.spends, order.keeps, order.presented) == (
            successor,
            None,
            None,
            None,
        )
        assert order.refreshable


def test_a_refresh_is_bound_to_the_key_of_its_token(family: TokenFamily) -> None:
    """RFC 9449, 5: whatever binds tokens here; the key must be proven again."""
    key = {"jkt": "thumbprint"}
    family.server.change("tokens", details={"cnf": key})
    assert ordered(family, family.token)[0].bound == key
