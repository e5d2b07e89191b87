"""What a policy may answer, and how several answers become one ruling.

Any deny refuses; every narrowing intersects; the first allow gives the value; silence refuses
(for consent: silence asks the user). A policy that fails has refused, and the ruling says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Facts = Callable[[], Mapping[str, Any]]


def _no_facts() -> Mapping[str, Any]:
    return {}


class Verdict(StrEnum):
    """What one policy said, or what all of them together came to."""

    ALLOW = "allow"
    NARROW = "narrow"
    DENY = "deny"
    SILENT = "silent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Decision:
    """One policy's answer. Made by `allow`, `narrow` and `deny`, never by hand.

    Attributes:
        verdict: ALLOW, NARROW or DENY.
        reason: a short stable identifier such as `loopback-port`; it reaches operators, never clients.
        value: what is allowed, or the most that is allowed, or what goes with a refusal; its type depends on
            the hook.
    """

    verdict: Verdict
    reason: str
    value: Any = None


def allow(reason: str, value: Any = None) -> Decision:
    """Allow, with the value that this hook gives (see its docstring)."""
    return Decision(Verdict.ALLOW, reason, value)


def narrow(reason: str, value: Any) -> Decision:
    """Do not decide, but let no more than `value` through, whoever allows."""
    return Decision(Verdict.NARROW, reason, value)


def deny(reason: str, value: Any = None) -> Decision:
    """Refuse, whatever the other policies say, with the value that goes with a refusal at this hook, if any."""
    return Decision(Verdict.DENY, reason, value)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin said to one question, and how long it took to say it."""

    plugin: str
    verdict: Verdict
    reason: str
    microseconds: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """The joint answer to one question, with everything that led to it.

    Attributes:
        slot: the name of the hook that was asked.
        verdict: ALLOW, DENY, SILENT, or FAILED when a plugin raised or answered with the wrong type.
        reason: the reason of the answer that decided.
        decided_by: the plugin whose answer decided, or "" when nobody answered.
        value: the value of the first allow, after every narrowing; of a refusal, the value of the deny that decided.
        answers: what each plugin said, in the order of the INI.
        facts: gives what was asked, as plain values without secrets (see `engine.questions`).
    """

    slot: str
    verdict: Verdict
    reason: str
    decided_by: str = ""
    value: Any = None
    answers: Sequence[Answer] = ()
    facts: Facts = field(default=_no_facts, repr=False, compare=False)

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW

    @property
    def failed(self) -> bool:
        return self.verdict is Verdict.FAILED

    def as_record(self) -> dict[str, Any]:
        """The ruling as it is kept in the event table.

        Of the value only scopes, resources and other short words are kept; others may be personal.
        """
        return {
            "slot": self.slot,
            "facts": self.facts(),
            "verdict": self.verdict,
            "reason": self.reason,
            "decided_by": self.decided_by,
            "outcome": outcome_of(self.value),
            "answers": [
                {
                    "plugin": answer.plugin,
                    "verdict": answer.verdict,
                    "reason": answer.reason,
                    "microseconds": answer.microseconds,
                }
                for answer in self.answers
            ],
        }


def outcome_of(value: Any) -> Any:
    """What may be recorded of a ruling's value: scopes, those of client metadata too, or one word such as a resource."""
    if value is None or isinstance(value, str):
        return value
    scopes = value if isinstance(value, tuple) else getattr(value, "scopes", None)
    return None if scopes is None else list(scopes)


def combine(slot: str, said: Sequence[tuple[Answer, Any]], facts: Facts = _no_facts) -> Ruling:
    """The ruling that several answers, each with its value, come to; their order matters among equals only."""
    answers = tuple(answer for answer, _ in said)
    for decisive in (Verdict.FAILED, Verdict.DENY):
        for answer, value in said:
            if answer.verdict is decisive:
                return Ruling(slot, decisive, answer.reason, answer.plugin, value, answers, facts)
    allowing = next(((answer, value) for answer, value in said if answer.verdict is Verdict.ALLOW), None)
    if allowing is None:
        return Ruling(slot, Verdict.SILENT, "nobody-answered", "", None, answers, facts)
    decisive_answer, value = allowing
    narrowing = [(answer, ceiling) for answer, ceiling in said if answer.verdict is Verdict.NARROW]
    for _, ceiling in narrowing:
        value = tuple(item for item in value if item in ceiling)
    if narrowing:
        decisive_answer = narrowing[0][0]
    return Ruling(slot, Verdict.ALLOW, decisive_answer.reason, decisive_answer.plugin, value, answers, facts)
