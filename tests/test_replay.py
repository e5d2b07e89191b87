"""Recorded questions asked again under other policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from authserver.api import Client, Decision, allow, deny, hookimpl, narrow
from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict
from authserver.engine.evidence import bounded
from authserver.engine.records import Event, EventType
from authserver.explaining.replay import Replayed, Result, replay, try_policy
from authserver.plugins.asking import PluginSet
from authserver.testing import hostile
from authserver.testing.records import NOW, a_client, a_user, an_event
from authserver.testing.server import Server

SCOPE = {
    "client_id": "reports",
    "user_id": None,
    "grant_type": "client_credentials",
    "requested": ["read"],
    "resources": [],
}
CONSENT = {
    "client_id": "reports",
    "user_id": "user_ada",
    "scopes": ["read"],
    "resources": [],
    "remembered": False,
}


@dataclass(frozen=True)
class Does:
    """A policy that does what a test says."""

    act: Callable[[], Decision | None]

    @hookimpl
    def scope_decision(self) -> Decision | None:
        return self.act()

    @hookimpl
    def consent_decision(self) -> Decision | None:
        return self.act()


def record(hook: str, facts: Mapping[str, Any] | None, verdict: str, **more: Any) -> dict[str, Any]:
    """A decision as it is kept."""
    return {
        "slot": hook,
        "facts": facts,
        "verdict": verdict,
        "reason": "recorded",
        "decided_by": "old",
        "outcome": None,
        "answers": [],
        **more,
    }


def allowed(*scopes: str) -> dict[str, Any]:
    return record("scope_decision", SCOPE, "allow", outcome=list(scopes))


@pytest.mark.parametrize("raised", hostile.RAISED)
def test_a_policy_that_raises_anything_has_refused(engine: Engine, raised: type[BaseException]) -> None:
    """R-14: and the replay goes on with the next question."""

    def act() -> Decision | None:
        raise raised

    policies = PluginSet([("does", Does(act))])
    events = [
        an_event(event_id=f"e{number}", decisions=(allowed("read"),), at=NOW + timedelta(seconds=number))
        for number in (1, 2)
    ]
    found = list(replay(events, replace(engine, policies=policies)))
    assert [(one.result, one.would_be["verdict"]) for one in found] == [(Result.FLIPPED, Verdict.FAILED)] * 2


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """An engine whose stores know the client `reports` and the user Ada."""
    server = Server(sqlite_url)
    with server.application.begin() as engine:
        engine.stores.clients.add(a_client())
        engine.stores.users.add(a_user())
        yield engine
    server.close()


def asked_again(
    engine: Engine, act: Callable[[], Decision | None], *decisions: Mapping[str, Any]
) -> list[Replayed]:
    policies = PluginSet([("does", Does(act))])
    return list(replay([an_event(decisions=decisions)], replace(engine, policies=policies)))


@pytest.mark.parametrize(
    ("was", "act", "result"),
    [
        (allowed("read"), lambda: allow("other-words", ("read",)), Result.SAME),
        (allowed("read"), lambda: allow("more", ("read", "write")), Result.FLIPPED),
        (allowed("read"), lambda: narrow("less", ()), Result.FLIPPED),
        (allowed("read"), lambda: None, Result.FLIPPED),
        (allowed("read"), lambda: deny("no"), Result.FLIPPED),
        (allowed("read"), lambda: 1 / 0, Result.FLIPPED),
        (record("scope_decision", SCOPE, "deny"), lambda: None, Result.SAME),
        (record("scope_decision", SCOPE, "silent"), lambda: 1 / 0, Result.SAME),
        (record("scope_decision", SCOPE, "silent"), lambda: allow("now", ("read",)), Result.FLIPPED),
        # Of consent, silence is no refusal: the user is asked.
        (record("consent_decision", CONSENT, "silent"), lambda: None, Result.SAME),
        (record("consent_decision", CONSENT, "silent"), lambda: deny("no"), Result.FLIPPED),
        (record("consent_decision", CONSENT, "deny"), lambda: None, Result.FLIPPED),
        (record("consent_decision", CONSENT, "deny"), lambda: 1 / 0, Result.SAME),
        (record("consent_decision", CONSENT, "silent"), lambda: allow("now"), Result.FLIPPED),
    ],
)
def test_a_decision_flips_when_another_thing_is_let_through(
    engine: Engine, was: dict[str, Any], act: Callable[[], Any], result: Result
) -> None:
    """Another reason alone is no flip, nor is a refusal of another kind."""
    (item,) = asked_again(engine, act, was)
    assert item.result is result
    assert item.client_id == "reports"
    assert item.facts == was["facts"]
    assert item.was["verdict"] == was["verdict"]


def test_a_flip_says_what_would_be_and_why(engine: Engine) -> None:
    (item,) = asked_again(engine, lambda: allow("all", ("read", "write")), allowed("read"))
    assert item.would_be == {
        "verdict": Verdict.ALLOW,
        "reason": "all",
        "outcome": ["read", "write"],
        "decided_by": "does",
    }


def test_events_of_one_request_count_once(engine: Engine) -> None:
    """They share their time and tell of the same questions; the same question later is another one."""
    first = allowed("read")
    events = [
        an_event(decisions=(first,)),
        an_event(decisions=(first, record("consent_decision", CONSENT, "silent"))),
        an_event(decisions=(first,), at=NOW + timedelta(microseconds=1)),
    ]
    policies = PluginSet([("does", Does(lambda: None))])
    hooks = [item.hook for item in replay(events, replace(engine, policies=policies))]
    assert hooks == ["scope_decision", "consent_decision", "scope_decision"]


def test_what_shadow_plugins_said_is_not_asked_again(engine: Engine) -> None:
    event = an_event(type=EventType.POLICY_DIFFERED, decisions=(allowed("read"), allowed()))
    assert list(replay([event], engine)) == []


def test_what_was_cut_is_not_asked_again(engine: Engine) -> None:
    """A part is never taken for the whole; what was left out of an event is told too, each once."""
    long = {**SCOPE, "requested": [f"scope-{number}" for number in range(200)]}
    silent = [{"plugin": "other", "verdict": "silent", "reason": "", "microseconds": 1} for _ in range(20)]
    answered = record("scope_decision", SCOPE, "deny", answers=silent)
    events = [
        an_event(
            decisions=decisions, type=EventType.TOKEN_REFUSED, actor="stranger", at=NOW + timedelta(seconds=n)
        )
        for n, decisions in enumerate(
            [
                (record("scope_decision", long, "deny"),),
                (record("scope_decision", SCOPE, "allow"),) * 9,
                (answered,),
            ]
        )
    ]
    policies = PluginSet([("does", Does(lambda: deny("no")))])
    items = list(replay(map(bounded, events), replace(engine, policies=policies)))
    cut, whole, *left_out, without_answers = items
    too_long = {"reason": "it was too long to be stored completely"}
    assert (cut.result, cut.would_be) == (Result.NOT_ASKED, too_long)
    assert whole.result is Result.FLIPPED
    assert len(left_out) > 5
    assert {(item.result, item.hook, *item.would_be.values()) for item in left_out} == {
        (Result.NOT_ASKED, "scope_decision", *too_long.values())
    }
    assert without_answers.result is Result.SAME


def test_a_policy_on_trial_is_not_asked_about_a_part(engine: Engine) -> None:
    long = {**SCOPE, "requested": [f"scope-{number}" for number in range(200)]}
    event = an_event(
        decisions=(record("scope_decision", long, "deny"),), type=EventType.TOKEN_REFUSED, actor="stranger"
    )
    policy = PluginSet([("does", Does(lambda: allow("all", ("read",))))])
    (item,) = try_policy([bounded(event)], engine, PluginSet([]), policy, {"scope_decision"})
    assert (item.result, item.answer) == (Result.NOT_ASKED, None)
    assert "too long" in item.would_be["reason"]


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (
            record("scope_decision", SCOPE | {"client_id": "gone"}, "allow"),
            "the client does not exist any more",
        ),
        (
            record("scope_decision", SCOPE | {"user_id": "user_gone"}, "allow"),
            "the user does not exist any more",
        ),
        (record("scope_decision", None, "allow"), "another version of the server recorded it"),
        (record("scope_decision", SCOPE | {"requested": None}, "allow"), "another version"),
        (record("retired_decision", {}, "allow"), "this hook does not exist any more"),
        (record("login_decision", {"user_id": "user_ada"}, "allow"), "a password"),
        (record("authentication_decision", {"client_id": "reports"}, "deny"), "the parameters of a request"),
        (record("client_auth_decision", {"assertion": True}, "allow"), "a client assertion"),
        (record("registration_decision", {"bearer": True}, "allow"), "an initial access token"),
    ],
)
def test_what_cannot_be_asked_again_says_why(engine: Engine, decision: dict[str, Any], why: str) -> None:
    (item,) = asked_again(engine, lambda: None, decision)
    assert item.result is Result.NOT_ASKED
    assert why in item.would_be["reason"]


@dataclass(frozen=True)
class Elsewhere:
    """A plugin that knows a client which is kept nowhere else."""

    fails: bool = False

    @hookimpl
    def find_client(self, client_id: str) -> Client | None:
        if self.fails:
            raise OSError("away")
        return a_client(client_id=client_id) if client_id == "elsewhere" else None

    @hookimpl
    def scope_decision(self, client: Client) -> Decision:
        return allow("theirs", client.scopes)


@pytest.mark.parametrize(("fails", "result"), [(False, Result.FLIPPED), (True, Result.NOT_ASKED)])
def test_clients_of_plugins_are_found(engine: Engine, fails: bool, result: Result) -> None:
    decision = record("scope_decision", SCOPE | {"client_id": "elsewhere"}, "allow", outcome=["read"])
    policies = PluginSet([("elsewhere", Elsewhere(fails))])
    (item,) = replay([an_event(decisions=(decision,))], replace(engine, policies=policies))
    assert item.result is result


def test_nothing_is_written(engine: Engine) -> None:
    def asked() -> Iterator[Event]:
        yield an_event(decisions=(allowed("read"),))

    before = engine.stores.events.count(NOW)
    policies = PluginSet([("does", Does(lambda: deny("no")))])
    assert [item.result for item in replay(asked(), replace(engine, policies=policies))] == [Result.FLIPPED]
    assert engine.stores.events.count(NOW) == before
    assert engine.journal.decisions == []
