"""Asking recorded questions again under another configuration, to see what it would change. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from authserver.engine.decisions import Verdict, outcome_of
from authserver.engine.ports import Stores
from authserver.engine.questions import QUESTIONS, CannotAskAgain
from authserver.engine.records import Event, EventType
from authserver.plugins import SLOTS, PluginSet


class Result(StrEnum):
    """What became of one recorded question."""

    SAME = "same"
    FLIPPED = "flipped"
    NOT_ASKED = "not-asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One recorded question asked again.

    Attributes:
        was: verdict, reason and outcome as recorded.
        would_be: the same under the other configuration; for NOT_ASKED why it was not asked.
    """

    result: Result
    slot: str
    client_id: str | None
    event_id: str
    at: datetime
    facts: Mapping[str, Any]
    was: Mapping[str, Any]
    would_be: Mapping[str, Any]


def replay(events: Iterable[Event], stores: Stores, plugins: PluginSet) -> Iterator[Replayed]:
    """Ask every question behind these events once, in their order.

    Several events of one request tell of the same questions; they share its time, and count once.
    """
    now: datetime | None = None
    seen: set[bytes] = set()
    for event in events:
        if event.type is EventType.POLICY_DIFFERED:
            continue
        if event.at != now:
            now, seen = event.at, set()
        for decision in event.decisions:
            identity = msgspec.json.encode([decision["slot"], decision.get("facts")])
            if identity not in seen:
                seen.add(identity)
                yield _again(event, decision, stores, plugins)


def _again(event: Event, decision: Mapping[str, Any], stores: Stores, plugins: PluginSet) -> Replayed:
    slot, facts = decision["slot"], decision.get("facts") or {}
    was = {name: decision.get(name) for name in ("verdict", "reason", "outcome")}
    try:
        if slot not in SLOTS:
            raise CannotAskAgain(f"there is no hook {slot} any more")
        ruling = plugins.decide(slot, **QUESTIONS[slot].ask_again(stores, facts))
    except (CannotAskAgain, KeyError) as error:
        result, would_be = Result.NOT_ASKED, {"reason": str(error)}
    else:
        would_be = {
            "verdict": ruling.verdict,
            "reason": ruling.reason,
            "outcome": outcome_of(ruling.value),
            "decided_by": ruling.decided_by,
        }
        result = Result.SAME if _same(was, would_be) else Result.FLIPPED
    return Replayed(
        result=result,
        slot=slot,
        client_id=event.client_id,
        event_id=event.event_id,
        at=event.at,
        facts=facts,
        was=was,
        would_be=would_be,
    )


def _same(was: Mapping[str, Any], would_be: Mapping[str, Any]) -> bool:
    """Whether the same is let through; another reason alone is no flip."""
    allowed = was["verdict"] == Verdict.ALLOW
    if allowed != (would_be["verdict"] == Verdict.ALLOW):
        return False
    return not allowed or was["outcome"] == would_be["outcome"]
