"""The rules of an agreement: who is asked, what is remembered, and what a grant is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from authserver import app
from authserver.api import Decision, deny, hookimpl
from authserver.engine.consent import (
    Agreement,
    agree,
    changed_since,
    consents_already,
    decline,
    hold_session,
    problem_with,
    seen,
    sentences,
    silent_approval_is_safe,
    stands_for_a_silent_request,
)
from authserver.engine.context import Engine, Issue
from authserver.engine.errors import AccessDenied, InvalidGrant, PageError, ServerError
from authserver.engine.people.login import disable_user
from authserver.engine.records import Consent, EventType, RegisteredBy
from authserver.engine.session_handles import session_handle
from authserver.engine.tokens.issuing import issue
from authserver.plugins.asking import PluginSet
from authserver.policies.consent import ConsentFirstParty, ConsentRemembered
from authserver.testing.records import NOW, a_client, a_session, a_user
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

API, FILES = "https://api.example/", "https://files.example/"
ADA = a_user()
CLIENT = a_client()
SESSION = a_session(details={"amr": ["pwd", "otp"]})
SHIPPED = (("consent_remembered", ConsentRemembered()), ("consent_first_party", ConsentFirstParty()))

Make = Callable[..., Engine]


@dataclass(frozen=True)
class NotToday:
    """Refuses whoever asks."""

    @hookimpl
    def consent_decision(self) -> Decision:
        return deny("not-today")


@dataclass(frozen=True)
class Broken:
    @hookimpl
    def consent_decision(self) -> Decision:
        raise RuntimeError


@pytest.fixture(scope="module")
def built() -> app.Application:
    opaque = {"authserver.access_token_format": "opaque"}
    return app.build({**SETTINGS, **opaque, "authserver.database_url": "sqlite:///never-opened.db"})


@pytest.fixture
def make(built: app.Application, memory_stores: MemoryStores) -> Make:
    """An engine with the shipped policies of consent and others, over stores in which Ada is signed in."""
    memory_stores.users.add(ADA)
    memory_stores.sessions.add(SESSION)

    def make(*others: object) -> Engine:
        plugins = PluginSet([*SHIPPED, *((type(other).__name__, other) for other in others)])
        parts = replace(over(memory_stores, built.parts), policies=plugins)
        return Engine.of(parts, memory_stores, NOW)

    return make


@pytest.fixture
def engine(make: Make) -> Engine:
    return make()


def an_agreement(**changes: Any) -> Agreement:
    """What Ada would let the reports read."""
    values = {"client": CLIENT, "user": ADA, "scopes": ("profile",), "resources": (API,)}
    return Agreement(**{**values, **changes})


def remembered(engine: Engine) -> Consent | None:
    return engine.stores.consents.find(ADA.user_id, CLIENT.client_id)


def events(engine: Engine) -> list[EventType]:
    return [event.type for event in engine.stores.events.since(NOW)]


@pytest.mark.parametrize(("itself", "first_party", "public", "alone"), list(product((False, True), repeat=4)))
def test_silence_is_safe_where_something_proves_the_client(
    itself: bool, first_party: bool, public: bool, alone: bool
) -> None:
    """E-12, T088: a credential or the operator's word, and an answer that nobody else receives."""
    client = a_client(
        registered_by=RegisteredBy.SELF if itself else RegisteredBy.OPERATOR,
        first_party=first_party,
        auth_method="none" if public else "client_secret_basic",
    )
    safe = alone and not itself and (first_party or not public)
    assert silent_approval_is_safe(client, reaches_client_alone=alone) is safe


@pytest.mark.parametrize(("public", "by_address", "alone"), list(product((False, True), repeat=3)))
def test_what_a_client_that_registered_itself_was_given_stands_where_no_page_may_be_shown(
    engine: Engine, public: bool, by_address: bool, alone: bool
) -> None:
    """E-12, T088, OIDC-05: of a client that proves itself, at an address of its own, for what the person confirmed."""
    client = a_client(
        client_id="https://client.example/about" if by_address else CLIENT.client_id,
        registered_by=RegisteredBy.SELF,
        auth_method="none" if public else "client_secret_basic",
    )
    agreement = an_agreement(client=client, scopes=("profile",), resources=(API,))
    assert not stands_for_a_silent_request(engine, agreement, reaches_client_alone=alone)
    hold_session(engine, SESSION)
    agree(engine, agreement, SESSION, asked=True)
    stands = alone and not public and not by_address
    assert stands_for_a_silent_request(engine, agreement, reaches_client_alone=alone) is stands
    for more in ({"scopes": ("profile", "files.read")}, {"resources": (API, FILES)}):
        wider = replace(agreement, **more)
        assert not stands_for_a_silent_request(engine, wider, reaches_client_alone=alone)


BEFORE = an_agreement(scopes=("profile", "files.read"), resources=(API, FILES))
NOW_ASKED: dict[str, tuple[dict[str, Any], bool]] = {
    "the same": ({}, True),
    "in another order": ({"scopes": ("files.read", "profile"), "resources": (FILES, API)}, True),
    "fewer scopes": ({"scopes": ("profile",)}, True),
    "fewer resources": ({"resources": (API,)}, True),
    "one scope more": ({"scopes": ("profile", "files.read", "files.write")}, False),
    "another scope": ({"scopes": ("files.write",)}, False),
    "one resource more": ({"resources": (API, FILES, "https://more.example/")}, False),
    "one redirect URI more": (
        {"client": replace(CLIENT, redirect_uris=(*CLIENT.redirect_uris, "https://reports.example/new"))},
        False,
    ),
    "another redirect URI": (
        {"client": replace(CLIENT, redirect_uris=("https://elsewhere.example/",))},
        False,
    ),
    "another client": ({"client": a_client(client_id="other")}, False),
    "another user": ({"user": a_user(user_id="user_eve", username="eve")}, False),
}


@pytest.mark.parametrize(("changes", "passes"), NOW_ASKED.values(), ids=NOW_ASKED)
def test_who_agreed_before_is_asked_when_anything_grew(
    engine: Engine, changes: dict[str, Any], passes: bool
) -> None:
    """E-13, T089."""
    assert not consents_already(engine, BEFORE)
    agree(engine, BEFORE, SESSION, asked=True)
    assert consents_already(engine, replace(BEFORE, **changes)) is passes


def test_a_consent_that_was_taken_back_is_asked_for_again(engine: Engine) -> None:
    """E-16."""
    agree(engine, an_agreement(), SESSION, asked=True)
    engine.stores.consents.forget(ADA.user_id, CLIENT.client_id)
    assert not consents_already(engine, an_agreement())


def test_a_first_party_client_needs_no_consent(engine: Engine) -> None:
    """E-12: a policy says so; whether silence is safe is another question."""
    assert consents_already(engine, an_agreement(client=a_client(first_party=True)))


def test_a_policy_that_refuses_is_stronger_than_what_is_remembered(make: Make) -> None:
    """E-15: whatever the person said before, or would say."""
    engine = make(NotToday())
    agree(engine, an_agreement(), SESSION, asked=True)
    with pytest.raises(AccessDenied) as refused:
        consents_already(engine, an_agreement())
    assert refused.value.reason == "not-today"


def test_a_policy_that_fails_has_refused(make: Make) -> None:
    """R-14."""
    with pytest.raises(ServerError):
        consents_already(make(Broken()), an_agreement())


@pytest.mark.parametrize(
    ("ticked", "scopes"),
    [
        (("files.read",), ("files.read",)),
        (("files.read", "profile"), ("profile", "files.read")),
        (("admin", "profile"), ("profile",)),
        (("admin",), ()),
        ((), ()),
    ],
)
def test_no_more_is_agreed_than_was_shown(ticked: tuple[str, ...], scopes: tuple[str, ...]) -> None:
    """E-14, E-15: in the order in which it was shown."""
    assert BEFORE.narrowed(ticked) == replace(BEFORE, scopes=scopes)


def test_an_agreement_is_shown_by_the_sentences_of_its_scopes(engine: Engine) -> None:
    """E-08."""
    shown = sentences(engine, an_agreement(scopes=("files.read", "profile")))
    assert shown == (("files.read", "Read your files"), ("profile", "See your name"))


@pytest.mark.parametrize(
    ("scopes", "itself", "confirmed", "problem"),
    [
        (("profile",), False, False, None),
        (("profile",), True, True, None),
        (("profile",), True, False, "not-confirmed"),
        ((), False, True, "nothing-ticked"),
        ((), True, False, "nothing-ticked"),
    ],
)
def test_what_is_missing_to_an_agreement(
    scopes: tuple[str, ...], itself: bool, confirmed: bool, problem: str | None
) -> None:
    """E-09, E-14: a scope at least, and a word of the person where nobody here vouches for the client."""
    client = a_client(registered_by=RegisteredBy.SELF if itself else RegisteredBy.OPERATOR)
    assert problem_with(an_agreement(client=client, scopes=scopes), confirmed=confirmed) == problem


def test_what_is_agreed_is_added_to_what_was(engine: Engine) -> None:
    """E-13: the sum is remembered, in the order in which it came."""
    for scopes in (("profile", "files.read"), ("files.read", "files.write"), ("profile",)):
        agree(engine, an_agreement(scopes=scopes), SESSION, asked=True)
    assert remembered(engine) == Consent(
        user_id=ADA.user_id,
        client_id=CLIENT.client_id,
        client_name=CLIENT.name,
        scopes=("profile", "files.read", "files.write"),
        resources=(API,),
        redirect_uris=CLIENT.redirect_uris,
        granted_at=NOW,
    )
    assert events(engine) == [EventType.CONSENT_GIVEN] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": (FILES,)},
        {"resources": (API, FILES)},
        {"client": replace(CLIENT, redirect_uris=("https://reports.example/new",))},
        {"client": replace(CLIENT, name="Repörts")},
    ],
)
def test_what_was_agreed_for_something_else_is_not_added_to(engine: Engine, changes: dict[str, Any]) -> None:
    """E-13, T089: nobody has agreed to those scopes there."""
    agree(engine, an_agreement(scopes=("profile", "files.read")), SESSION, asked=True)
    changed = an_agreement(scopes=("files.write",), **changes)
    agree(engine, changed, SESSION, asked=True)
    kept = remembered(engine)
    assert kept and kept.scopes == ("files.write",)
    assert (kept.resources, kept.redirect_uris) == (changed.resources, changed.client.redirect_uris)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"redirect_uris": (*CLIENT.redirect_uris, "https://reports.example/new")}, False),
        ({"redirect_uris": ("https://reports.example/new",)}, False),
        ({"redirect_uris": ()}, True),
        ({"name": "Another"}, False),
        ({"scopes": ("profile", "files.read", "admin"), "logo": "digest", "auth_method": "none"}, True),
    ],
)
def test_a_consent_counts_for_the_name_and_the_redirect_uris_that_the_person_agreed_to(
    make: Make, changes: dict[str, Any], counts: bool
) -> None:
    """E-13, T089: before any policy is asked, so that none can let a changed client pass."""
    given: list[Consent | None] = []

    class Watching:
        @hookimpl
        def consent_decision(self, remembered: Consent | None) -> None:
            given.append(remembered)

    engine = make(Watching())
    agree(engine, an_agreement(), SESSION, asked=True)
    changed = an_agreement(client=replace(CLIENT, **changes))
    assert consents_already(engine, changed) is counts
    assert given == ([remembered(engine)] if counts else [None])


def test_who_was_not_asked_is_not_remembered(engine: Engine) -> None:
    """E-12: a policy let them pass, which is no word of theirs."""
    agree(engine, an_agreement(), SESSION, asked=False)
    assert remembered(engine) is None
    assert events(engine) == []


def test_who_declines_is_asked_again(engine: Engine) -> None:
    """E-07: an event is all that is kept."""
    decline(engine, an_agreement())
    assert remembered(engine) is None
    assert events(engine) == [EventType.CONSENT_REFUSED]


def test_a_grant_says_how_its_person_signed_in(engine: Engine) -> None:
    """RFC 9068, 2.2.1; its end is the one that no rotation moves (OAuth 2.1, 4.3.3)."""
    signed_in = a_session(authenticated_at=NOW - timedelta(hours=1), details={"amr": ["pwd", "otp"]})
    grant = agree(engine, BEFORE, signed_in, asked=True)
    assert grant.details == {
        "auth_time": int(NOW.timestamp()) - 3600,
        "amr": ["pwd", "otp"],
        "session": session_handle(signed_in),
    }
    assert (grant.client_id, grant.user_id) == (CLIENT.client_id, ADA.user_id)
    assert (grant.scopes, grant.resources) == (BEFORE.scopes, BEFORE.resources)
    assert grant.expires_at - grant.created_at == timedelta(seconds=engine.settings.grant_lifetime)


def test_nothing_is_agreed_in_a_session_that_has_ended(engine: Engine) -> None:
    """I-14, T068: it ended after this request read it."""
    hold_session(engine, SESSION)
    engine.stores.sessions.end(SESSION.digest)
    with pytest.raises(PageError) as refused:
        hold_session(engine, SESSION)
    assert refused.value.reason == "session-ended"


def test_a_grant_of_a_person_who_was_disabled_meanwhile_gives_nothing(engine: Engine) -> None:
    """R-09: their sessions have ended, and what they agreed to the moment before is worth nothing."""
    grant = agree(engine, an_agreement(), SESSION, asked=True)
    disable_user(engine, ADA.username)
    assert engine.stores.sessions.find(SESSION.digest, NOW, NOW) is None
    order = Issue(
        grant=grant,
        user=engine.stores.users.find(ADA.user_id),
        scopes=grant.scopes,
        resources=grant.resources,
        is_new=True,
    )
    with pytest.raises(InvalidGrant) as refused:
        issue(engine, CLIENT, order)
    assert refused.value.reason == "user-disabled"
    assert engine.stores.grants.list(NOW) == []


def test_a_grant_type_without_a_redirect_asks_remembers_and_grants(
    built: app.Application, engine: Engine
) -> None:
    """RFC 8628, 3.3: a person agrees on a page, and the client gets its tokens in another request; no authorization request."""
    engine = replace(engine, policies=built.parts.policies)
    agreement = an_agreement(scopes=("profile", "files.read"))

    def tokens(asked: bool, ticked: tuple[str, ...]) -> tuple[str, ...]:
        agreed = agreement.narrowed(ticked)
        assert problem_with(agreed, confirmed=False) is None
        hold_session(engine, SESSION)
        grant = agree(engine, agreed, SESSION, asked=asked)
        order = Issue(grant=grant, user=ADA, scopes=grant.scopes, resources=grant.resources, is_new=True)
        return issue(engine, CLIENT, order).scopes

    assert not consents_already(engine, agreement)
    assert sentences(engine, agreement)
    assert tokens(asked=True, ticked=("profile",)) == ("profile",)
    assert not consents_already(engine, agreement)
    assert consents_already(engine, agreement.narrowed(("profile",)))
    # Nothing says that only this client receives the answer, so the person is asked all the same.
    assert not silent_approval_is_safe(CLIENT, reaches_client_alone=False)
    assert tokens(asked=True, ticked=("profile", "files.read")) == ("profile", "files.read")
    assert consents_already(engine, agreement)
    kept = engine.stores.grants.list(NOW, user_id=ADA.user_id)
    assert sorted(grant.scopes for grant in kept) == [("profile",), ("profile", "files.read")]


# ---- what a client that is known by its address says of itself ---------------------------------------


PROGRAM = a_client(
    client_id="https://program.example/client.json",
    name="Program",
    redirect_uris=("https://program.example/cb",),
    auth_method="none",
    details={"policy_uri": "https://program.example/privacy"},
)
AGREED = Consent(
    user_id=ADA.user_id,
    client_id=PROGRAM.client_id,
    client_name=PROGRAM.name,
    scopes=("profile",),
    resources=(API,),
    redirect_uris=PROGRAM.redirect_uris,
    granted_at=NOW,
    seen=seen(PROGRAM),
)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"scopes": ("files.read",), "first_party": True}, ()),
        ({"name": "Other"}, ("client_name",)),
        ({"redirect_uris": ()}, ("redirect_uris",)),
        ({"auth_method": "private_key_jwt", "name": "Other"}, ("client_name", "token_endpoint_auth_method")),
        ({"details": {}}, ("policy_uri",)),
        ({"details": {**PROGRAM.details, "logo_uri": "https://program.example/x.png"}}, ("logo_uri",)),
    ],
)
def test_what_a_program_says_otherwise_than_when_the_user_agreed(
    changes: dict[str, Any], names: tuple[str, ...]
) -> None:
    """E-20: by the names of the members, in a stable order; also one that came or went."""
    assert changed_since(AGREED, replace(PROGRAM, **changes)) == names


def test_of_a_consent_that_noted_nothing_nothing_has_changed() -> None:
    """E-20: an older one; and an operator vouches for what a client of the database is called."""
    assert changed_since(replace(AGREED, seen={}), replace(PROGRAM, name="Other")) == ()
    assert seen(replace(PROGRAM, client_id="program")) == {}
