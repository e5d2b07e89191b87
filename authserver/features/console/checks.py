"""The checks of a decision, in the form that pages show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from authserver.explaining.explain import Check, Explanation

_COMMAND = ": `authserver "


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCheck:
    """A check as a page shows it: the facts as lines, and each remedy with its command apart."""

    check: Check
    facts: tuple[tuple[str, Any], ...]
    remedies: tuple[tuple[str, str], ...]


def told_check(check: Check) -> ToldCheck:
    """A check, ready to be shown."""
    facts: dict[str, Any] = {}
    for name, value in check.facts.items():
        facts |= value if isinstance(value, dict) else {name: value}
    return ToldCheck(
        check=check,
        facts=tuple((name, value) for name, value in facts.items() if value not in (None, "", [], {})),
        remedies=tuple(map(_parted, check.remedies)),
    )


def _parted(remedy: str) -> tuple[str, str]:
    """The sentence of a remedy, and the command at its end; "" for none."""
    sentence, colon, command = remedy.partition(_COMMAND) if remedy.endswith("`") else (remedy, "", "")
    return sentence + colon[:1], f"authserver {command[:-1]}" if command else ""


def outcome_of(told: Explanation) -> list[tuple[str, Any]]:
    """The results by name, without empty ones."""
    outcome = told.outcome if isinstance(told.outcome, dict) else {"outcome": told.outcome}
    return [(name, value) for name, value in outcome.items() if value not in (None, "", [], {}, ())]
