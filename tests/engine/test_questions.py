"""What is written down of a question: no secret, and enough to ask it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine.clients.authentication import Credentials
from authserver.engine.questions import QUESTIONS, CannotAskAgain, Known, facts_of
from authserver.engine.records import Client, Consent, User
from authserver.plugins.kinds import SLOTS
from authserver.settings import Secret
from authserver.testing.records import a_client, a_consent, a_user
from authserver.testing.stores import MemoryStores
from authserver.testing.strategies import question

CANARY = "canary-6f1c"


def known_of(asked: Mapping[str, Any]) -> Known:
    """Stores that hold what a question is about."""
    stores = MemoryStores()
    for value in asked.values():
        match value:
            case Client():
                stores.clients.add(value)
            case User():
                stores.users.add(value)
            case Consent():
                stores.consents.remember(value)
    return Known(stores.clients.find, stores)


def spoilt(slot: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The same question with a canary wherever a secret can be."""
    changed = dict(asked)
    if slot == "client_auth_decision":
        changed["credentials"] = replace(
            asked["credentials"],
            assertion=CANARY,
            headers={"x-api-key": CANARY, "forwarded": CANARY},
        )
    if slot == "login_decision":
        # Somebody types a password where the name belongs; then no user has that name.
        changed |= {"password": Secret(CANARY), "headers": {"x-token": CANARY}}
        if asked["user"] is None:
            changed["username"] = CANARY
        else:
            changed["user"] = replace(asked["user"], password_hash=CANARY)
    if slot == "registration_decision":
        changed["bearer"] = Secret(CANARY)
    return changed


@given(st.sampled_from(sorted(SLOTS)).flatmap(lambda slot: st.tuples(st.just(slot), question(slot))))
def test_facts_hold_no_secret(slot_and_question: tuple[str, dict[str, Any]]) -> None:
    """T145, T140: whatever is asked with a secret in it; and facts are plain JSON."""
    slot, asked = slot_and_question
    asked = spoilt(slot, asked)
    facts = facts_of(slot, asked)
    text = json.dumps(facts)
    assert CANARY not in text
    assert CANARY not in repr(facts)


def test_the_canaries_would_be_seen() -> None:
    """The property above can fail: a canary where it may be written down is found there."""
    asked = {"client": a_client(), "redirect_uri": f"https://client.example/{CANARY}"}
    assert CANARY in json.dumps(facts_of("redirect_uri_decision", asked))


@given(st.sampled_from(sorted(SLOTS)).flatmap(lambda slot: st.tuples(st.just(slot), question(slot))))
def test_a_question_that_went_through_the_event_table_is_the_same(
    slot_and_question: tuple[str, dict[str, Any]],
) -> None:
    """Facts, written as JSON and read back, lead to the question that was asked; or nobody pretends they do."""
    slot, asked = slot_and_question
    if slot == "client_auth_decision":
        asked["credentials"] = replace(asked["credentials"], headers={})
    facts = msgspec.json.decode(msgspec.json.encode(facts_of(slot, asked)))
    try:
        again = QUESTIONS[slot].ask_again(known_of(asked), facts)
    except CannotAskAgain:
        assert slot == "login_decision" or asked.get("bearer") or asked["credentials"].assertion is not None
    else:
        assert again == asked
        assert facts_of(slot, again) == facts


def test_every_deciding_hook_is_written_down() -> None:
    assert set(QUESTIONS) == set(SLOTS)


def test_headers_are_not_asked_again() -> None:
    """They may carry secrets, so they are not kept."""
    asked = {
        "client": a_client(),
        "credentials": Credentials(method="none", client_id="reports", headers={"x-api-key": "k"}),
    }
    again = QUESTIONS["client_auth_decision"].ask_again(
        known_of(asked), facts_of("client_auth_decision", asked)
    )
    assert again["credentials"].headers == {}


@pytest.mark.parametrize(
    ("gone", "why"), [("client", "client"), ("user", "user"), ("remembered", "remembered consent")]
)
def test_what_is_gone_is_named(gone: str, why: str) -> None:
    asked = {
        "client": a_client(),
        "user": a_user(),
        "scopes": ("read",),
        "resources": (),
        "remembered": a_consent(),
    }
    facts = facts_of("consent_decision", asked)
    left = {name: value for name, value in asked.items() if name != gone}
    with pytest.raises(CannotAskAgain, match=f"the {why} is gone"):
        QUESTIONS["consent_decision"].ask_again(known_of(left), facts)


def test_a_consent_given_later_was_not_remembered_then() -> None:
    asked = {"client": a_client(), "user": a_user(), "scopes": (), "resources": (), "remembered": None}
    known = known_of(asked | {"later": a_consent()})
    again = QUESTIONS["consent_decision"].ask_again(known, facts_of("consent_decision", asked))
    assert again["remembered"] is None


def test_every_record_is_read_once() -> None:
    """A replay asks thousands of questions about few clients."""
    asked = []

    def find(client_id: str) -> Client:
        asked.append(client_id)
        return a_client()

    known = Known(find, MemoryStores())
    for _ in range(3):
        known.client({"client_id": "reports"})
    assert asked == ["reports"]
