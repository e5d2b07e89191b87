"""What pages that end something share: it is counted for the last step, and ended, in so much time as a page may take."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from authserver.administration import Act, Ended, end, plan
from authserver.api import Engine
from authserver.explaining.ends import jwt_sentence, sentence
from authserver.features.console.pages import Visit

# Seconds. Whoever confirms waits for the count, and a server in front for the end; there are commands for more.
COUNTING = 0.15
# So many batches are done in any case: a page of grants, and one of consents, and what is looked at before.
FEW = 3
ENDING = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What ends or ended; `is_whole` says whether that is known to be all."""

    ended: Ended
    is_whole: bool

    @property
    def sentences(self) -> str:
        """What ended, and what cannot be called back."""
        return " ".join(filter(None, (sentence(self.ended), jwt_sentence(self.ended))))


def count(visit: Visit, act: Act) -> Amount:
    """Count what would end."""
    return _within(COUNTING, plan(lambda: _begin(visit), act))


def carry_out(visit: Visit, act: Act) -> Amount:
    """End it: the first batch in any case, after which nothing new begins for good, and others while there is time."""
    return _within(ENDING, end(lambda: _begin(visit), act))


def told(amount: Amount, *, command: str) -> Mapping[str, Any]:
    """What the template of a confirmation shows.

    Args:
        command: that counts all of it.
    """
    found = amount.ended.told
    return {
        "ends": found or [(0, "grants, tokens and consents: nothing is in use")],
        "jwts": jwt_sentence(amount.ended, dry_run=True),
        "is_whole": amount.is_whole,
        "command": command,
    }


def _begin(visit: Visit) -> AbstractContextManager[Engine]:
    """An engine in a transaction of its own; its events are the person's."""
    journal = replace(visit.engine.journal, decisions=[], events=[], claimed=[])
    begun: AbstractContextManager[Engine] = visit.application.begin(
        caller=visit.request.caller, journal=journal
    )
    return begun


def _within(seconds: float, batches: Generator[Ended]) -> Amount:
    """What there is in so many seconds; what is little is whole, however busy the server is."""
    until, total = monotonic() + seconds, Ended()
    with closing(batches):
        for number, ended in enumerate(batches, start=1):
            total += ended
            if number >= FEW and monotonic() > until:
                return Amount(ended=total, is_whole=False)
    return Amount(ended=total, is_whole=True)
