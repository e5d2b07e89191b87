"""Limits how often a caller may do something: asks the policies (hook `rate_decision`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

from authserver.containment import contained, described
from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict, Wait
from authserver.engine.errors import TooManyRequests
from authserver.engine.questions import Counted, RateQuestion, RateStep
from authserver.engine.records import EventType

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much of a limit is used, for operators.

    Attributes:
        limit: its name.
        who: the callers that it counts, such as `client=notes source=192.0.2.1`; empty for all together.
        used, allowed: how often it was done, and how often it may be done.
        seconds: seconds until counting begins again.
    """

    limit: str
    who: str
    used: int
    allowed: int
    seconds: int


class Limiter(Protocol):
    """A plugin whose limits operators can see and lift (`authserver limits`)."""

    @property
    def is_shared(self) -> bool:
        """Whether all processes share the counts; else each knows its own, and a command asks it for them."""

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Each limit, by column: its name as `limit`, and its other settings."""

    def usage(self) -> Sequence[Usage]:
        """The used limits, as far as this process knows. Raises ValueError."""

    def lift(self, limit: str, who: str | None) -> int:
        """Reset the counts of a limit for one key, or for all with None. Returns how many counts were reset.

        Raises:
            ValueError: there is no such limit, or it cannot be lifted now; the message is a sentence.
        """


class Adjustable(Limiter, Protocol):
    """A limiter whose rows operators can change without the INI (`engine.offered`)."""

    def check_row(self, name: str, row: Mapping[str, Any]) -> None:
        """Raises ValueError for an impossible row.

        Args:
            row: its `counted`, `key`, `count`, `seconds` and `store_down`, as in its table.
        """

    def adjust(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """From now on these rows count: in place of rows of the INI with the same name, and in addition to the others."""


def adjustable(plugins: Iterable[object]) -> Sequence[Adjustable]:
    """The plugins whose limits can be shown and changed."""
    return [
        cast(Adjustable, plugin)
        for plugin in limiters(plugins)
        if hasattr(plugin, "check_row") and hasattr(plugin, "adjust")
    ]


def limiters(plugins: Iterable[object]) -> Sequence[Limiter]:
    """The plugins whose limits can be shown."""
    names = ("is_shared", "table", "usage", "lift")
    return [cast(Limiter, plugin) for plugin in plugins if all(hasattr(plugin, name) for name in names)]


def table_of(found: Iterable[Limiter]) -> Sequence[Mapping[str, Any]]:
    """Each limit, by column. Raises ValueError."""
    return [dict(row) for limiter in found for row in _contained(limiter.table)]


def usage_of(found: Iterable[Limiter], *, everything: bool) -> Sequence[Usage]:
    """The limits that are used by half or more, or all that are used; the fullest first. Raises ValueError."""
    used = [
        item
        for limiter in found
        for item in _contained(limiter.usage)
        if everything or 2 * item.used >= item.allowed
    ]
    return sorted(used, key=lambda item: (-item.used / item.allowed, item.limit, item.who))


def lift_of(found: Sequence[Limiter], limit: str, who: str | None) -> int:
    """Reset the counts of a limit for one key, or for all with None; how many they were. Raises ValueError."""
    named = [item for item in found if any(row["limit"] == limit for row in table_of([item]))]
    # If none of them has it, the first raises an error that names similar limits.
    return sum(_contained(item.lift, limit, who) for item in named or found)


def lift(engine: Engine, found: Sequence[Limiter], limit: str, who: str | None) -> int:
    """As `lift_of`, in this process, and recorded as an act of the operator. Raises ValueError."""
    lifted = lift_of(found, limit, who)
    record_lifted(engine, limit, who, lifted)
    return lifted


def record_lifted(engine: Engine, limit: str, who: str | None, lifted: int) -> None:
    """Record that an operator lifted a limit, if anything was lifted."""
    if lifted:
        details = {"limit": limit, "who": who or "everybody", "lifted": lifted}
        engine.record(EventType.LIMIT_LIFTED, reason="operator", details=details)


def _contained(function: Callable[..., T], *arguments: Any) -> T:
    """The answer of a plugin. Raises ValueError, in place of any exception of the plugin."""
    try:
        answer: T = contained(function, *arguments)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"a plugin cannot show or lift its limits: {described(error)}") from error
    return answer


# All clients that registered themselves count as this one client; no client has such an id.
SELF_REGISTERED = "self-registered clients"
# The wait in seconds if a policy names none.
USUAL_WAIT = Wait(60)


def claim(
    engine: Engine,
    counted: Counted,
    *,
    step: RateStep = RateStep.CLAIM,
    client_id: str | None = None,
    account: str = "",
    device_id: str | None = None,
    grant_id: str | None = None,
) -> RateQuestion | None:
    """Count an act of the caller of this request; with the step CHECK, only check whether it is allowed.

    Returns:
        the question, for `give_back`; None if no policy limits anything.

    Raises:
        TooManyRequests: the caller does it too often; nothing was counted.
        ServerError: a policy failed (R-14).
    """
    if not engine.policies.serves(RateQuestion.hook):
        return None
    question = RateQuestion(
        counted=counted,
        step=step,
        endpoint=engine.caller.endpoint,
        source=engine.caller.source,
        client_id=client_id,
        account=account,
        device_id=device_id,
        grant_id=grant_id,
    )
    ruling = engine.ask(question, note_silence=False)
    if ruling.verdict is Verdict.DENY:
        wait = ruling.wait or USUAL_WAIT
        raise TooManyRequests(
            "Too many requests. Try again later.",
            reason=ruling.reason,
            retry_after=wait.seconds,
            leaves_event=wait.leaves_event,
        )
    if step is RateStep.CLAIM:
        engine.journal.claimed.append(question)
    return question


def give_back(engine: Engine, claimed: RateQuestion | None) -> None:
    """Take back what was claimed, because the act succeeded. If a policy fails to do so, nothing changes."""
    if claimed is not None:
        engine.journal.claimed.remove(claimed)
        engine.policies.decide(replace(claimed, step=RateStep.GIVE_BACK))


def begin_again(engine: Engine) -> None:
    """Take back everything that this request claimed, before it is repeated, so that it counts once."""
    for claimed in tuple(engine.journal.claimed):
        give_back(engine, claimed)
