"""What is kept of an event that people outside can cause: within a limit, and never a part as the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine import evidence
from authserver.engine.records import Event, EventType
from authserver.limits import (
    MAXIMUM_DIFFERENCE_EVENT,
    MAXIMUM_KNOWN_REFUSAL_EVENT,
    MAXIMUM_STRANGER_EVENT,
    MAXIMUM_STRANGER_REFUSAL_EVENT,
)
from authserver.testing.records import an_event

URIS = [f"https://client.example/{number}/{'p' * 1900}" for number in range(40)]


def decision(hook: str = "redirect_uri_decision", verdict: str = "deny", **more: Any) -> dict[str, Any]:
    answers = [
        {"plugin": "first", "verdict": "silent", "reason": "", "microseconds": 5},
        {"plugin": "second", "verdict": verdict, "reason": "quiet-hours", "microseconds": 7},
    ]
    return {
        "slot": hook,
        "facts": {},
        "verdict": verdict,
        "reason": "quiet-hours",
        "decided_by": "second",
        "outcome": None,
        "answers": answers,
        **more,
    }


def refusal(*decisions: Mapping[str, Any], actor: str = "stranger", **more: Any) -> Event:
    values = {"type": EventType.REGISTRATION_REFUSED, "actor": actor, "client_id": None, **more}
    return an_event(decisions=decisions, **values)


def test_what_is_short_stays_as_it_is() -> None:
    event = refusal(decision(facts={"redirect_uri": "https://client.example/cb"}))
    assert evidence.bounded(event) is event


def test_long_values_are_cut_and_their_length_is_named_beside_them() -> None:
    facts = {"client_id": "notes", "metadata": {"redirect_uris": URIS, "client_name": "n" * 100}}
    (kept,) = evidence.bounded(refusal(decision(facts=facts))).decisions
    shown = kept["facts"]["metadata"]["redirect_uris"]
    assert kept["facts"]["client_id"] == "notes"
    assert 1 <= len(shown) < 40
    assert all(uri[:-1] in whole and uri[-1] == "…" for uri, whole in zip(shown, URIS, strict=False))
    assert (
        kept["cut"]["facts.metadata.redirect_uris"]
        == f"40 items, {len(json.dumps(URIS, separators=(',', ':')))} bytes"
    )
    assert not evidence.is_whole(kept)
    assert evidence.cut_facts(kept["cut"]) == {"metadata"}


def test_what_refused_is_kept_before_what_allowed() -> None:
    """With how many others there were, by hook."""
    allowed = [decision(verdict="allow", facts={"redirect_uri": uri}) for uri in URIS]
    refused = decision(facts={"redirect_uri": "myapp:/cb"})
    last = decision("scope_decision", "allow", facts={"requested": ["read"]})
    event = evidence.bounded(refusal(*allowed, refused, *allowed, last))
    verdicts = [(kept["slot"], kept["verdict"]) for kept in event.decisions]
    assert verdicts[-2:] == [("redirect_uri_decision", "deny"), ("scope_decision", "allow")]
    assert event.decisions[-1]["facts"] == {"requested": ["read"]}
    assert evidence.left_out(event) == {"redirect_uri_decision": 82 - len(event.decisions)}


def test_answers_that_said_nothing_are_left_out_before_facts_are_cut() -> None:
    """A question that has all its facts can be asked again."""
    silent = [
        {"plugin": f"plugin_{n}", "verdict": "silent", "reason": "", "microseconds": 5} for n in range(30)
    ]
    asked = decision(facts={"redirect_uri": "https://client.example/" + "p" * 100})
    (kept,) = evidence.bounded(refusal({**asked, "answers": silent + asked["answers"]})).decisions
    assert kept["cut"] == {"answers": "32 items"}
    assert kept["facts"] == asked["facts"]
    assert evidence.is_whole(kept)


def test_a_stranger_cannot_write_that_something_was_cut() -> None:
    """What is said of the facts stands beside them."""
    facts = {"metadata": {"details": {"cut": {"decisions": {"scope_decision": 9}}}}}
    event = refusal(decision(facts=facts), details={"facts": {"cut": {"decisions": {"x": 1}}}})
    assert evidence.is_whole(event.decisions[0])
    assert evidence.left_out(event) == {}


@pytest.mark.parametrize(
    ("kind", "actor", "limit"),
    [
        (EventType.REGISTRATION_REFUSED, "stranger", MAXIMUM_STRANGER_REFUSAL_EVENT),
        (EventType.REQUEST_FAILED, "stranger", MAXIMUM_STRANGER_REFUSAL_EVENT),
        (EventType.CLIENT_REGISTERED, "stranger", MAXIMUM_STRANGER_EVENT),
        (EventType.TOKEN_REFUSED, "client:notes", MAXIMUM_KNOWN_REFUSAL_EVENT),
        (EventType.PASSWORD_REFUSED, "user:ann", MAXIMUM_KNOWN_REFUSAL_EVENT),
        (EventType.POLICY_DIFFERED, "server", MAXIMUM_DIFFERENCE_EVENT),
        (EventType.TOKEN_ISSUED, "client:notes", None),
        (EventType.CONSENT_GIVEN, "user:ann", None),
    ],
)
def test_the_limit_depends_on_who_causes_it(kind: EventType, actor: str, limit: int | None) -> None:
    """A client that was authenticated is known, so that more is kept of what it is refused."""
    decisions = [decision(facts={"metadata": {"redirect_uris": URIS}}) for _ in range(2)]
    event = refusal(*decisions, type=kind, actor=actor)
    size = evidence.size(evidence.bounded(event))
    assert evidence.limit_of(event) == limit
    if limit is None:
        assert size == evidence.size(event)
    else:
        assert limit / 4 < size <= limit


def test_a_difference_keeps_both_sides() -> None:
    sides = [
        decision("registration_decision", v, facts={"metadata": {"redirect_uris": URIS}})
        for v in ("allow", "deny")
    ]
    event = evidence.bounded(refusal(*sides, type=EventType.POLICY_DIFFERED, actor="server"))
    assert [kept["verdict"] for kept in event.decisions] == ["allow", "deny"]


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=3_000)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=300), inner, max_size=60),
    max_leaves=60,
)


@given(
    facts=st.dictionaries(st.text(max_size=40), ANYTHING, max_size=20),
    details=ANYTHING,
    number=st.integers(1, 60),
    plugins=st.integers(0, 40),
    kind=st.sampled_from([EventType.REQUEST_REFUSED, EventType.POLICY_DIFFERED]),
)
def test_whatever_is_sent_the_limit_holds(
    facts: dict[str, Any], details: Any, number: int, plugins: int, kind: EventType
) -> None:
    """T154: and what is whole is exactly what was recorded."""
    answers = [
        {"plugin": "p" * 100, "verdict": "deny", "reason": "r" * 100, "microseconds": 9}
        for _ in range(plugins)
    ]
    asked = decision(facts=facts, outcome=details, answers=answers, reason="r" * 100, decided_by="p" * 160)
    said = {"endpoint": "register", "description": "d" * 500, "facts": {"grant_type": details}}
    event = refusal(*[asked] * number, type=kind, details=said)
    kept = evidence.bounded(event)
    assert evidence.size(kept) <= (evidence.limit_of(event) or 0)
    json.dumps([kept.decisions, kept.details])
    for one in kept.decisions:
        assert not evidence.is_whole(one) or (one["facts"], one["outcome"]) == (facts, details)
    counted = len(kept.decisions) + sum(evidence.left_out(kept).values())
    assert counted == number
