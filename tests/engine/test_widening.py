"""Scope step-up: a client that asks for more, what the person is asked, and which grants become wider (I-19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from authserver.engine.authorize import AskConsent, Redirect
from authserver.engine.context import Binding, Issue
from authserver.engine.ending import Act, Ended, Subject, end
from authserver.engine.records import Client, FoundToken, RegisteredBy, TokenKind
from authserver.engine.tokens.issuing import issue
from authserver.engine.tokens.widening import widen_others
from authserver.testing.records import NOW, a_client, a_grant, a_token, a_user
from authserver.testing.rules import Rules, assert_inactive, assert_refused
from authserver.testing.server import RESOURCE, SETTINGS
from authserver.testing.stories import FILES

ALL = ("profile", "files.read", "files.write")


class Held:
    """A client with a grant of `profile` for Ann, and the page on which it asks for `files.read` as well."""

    def __init__(self, rules: Rules, **client: Any) -> None:
        self.rules = rules
        self.client, self.secret = rules.add_client(**{"scopes": ALL, **client})
        self.browser = rules.signed_in()
        self.first = self.redeem(rules.code(self.client, self.browser))
        self.page = self.ask()

    def ask(self, scope: str = "profile files.read", **changes: Any) -> AskConsent:
        page = self.rules.authorize(self.client, self.browser, scope=scope, **changes)
        assert isinstance(page, AskConsent), page
        return page

    def allow(self, scopes: tuple[str, ...] | None = None) -> dict[str, Any]:
        outcome = self.rules.consent(self.page, scopes=scopes)
        assert isinstance(outcome, Redirect), outcome
        return self.redeem(outcome.location.partition("code=")[2].partition("&")[0])

    def redeem(self, code: str) -> dict[str, Any]:
        answer = self.rules.redeem(self.client, self.secret, code)
        assert answer.refusal is None, answer
        return dict(answer.json)

    def refresh(self, tokens: dict[str, Any], **form: Any) -> Any:
        return self.rules.refresh(self.client, self.secret, tokens["refresh_token"], **form)


@pytest.fixture
def held(rules: Rules) -> Held:
    return Held(rules)


def test_the_page_tells_what_is_new_from_what_was_allowed(held: Held) -> None:
    """E-13: this client would get `profile` without a page, so it is not asked about again."""
    more = held.page.more
    assert more is not None
    assert (more.held, more.stays) == (("profile",), True)
    assert [name for name, _ in held.page.scopes] == ["profile", "files.read"]


def test_a_request_for_something_else_alone_is_one_for_more(held: Held) -> None:
    """What was allowed before is not part of it, and not given along (E-15)."""
    held.page = held.ask("files.read")
    assert held.page.more is not None
    assert held.page.more.held == ()
    assert held.allow()["scope"] == "files.read"


def test_what_was_agreed_to_is_one_consent(held: Held) -> None:
    held.allow()
    (consent,) = held.rules.rows("consents")
    assert consent["scopes"] == ("profile", "files.read")
    assert isinstance(held.rules.authorize(held.client, held.browser, scope="files.read profile"), Redirect)


@pytest.mark.parametrize(
    "changes",
    [
        {"resource": FILES},
        {"resource": [RESOURCE, FILES]},
        {"client": {"name": "Something else"}},
    ],
    ids=["another resource", "one resource more", "another name"],
)
def test_nothing_counts_as_allowed_for_something_else(held: Held, changes: dict[str, Any]) -> None:
    """E-13, T089: everything is new there."""
    for name, value in changes.pop("client", {}).items():
        held.rules.change("clients", **{name: value})
    assert held.ask(**changes).more is None


def test_of_fewer_resources_all_is_new(held: Held) -> None:
    """What is agreed to for one resource is not agreed to for all that were allowed before (T089)."""
    both = held.ask(resource=[RESOURCE, FILES])
    assert isinstance(held.rules.consent(both), Redirect)
    assert held.ask("profile files.read files.write", resource=FILES).more is None
    again = held.ask("profile files.read files.write", resource=[FILES, RESOURCE])
    assert again.more is not None
    assert again.more.held == ("profile", "files.read")


@pytest.mark.parametrize(
    "client",
    [
        {"token_endpoint_auth_method": "none"},
        {"redirect_uris": ("http://127.0.0.1/callback",), "application_type": "native"},
    ],
    ids=["public", "on the device"],
)
def test_of_a_client_that_anybody_can_be_all_is_asked_again(rules: Rules, client: dict[str, Any]) -> None:
    """E-12, T088: what was allowed before is shown as such, and given only if it is ticked."""
    held = Held(rules, **client)
    assert held.page.more is not None
    assert (held.page.more.held, held.page.more.stays) == (("profile",), False)
    assert held.allow(("files.read",))["scope"] == "files.read"


def test_where_people_are_always_asked_all_is_asked_again(make_rules: Callable[..., Rules]) -> None:
    """E-12: without `consent_remembered` this client would not get `profile` without a page."""
    plugins = SETTINGS["authserver.plugins"].replace("consent_remembered", "")
    rules = make_rules({"authserver.plugins": plugins})
    rules.add_user("ann")
    held = Held(rules)
    assert held.page.more is not None
    assert (held.page.more.held, held.page.more.stays) == (("profile",), False)


def test_with_nothing_new_ticked_nothing_is_shared(held: Held) -> None:
    """E-14: the page comes back; what the page lists only goes along with what is ticked."""
    again = held.rules.consent(held.page, scopes=("profile",))
    assert isinstance(again, AskConsent)
    assert again.problem == "nothing-ticked"
    assert held.rules.events("code.issued")[1:] == []


def test_a_grant_is_refreshed_with_what_was_agreed_to_later(held: Held) -> None:
    """I-19: the client keeps the refresh token that it has, and names no scope."""
    new = held.allow()
    assert new["scope"] == "profile files.read"
    renewed = held.refresh(held.first)
    assert renewed.json["scope"] == "profile files.read"
    assert held.rules.claims(renewed.json["access_token"])["scope"] == "profile files.read"
    # And so on: a successor is as wide.
    assert held.refresh(renewed.json).json["scope"] == "profile files.read"
    assert held.refresh(new).json["scope"] == "profile files.read"
    (event,) = held.rules.events("grant.widened")
    older, newer = (row["grant_id"] for row in held.rules.rows("grants"))
    assert (event["grant_id"], dict(event["details"])) == (older, {"scopes": ["files.read"], "by": newer})


def test_only_what_was_ticked_makes_it_wider(held: Held) -> None:
    held.page = held.ask("profile files.read files.write")
    held.allow(("profile", "files.write"))
    assert held.refresh(held.first).json["scope"] == "profile files.write"


@pytest.mark.parametrize("answer", ["deny", "leave"])
def test_a_refused_step_up_loses_nothing(held: Held, answer: str) -> None:
    """E-07."""
    if answer == "deny":
        held.rules.consent(held.page, "deny")
    assert held.refresh(held.first).json["scope"] == "profile"
    assert held.rules.events("grant.widened") == []
    (consent,) = held.rules.rows("consents")
    assert consent["scopes"] == ("profile",)


def test_a_code_that_is_not_redeemed_makes_nothing_wider(held: Held) -> None:
    """Nobody has proven yet that they are the client."""
    assert isinstance(held.rules.consent(held.page), Redirect)
    assert held.refresh(held.first).json["scope"] == "profile"


def test_another_installation_of_a_public_client_gains_nothing(rules: Rules) -> None:
    """T070: it has the same client id and the same user, and its refresh token is in other hands."""
    held = Held(rules, token_endpoint_auth_method="none")
    assert held.allow()["scope"] == "profile files.read"
    assert held.refresh(held.first).json["scope"] == "profile"
    again = held.rules.refresh(held.client, None, held.first["refresh_token"], scope="files.read")
    assert_refused(again, "invalid_scope")
    assert rules.events("grant.widened") == []


def test_a_scope_that_the_client_lost_since_stays_lost(held: Held) -> None:
    """T041."""
    held.allow()
    held.rules.change("clients", scopes=("profile", "files.write"))
    assert held.refresh(held.first).json["scope"] == "profile"


def test_a_scope_that_an_operator_ended_does_not_come_back_to_old_tokens(held: Held) -> None:
    """L-08, I-19: the person allows it again, and what ended with it stays as it is; the new grant has it."""
    before = held.allow()
    work = end(held.rules.begin, Act(subject=Subject.scope("files.read")))
    assert sum(work, Ended()).narrowed_grants == 2
    assert_inactive(held.rules.introspect(held.client, held.secret, before["access_token"]))
    held.page = held.ask()
    after = held.allow()
    assert after["scope"] == "profile files.read"
    assert_inactive(held.rules.introspect(held.client, held.secret, before["access_token"]))
    assert held.refresh(before).json["scope"] == "profile"
    assert held.refresh(after).json["scope"] == "profile files.read"


def test_more_than_the_grant_is_refused_as_before(held: Held) -> None:
    """I-10.a."""
    held.allow()
    assert_refused(held.refresh(held.first, scope="files.write"), "invalid_scope")


def test_a_refresh_token_is_described_with_what_it_is_good_for(held: Held) -> None:
    """M-05."""
    held.allow()
    answer = held.rules.introspect(held.client, held.secret, held.first["refresh_token"])
    assert answer.json["scope"] == "profile files.read"


# ---- which grants ------------------------------------------------------------------------------------

KEY, OTHER_KEY = {"jkt": "a" * 43}, {"jkt": "b" * 43}
CONFIDENTIAL = a_client()
PUBLIC = a_client(auth_method="none")
ON_DEVICES = a_client(redirect_uris=("http://127.0.0.1/callback",))
BOTH = ("https://api.example", FILES)
SPELT_OTHERWISE = "HTTPS://API.example/"
OLD: dict[str, Any] = {"user_id": "user_ada", "created_at": NOW - timedelta(hours=1)}


def bound(key: dict[str, str], *, refresh: bool = True) -> Binding:
    return Binding(confirmation=key, binds_refresh=refresh)


# The client, the key it proved, what is different about the older grant and its token, whether it becomes wider.
CASES: dict[str, tuple[Client, Binding | None, dict[str, Any], dict[str, Any], bool]] = {
    "confidential": (CONFIDENTIAL, None, {}, {}, True),
    "confidential, with a key for access tokens": (CONFIDENTIAL, bound(KEY, refresh=False), {}, {}, True),
    "confidential, the older one bound to a key": (CONFIDENTIAL, None, {}, {"details": {"cnf": KEY}}, False),
    "public": (PUBLIC, None, {}, {}, False),
    "public, with the same key": (PUBLIC, bound(KEY), {}, {"details": {"cnf": KEY}}, True),
    "public, with another key": (PUBLIC, bound(OTHER_KEY), {}, {"details": {"cnf": KEY}}, False),
    "public, with a key now": (PUBLIC, bound(KEY), {}, {}, False),
    "public, with a key before": (PUBLIC, None, {}, {"details": {"cnf": KEY}}, False),
    "of another user": (CONFIDENTIAL, None, {"user_id": "user_eve"}, {}, False),
    "of another client": (CONFIDENTIAL, None, {"client_id": "notes"}, {"client_id": "notes"}, False),
    "for another resource": (CONFIDENTIAL, None, {}, {"resources": (FILES,)}, False),
    "for one resource more": (CONFIDENTIAL, None, {"resources": BOTH}, {"resources": BOTH}, False),
    "for one resource more, which it lost": (CONFIDENTIAL, None, {}, {"resources": BOTH}, True),
    "for a resource that it lost": (CONFIDENTIAL, None, {"resources": (FILES,)}, {}, False),
    "for a resource in another spelling": (
        CONFIDENTIAL,
        None,
        {"resources": (SPELT_OTHERWISE,)},
        {"resources": (SPELT_OTHERWISE,)},
        True,
    ),
    "after a lesser sign-in": (CONFIDENTIAL, None, {"details": {"acr": "silver"}}, {}, False),
    "after another sign-in": (CONFIDENTIAL, None, {"details": {"amr": ["pwd", "otp"]}}, {}, False),
    "after a later sign-in": (CONFIDENTIAL, None, {"details": {"auth_time": 2}}, {}, False),
    "on many devices": (ON_DEVICES, None, {}, {}, False),
    "on many devices, with the same key": (ON_DEVICES, bound(KEY), {}, {"details": {"cnf": KEY}}, True),
    "on a device that registered it": (
        replace(ON_DEVICES, registered_by=RegisteredBy.SELF),
        None,
        {},
        {},
        True,
    ),
    "vouched for": (CONFIDENTIAL, None, {"details": {"grant_type": "urn:x"}}, {}, False),
    "revoked": (CONFIDENTIAL, None, {"revoked_at": NOW, "revoked_reason": "x"}, {}, False),
    "over": (CONFIDENTIAL, None, {"expires_at": NOW - timedelta(days=1)}, {}, False),
    "idle for long": (CONFIDENTIAL, None, {}, {"expires_at": NOW - timedelta(days=1)}, False),
}


@pytest.mark.parametrize(("client", "binding", "grant", "token", "widens"), CASES.values(), ids=CASES)
def test_only_what_nobody_else_can_use_becomes_wider(
    rules: Rules,
    client: Client,
    binding: Binding | None,
    grant: dict[str, Any],
    token: dict[str, Any],
    widens: bool,
) -> None:
    """I-19, T070, E-15: never a grant of another user, client or device."""
    new = a_grant(grant_id="new", user_id="user_ada", scopes=("read", "write"))
    with rules.begin() as engine:
        far = engine.now + timedelta(days=1)
        for user_id in ("user_ada", "user_eve"):
            engine.stores.users.add(a_user(user_id=user_id, username=user_id.partition("_")[2]))
        engine.stores.grants.add(a_grant(**{**OLD, "expires_at": far, **grant}))
        engine.stores.grants.add(new)
        engine.stores.tokens.add(a_token(**{"kind": TokenKind.REFRESH, "expires_at": far, **token}))
        widen_others(engine, client, new, binding)
    found = rules.stores.tables.grants["grant_1"]
    assert found.scopes == (("read", "write") if widens else ("read",))
    assert len(rules.events("grant.widened")) == widens


@pytest.mark.parametrize(
    ("other", "widens"), [({}, True), ({"details": {"cnf": KEY}}, False)], ids=["the same", "with a key"]
)
def test_a_grant_of_which_somebody_else_has_a_token_stays_as_it_is(
    rules: Rules, other: dict[str, Any], widens: bool
) -> None:
    """T070: what is added to a grant is added to all its refresh tokens."""
    with rules.begin() as engine:
        far = engine.now + timedelta(days=1)
        engine.stores.users.add(a_user())
        engine.stores.grants.add(a_grant(**{**OLD, "expires_at": far}))
        engine.stores.tokens.add(a_token(kind=TokenKind.REFRESH, expires_at=far))
        engine.stores.tokens.add(a_token(kind=TokenKind.REFRESH, expires_at=far, digest=b"second", **other))
        new = a_grant(grant_id="new", user_id="user_ada", scopes=("read", "write"))
        widen_others(engine, CONFIDENTIAL, new, None)
    assert len(rules.events("grant.widened")) == widens


@pytest.mark.parametrize("added", [(), ("delete",)], ids=["as agreed", "widened"])
def test_a_token_that_was_made_narrower_than_its_grant_stays_narrow(
    rules: Rules, added: tuple[str, ...]
) -> None:
    """T070: a grant type, an exchange of tokens for instance, may give away less than a grant allows."""
    client, secret = rules.add_client(scopes=ALL)
    agreed = a_grant(
        client_id=client.client_id,
        user_id="user_ada",
        scopes=("profile", "files.read"),
        resources=(RESOURCE,),
    )
    with rules.begin() as engine:
        ada = a_user()
        engine.stores.users.add(ada)
        grant = replace(agreed, created_at=engine.now, expires_at=engine.now + timedelta(days=1))
        engine.stores.grants.add(grant)
        if added:
            assert engine.stores.grants.widen(grant, (*grant.scopes, "files.write"))
        order = Issue(
            grant=grant, user=ada, scopes=("profile",), resources=(RESOURCE,), refreshable=True, is_new=False
        )
        token = issue(engine, client, order).refresh_token
    assert token is not None
    assert rules.introspect(client, secret, token).json["scope"] == "profile"
    assert_refused(rules.refresh(client, secret, token, scope="files.read"), "invalid_scope")
    first = rules.refresh(client, secret, token)
    assert first.json["scope"] == "profile"
    assert rules.refresh(client, secret, first.json["refresh_token"]).json["scope"] == "profile"


def test_of_two_step_ups_at_the_same_time_both_count(rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grant was widened by another request after it was read: it is read again."""
    with rules.begin() as engine:
        far = engine.now + timedelta(days=1)
        engine.stores.users.add(a_user())
        engine.stores.grants.add(a_grant(**{**OLD, "expires_at": far, "scopes": ("read", "delete")}))
        engine.stores.tokens.add(a_token(kind=TokenKind.REFRESH, expires_at=far))
        (stale,) = engine.stores.tokens.usable_refresh_tokens("user_ada", "reports", engine.now, limit=1)
        engine.stores.grants.widen(stale.grant, ("read", "delete", "share"))

        def read_before(*args: object, **others: object) -> list[FoundToken]:
            return [stale]

        monkeypatch.setattr(type(engine.stores.tokens), "usable_refresh_tokens", read_before)
        new = a_grant(grant_id="new", user_id="user_ada", scopes=("read", "write"))
        widen_others(engine, CONFIDENTIAL, new, None)
    assert rules.stores.tables.grants["grant_1"].scopes == ("read", "delete", "share", "write")
    (event,) = rules.events("grant.widened")
    assert event["details"]["scopes"] == ["write"]


def test_each_step_up_adds_what_is_missing(rules: Rules) -> None:
    held = Held(rules)
    held.allow()
    held.page = held.ask("profile files.read files.write")
    held.allow(("profile", "files.write"))
    assert [event["details"]["scopes"] for event in rules.events("grant.widened")] == [
        ["files.read"],
        ["files.write"],
        ["files.write"],
    ]
