"""Everything of a user, client, resource, scope or issuer ends in one act, which says how much that was (L-08)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine import ending
from authserver.engine.authorize import AskConsent, Redirect
from authserver.engine.clients.authentication import disable_client
from authserver.engine.context import Issue
from authserver.engine.ending import Act, Ended, Subject, SubjectKind, end_at_once
from authserver.engine.errors import InvalidClient, InvalidGrant, UnauthorizedClient
from authserver.engine.people import account
from authserver.engine.people.login import disable_user
from authserver.engine.records import (
    ENDED_SESSIONS,
    THROUGH,
    VOUCHED_BY,
    Consent,
    EventType,
    Grant,
    TokenKind,
)
from authserver.engine.tokens.issuing import issue, issue_code
from authserver.testing.records import a_client, a_consent, a_grant, a_session, a_token, a_user, an_identity
from authserver.testing.rules import Rules, assert_inactive, assert_refused
from authserver.testing.server import RESOURCE
from authserver.testing.stories import Granted, stored

USERS, CLIENTS = ("user_ada", "user_bob"), ("notes", "reports")
RESOURCES, SCOPES, ISSUERS = ("urn:a", "urn:b"), ("read", "write"), ("https://a.example", "https://b.example")
SUBJECTS = [
    *(Subject(kind=SubjectKind.USER, identifier=each, name=each) for each in USERS),
    *map(Subject.client, CLIENTS),
    *(Subject.resource(each, each) for each in RESOURCES),
    *map(Subject.scope, SCOPES),
    *map(Subject.issuer, ISSUERS),
]


def ended(rules: Rules, act: Act) -> Ended:
    return sum(ending.end(rules.begin, act), Ended())


def planned(rules: Rules, act: Act) -> Ended:
    return sum(ending.plan(rules.begin, act), Ended())


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """One or more of them, in their order."""
    return st.sets(st.sampled_from(values), min_size=1).map(lambda found: tuple(sorted(found)))


GRANTS = st.builds(
    dict,
    user_id=st.sampled_from((*USERS, None)),
    client_id=st.sampled_from(CLIENTS),
    resources=some(RESOURCES),
    scopes=some(SCOPES),
    issuer=st.sampled_from((*ISSUERS, None, None)),
    state=st.sampled_from(("live", "live", "revoked", "expired")),
    tokens=st.sets(st.sampled_from(sorted(TokenKind))),
)
CONSENTS = st.dictionaries(
    st.tuples(st.sampled_from(USERS), st.sampled_from(CLIENTS)), st.tuples(some(RESOURCES), some(SCOPES))
)


def fill(rules: Rules, grants: list[dict[str, Any]], consents: dict[Any, Any], sessions: list[str]) -> None:
    now, later = datetime.now(UTC), datetime.now(UTC) + timedelta(days=1)
    tables, stores = rules.stores.tables, rules.stores
    for table in (
        tables.users,
        tables.clients,
        tables.grants,
        tables.tokens,
        tables.consents,
        tables.sessions,
    ):
        table.clear()
    for user_id in USERS:
        stores.users.add(a_user(user_id=user_id, username=user_id.removeprefix("user_")))
    for client_id in CLIENTS:
        stores.clients.add(a_client(client_id=client_id, scopes=SCOPES))
    for number, drawn in enumerate(grants):
        values = dict(drawn)
        issuer, state, kinds = (values.pop(name) for name in ("issuer", "state", "tokens"))
        grant = a_grant(
            grant_id=f"grant_{number:03}",
            created_at=now,
            expires_at=now if state == "expired" else later,
            revoked_at=now if state == "revoked" else None,
            details={VOUCHED_BY: issuer} if issuer else {},
            **values,
        )
        stores.grants.add(grant)
        for kind in kinds:
            stores.tokens.add(
                a_token(
                    kind=kind,
                    digest=f"{kind} {number}".encode(),
                    grant_id=grant.grant_id,
                    client_id=grant.client_id,
                    scopes=grant.scopes[:1],
                    resources=grant.resources[:1],
                    expires_at=later,
                )
            )
    for (user_id, client_id), (uris, scopes) in consents.items():
        stores.consents.remember(
            a_consent(user_id=user_id, client_id=client_id, resources=uris, scopes=scopes)
        )
    for number, user_id in enumerate(sessions):
        stores.sessions.add(
            a_session(digest=bytes([number]), user_id=user_id, last_seen_at=now, expires_at=later)
        )


def is_live(grant: Grant) -> bool:
    return grant.revoked_at is None and grant.expires_at > datetime.now(UTC)


def concerns(subject: Subject, record: Grant | Consent) -> bool:
    """Whether a record has to do with a subject, said in another way than the engine does."""
    name = subject.identifier
    return {
        SubjectKind.USER: record.user_id == name,
        SubjectKind.CLIENT: record.client_id == name,
        SubjectKind.RESOURCE: name in record.resources,
        SubjectKind.SCOPE: name in record.scopes,
        SubjectKind.ISSUER: isinstance(record, Grant) and record.details.get(VOUCHED_BY) == name,
    }[subject.kind]


@pytest.fixture(scope="module")
def shared() -> Rules:
    return Rules()


@settings(max_examples=60, deadline=None)
@given(
    subject=st.sampled_from(SUBJECTS),
    for_good=st.booleans(),
    grants=st.lists(GRANTS, max_size=12),
    consents=CONSENTS,
    sessions=st.lists(st.sampled_from(USERS), max_size=4),
    batch=st.sampled_from((1, 2, 5, 1000)),
)
def test_nothing_of_the_subject_is_live_and_nothing_else_ended(
    shared: Rules,
    subject: Subject,
    for_good: bool,
    grants: list[dict[str, Any]],
    consents: dict[Any, Any],
    sessions: list[str],
    batch: int,
) -> None:
    """L-08: however it is cut into batches; the plan is what then happens, and a second act finds nothing."""
    rules, tables = shared, shared.stores.tables
    fill(rules, grants, consents, sessions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "BATCH", batch)
        act = Act(subject=subject, for_good=for_good and subject.kind not in ("scope", "issuer"))
        before = (dict(tables.grants), dict(tables.consents), dict(tables.sessions))
        plan = planned(rules, act)
        assert (dict(tables.grants), dict(tables.consents), dict(tables.sessions)) == before
        done = ended(rules, act)
        assert done.counts == plan.counts
        assert not planned(rules, act)
    figures = dict.fromkeys(("grants", "narrowed_grants", "consents", "narrowed_consents"), 0)
    for grant_id, was in before[0].items():
        now = tables.grants[grant_id]
        assert not (is_live(now) and concerns(subject, now))
        if not (is_live(was) and concerns(subject, was)):
            assert now == was
        elif is_live(now):
            figures["narrowed_grants"] += 1
            assert len(now.scopes) + len(now.resources) == len(was.scopes) + len(was.resources) - 1
        else:
            figures["grants"] += 1
            assert now == replace(was, revoked_at=now.revoked_at, revoked_reason=act.reason)
    for key, consent in before[1].items():
        left = tables.consents.get(key)
        if not concerns(subject, consent):
            assert left == consent
            continue
        assert left is None or not concerns(subject, left)
        figures["consents" if left is None else "narrowed_consents"] += 1
    assert {name: done.counts[name] for name in figures} == figures
    ours = [each for each in before[2].values() if subject.identifier == each.user_id]
    assert done.sessions == len(ours)
    assert [each for each in before[2].values() if each not in tables.sessions.values()] == ours


@settings(max_examples=30, deadline=None)
@given(
    subject=st.sampled_from(SUBJECTS),
    for_good=st.booleans(),
    grants=st.lists(GRANTS, max_size=12),
    consents=CONSENTS,
    batch=st.sampled_from((1, 2, 5)),
)
def test_an_act_can_be_done_in_parts(
    shared: Rules, subject: Subject, for_good: bool, grants: list[dict[str, Any]], consents: Any, batch: int
) -> None:
    """L-08: each goes on where the one before stopped, and together they are the whole act; also when only counting."""
    rules = shared
    fill(rules, grants, consents, ["user_ada"])
    act = Act(subject=subject, for_good=for_good and subject.kind not in ("scope", "issuer"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "BATCH", batch)
        plan = planned(rules, act)
        for do in (ending.plan_part, ending.end_part):
            stage, found, parts = ending.Stage(), Ended(), 0
            while True:
                part = do(rules.begin, act, stage, seconds=0)
                found, parts = found + part.ended, parts + 1
                if part.next is None:
                    break
                # As a page keeps it from one request to the next.
                step, after = json.loads(json.dumps([part.next.step, part.next.after]))
                stage = ending.Stage(step=step, after=tuple(after) if isinstance(after, list) else after)
                assert stage == part.next
            assert found.counts == plan.counts
            assert (
                parts
                >= len([grant for grant in grants if grant["state"] == "live"])
                * (not subject.owns_grants)
                // batch
            )
        assert not planned(rules, act)


def test_each_part_leaves_an_event_of_what_ended_in_it(rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not go on has left no end that is not told."""
    monkeypatch.setattr(ending, "BATCH", 2)
    for number in range(3):
        rules.stores.grants.add(
            a_grant(
                grant_id=f"grant_{number}",
                client_id="notes",
                expires_at=datetime.now(UTC) + timedelta(days=1),
            )
        )
    act = Act(subject=Subject.client("notes"))
    part = ending.end_part(rules.begin, act, ending.Stage(), seconds=0)
    assert part.ended.grants == 2 and part.next is not None
    ending.end_part(rules.begin, act, part.next, seconds=60)
    told = [event["details"]["grants"] for event in rules.events("grants.revoked")]
    assert told == [2, 1]


def test_what_would_end_with_a_grant_or_an_application_is_what_ends(make_rules: Callable[..., Rules]) -> None:
    """E-16: with the last grant to a client the remembered consent, and not before."""
    for act in ("grants", "application"):
        rules = make_rules()
        now, stores = datetime.now(UTC), rules.stores
        stores.users.add(a_user(user_id="user_ada", username="ada"))
        later = now + timedelta(days=1)
        for number in range(2):
            stores.grants.add(
                a_grant(grant_id=f"grant_{number}", client_id="notes", user_id="user_ada", expires_at=later)
            )
            for kind in TokenKind:
                stores.tokens.add(
                    a_token(
                        kind=kind,
                        digest=f"{kind} {number}".encode(),
                        grant_id=f"grant_{number}",
                        client_id="notes",
                        expires_at=later,
                        claimed_at=now if kind is TokenKind.CODE else None,
                    )
                )
        stores.consents.remember(a_consent(user_id="user_ada", client_id="notes"))
        with rules.begin() as engine:
            user = stores.users.find("user_ada")
            first, second = stores.grants.find("grant_0"), stores.grants.find("grant_1")
            assert user and first and second
            if act == "application":
                plan = account.disconnect_plan(engine, user, "notes")
                assert plan.told == (
                    (2, "grants"),
                    (2, "refresh tokens"),
                    (2, "access tokens"),
                    (1, "remembered consent"),
                )
                done = account.disconnect(engine, user, "notes")
                assert (done.grants, done.consents) == (plan.grants, plan.consents)
                assert not account.disconnect_plan(engine, user, "notes")
                continue
            for grant, consents in ((first, 0), (second, 1)):
                plan = account.grant_plan(engine, grant)
                assert (plan.grants, plan.codes, plan.refresh_tokens, plan.access_tokens) == (1, 0, 1, 1)
                assert plan.consents == consents
                done = account.revoke_grant(engine, grant.grant_id)
                assert (done.grants, done.consents) == (1, consents)
            gone = stores.grants.find("grant_0")
            assert gone and not account.grant_plan(engine, gone)


def test_the_act_counts_what_hangs_on_a_person(make_rules: Callable[..., Rules]) -> None:
    """L-08: codes and tokens by their kind, and the JWTs that nobody can call back."""
    for token_format in ("opaque", "jwt"):
        rules = make_rules({"authserver.access_token_format": token_format})
        rules.add_user("ann")
        rules.add_user("bob")
        granted = Granted(rules)
        rules.code(granted.client)
        bob = rules.code(granted.client, rules.signed_in("bob"))
        other = rules.redeem(granted.client, granted.secret, bob)
        ann = rules.stores.users.find_by_name("ann")
        assert ann is not None
        act = Act(subject=Subject.user(ann), for_good=True)
        plan = planned(rules, act)
        done = ended(rules, act)
        assert done.counts == plan.counts
        assert (done.grants, done.codes, done.refresh_tokens, done.consents) == (2, 1, 1, 1)
        assert (done.access_tokens, done.jwts) == ((1, 0) if token_format == "opaque" else (0, 1))
        assert (done.jwts_until is None) == (token_format == "opaque")
        if done.jwts_until:
            assert timedelta(0) <= done.jwts_until - datetime.now(UTC) <= timedelta(seconds=900)
        assert_inactive(rules.introspect(granted.client, granted.secret, granted.access))
        assert rules.introspect(granted.client, granted.secret, other.json["access_token"]).json["active"]
        (event,) = rules.events("user.disabled")
        assert (event["user_id"], event["reason"]) == (ann.user_id, "user-disabled")
        assert {name: event["details"][name] for name in done.counts} == done.counts
        assert rules.events("grants.revoked") == []


def test_jwts_are_counted_while_they_are_valid(rules: Rules, clock: time_machine.Traveller) -> None:
    """L-08: by the lifetime that they have; the client's own are not stored, and counted all the same."""
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=("profile",))
    act = Act(subject=Subject.client(client.client_id), for_good=True)
    lifetime = rules.parts.settings.access_token_lifetime
    for _ in range(2):
        rules.token(client, secret, grant_type="client_credentials")
        clock.shift(lifetime - 10)
    assert planned(rules, act).jwts == 1
    done = ended(rules, act)
    assert (bool(done), done.jwts) == (False, 1)
    assert done.jwts_until == datetime.now(UTC) + timedelta(seconds=lifetime)
    (event,) = rules.events("client.disabled")
    assert event["details"]["jwts"] == 1
    assert event["details"]["jwts_until"] == done.jwts_until.isoformat()


def test_of_very_many_jwts_it_is_said_that_there_are_more(
    rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "BATCH", 2)
    monkeypatch.setattr(ending, "MAXIMUM_EVENTS", 4)
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=("profile",))
    subject = Subject.client(client.client_id)
    for number in range(5):
        assert planned(rules, Act(subject=subject)).has_more_jwts == (number >= 4)
        rules.token(client, secret, grant_type="client_credentials")


def test_a_scope_is_taken_out_of_what_was_granted(make_rules: Callable[..., Rules]) -> None:
    """L-08: opaque access tokens with it end at once, refresh tokens go on without it, and people are asked for it again."""
    rules = make_rules({"authserver.access_token_format": "opaque"})
    rules.add_user("ann")
    client, secret = rules.add_client(scopes=("profile", "files.read"))
    both = rules.redeem(client, secret, rules.code(client, scope="profile files.read")).json
    code = rules.code(client, scope="profile files.read")
    alone = rules.redeem(client, secret, rules.code(client, scope="files.read")).json
    kept = rules.refresh(client, secret, both["refresh_token"], scope="profile").json
    done = ended(rules, Act(subject=Subject.scope("files.read")))
    assert (done.grants, done.narrowed_grants, done.narrowed_consents) == (1, 2, 1)
    assert (done.access_tokens, done.registrations) == (2, 0)
    for token in (both["access_token"], alone["access_token"], alone["refresh_token"]):
        assert_inactive(rules.introspect(client, secret, token))
    assert rules.introspect(client, secret, kept["access_token"]).json["active"]
    assert rules.introspect(client, secret, kept["refresh_token"]).json["scope"] == "profile"
    refused = rules.refresh(client, secret, kept["refresh_token"], scope="files.read")
    assert_refused(refused, "invalid_scope")
    assert rules.refresh(client, secret, kept["refresh_token"]).json["scope"] == "profile"
    assert rules.redeem(client, secret, code).json["scope"] == "profile"
    assert isinstance(rules.authorize(client, rules.signed_in(), scope="profile"), Redirect)
    assert isinstance(rules.authorize(client, rules.signed_in(), scope="profile files.read"), AskConsent)
    (event,) = rules.events("grants.revoked")
    assert (event["details"]["scope"], event["details"]["narrowed_grants"]) == ("files.read", 2)


def test_clients_lose_a_scope_if_that_is_said(rules: Rules) -> None:
    """L-08: each of them has an event with what it was before; others stay as they are."""
    clients = [rules.add_client(scopes=scopes)[0] for scopes in (("profile", "files.read"), ("profile",))]
    act = Act(subject=Subject.scope("files.read"), registrations=True)
    assert planned(rules, act).registrations == 1
    assert ended(rules, act).registrations == 1
    assert not planned(rules, act)
    with rules.begin() as engine:
        found = [engine.stores.clients.find(client.client_id, engine.now) for client in clients]
    assert [client and client.scopes for client in found] == [("profile",), ("profile",)]
    (event,) = rules.events("client.changed")
    assert event["client_id"] == clients[0].client_id
    assert event["details"]["changed"] == {"scope": {"from": "profile files.read", "to": "profile"}}


def test_many_grants_end_in_batches_that_each_last_a_moment(
    rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T115: the client is disabled first; an interruption leaves an event, and a second run ends the rest."""
    monkeypatch.setattr(ending, "BATCH", 3)
    client, _ = rules.add_client()
    later = datetime.now(UTC) + timedelta(days=1)
    for number in range(8):
        rules.stores.grants.add(
            a_grant(grant_id=f"grant_{number}", client_id=client.client_id, expires_at=later)
        )
        rules.stores.consents.remember(a_consent(user_id=f"user_{number}", client_id=client.client_id))
    act = Act(subject=Subject.client(client.client_id), for_good=True)
    batches = ending.end(rules.begin, act)
    assert not next(batches)
    found = rules.stores.clients.find(client.client_id, later)
    assert found is not None
    assert found.disabled_at is not None
    assert [next(batches).grants for _ in range(2)] == [3, 3]
    batches.close()
    (event,) = rules.events("grants.revoked")
    assert (event["details"]["grants"], event["reason"]) == (6, "client-disabled")
    rest = ended(rules, act)
    assert (rest.grants, rest.consents) == (2, 8)
    assert len(rules.events("client.disabled")) == 1
    assert len(rules.events("grants.revoked")) == 2


def test_nothing_is_recorded_where_nothing_ended(rules: Rules) -> None:
    before = rules.events()
    assert not ended(rules, Act(subject=Subject.issuer("https://unknown.example")))
    assert not ended(rules, Act(subject=Subject.client("unknown"), for_good=True))
    assert rules.events() == before


@pytest.mark.parametrize("kind", ["user", "client"])
def test_nothing_is_issued_for_who_was_disabled_meanwhile(rules: Rules, kind: str) -> None:
    """L-08, R-09: a request that has looked them up already is refused before it keeps a grant."""
    client, _ = rules.add_client()
    ann = rules.stores.users.find_by_name("ann")
    assert ann is not None
    with rules.begin() as engine:
        grant = a_grant(client_id=client.client_id, user_id=ann.user_id, resources=(RESOURCE,))
        new = replace(grant, expires_at=engine.now + timedelta(hours=1))
        assert disable_client(engine, client.client_id) if kind == "client" else disable_user(engine, "ann")
    before = stored(rules)
    order = Issue(grant=new, user=ann, scopes=("read",), resources=(RESOURCE,), is_new=True, refreshable=True)
    with rules.begin() as engine, pytest.raises(InvalidClient if kind == "client" else InvalidGrant):
        issue(engine, client, order)
    if kind == "client":
        with rules.begin() as engine, pytest.raises(UnauthorizedClient):
            issue_code(engine, client, new, "code", redirect_uri="https://a.example/", code_challenge="x")
    assert stored(rules) == before


def test_an_issuer_ends_with_what_it_vouched_for(rules: Rules) -> None:
    """L-08: grants of others, and those that people agreed to, stay."""
    ann = rules.stores.users.find_by_name("ann")
    assert ann is not None
    later = datetime.now(UTC) + timedelta(minutes=5)
    for number, issuer in enumerate(("https://idp.example", "https://idp.example", "https://idp.example/")):
        grant = a_grant(
            grant_id=f"grant_{number}",
            user_id=ann.user_id,
            expires_at=later,
            details={VOUCHED_BY: issuer},
        )
        rules.stores.grants.add(grant)
    rules.stores.tokens.add(
        a_token(kind=TokenKind.ACCESS, grant_id="grant_1", digest=b"opaque", expires_at=later)
    )
    done = ended(rules, Act(subject=Subject.issuer("https://idp.example")))
    assert (done.grants, done.access_tokens, done.jwts, done.jwts_until) == (2, 1, 1, later)
    assert [grant["revoked_at"] is None for grant in rules.rows("grants")] == [False, False, True]


def test_in_one_transaction_all_of_it_ends_or_nothing(rules: Rules) -> None:
    """T115."""
    granted = Granted(rules)
    ann = rules.stores.users.find_by_name("ann")
    assert ann is not None

    def fail() -> None:
        with rules.begin() as engine:
            assert end_at_once(engine, Act(subject=Subject.user(ann), for_good=True)).grants == 1
            raise RuntimeError("before the commit")

    with pytest.raises(RuntimeError):
        fail()
    assert rules.introspect(granted.client, granted.secret, granted.refresh).json["active"]


def test_an_act_that_cannot_be_is_refused() -> None:
    for subject in SUBJECTS:
        if subject.kind is SubjectKind.SCOPE:
            with pytest.raises(ValueError, match="a scope is not disabled"):
                Act(subject=subject, for_good=True)
        if subject.kind is not SubjectKind.SCOPE:
            with pytest.raises(ValueError, match="no client is registered for"):
                Act(subject=subject, registrations=True)


def test_an_issuer_ends_with_what_its_people_did_after_signing_in_through_it(rules: Rules) -> None:
    """UP-04: sessions, each with its event, and what was agreed to in them; nothing of others, and nothing of a dry run."""
    issuer, other = ISSUERS
    with rules.stores.begin() as stores:
        for number, through in enumerate((issuer, issuer, other, None)):
            user_id = f"user_{number}"
            stores.users.add(a_user(user_id=user_id, username=user_id))
            if through:
                stores.identities.add(an_identity(user_id=user_id, issuer=through, subject=user_id))
            details = {THROUGH: {"issuer": through, "subject": user_id}} if through else {}
            now = datetime.now(UTC)
            times = {"last_seen_at": now, "expires_at": now + timedelta(hours=1)}
            stores.sessions.add(a_session(digest=bytes([number]), user_id=user_id, details=details, **times))
            stores.grants.add(
                a_grant(
                    grant_id=f"grant_{number}",
                    user_id=user_id,
                    created_at=now,
                    expires_at=now + timedelta(hours=1),
                    details={THROUGH: through} if through else {},
                )
            )
    act = Act(subject=Subject.issuer(issuer))
    counted = sum(ending.plan(rules.begin, act), Ended())
    assert (counted.sessions, counted.grants) == (2, 2)
    assert len(rules.stores.tables.sessions) == 4
    done = sum(ending.end(rules.begin, act), Ended())
    assert (done.sessions, done.grants) == (2, 2)
    assert sorted(session.user_id for session in rules.stores.tables.sessions.values()) == [
        "user_2",
        "user_3",
    ]
    live = [grant.grant_id for grant in rules.stores.tables.grants.values() if grant.revoked_at is None]
    assert sorted(live) == ["grant_2", "grant_3"]
    told = [event for event in rules.stores.tables.events.values() if event.type is EventType.SESSION_ENDED]
    assert sorted(event.user_id or "" for event in told) == ["user_0", "user_1"]
    assert all(len(event.details[ENDED_SESSIONS]) == 1 for event in told)
