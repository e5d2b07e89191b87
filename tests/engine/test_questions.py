"""What is written down of a question: no secret, and enough to ask it again."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine.parameters import Parameters
from authserver.engine.questions import (
    AuthenticationQuestion,
    CannotAskAgain,
    ClientAuthQuestion,
    ConsentQuestion,
    Credentials,
    IdentityQuestion,
    Known,
    LoginQuestion,
    Question,
    RateQuestion,
    RedirectUriQuestion,
    RegistrationQuestion,
)
from authserver.engine.records import Client, Consent, Resource, User
from authserver.engine.resource_registry import Registry
from authserver.hookspecs import DECIDING
from authserver.settings import Secret
from authserver.testing.questions import a_question
from authserver.testing.records import NOW, a_client, a_consent, a_user
from authserver.testing.stores import MemoryStores
from authserver.testing.strategies import question

CANARY = "canary-6f1c"
any_question = st.sampled_from(sorted(DECIDING)).flatmap(question)


def known_of(*values: object) -> Known:
    """Stores that hold these records."""
    stores = MemoryStores()
    for value in values:
        match value:
            case Client():
                stores.clients.add(value)
            case User():
                stores.users.add(value)
            case Consent():
                stores.consents.remember(value)
            case Resource():
                stores.resources.add(value)
            case tuple():
                for resource in value:
                    if isinstance(resource, Resource):
                        stores.resources.add(resource)
    return Known(
        lambda client_id: stores.clients.find(client_id, NOW),
        stores.users.find,
        stores.consents.find,
        Registry({}, stores.resources).find,
    )


def values_of(question: Question[Any]) -> list[Any]:
    return [getattr(question, item.name) for item in fields(question)]


def spoilt(asked: Question[Any]) -> Question[Any]:
    """The same question with a canary wherever a secret can be."""
    match asked:
        case ClientAuthQuestion():
            credentials = replace(
                asked.credentials,
                assertion=CANARY,
                headers={"x-api-key": CANARY, "forwarded": CANARY},
            )
            return replace(asked, credentials=credentials)
        case LoginQuestion():
            asked = replace(asked, password=Secret(CANARY), headers={"x-token": CANARY})
            # Somebody types a password where the name belongs; then no user has that name.
            if asked.user is None:
                return replace(asked, username=CANARY)
            return replace(asked, user=replace(asked.user, password_hash=CANARY))
        case RegistrationQuestion():
            return replace(asked, bearer=Secret(CANARY))
        case AuthenticationQuestion():
            return replace(asked, parameters=Parameters.parse(f"id_token_hint={CANARY}&{CANARY}=1"))
    return asked


@given(any_question)
def test_facts_hold_no_secret(asked: Question[Any]) -> None:
    """T145, T140: whatever is asked with a secret in it; and facts are plain JSON."""
    facts = spoilt(asked).facts()
    assert CANARY not in json.dumps(facts)
    assert CANARY not in repr(facts)


@given(any_question)
def test_a_question_shows_no_secret(asked: Question[Any]) -> None:
    """T145: a failing test, a log line or a traceback may hold a question."""
    assert CANARY not in repr(spoilt(asked))


def test_the_canaries_would_be_seen() -> None:
    """The property above can fail: a canary where it may be written down is found there."""
    asked = RedirectUriQuestion(client=a_client(), redirect_uri=f"https://client.example/{CANARY}")
    assert CANARY in json.dumps(asked.facts())


@given(any_question)
def test_a_question_that_went_through_the_event_table_is_the_same(asked: Question[Any]) -> None:
    """Facts, written as JSON and read back, lead to the question that was asked; or nobody pretends they do."""
    if isinstance(asked, ClientAuthQuestion):
        asked = replace(asked, credentials=replace(asked.credentials, headers={}))
    facts = msgspec.json.decode(msgspec.json.encode(asked.facts()))
    try:
        again = type(asked).again(facts, known_of(*values_of(asked)))
    except CannotAskAgain:
        match asked:
            case ClientAuthQuestion():
                assert asked.credentials.assertion is not None
            case RegistrationQuestion():
                assert asked.bearer is not None or asked.token is not None
            case _:
                assert isinstance(
                    asked, AuthenticationQuestion | IdentityQuestion | LoginQuestion | RateQuestion
                )
    else:
        assert again == asked
        assert again.facts() == facts


def test_headers_are_not_asked_again() -> None:
    """They may carry secrets, so they are not kept."""
    credentials = Credentials(method="none", client_id="reports", headers={"x-api-key": "k"})
    asked = ClientAuthQuestion(client=a_client(), credentials=credentials)
    again = ClientAuthQuestion.again(asked.facts(), known_of(a_client()))
    assert again.credentials.headers == {}


@pytest.mark.parametrize(
    ("gone", "why"), [("client", "client"), ("user", "user"), ("remembered", "remembered consent")]
)
def test_what_is_gone_is_named(gone: str, why: str) -> None:
    records = {"client": a_client(), "user": a_user(), "remembered": a_consent()}
    facts = a_question("consent_decision", **records).facts()
    left = [record for name, record in records.items() if name != gone]
    with pytest.raises(CannotAskAgain, match=f"the {why} does not exist any more"):
        ConsentQuestion.again(facts, known_of(*left))


def test_a_consent_given_later_was_not_remembered_then() -> None:
    asked = a_question("consent_decision", remembered=None)
    known = known_of(a_client(), a_user(), a_consent())
    assert ConsentQuestion.again(asked.facts(), known).remembered is None


def test_a_consent_to_a_client_that_was_edited_since_is_not_remembered() -> None:
    """E-13: a replay asks as the engine would now."""
    asked = a_question("consent_decision", remembered=a_consent())
    for client in (a_client(name="Another"), a_client(redirect_uris=("https://new.example/cb",))):
        known = known_of(client, a_user(), a_consent())
        assert ConsentQuestion.again(asked.facts(), known).remembered is None


def test_every_record_is_read_once() -> None:
    """A replay asks thousands of questions about few clients."""
    asked = []

    def find(client_id: str) -> Client:
        asked.append(client_id)
        return a_client()

    stores = MemoryStores()
    known = Known(find, stores.users.find, stores.consents.find, lambda _: None)
    for _ in range(3):
        known.client({"client_id": "reports"})
    assert asked == ["reports"]
