"""Asking recorded questions again under another configuration, to see what it would change. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict
from authserver.engine.errors import ServerError
from authserver.engine.ports import Policies
from authserver.engine.questions import CannotAskAgain, Facts, Known, Question
from authserver.engine.records import Event, EventType
from authserver.hookspecs import DECIDING

_encode = msgspec.json.Encoder().encode


class Result(StrEnum):
    """What became of one recorded question."""

    SAME = "same"
    FLIPPED = "flipped"
    NOT_ASKED = "not-asked"


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


def replay(events: Iterable[Event], engine: Engine) -> Iterator[Replayed]:
    """Ask the policies of an engine every question behind these events once, in their order.

    Several events of one request contain the same questions; they have its time, and count once.
    """
    stores = engine.stores
    known = Known(engine.find_client, stores.users.find, stores.consents.find)
    now: datetime | None = None
    seen: set[bytes] = set()
    for event in events:
        if event.type is EventType.POLICY_DIFFERED:
            continue
        if event.at != now:
            now, seen = event.at, set()
        for decision in event.decisions:
            identity = _encode([decision["slot"], decision.get("facts")])
            if identity not in seen:
                seen.add(identity)
                yield _again(event, decision, known, engine.policies)


def _again(event: Event, decision: Mapping[str, Any], known: Known, policies: Policies) -> Replayed:
    hook, facts = decision["slot"], decision.get("facts") or {}
    was = {name: decision.get(name) for name in ("verdict", "reason", "outcome", "decided_by")}
    try:
        question = _question(hook, facts, known)
    except CannotAskAgain as error:
        result, would_be = Result.NOT_ASKED, {"reason": str(error)}
    else:
        ruling = policies.decide(question)
        would_be = {
            "verdict": ruling.verdict,
            "reason": ruling.reason,
            "outcome": ruling.outcome,
            "decided_by": ruling.decided_by,
        }
        before = Verdict(decision["verdict"]), was["outcome"]
        after = ruling.verdict, would_be["outcome"]
        result = Result.SAME if DECIDING[hook].same_outcome(before, after) else Result.FLIPPED
    return Replayed(
        result=result,
        hook=hook,
        client_id=facts.get("client_id", event.client_id),
        event_id=event.event_id,
        at=event.at,
        facts=facts,
        was=was,
        would_be=would_be,
    )


def _question(hook: str, facts: Facts, known: Known) -> Question[Any]:
    if hook not in DECIDING:
        raise CannotAskAgain("this hook does not exist any more")
    try:
        return DECIDING[hook].question.again(facts, known)
    except ServerError as error:
        raise CannotAskAgain("the plugin that finds its client failed") from error
    except (KeyError, TypeError) as error:
        raise CannotAskAgain("another version of the server recorded it") from error
