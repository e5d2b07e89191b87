"""Cuts events to a limit in bytes, because strangers can cause events to be stored.

Long values are cut: lists to their first items, texts to their beginning. The path and the length of each cut value are
in `cut` of the decision, or in `cut` of the details of the event, and never among the facts, where a stranger could
write them. So nobody mistakes a part for the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from authserver.engine.decisions import Verdict
from authserver.engine.records import Event, EventType
from authserver.limits import (
    MAXIMUM_DIFFERENCE_EVENT,
    MAXIMUM_KNOWN_REFUSAL_EVENT,
    MAXIMUM_STRANGER_EVENT,
    MAXIMUM_STRANGER_REFUSAL_EVENT,
)

CUT = "cut"
STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class _Step:
    """What is left: how many characters of a text, items of a list and decisions; and whether silent answers are left."""

    characters: int
    items: int
    decisions: int
    silent_answers: bool = True


# The explanation of the outcome is cut last: the decision that refused, with its short facts.
_STEPS = (
    _Step(200, 10, 6),
    _Step(200, 10, 6, silent_answers=False),
    _Step(200, 10, 3, silent_answers=False),
    _Step(100, 5, 3, silent_answers=False),
    _Step(100, 5, 2, silent_answers=False),
    _Step(100, 5, 1, silent_answers=False),
    _Step(60, 3, 1, silent_answers=False),
    _Step(40, 2, 1, silent_answers=False),
    _Step(20, 1, 1, silent_answers=False),
)
# Details that this server wrote: sentences, names and numbers, which are short.
_OURS = ("endpoint", "method", "error", "description", "exception", "grant_type", "slot", "dropped")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def size(event: Event) -> int:
    """The size in bytes of the unlimited columns of an event: its decisions and details as JSON."""
    return len(_encode(event.decisions)) + len(_encode(event.details))


def limit_of(event: Event, *, by_anybody: bool = False) -> int | None:
    """The maximum size in bytes of the decisions and details of an event; None if nobody from outside can cause it.

    Args:
        by_anybody: whether its actor, although authenticated, is a client that registered itself, as every stranger
            can.
    """
    if event.type is EventType.POLICY_DIFFERED:
        return MAXIMUM_DIFFERENCE_EVENT
    if event.type.is_refusal:
        is_known = event.actor != STRANGER and not by_anybody
        return MAXIMUM_KNOWN_REFUSAL_EVENT if is_known else MAXIMUM_STRANGER_REFUSAL_EVENT
    # The content of a grant was allowed by a person or an operator.
    is_anybodys = event.actor == STRANGER or (by_anybody and event.grant_id is None)
    return MAXIMUM_STRANGER_EVENT if is_anybodys else None


def bounded(event: Event, *, by_anybody: bool = False) -> Event:
    """The event, cut only as far as its limit requires; unchanged if it is within the limit. See `limit_of`."""
    limit = limit_of(event, by_anybody=by_anybody)
    if limit is None or size(event) <= limit:
        return event
    for step in _STEPS:
        smaller = _cut(event, step)
        if size(smaller) <= limit:
            return smaller
    return _bare(event)


def is_whole(decision: Mapping[str, Any]) -> bool:
    """Whether a recorded decision has its whole question and its whole outcome."""
    return set(decision.get(CUT, ())) <= {"answers"}


def cut_facts(cut: Iterable[str]) -> frozenset[str]:
    """The names of the facts that are not whole, from the paths in a `cut`."""
    paths = (path.split(".") for path in cut)
    return frozenset(path[1] for path in paths if path[0] == "facts" and len(path) > 1)


def left_out(event: Event) -> Mapping[str, int]:
    """How many decisions were left out of an event, by their hook."""
    found = event.details.get(CUT, {}).get("decisions", {})
    return found if isinstance(found, Mapping) else {}


def _cut(event: Event, step: _Step) -> Event:
    kept, others = _parted(event, step.decisions)
    cutter = _Cutter(step)
    details = {
        name: value if name in _OURS else cutter.value(name, value) for name, value in event.details.items()
    }
    cut = {**cutter.cut, **others}
    return replace(
        event,
        decisions=tuple(_cut_decision(decision, step) for decision in kept),
        details={**details, CUT: cut} if cut else details,
    )


def _bare(event: Event) -> Event:
    """The shortest form: the decision without its question."""
    kept, others = _parted(event, 1)
    details = {name: value for name, value in event.details.items() if name in _OURS}
    return replace(
        event,
        decisions=tuple(
            {
                **{name: decision[name] for name in ("slot", "verdict", "reason", "decided_by")},
                "facts": {},
                "outcome": None,
                "answers": [],
                CUT: {"facts": f"{len(_encode(decision))} bytes"},
            }
            for decision in kept
        ),
        details={**details, CUT: {"details": f"{len(_encode(event.details))} bytes", **others}},
    )


def _parted(event: Event, number: int) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """The decisions that are left, and the note of those that are left out. A difference is between two decisions."""
    if event.type is EventType.POLICY_DIFFERED:
        number = max(number, 2)
    places = _by_weight(event.decisions)[:number]
    kept = [decision for place, decision in enumerate(event.decisions) if place in places]
    others = Counter(
        str(decision["slot"]) for place, decision in enumerate(event.decisions) if place not in places
    )
    return kept, {"decisions": dict(others)} if others else {}


def _by_weight(decisions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The indexes of the decisions, first those that explain the outcome: the last one, then refusals."""
    last = len(decisions) - 1
    return sorted(
        range(len(decisions)),
        key=lambda place: (place != last, decisions[place]["verdict"] == Verdict.ALLOW, place),
    )


def _cut_decision(decision: Mapping[str, Any], step: _Step) -> Mapping[str, Any]:
    cutter = _Cutter(step)
    answers = [
        answer for answer in decision["answers"] if step.silent_answers or answer["verdict"] != Verdict.SILENT
    ]
    smaller = {
        **decision,
        "facts": cutter.value("facts", decision["facts"]),
        "outcome": cutter.value("outcome", decision["outcome"]),
        "answers": answers,
    }
    if len(answers) < len(decision["answers"]):
        cutter.cut["answers"] = f"{len(decision['answers'])} items"
    return {**smaller, CUT: cutter.cut} if cutter.cut else smaller


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Cuts values, and notes their lengths.

    Attributes:
        cut: by the path of each value that was cut, its length in words.
    """

    step: _Step
    cut: dict[str, str] = field(default_factory=dict)

    def value(self, path: str, value: Any) -> Any:
        """The value after the cut. Names of mappings, down to members of client metadata, are ours, and are not cut."""
        if isinstance(value, Mapping):
            if path.count(".") < 2:
                return {name: self.value(f"{path}.{name}", member) for name, member in value.items()}
            return self._as_text(path, value)
        if isinstance(value, list | tuple):
            shown = [self._item(item) for item in value[: self.step.items]]
            if shown != list(value):
                self.cut[path] = f"{len(value)} items, {len(_encode(value))} bytes"
            return shown
        if isinstance(value, str) and len(value) > self.step.characters:
            self.cut[path] = f"{len(value)} characters"
            return self._beginning(value)
        return value

    def _item(self, item: Any) -> Any:
        if isinstance(item, str):
            return item if len(item) <= self.step.characters else self._beginning(item)
        text = _encode(item).decode()
        return item if len(text) <= self.step.characters else self._beginning(text)

    def _as_text(self, path: str, value: Mapping[str, Any]) -> Any:
        text = _encode(value).decode()
        if len(text) <= self.step.characters:
            return value
        self.cut[path] = f"{len(text)} characters of JSON"
        return self._beginning(text)

    def _beginning(self, text: str) -> str:
        return text[: self.step.characters] + "…"
