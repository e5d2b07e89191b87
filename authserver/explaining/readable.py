"""Brings stored events into the form that explanations expect, even if they were written by hand or by a newer version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypedDict

import msgspec

from authserver.engine.decisions import Verdict
from authserver.engine.records import UNREADABLE, Event

_text = msgspec.json.Encoder(enc_hook=repr).encode


class _Facts(TypedDict, total=False):
    requested: list[str] | None


class _Answer(TypedDict):
    plugin: str
    verdict: str
    reason: str
    microseconds: int


class _Asked(TypedDict, total=False):
    facts: _Facts | None
    cut: dict[str, Any]


class _Decision(_Asked):
    slot: str
    verdict: Verdict
    reason: str
    decided_by: str | None
    answers: list[_Answer]


class _More(TypedDict):
    count: int
    sources: int
    until: datetime


class _Cut(TypedDict, total=False):
    decisions: dict[str, int] | str


class _Details(TypedDict, total=False):
    description: str
    facts: _Facts
    cut: _Cut
    dropped: int
    more: _More


def readable(event: Event) -> Event:
    """The event; decisions or details in an unknown form are put as text under `UNREADABLE`."""
    decisions = tuple(map(_decision, event.decisions))
    if _fits(event.details, _Details):
        return replace(event, decisions=decisions)
    return replace(event, decisions=decisions, details=_unreadable(event.details))


def _decision(decision: Mapping[str, Any]) -> Mapping[str, Any]:
    if _fits(decision, _Decision):
        return decision
    return {
        "slot": UNREADABLE,
        "facts": _unreadable(decision),
        "verdict": Verdict.SILENT,
        "reason": "",
        "decided_by": "",
        "outcome": None,
        "answers": [],
    }


def _unreadable(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return value if value.keys() == {UNREADABLE} else {UNREADABLE: _text(value).decode()}


def _fits(value: Mapping[str, Any], shape: Any) -> bool:
    try:
        # Other members may be there, such as those of a newer version.
        msgspec.convert(value, shape)
    except msgspec.ValidationError:
        return False
    return True
