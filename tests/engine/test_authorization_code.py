"""Redeeming an authorization code (OAuth 2.1, 4.1.3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine

from authserver.engine.clients.authentication import disable_client
from authserver.engine.grants.authorization_code import redeem
from authserver.engine.parameters import Parameters
from authserver.engine.people.login import disable_user
from authserver.engine.records import Client, TokenKind
from authserver.testing.rules import (
    Rules,
    assert_code,
    assert_redirect_error,
    assert_refused,
)
from authserver.testing.server import CHALLENGE, REDIRECT_URI, VERIFIER, forged
from authserver.testing.stories import stored

OTHER_VERIFIER = VERIFIER[::-1]


FILES = "https://files.example/"


def code_row(rules: Rules) -> dict[str, object]:
    return next(row for row in rules.rows("tokens") if row["kind"] == "code")


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post", "none"])
def test_a_code_is_redeemed_once(rules: Rules, auth_method: str) -> None:
    """G-02.a, G-05, R-07, T031, T032: the second time it is refused, and what it gave is revoked."""
    client, secret = rules.add_client(token_endpoint_auth_method=auth_method)
    code = rules.code(client)
    first = rules.redeem(client, secret, code)
    assert first.status_int == 200
    issued = len(rules.events("token.issued"))
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")
    assert_refused(rules.refresh(client, secret, first.json["refresh_token"]), "invalid_grant")
    assert len(rules.events("token.issued")) == issued
    (grant,) = rules.rows("grants")
    assert (grant["revoked_reason"], grant["revoked_at"] is None) == ("code-replayed", False)
    (revoked,) = rules.events("grant.revoked")
    assert revoked["grant_id"] == grant["grant_id"]


def test_a_replay_after_the_code_expired_still_revokes(rules: Rules, clock: time_machine.Traveller) -> None:
    """G-05: a copy that turns up late was still stolen."""
    client, secret = rules.add_client()
    code = rules.code(client)
    token = rules.redeem(client, secret, code).json["refresh_token"]
    clock.shift(3600)
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")
    assert_refused(rules.refresh(client, secret, token), "invalid_grant")


def test_a_replay_without_proof_revokes_nothing(rules: Rules) -> None:
    """G-06, T033: a wrong verifier, redirect URI or secret, or another client, ends nobody's grant."""
    client, secret = rules.add_client()
    other, other_secret = rules.add_client()
    code = rules.code(client)
    token = rules.redeem(client, secret, code).json["refresh_token"]
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code, code_verifier=OTHER_VERIFIER), "invalid_grant")
    assert_refused(rules.redeem(client, secret, code, redirect_uri="https://e.example/"), "invalid_grant")
    assert_refused(rules.redeem(client, secret, code, resource=FILES), "invalid_target")
    assert_refused(rules.redeem(client, secret, code[:-1]), "invalid_grant")
    assert_refused(rules.redeem(other, other_secret, code), "invalid_grant")
    assert_refused(rules.redeem(client, forged("as_secret_"), code), "invalid_client", status=401)
    assert stored(rules) == before
    assert rules.refresh(client, secret, token).status_int == 200


def test_a_replay_ends_its_own_grant_alone(rules: Rules) -> None:
    """T034: every token belongs to one grant, though client and user are the same."""
    client, secret = rules.add_client()
    browser = rules.signed_in()
    codes = [rules.code(client, browser), rules.code(client, browser)]
    tokens = [rules.redeem(client, secret, code).json["refresh_token"] for code in codes]
    assert len({row["grant_id"] for row in rules.rows("tokens") if row["kind"] == "refresh"}) == 2
    assert_refused(rules.redeem(client, secret, codes[0]), "invalid_grant")
    assert_refused(rules.refresh(client, secret, tokens[0]), "invalid_grant")
    assert rules.refresh(client, secret, tokens[1]).status_int == 200


def test_only_the_client_that_got_the_code_redeems_it(rules: Rules) -> None:
    """G-01, T036: another client gets the answer of an unknown code, and burns nothing."""
    client, secret = rules.add_client()
    other, other_secret = rules.add_client()
    code = rules.code(client)
    before = stored(rules)
    foreign = [rules.redeem(other, other_secret, code) for _ in range(6)]
    unknown = rules.redeem(other, other_secret, forged("as_code_"))
    for answer in (*foreign, unknown):
        assert_refused(answer, "invalid_grant")
        assert answer.json["error_description"] == unknown.json["error_description"]
    assert stored(rules) == before
    assert rules.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize(
    "code", ["x", "as_code_", forged("as_code_"), forged("as_refresh_"), "é" * 60, "a b"]
)
def test_a_code_that_nobody_was_given_is_refused(rules: Rules, code: str) -> None:
    """G-02.a: whatever it looks like."""
    client, secret = rules.add_client()
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")
    assert stored(rules) == before


@pytest.mark.parametrize("missing", ["code", "code_verifier"])
def test_code_and_verifier_are_required(rules: Rules, missing: str) -> None:
    """G-02.b, D-09, T028: without either nothing is issued, and the code stays good."""
    client, secret = rules.add_client()
    code = rules.code(client)
    before = stored(rules)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, missing: ""}
    error = "invalid_request" if missing == "code" else "invalid_grant"
    assert_refused(rules.token(client, secret, **form), error)
    del form[missing]
    assert_refused(rules.token(client, secret, **form), error)
    assert stored(rules) == before
    assert rules.redeem(client, secret, code).status_int == 200


def test_a_public_client_says_who_it_is(rules: Rules) -> None:
    """G-03: without `client_id` nobody is asking."""
    client, _ = rules.add_client(token_endpoint_auth_method="none")
    code = rules.code(client)
    before = stored(rules)
    assert_refused(rules.redeem(client, None, code, client_id=""), "invalid_client", status=401)
    assert stored(rules) == before
    assert rules.redeem(client, None, code).status_int == 200


def test_a_code_lives_a_minute(rules: Rules, clock: time_machine.Traveller) -> None:
    """G-02.a, B-22, T037: judged when it is used, to the second."""
    client, secret = rules.add_client()
    codes = [rules.code(client), rules.code(client)]
    clock.shift(timedelta(seconds=60) - timedelta(microseconds=1))
    assert rules.redeem(client, secret, codes[0]).status_int == 200
    clock.shift(timedelta(microseconds=1))
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, codes[1]), "invalid_grant")
    assert stored(rules) == before


def test_a_code_may_live_shorter(make_rules: Callable[..., Rules], clock: time_machine.Traveller) -> None:
    """B-22: as the setting says."""
    rules = make_rules({"authserver.code_lifetime": "10"})
    rules.add_user()
    client, secret = rules.add_client()
    code = rules.code(client)
    clock.shift(10)
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")


@pytest.mark.parametrize(
    ("redirect_uri", "status"),
    [
        (None, 200),
        ("", 200),
        (REDIRECT_URI, 200),
        (REDIRECT_URI + "/", 400),
        (REDIRECT_URI.upper(), 400),
        ("https://client.example/other", 400),
    ],
)
def test_redirect_uri_is_optional_but_never_different(
    rules: Rules, redirect_uri: str | None, status: int
) -> None:
    """G-07, T036: it need not be sent; if it is, it is the one of the authorization request."""
    client, secret = rules.add_client(redirect_uris=(REDIRECT_URI, "https://client.example/other"))
    code = rules.code(client)
    form = {} if redirect_uri is None else {"redirect_uri": redirect_uri}
    answer = rules.redeem(client, secret, code, **form)
    if status == 200:
        assert answer.status_int == 200
        return
    assert_refused(answer, "invalid_grant")
    assert not rules.events("token.issued")
    assert rules.redeem(client, secret, code).status_int == 200


def test_a_redemption_never_widens(rules: Rules) -> None:
    """G-08, T036: a scope parameter changes nothing, another resource is refused, both consented alone count."""
    client, secret = rules.add_client(scopes=("profile", "files.read", "files.write"))
    browser = rules.signed_in()
    asked = rules.authorize(client, browser, scope="profile files.read")
    code = assert_code(rules.consent(asked, scopes=["profile"]))
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code, resource=FILES), "invalid_target")
    assert stored(rules) == before
    answer = rules.redeem(client, secret, code, scope="profile files.read admin")
    assert answer.json["scope"] == "profile"
    assert rules.claims(answer.json["access_token"])["scope"] == "profile"
    assert {row["scopes"] for row in rules.rows("tokens") if row["grant_id"]} == {("profile",)}


@pytest.mark.parametrize("verifier", [OTHER_VERIFIER, VERIFIER[:-1] + "l", VERIFIER.swapcase(), CHALLENGE])
def test_a_wrong_verifier_is_refused(rules: Rules, verifier: str) -> None:
    """D-08, T028, T029: the challenge itself is no proof, as it would be with `plain`."""
    client, secret = rules.add_client()
    code = rules.code(client)
    assert_refused(rules.redeem(client, secret, code, code_verifier=verifier), "invalid_grant")
    assert not rules.events("token.issued")
    assert rules.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize(
    "verifier",
    [
        VERIFIER[:42],
        VERIFIER * 3,
        VERIFIER + "=",
        VERIFIER + " ",
        " " + VERIFIER,
        VERIFIER + "\n",
        VERIFIER[:-1] + "é",
        "a" * 129,
        "\u2028" * 43,
    ],
)
def test_a_malformed_verifier_is_refused_and_not_mended(rules: Rules, verifier: str) -> None:
    """D-11, T030: length and alphabet as RFC 7636, 4.1 says; it does not count as a guess."""
    client, secret = rules.add_client()
    code = rules.code(client)
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code, code_verifier=verifier), "invalid_request")
    assert stored(rules) == before
    assert rules.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": None},
        {"code_challenge": ""},
        {"code_challenge_method": None},
        {"code_challenge_method": ""},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": "s256"},
        {"code_challenge_method": "S512"},
        {"code_challenge": CHALLENGE[:42]},
        {"code_challenge": CHALLENGE + "="},
        {"code_challenge": CHALLENGE + "a"},
        {"code_challenge": CHALLENGE[:-1] + "."},
    ],
)
@pytest.mark.parametrize("auth_method", ["client_secret_basic", "none"])
def test_no_code_is_issued_without_an_s256_challenge(
    rules: Rules, auth_method: str, changes: dict[str, str | None]
) -> None:
    """D-02 to D-07, T027, T029, T030: confidential or public, nothing is taken for `plain` or mended."""
    client, _ = rules.add_client(token_endpoint_auth_method=auth_method)
    browser = rules.signed_in()
    before = stored(rules)
    answer = rules.authorize(client, browser, **changes)
    assert_redirect_error(answer, "invalid_request")
    assert stored(rules) == before


def test_five_wrong_verifiers_burn_the_code(rules: Rules) -> None:
    """T035.b, R-08: four are forgiven; after the fifth the right one comes too late, and revokes nothing."""
    client, secret = rules.add_client()
    forgiven, burnt = rules.code(client), rules.code(client)
    for code, count in ((forgiven, 4), (burnt, 5)):
        for _ in range(count):
            assert_refused(rules.redeem(client, secret, code, code_verifier=OTHER_VERIFIER), "invalid_grant")
    assert_refused(rules.redeem(client, secret, burnt), "invalid_grant")
    assert rules.redeem(client, secret, forgiven).status_int == 200
    assert not rules.events("grant.revoked")


def test_a_refusal_for_another_reason_leaves_the_code_as_it_was(rules: Rules) -> None:
    """T035.a, T071: client, resource and form are checked first; the row does not change by a byte."""
    client, secret = rules.add_client()
    code = rules.code(client)
    before = code_row(rules)
    for _ in range(6):
        assert_refused(rules.redeem(client, forged("as_secret_"), code), "invalid_client", status=401)
        assert_refused(rules.redeem(client, secret, code, resource=FILES), "invalid_target")
        assert_refused(rules.redeem(client, secret, code, resource="/relative"), "invalid_target")
        assert_refused(rules.redeem(client, secret, code, code_verifier="short"), "invalid_request")
        assert_refused(rules.redeem(client, secret, code, nonsense=["1", "2"]), "invalid_request")
    assert code_row(rules) == before
    assert rules.redeem(client, secret, code).status_int == 200


def disable_ann(rules: Rules, client: Client) -> None:
    with rules.begin() as engine:
        assert disable_user(engine, "ann")


def revoke_grant(rules: Rules, client: Client) -> None:
    with rules.begin() as engine:
        engine.stores.grants.revoke(rules.rows("grants")[0]["grant_id"], engine.now, "operator")


def remove_redirect_uri(rules: Rules, client: Client) -> None:
    rules.change("clients", redirect_uris=("https://client.example/new",))


@pytest.mark.parametrize("happening", [disable_ann, revoke_grant, remove_redirect_uri])
def test_what_changed_since_the_consent_counts(
    rules: Rules, happening: Callable[[Rules, Client], None]
) -> None:
    """T041, R-09: a disabled user, a revoked grant, a removed redirect URI: `invalid_grant` at once."""
    client, secret = rules.add_client()
    code = rules.code(client)
    happening(rules, client)
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")
    assert stored(rules) == before


def test_a_client_disabled_since_the_consent_gets_nothing(rules: Rules) -> None:
    """T041, R-09, I-12.b: it is not authenticated any more."""
    client, secret = rules.add_client()
    code = rules.code(client)
    with rules.begin() as engine:
        assert disable_client(engine, client.client_id)
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code), "invalid_client", status=401)
    assert stored(rules) == before


def test_a_scope_withdrawn_since_the_consent_is_not_given(rules: Rules) -> None:
    """T041, T081: the registration counts again at redemption: what is left is given."""
    client, secret = rules.add_client()
    code = rules.code(client, scope="profile files.read")
    rules.change("clients", scopes=("files.write",))
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code), "invalid_scope")
    assert stored(rules) == before
    rules.change("clients", scopes=("profile",))
    assert rules.redeem(client, secret, code).json["scope"] == "profile"


def test_an_order_of_a_code_says_what_it_spends_and_what_it_is_bound_to(rules: Rules) -> None:
    """OAuth 2.1, 4.1.3; RFC 9449, 5: the code, and the key that was proven for it; policies know the user and the grant type."""
    client, _ = rules.add_client()
    code = rules.code(client)
    for key in ({}, {"jkt": "thumbprint"}):
        details = {**next(iter(rules.stores.tables.tokens.values())).details, **({"cnf": key} if key else {})}
        rules.change("tokens", details=details)
        sent = [("code", code), ("redirect_uri", REDIRECT_URI), ("code_verifier", VERIFIER)]
        with rules.begin() as engine:
            order = redeem(engine, client, Parameters.of(sent))
            asked = [each.question for each in engine.journal.decisions if each.hook == "scope_decision"]
        assert order.spends is not None
        assert order.spends.kind is TokenKind.CODE
        assert (order.bound, order.is_new, order.keeps) == (key, False, None)
        assert order.user is not None
        assert [(each.user, each.grant_type) for each in asked] == [(order.user, "authorization_code")]
