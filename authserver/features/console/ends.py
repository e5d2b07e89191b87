"""Counts and ends access for pages, within the time that a page may take."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from authserver.administration import Act, Ended, Stage, end_part, plan_part
from authserver.explaining.ends import jwt_sentence, sentence
from authserver.features.console.pages import Visit

# The most seconds for a count, because an operator waits for the page; commands can count more.
COUNTING = 0.15
# This many batches are done in any case: a page of grants, one of consents, and the first step.
FEW = 3
# The most seconds for an end, because a proxy in front of the server waits for the answer; commands can end more.
ENDING = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much ends or ended; `is_whole` says whether that is everything."""

    ended: Ended
    is_whole: bool

    @property
    def sentences(self) -> str:
        """Sentences about what ended, and about JWTs, which cannot be revoked."""
        return " ".join(filter(None, (sentence(self.ended), jwt_sentence(self.ended))))


def count(visit: Visit, act: Act) -> Amount:
    """Count what would end."""
    part = plan_part(lambda: nullcontext(visit.engine), act, Stage(), seconds=COUNTING, batches=FEW)
    return Amount(ended=part.ended, is_whole=part.next is None)


def carry_out(visit: Visit, act: Act) -> Amount:
    """Carry out the act: the first batches, after which nothing new is issued, and more batches while there is time."""
    part = end_part(visit.begin, act, Stage(), seconds=ENDING, batches=FEW)
    return Amount(ended=part.ended, is_whole=part.next is None)


def told(amount: Amount, *, command: str) -> Mapping[str, Any]:
    """The values for the template of a confirmation.

    Args:
        command: the command that counts everything.
    """
    found = amount.ended.told
    return {
        "ends": found or [(0, "grants, tokens and consents: nothing is in use")],
        "jwts": jwt_sentence(amount.ended, dry_run=True),
        "is_whole": amount.is_whole,
        "command": command,
    }
