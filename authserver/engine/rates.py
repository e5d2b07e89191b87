"""How often somebody may do something: asks the policies (hook `rate_decision`)."""

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
    """How much of a limit somebody has used, for operators.

    Attributes:
        limit: its name.
        who: whom it counts, in words, such as `client=notes source=192.0.2.1`; empty for everybody together.
        used, allowed: how often; both.
        seconds: until it begins again.
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
        """Each limit: its `limit`, which is its name, and more about it, by column."""

    def usage(self) -> Sequence[Usage]:
        """What is used, as far as this process knows. Raises ValueError."""

    def lift(self, limit: str, who: str | None) -> int:
        """Reset the counts of a limit for one key, or for all with None. Returns how many counts were reset.

        Raises:
            ValueError: there is no such limit, or it cannot be lifted now; with a sentence.
        """


class Adjustable(Limiter, Protocol):
    """A limiter of which operators can change the rows without the INI (`engine.offered`)."""

    def check_row(self, name: str, row: Mapping[str, Any]) -> None:
        """Raises ValueError for a row that cannot be.

        Args:
            row: its `counted`, `key`, `count`, `seconds` and `store_down`, as in its table.
        """

    def adjust(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """From now on these rows count, by name: in place of those of the INI that have the same, and beside others."""


def adjustable(plugins: Iterable[object]) -> Sequence[Adjustable]:
    """Those of the plugins whose limits can be shown and changed."""
    return [
        cast(Adjustable, plugin)
        for plugin in limiters(plugins)
        if hasattr(plugin, "check_row") and hasattr(plugin, "adjust")
    ]


def limiters(plugins: Iterable[object]) -> Sequence[Limiter]:
    """Those of the plugins whose limits can be shown."""
    names = ("is_shared", "table", "usage", "lift")
    return [cast(Limiter, plugin) for plugin in plugins if all(hasattr(plugin, name) for name in names)]


def table_of(found: Iterable[Limiter]) -> Sequence[Mapping[str, Any]]:
    """Each limit, by column. Raises ValueError."""
    return [dict(row) for limiter in found for row in _contained(limiter.table)]


def usage_of(found: Iterable[Limiter], *, everything: bool) -> Sequence[Usage]:
    """What is used by half or more, or everything that is; the fullest first. Raises ValueError."""
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
    # Any of them says how the limit may be spelt.
    return sum(_contained(item.lift, limit, who) for item in named or found)


def lift(engine: Engine, found: Sequence[Limiter], limit: str, who: str | None) -> int:
    """As `lift_of`, of this process, and recorded as the operator's act. Raises ValueError."""
    lifted = lift_of(found, limit, who)
    record_lifted(engine, limit, who, lifted)
    return lifted


def record_lifted(engine: Engine, limit: str, who: str | None, lifted: int) -> None:
    """Record that an operator lifted a limit, if anything was lifted."""
    if lifted:
        details = {"limit": limit, "who": who or "everybody", "lifted": lifted}
        engine.record(EventType.LIMIT_LIFTED, reason="operator", details=details)


def _contained(function: Callable[..., T], *arguments: Any) -> T:
    """What a plugin answers. Raises ValueError, also for what else it raises."""
    try:
        answer: T = contained(function, *arguments)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"a plugin cannot show or lift its limits: {described(error)}") from error
    return answer


# The one client that all clients which registered themselves are; no client has such an id.
SELF_REGISTERED = "self-registered clients"
# For a policy that does not say how long.
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
    """Count something that the caller of this request does; with the step CHECK, only see whether they may do it.

    Returns:
        what was asked, for `give_back`; None if no policy limits anything.

    Raises:
        TooManyRequests: they do it too often; nothing was counted.
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
    """Take off what was claimed, because it turned out well. A policy that fails to do so changes nothing."""
    if claimed is not None:
        engine.journal.claimed.remove(claimed)
        engine.policies.decide(replace(claimed, step=RateStep.GIVE_BACK))


def begin_again(engine: Engine) -> None:
    """Take off all that this request claimed, before it is repeated: it counts once."""
    for claimed in tuple(engine.journal.claimed):
        give_back(engine, claimed)
