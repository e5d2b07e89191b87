"""Counts the decisions that other plugins would make differently, by what would change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from authserver.engine.decisions import Verdict
from authserver.hookspecs import DECIDING

# How many examples are kept of each kind of difference.
EXAMPLES = 3
_ALLOW_NOTHING = f"{Verdict.ALLOW} nothing"


class Differences:
    """Decisions that would differ, counted by what would change and by client, with the latest examples."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], dict[str, Any]] = {}
        self.count = 0

    def add(
        self,
        hook: str,
        client_id: str | None,
        was: Mapping[str, Any],
        would_be: Mapping[str, Any],
        example: Mapping[str, Any],
    ) -> None:
        """Count a decision that would be different: `was` is the decision that was made, both are in the recorded form."""
        kind = {
            "hook": hook,
            "was": _said(was),
            "would_be": _said(would_be),
            "reason": would_be["reason"],
            "by": would_be.get("decided_by") or "nobody",
        }
        row = self._kinds.setdefault(tuple(kind.values()), {**kind, "clients": Counter(), "examples": []})
        row["clients"][client_id or "-"] += 1
        row["examples"] = [*row["examples"], example][-EXAMPLES:]
        self.count += 1

    def rows(self) -> list[dict[str, Any]]:
        """A row for each kind of difference, the most frequent first."""
        rows = [
            {
                **row,
                "count": row["clients"].total(),
                "clients": [
                    {"client_id": name, "count": count} for name, count in row["clients"].most_common()
                ],
            }
            for row in self._kinds.values()
        ]
        return sorted(rows, key=lambda row: -row["count"])


def meaning(hook: str, said: str) -> str:
    """A decision with its consequence, if the verdict alone does not say it."""
    declared = DECIDING.get(hook)
    if said == Verdict.SILENT and declared:
        return f"{said} ({declared.silence})"
    if said == Verdict.FAILED:
        return f"{said} (refused; the log says why)"
    if hook == "consent_decision" and said == Verdict.ALLOW:
        return f"{said} (the user is not asked, if the client is proven)"
    if hook == "scope_decision" and said == _ALLOW_NOTHING:
        return f"{said} (refused, since no scope is left)"
    return said


def _said(decision: Mapping[str, Any]) -> str:
    outcome = decision.get("outcome")
    verdict = str(decision["verdict"])
    return verdict if outcome is None else f"{verdict} {_words(outcome) or 'nothing'}"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
