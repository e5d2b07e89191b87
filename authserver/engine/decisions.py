"""The answers of a policy, and how several answers become one ruling.

Any deny refuses; every narrowing intersects; the first allow gives the value; silence refuses
(for consent: silence asks the user). A policy that fails has refused, and the ruling says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Never, TypeVar, overload

from authserver.engine.crypto.digests import masked, may_hold_credential
from authserver.engine.questions import Question, SignIn

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Verdict(StrEnum):
    """The answer of one policy, or the result of all of them."""

    ALLOW = "allow"
    NARROW = "narrow"
    DENY = "deny"
    SILENT = "silent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Wait:
    """The time after which a caller who was refused may try again.

    Attributes:
        seconds: from now, 1 to 31 days.
        leaves_event: whether the refusal is stored in the event table; False for all but the first of a flood.
    """

    seconds: int
    leaves_event: bool = True


@dataclass(frozen=True, slots=True)
class Decision(Generic[T_co]):
    """One policy's answer. Make it with `allow`, `narrow` and `deny` only.

    Attributes:
        verdict: ALLOW, NARROW or DENY.
        reason: a short stable identifier such as `loopback-port`; it reaches operators, never clients.
        value: the allowed value, or the ceiling of a narrowing; its type depends on the hook. None in a deny.
        error_code: for a deny: the code that is sent to the client, if the hook takes such codes; None: the usual code.
        wait: for a deny: when the client may try again, if the hook takes that; None: not stated.
    """

    verdict: Verdict
    reason: str
    value: T_co | None = None
    error_code: str | None = None
    wait: Wait | None = None


@overload
def allow(reason: str) -> Decision[None]: ...
@overload
def allow(reason: str, value: T) -> Decision[T]: ...
def allow(reason: str, value: Any = None) -> Decision[Any]:
    """Allow, with the value that this hook gives (see its docstring)."""
    return Decision(Verdict.ALLOW, reason, value)


def narrow(reason: str, value: T) -> Decision[T]:
    """Do not decide, but allow no more than `value`, whichever policy allows."""
    return Decision(Verdict.NARROW, reason, value)


def deny(reason: str, error_code: str | None = None, *, wait: Wait | None = None) -> Decision[Never]:
    """Refuse, whatever the other policies answer; with an error code or a wait for the client, if the hook takes one."""
    return Decision(Verdict.DENY, reason, error_code=error_code, wait=wait)


def labelled(plugin: str, variant: str) -> str:
    """The plugin, and the client or resource of its settings, if they are not for all: `scopes_default (client notes)`."""
    return f"{plugin} ({variant})" if variant else plugin


# Answers and rulings are made for every question. Only the engine has them, so they need not be frozen; to make frozen
# values takes four times as long.
@dataclass(slots=True)
class Answer:
    """The answer of one plugin to one question.

    Attributes:
        microseconds: how long it took.
        value, error_code, wait: those of its decision, if it made one.
        variant: the client or resource of the settings that it used, in words; "" for the settings for all.
        fault: the mistake of the plugin, in words for its author; "" unless it FAILED. It is not recorded.
    """

    plugin: str
    verdict: Verdict
    reason: str
    microseconds: int
    value: Any = field(default=None, repr=False)
    error_code: str | None = None
    variant: str = ""
    wait: Wait | None = None
    fault: str = field(default="", repr=False)

    @property
    def by(self) -> str:
        """The plugin that answered; see `labelled`."""
        return labelled(self.plugin, self.variant)

    def as_record(self) -> dict[str, Any]:
        """The answer as it is recorded, without its value."""
        record: dict[str, Any] = {
            "plugin": self.plugin,
            "verdict": self.verdict,
            "reason": self.reason,
            "microseconds": self.microseconds,
        }
        return record | {"variant": self.variant} if self.variant else record


@dataclass(slots=True)
class Ruling(Generic[T_co]):
    """The joint answer to one question, with all answers that led to it.

    Attributes:
        question: the question.
        verdict: ALLOW, DENY, SILENT, or FAILED when a plugin raised or answered with the wrong type.
        reason: the reason of the answer that decided.
        decided_by: the plugin whose answer decided (`Answer.by`), or "" when nobody answered.
        value: the value of the first allow, after every narrowing; None if nothing was allowed.
        answers: what each plugin answered, in the order of the INI.
        error_code, wait: those of the deciding deny, if it has them.
    """

    question: Question[T_co] = field(repr=False)
    verdict: Verdict
    reason: str
    decided_by: str = ""
    value: T_co | None = None
    answers: Sequence[Answer] = ()
    error_code: str | None = None
    wait: Wait | None = None

    @property
    def hook(self) -> str:
        """The name of the hook that was asked."""
        return self.question.hook

    @property
    def allowed(self) -> bool:
        """Whether the verdict is ALLOW."""
        return self.verdict is Verdict.ALLOW

    @property
    def failed(self) -> bool:
        """Whether a plugin raised or answered with the wrong type, which refuses with `server_error`."""
        return self.verdict is Verdict.FAILED

    @property
    def allowed_value(self) -> T_co:
        """The value, if the question was allowed. Raises ValueError if it was not."""
        if not self.allowed:
            raise ValueError(f"{self.hook} was not allowed, so there is no value")
        return self.value  # type: ignore[return-value]  # an allow carries a value of this type

    @property
    def effect(self) -> tuple[Verdict, Any]:
        """The verdict, with the value of an allow or the error code of a refusal."""
        return self.verdict, self.value if self.allowed else self.error_code

    @property
    def outcome(self) -> Any:
        """The recorded effect of the ruling, beside the verdict."""
        return outcome_of(self.effect[1])

    def as_record(self) -> dict[str, Any]:
        """The ruling as it is stored in the event table, where `slot` is the hook."""
        return {
            "slot": self.hook,
            "facts": _masked(self.question.facts()),
            "verdict": self.verdict,
            "reason": self.reason,
            "decided_by": self.decided_by,
            "outcome": self.outcome,
            "answers": [answer.as_record() for answer in self.answers],
        }

    def as_facts(self) -> dict[str, Any]:
        """The ruling as the timeline of its request has it: who decided what, without question and value."""
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "decided_by": self.decided_by,
            "answers": tuple(
                (answer.by, str(answer.verdict), answer.reason, answer.microseconds)
                for answer in self.answers
                if answer.verdict is not Verdict.SILENT
            ),
        }


def _masked(value: Any) -> Any:
    """The same JSON value without credentials of this server in its texts (R-04)."""
    if not may_hold_credential(repr(value)):
        return value
    match value:
        case str():
            return masked(value)
        case Mapping():
            return {name: _masked(member) for name, member in value.items()}
        case list() | tuple():
            return [_masked(item) for item in value]
        case _:
            return value


def outcome_of(value: Any) -> Any:
    """The recorded part of a value: scopes, including those of client metadata, or one word such as a resource.

    Other values may be personal data, so they are not recorded.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, SignIn):
        return value.step
    scopes = value if isinstance(value, tuple) else getattr(value, "scopes", None)
    return None if scopes is None else list(scopes)


def combine(question: Question[T], given: Iterable[Answer]) -> Ruling[T]:
    """The ruling that follows from several answers; their order matters only among equals."""
    answers = tuple(given)
    if all([answer.verdict is Verdict.SILENT for answer in answers]):
        return Ruling(question, Verdict.SILENT, "nobody-answered", "", None, answers)
    for decisive in (Verdict.FAILED, Verdict.DENY):
        for answer in answers:
            if answer.verdict is decisive:
                return Ruling(
                    question,
                    decisive,
                    answer.reason,
                    answer.by,
                    None,
                    answers,
                    answer.error_code,
                    answer.wait,
                )
    decisive_answer = next((answer for answer in answers if answer.verdict is Verdict.ALLOW), None)
    if decisive_answer is None:
        return Ruling(question, Verdict.SILENT, "nobody-answered", "", None, answers)
    value = decisive_answer.value
    narrowing = [answer for answer in answers if answer.verdict is Verdict.NARROW]
    for answer in narrowing:
        value = tuple(item for item in value if item in answer.value)
    if narrowing:
        decisive_answer = narrowing[0]
    return Ruling(question, Verdict.ALLOW, decisive_answer.reason, decisive_answer.by, value, answers)
