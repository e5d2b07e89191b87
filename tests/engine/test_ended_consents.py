"""What ends a remembered consent, and what it outlives: the table "What ends with what" of `docs/account.rst`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from time_machine import Traveller

from authserver.engine.authorize import AskConsent, Redirect
from authserver.engine.clients.authentication import disable_client
from authserver.engine.people.account import (
    DISCONNECTED,
    PASSWORD_CHANGED,
    Ended,
    connected_apps,
    disconnect,
    disconnect_all,
    revoke_grant,
    set_password,
    sign_out_everywhere,
)
from authserver.engine.people.login import disable_user
from authserver.engine.records import Client, EventType, User
from authserver.testing.records import a_user
from authserver.testing.rules import Rules, assert_refused


@dataclass(frozen=True)
class Agreed:
    """User `ann` let a client of the operator in, it redeemed its code, and the consent is remembered."""

    rules: Rules
    client: Client
    secret: str
    code: str
    refresh_token: str

    @property
    def user(self) -> User:
        return next(iter(self.rules.stores.tables.users.values()))

    @property
    def is_remembered(self) -> bool:
        return bool(self.rules.rows("consents"))


@pytest.fixture
def agreed(rules: Rules) -> Agreed:
    client, secret = rules.add_client()
    assert secret is not None
    code = rules.code(client)
    tokens = rules.redeem(client, secret, code).json
    return Agreed(rules, client, secret, code, tokens["refresh_token"])


def client_revokes(agreed: Agreed) -> None:
    assert agreed.rules.revoke(agreed.client, agreed.secret, agreed.refresh_token).status_int == 200


def refresh_token_is_reused(agreed: Agreed) -> None:
    rules, client, secret = agreed.rules, agreed.client, agreed.secret
    second = rules.refresh(client, secret, agreed.refresh_token).json["refresh_token"]
    rules.refresh(client, secret, second)
    assert_refused(rules.refresh(client, secret, agreed.refresh_token), "invalid_grant")


def code_is_replayed(agreed: Agreed) -> None:
    assert_refused(agreed.rules.redeem(agreed.client, agreed.secret, agreed.code), "invalid_grant")


@pytest.mark.parametrize("happening", [client_revokes, refresh_token_is_reused, code_is_replayed])
def test_what_a_client_ends_is_forgotten_by_nobody(
    agreed: Agreed, happening: Callable[[Agreed], None]
) -> None:
    """E-12: its tokens are dead, and the person did not change their mind; the account page shows it."""
    happening(agreed)
    rules = agreed.rules
    (grant,) = rules.rows("grants")
    assert grant["revoked_at"] is not None
    assert agreed.is_remembered
    with rules.begin() as engine:
        (app,) = connected_apps(engine, agreed.user)
    assert (app.grants, app.scopes, app.remembered_scopes) == ((), (), app.consent and app.consent.scopes)
    assert isinstance(rules.authorize(agreed.client, rules.signed_in()), Redirect)
    assert rules.events("consent.ended") == []


def test_a_consent_outlives_a_grant_that_expired(agreed: Agreed, clock: Traveller) -> None:
    """I-13.b: a grant is limited so that the person is signed in again, not so that they are asked again."""
    rules = agreed.rules
    clock.shift(timedelta(seconds=rules.parts.settings.grant_lifetime + 1))
    assert_refused(rules.refresh(agreed.client, agreed.secret, agreed.refresh_token), "invalid_grant")
    assert agreed.is_remembered
    assert isinstance(rules.authorize(agreed.client, rules.signed_in()), Redirect)


@pytest.mark.parametrize("kind", ["user", "client"])
def test_a_consent_ends_with_its_person_and_its_client(agreed: Agreed, kind: str) -> None:
    """R-09, L-08: nothing of what they agreed to works or is kept."""
    rules = agreed.rules
    browser = rules.signed_in()
    with rules.begin() as engine:
        if kind == "client":
            assert disable_client(engine, agreed.client.client_id)
        else:
            assert disable_user(engine, agreed.user.username)
    assert not agreed.is_remembered
    assert not isinstance(rules.authorize(agreed.client, browser), Redirect)


END: dict[str, tuple[Callable[..., Ended], EventType]] = {
    "one application": (
        lambda engine, it: disconnect(engine, it.user, it.client.client_id),
        EventType.CONSENT_ENDED,
    ),
    "all applications": (lambda engine, it: disconnect_all(engine, it.user), EventType.CONSENT_ENDED),
    "the last grant": (
        lambda engine, it: revoke_grant(engine, it.rules.rows("grants")[0]["grant_id"]),
        EventType.CONSENT_ENDED,
    ),
    "another password": (
        lambda engine, it: set_password(engine, it.user, "another good password"),
        EventType.PASSWORD_CHANGED,
    ),
    "sign-out everywhere": (
        lambda engine, it: sign_out_everywhere(engine, it.user),
        EventType.SIGNED_OUT_EVERYWHERE,
    ),
}


@pytest.mark.parametrize("end", END)
def test_what_people_and_operators_end_is_asked_again(agreed: Agreed, end: str) -> None:
    """E-16, I-14: grants and consents end in one transaction, with an event that counts them."""
    rules = agreed.rules
    ends, event_type = END[end]
    with rules.begin() as engine:
        ended = ends(engine, agreed)
    assert (ended.grants, ended.consents) == (1, 1)
    assert not agreed.is_remembered
    (event,) = rules.events(event_type)
    assert event["details"]["consents"] == 1
    assert event["user_id"] == agreed.user.user_id
    assert event["reason"] in (DISCONNECTED, PASSWORD_CHANGED, "signed-out-everywhere")
    (grant,) = rules.rows("grants")
    assert grant["revoked_reason"] in (DISCONNECTED, PASSWORD_CHANGED, "signed-out-everywhere")
    assert isinstance(rules.authorize(agreed.client, rules.signed_in()), AskConsent)


@pytest.mark.parametrize("end", END)
def test_what_fails_half_way_ends_nothing(agreed: Agreed, end: str) -> None:
    """T115: neither the consent without its grants, nor the other way round."""
    rules, (ends, _) = agreed.rules, END[end]

    def fail() -> None:
        with rules.begin() as engine:
            ends(engine, agreed)
            raise RuntimeError("before the commit")

    with pytest.raises(RuntimeError):
        fail()
    assert agreed.is_remembered
    assert rules.rows("grants")[0]["revoked_at"] is None


def test_a_second_end_finds_nothing(agreed: Agreed) -> None:
    """E-16: also for somebody else, for a client that never was, and for a grant that is unknown."""
    rules = agreed.rules
    bob = a_user(user_id="user_bob", username="bob")
    grant_id = rules.rows("grants")[0]["grant_id"]
    with rules.begin() as engine:
        engine.stores.users.add(bob)
        assert disconnect(engine, bob, agreed.client.client_id) == Ended()
        assert revoke_grant(engine, grant_id, of=bob) == Ended()
        assert disconnect(engine, agreed.user, "never heard of") == Ended()
        assert revoke_grant(engine, "unknown") == Ended()
    assert agreed.is_remembered
    with rules.begin() as engine:
        assert disconnect(engine, agreed.user, agreed.client.client_id) == Ended(grants=1, consents=1)
    events = rules.events()
    with rules.begin() as engine:
        assert disconnect(engine, agreed.user, agreed.client.client_id) == Ended()
        assert revoke_grant(engine, grant_id) == Ended()
        assert disconnect_all(engine, agreed.user) == Ended()
    assert rules.events() == events


def test_a_grant_of_a_client_for_itself_ends_alone(rules: Rules) -> None:
    """No person agreed to it, so no consent is looked for."""
    client, _ = rules.add_client(grant_types=("client_credentials",))
    agreed_with, _ = rules.add_client()
    rules.code(agreed_with)
    rules.stores.tables.grants["own"] = replace(
        next(iter(rules.stores.tables.grants.values())),
        grant_id="own",
        user_id=None,
        client_id=client.client_id,
    )
    with rules.begin() as engine:
        assert revoke_grant(engine, "own") == Ended(grants=1)
    assert len(rules.rows("consents")) == 1
