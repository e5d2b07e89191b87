"""How often somebody may do something: asks the policies (hook `rate_decision`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict, Wait
from authserver.engine.errors import TooManyRequests
from authserver.engine.questions import Counted, RateQuestion, RateStep


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

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Each limit: its `limit`, which is its name, and more about it, by column."""

    def usage(self) -> Sequence[Usage] | None:
        """What is used, the fullest first; None if only the processes of the server know it. Raises ValueError."""

    def lift(self, limit: str, who: str | None) -> int | None:
        """Let somebody begin anew with a limit, or with None everybody; how many did, None as for `usage`.

        Raises:
            ValueError: there is no such limit, or it cannot be lifted now; with a sentence.
        """


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
