"""What a hook is: how one is declared, and what counts as an answer to it. `hookspecs` declares them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from inspect import signature
from types import NoneType, UnionType
from typing import Any, ClassVar, ParamSpec, TypeVar, get_args, get_origin

import pluggy

from authserver.engine.authorization_request import Expanded
from authserver.engine.context import Binding, Issue
from authserver.engine.decisions import Decision, T, Verdict, Wait
from authserver.engine.errors import OAuthError
from authserver.engine.questions import Question

PROJECT = "authserver"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# In characters: the reason of an answer or a refusal, and the `error_description` that the client gets (OAuth 2.1, 3.2.4).
MAXIMUM_REASON = 100
MAXIMUM_DESCRIPTION = 500
# In seconds: how long somebody may be told to wait.
MAXIMUM_WAIT = 31 * 86_400
_REASON = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+")
# The form of every code in the OAuth registries; RFC 6749, 4.1.2.1 allows more.
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_]{0,49}")

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A declared hook.

    Attributes:
        kind: deciding, contributing or observing.
        name: of the method that a plugin has.
        function: has its arguments and its documentation.
        silence: what it means when no plugin answers, in words.
        timed: whether a plugin that is not `immediate` has a time limit, because a request waits for its answer.
    """

    kind: ClassVar[str]

    name: str
    function: Callable[..., Any]
    silence: str
    timed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding(Hook):
    """A hook whose answers are decisions.

    Attributes:
        question: what it is asked with.
        value: the type of the value of an allow; NoneType when it carries none.
        narrows: whether narrow(reason, tuple) is an answer.
        codes: whether a deny may have the error code that the client gets.
        waits: whether a deny may say when the client may come again.
        silence_refuses: whether silence is a refusal.
        remedy: what to do when no plugin answered and that is a refusal, in words; `explaining.remedies.PLACES` are put
            into it.
    """

    kind: ClassVar[str] = "deciding"

    question: type[Question[Any]]
    value: Any
    narrows: bool
    codes: bool
    waits: bool
    silence_refuses: bool
    remedy: str

    def problem_with(self, decision: object) -> str | None:
        """Why this is not a valid answer; None when it is one."""
        if type(decision) is not Decision:
            return "wrong-type"
        # A decision made without allow() or deny() may hold the text "deny", which must not be taken for an allow.
        if type(decision.verdict) is not Verdict or decision.verdict in (Verdict.SILENT, Verdict.FAILED):
            return "wrong-verdict"
        if not is_reason(decision.reason):
            return "bad-reason"
        if decision.verdict is Verdict.ALLOW and not _is_value(decision.value, self.value):
            return "wrong-value"
        if decision.verdict is Verdict.NARROW and not (
            self.narrows and _is_value(decision.value, self.value)
        ):
            return "wrong-value"
        if decision.verdict is Verdict.DENY and decision.value is not None:
            return "wrong-value"
        if decision.error_code is not None and not (
            self.codes and decision.verdict is Verdict.DENY and is_error_code(decision.error_code)
        ):
            return "wrong-value"
        if decision.wait is not None and not (
            self.waits and decision.verdict is Verdict.DENY and _is_wait(decision.wait)
        ):
            return "wrong-value"
        return None

    def advice(self, decision: object) -> str:
        """What is wrong with an answer that has a problem, and what to return instead; without its values."""
        problem = self.problem_with(decision)
        narrow = ", narrow(reason, value)" if self.narrows else ""
        if problem == "wrong-type":
            given = f"allow(reason{', value' if self.value is not NoneType else ''})"
            return f"it returned a {type(decision).__name__}; return {given}{narrow}, deny(reason) or None"
        if problem == "wrong-verdict":
            return "it made a Decision by itself; use allow(), narrow() and deny()"
        if problem == "bad-reason":
            return (
                f"its reason is not in small letters, digits and hyphens, or longer than {MAXIMUM_REASON} characters; "
                "write one like 'not-on-shift'"
            )
        return self._advice_on_value(decision)

    def _advice_on_value(self, decision: Any) -> str:
        if decision.verdict is Verdict.NARROW and not self.narrows:
            return "this hook does not take narrow(); return allow(), deny() or None"
        if decision.verdict is Verdict.DENY and decision.error_code is not None and self.codes:
            return "its error code is not of small letters, digits and underscores, like 'login_required'"
        if decision.error_code is not None:
            return "only a deny() has an error code, and only at hooks that take one; leave it out"
        if decision.verdict is Verdict.DENY:
            return "a deny() has no value; leave it out"
        needed = self.value.__name__ if isinstance(self.value, type) else str(self.value)
        found = type(decision.value).__name__
        if isinstance(decision.value, tuple):
            kinds = {type(item).__name__ for item in decision.value if not isinstance(item, str)}
            found += f" with {', '.join(sorted(kinds))} in it" if kinds else ""
        return f"the value of its {decision.verdict}() is a {found}; it must be {needed}"

    def same_outcome(self, one: tuple[Verdict, Any], other: tuple[Verdict, Any]) -> bool:
        """Whether two rulings, each given as verdict and value, have the same effect; reasons are not compared."""
        return self._effect(*one) == self._effect(*other)

    def _effect(self, verdict: Verdict, value: Any) -> tuple[Verdict, Any]:
        if verdict in (Verdict.ALLOW, Verdict.DENY):
            return verdict, value
        asks = verdict is Verdict.SILENT and not self.silence_refuses
        return Verdict.SILENT if asks else Verdict.DENY, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributing(Hook):
    """A hook at which all plugins are asked, and what they add is joined.

    Attributes:
        value: the type of what each adds.
        refusing: whether an OAuth error that a plugin raises is a refusal, not a failure of the plugin.
        declared: the attribute in which a plugin declares the names that it adds; "" if it need not.
        reserved: the names that belong to the core.
    """

    kind: ClassVar[str] = "contributing"

    value: type
    refusing: bool
    declared: str
    reserved: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observing(Hook):
    """A hook that notifies plugins; they return nothing."""

    kind: ClassVar[str] = "observing"


# Every hook that is declared, by name, in the order of the declarations.
DECIDING: dict[str, Deciding] = {}
CONTRIBUTING: dict[str, Contributing] = {}
OBSERVING: dict[str, Observing] = {}


def every_hook() -> dict[str, Hook]:
    """All hooks by name, the deciding ones first."""
    return {**DECIDING, **CONTRIBUTING, **OBSERVING}


def deciding(
    question: type[Question[T]],
    *,
    silence: str,
    remedy: str = "",
    narrows: bool = False,
    codes: bool = False,
    waits: bool = False,
    silence_refuses: bool = True,
) -> Callable[[Callable[P, Decision[T] | None]], Callable[P, Decision[T] | None]]:
    """Declare a deciding hook; see `Deciding`. Its arguments are the fields of its question.

    Raises:
        TypeError: name or arguments are not those of the question, or a refusal has no remedy.
    """
    if silence_refuses and not remedy:
        raise TypeError(f"{question.hook}: silence refuses, so say what to do about it: remedy")

    def declare(function: Callable[P, Decision[T] | None]) -> Callable[P, Decision[T] | None]:
        arguments = [item.name for item in fields(question)]
        if function.__name__ != question.hook or list(signature(function).parameters) != arguments:
            raise TypeError(f"{question.__name__} asks {question.hook}({', '.join(arguments)})")
        DECIDING[question.hook] = Deciding(
            name=question.hook,
            function=function,
            silence=silence,
            timed=True,
            question=question,
            value=_value_of(question),
            narrows=narrows,
            codes=codes,
            waits=waits,
            silence_refuses=silence_refuses,
            remedy=remedy,
        )
        return hookspec(function)

    return declare


def contributing(
    value: type,
    *,
    timed: bool = False,
    refusing: bool = False,
    declared: str = "",
    reserved: Collection[str] = (),
) -> Callable[[F], F]:
    """Declare a contributing hook; see `Contributing`."""

    def declare(function: F) -> F:
        CONTRIBUTING[function.__name__] = Contributing(
            name=function.__name__,
            function=function,
            silence="nothing is added",
            timed=timed,
            declared=declared,
            reserved=reserved,
            value=value,
            refusing=refusing,
        )
        return hookspec(function)

    return declare


def observing(*, timed: bool) -> Callable[[F], F]:
    """Declare an observing hook."""

    def declare(function: F) -> F:
        OBSERVING[function.__name__] = Observing(
            name=function.__name__, function=function, silence="no plugin is notified", timed=timed
        )
        return hookspec(function)

    return declare


def is_implemented(plugin: object, hook: str) -> bool:
    """Whether a plugin, or its class, has an implementation of this hook."""
    return hasattr(getattr(plugin, hook, None), f"{PROJECT}_impl")


def is_refusal(error: Exception) -> bool:
    """Whether this is an OAuth error that can be sent and stored as it is."""
    return (
        isinstance(error, OAuthError)
        and is_error_code(getattr(error, "code", None))
        and type(error.status) is int
        and 400 <= error.status < 600
        and (error.reason == error.code or is_reason(error.reason))
        and isinstance(error.description, str)
        and len(error.description) <= MAXIMUM_DESCRIPTION
        and DESCRIPTION.fullmatch(error.description) is not None
        and all(
            type(value) is int or (isinstance(value, str) and DESCRIPTION.fullmatch(value) is not None)
            for value in error.members.values()
        )
    )


def refusals_in(contribution: object) -> tuple[OAuthError, ...]:
    """The refusals inside what a plugin contributes; they may be sent later."""
    if isinstance(contribution, Expanded):
        return (contribution.refusal,) if contribution.refusal else ()
    if isinstance(contribution, Binding | Issue):
        return tuple(use.refusal for use in contribution.uses)
    return ()


def is_reason(text: object) -> bool:
    """Whether a plugin may give this as its reason: a short identifier (`MAXIMUM_REASON`)."""
    return isinstance(text, str) and len(text) <= MAXIMUM_REASON and _REASON.fullmatch(text) is not None


def is_error_code(text: object) -> bool:
    """Whether this can be an `error` of OAuth: visible ASCII without quote and backslash (OAuth 2.1, 3.2.4)."""
    return isinstance(text, str) and _ERROR_CODE.fullmatch(text) is not None


def _is_wait(wait: object) -> bool:
    return (
        isinstance(wait, Wait)
        and type(wait.seconds) is int
        and 1 <= wait.seconds <= MAXIMUM_WAIT
        and type(wait.leaves_event) is bool
    )


def _value_of(question: type[Question[Any]]) -> Any:
    """The type parameter of a question: a class, one of several classes, or a tuple of one class."""
    (base,) = (base for base in question.__orig_bases__ if get_origin(base) is Question)  # type: ignore[attr-defined]  # PEP 560
    return get_args(base)[0]


def _is_value(value: object, kind: Any) -> bool:
    if isinstance(kind, type | UnionType):
        return kind is NoneType or isinstance(value, kind)
    (item_kind, _) = kind.__args__  # `tuple[str, ...]`
    return isinstance(value, tuple) and all(isinstance(item, item_kind) for item in value)
