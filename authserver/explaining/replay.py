"""Asks recorded questions again: of another configuration, or of one more policy. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from authserver.engine import evidence
from authserver.engine.context import Engine
from authserver.engine.decisions import Answer, Ruling, Verdict, combine
from authserver.engine.errors import InvalidClient, ServerError, TemporarilyUnavailable, TooManyRequests
from authserver.engine.ports import Policies
from authserver.engine.questions import CannotAskAgain, Facts, Known, Question
from authserver.engine.records import Client, Event, EventType
from authserver.explaining.readable import readable
from authserver.hookspecs import DECIDING
from authserver.plugins.asking import PluginSet

# What is known of a decision that was left out of its event.
_LEFT_OUT: Mapping[str, str] = {"facts": "left out"}
_encode = msgspec.json.Encoder().encode


class Result(StrEnum):
    """What came of asking one recorded question again."""

    SAME = "same"
    FLIPPED = "flipped"
    NOT_ASKED = "not-asked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One recorded question asked again.

    Attributes:
        client_id: of the client that it was about; None when it named no client.
        was: verdict, reason and outcome as recorded.
        would_be: the same under the other configuration; for NOT_ASKED only the reason why it was not asked.
    """

    result: Result
    hook: str
    client_id: str | None
    event_id: str
    at: datetime
    facts: Mapping[str, Any]
    was: Mapping[str, Any]
    would_be: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried(Replayed):
    """One recorded question that was asked of a policy which does not decide yet.

    `was` is the ruling of the present policies today, and `would_be` their ruling with the policy among them. FLIPPED
    means that the two outcomes differ. FAILED means that the policy gave no valid answer, which refuses.

    Attributes:
        answer: of the policy alone; None for NOT_ASKED.
        decided_since: whether the present policies decide differently today from what was recorded.
    """

    answer: Answer | None = None
    decided_since: bool = False


def replay(events: Iterable[Event], engine: Engine) -> Iterator[Replayed]:
    """Ask the policies of an engine every question behind these events once, in their order."""
    known = _known(engine)
    for event, decision in _recorded(events):
        yield _again(event, decision, known, engine.policies)


def replay_beside(
    events: Iterable[Event], engine: Engine, present: PluginSet, others: PluginSet
) -> Iterator[Replayed]:
    """Ask every question behind these events once, of the present policies alone and together with others.

    `was` is the ruling of the present policies alone. FLIPPED means that the outcome with the others differs.
    """
    known = _known(engine)
    for event, decision in _recorded(events):
        hook, facts = decision["slot"], decision.get("facts") or {}
        about = _about(event, hook, facts)
        try:
            question = _question(decision, facts, known)
        except CannotAskAgain as error:
            recorded, why = _recorded_ruling(decision), {"reason": str(error)}
            yield Replayed(result=Result.NOT_ASKED, was=recorded, would_be=why, **about)
            continue
        answers = present.ask_all(question)
        today, beside = combine(question, answers), combine(question, [*answers, *others.ask_all(question)])
        same = DECIDING[hook].same_outcome(today.effect, beside.effect)
        result = Result.SAME if same else Result.FLIPPED
        yield Replayed(result=result, was=_ruling(today), would_be=_ruling(beside), **about)


def try_policy(
    events: Iterable[Event], engine: Engine, present: PluginSet, policy: PluginSet, hooks: Collection[str]
) -> Iterator[Tried]:
    """Ask one policy every question of these hooks behind these events once, in their order.

    Args:
        engine: finds the records that the questions are about.
        present: the policies that decide today. If one has the name of the policy, the policy replaces it.
        policy: the one policy.
        hooks: the hooks that the policy serves.
    """
    known = _known(engine)
    for event, decision in _recorded(events):
        if decision["slot"] in hooks:
            yield _tried(event, decision, known, present, policy)


def _known(engine: Engine) -> Known:
    def client(client_id: str) -> Client | None:
        try:
            return engine.find_client(client_id)
        except (InvalidClient, TemporarilyUnavailable, TooManyRequests):
            return None

    return Known(client, engine.stores.users.find, engine.stores.consents.find, engine.resources.find)


def _recorded(events: Iterable[Event]) -> Iterator[tuple[Event, Mapping[str, Any]]]:
    """The decisions behind these events, with their questions.

    Several events of one request contain the same questions. Such events have the same time; each question counts once.
    """
    now: datetime | None = None
    seen: set[bytes] = set()
    for event in map(readable, events):
        if event.type is EventType.POLICY_DIFFERED:
            continue
        if event.at != now:
            now, seen = event.at, set()
        for decision in event.decisions:
            identity = _encode([decision["slot"], decision.get("facts")])
            if identity not in seen:
                seen.add(identity)
                yield event, decision
        for hook, number in evidence.left_out(event).items():
            for _ in range(number):
                yield event, {"slot": hook, evidence.CUT: _LEFT_OUT}


def _tried(
    event: Event, decision: Mapping[str, Any], known: Known, present: PluginSet, policy: PluginSet
) -> Tried:
    hook, facts = decision["slot"], decision.get("facts") or {}
    about = _about(event, hook, facts)
    recorded = _recorded_ruling(decision)
    try:
        question = _question(decision, facts, known)
    except CannotAskAgain as error:
        return Tried(result=Result.NOT_ASKED, was=recorded, would_be={"reason": str(error)}, **about)
    (answer,) = policy.ask_all(question)
    answers = present.ask_all(question)
    (name,) = policy.names
    others = [answer if given.plugin == name else given for given in answers]
    today = combine(question, answers)
    candidate = combine(question, others if name in present.names else [*others, answer])
    same = DECIDING[hook].same_outcome
    before = Verdict(recorded["verdict"]), recorded["outcome"]
    if answer.verdict is Verdict.FAILED:
        result = Result.FAILED
    else:
        result = Result.SAME if same(today.effect, candidate.effect) else Result.FLIPPED
    return Tried(
        result=result,
        was=_ruling(today),
        would_be=_ruling(candidate),
        answer=answer,
        decided_since=not same(before, (today.verdict, today.outcome)),
        **about,
    )


def _again(event: Event, decision: Mapping[str, Any], known: Known, policies: Policies) -> Replayed:
    hook, facts = decision["slot"], decision.get("facts") or {}
    was = _recorded_ruling(decision)
    try:
        question = _question(decision, facts, known)
    except CannotAskAgain as error:
        result, would_be = Result.NOT_ASKED, {"reason": str(error)}
    else:
        ruling = policies.decide(question)
        would_be = _ruling(ruling)
        before = Verdict(decision["verdict"]), was["outcome"]
        after = ruling.verdict, would_be["outcome"]
        result = Result.SAME if DECIDING[hook].same_outcome(before, after) else Result.FLIPPED
    return Replayed(result=result, was=was, would_be=would_be, **_about(event, hook, facts))


def _about(event: Event, hook: str, facts: Facts) -> dict[str, Any]:
    """The members of a `Replayed` that say which question it is."""
    return {
        "hook": hook,
        "client_id": facts.get("client_id", event.client_id),
        "event_id": event.event_id,
        "at": event.at,
        "facts": facts,
    }


def _recorded_ruling(decision: Mapping[str, Any]) -> dict[str, Any]:
    return {name: decision.get(name) for name in ("verdict", "reason", "outcome", "decided_by")}


def _ruling(ruling: Ruling[Any]) -> dict[str, Any]:
    return {
        "verdict": ruling.verdict,
        "reason": ruling.reason,
        "outcome": ruling.outcome,
        "decided_by": ruling.decided_by,
    }


def _question(decision: Mapping[str, Any], facts: Facts, known: Known) -> Question[Any]:
    hook = decision["slot"]
    if not evidence.is_whole(decision):
        raise CannotAskAgain("it was too long to be stored completely")
    if hook not in DECIDING:
        raise CannotAskAgain("this hook does not exist any more")
    try:
        return DECIDING[hook].question.again(facts, known)
    except ServerError as error:
        raise CannotAskAgain("the plugin that finds its client failed") from error
    except (KeyError, TypeError) as error:
        raise CannotAskAgain("another version of the server recorded it") from error
