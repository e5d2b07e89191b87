"""Everything of somebody or something ends in one act, and the answer says how much that is (L-08)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from authserver.administration import Act, Ended, end, plan
from authserver.api import Engine, Parameter, object_schema
from authserver.features.admin_api.entries import NULL_OR_TIME, conflict

# What ends with a person or a client is found by an index. So many batches of it end in one request, which is one
# transaction; the next request goes on.
MAXIMUM_BATCHES = 20
# For anything else all grants and consents are looked through. Where there are more of either, the command does it.
MAXIMUM_RECORDS = 20_000
_COUNTS: Mapping[str, str] = {
    "sessions": "Of browsers in which the person was signed in.",
    "grants": "With all their codes and tokens.",
    "narrowed_grants": "Those that keep other resources or scopes.",
    "codes": "Codes of the grants that ended.",
    "refresh_tokens": "Refresh tokens of the grants that ended.",
    "access_tokens": "Opaque access tokens, which are not valid any more.",
    "jwts": "JWTs that may still be valid: they cannot be called back.",
    "consents": "Remembered consents, so that the person is asked again.",
    "narrowed_consents": "Consents remembered for other resources or scopes.",
    "registrations": "Clients that are not registered for the scope any more.",
}
ENDED = Parameter(
    description="How much ended, or would end.",
    schema=object_schema(
        {
            **{
                name: Parameter(description=text, schema={"type": "integer", "minimum": 0}, required=True)
                for name, text in _COUNTS.items()
            },
            "has_more_jwts": Parameter(
                description="Whether there may be more JWTs than were counted.",
                schema={"type": "boolean"},
                required=True,
            ),
            "jwts_until": Parameter(
                description="When the last JWT expires at the latest; null if there is none.",
                schema=NULL_OR_TIME,
                required=True,
            ),
            "has_more": Parameter(
                description="Whether there may be more than this: send the request again until it is false.",
                schema={"type": "boolean"},
                required=True,
            ),
        }
    ),
    required=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an act ended in one request.

    Attributes:
        has_more: whether there may be more, for another request.
    """

    ended: Ended
    has_more: bool = False

    def shown(self) -> dict[str, Any]:
        """As the API answers it."""
        return {
            **self.ended.counts,
            "has_more_jwts": self.ended.has_more_jwts,
            "jwts_until": self.ended.jwts_until,
            "has_more": self.has_more,
        }


def carry_out(engine: Engine, act: Act, *, dry_run: bool = False) -> Done:
    """End it, or count what would end, in the transaction of this request. Raises Problem where that takes too long."""
    stores, limit = engine.stores, MAXIMUM_BATCHES if act.subject.owns_grants else None
    if limit is None and max(stores.grants.count(), stores.consents.count()) > MAXIMUM_RECORDS:
        raise conflict(
            f"There are more than {MAXIMUM_RECORDS:,} grants or consents to look through, which takes too long here: run "
            "`authserver end` or `authserver resource remove`, which work in batches."
        )
    with closing((plan if dry_run else end)(lambda: nullcontext(engine), act)) as batches:
        found = list(islice(batches, limit))
    return Done(ended=sum(found, Ended()), has_more=len(found) == limit)
