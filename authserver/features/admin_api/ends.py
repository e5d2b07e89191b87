"""Ends everything of a user, client, resource, scope or issuer in one act; the answer has the numbers (L-08)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from authserver.administration import Act, Ended, Stage, Subject, SubjectKind, end_part, plan_part, user_id_of
from authserver.api import Engine, InvalidTarget, Parameter, Problem, canonical_resource, object_schema
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    Answer,
    Call,
    Entry,
    Sent,
    conflict,
    nothing_there,
    there,
)

READ, WRITE = "authserver:ends:read", "authserver:ends:write"
SCOPES = {
    READ: "See how much would end of anybody and anything",
    WRITE: "End everything of a person, an application, an API or a scope at once",
}

# The grants of a user or client are found by an index. A request, which is one transaction, works for at most this many
# seconds; the next request continues.
MAXIMUM_SECONDS = 5.0
# For other subjects all grants and consents are searched. If there are more than this, only the command can do it.
MAXIMUM_RECORDS = 20_000
_COUNTS: Mapping[str, str] = {
    "sessions": "Sessions of browsers in which the person was signed in.",
    "grants": "Grants, with all their codes and tokens.",
    "narrowed_grants": "Grants that keep other resources or scopes.",
    "codes": "Codes of the grants that ended.",
    "refresh_tokens": "Refresh tokens of the grants that ended.",
    "access_tokens": "Opaque access tokens, which are not valid any more.",
    "jwts": "JWTs that may still be valid: they cannot be revoked.",
    "consents": "Remembered consents, so that the person is asked again.",
    "password_links": "Links with which the person could set a password.",
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
                description="The latest time at which a JWT expires; null if there is none.",
                schema=NULL_OR_TIME,
                required=True,
            ),
            "has_more": Parameter(
                description="Whether there is more than this: send the request again until it is false.",
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
        has_more: whether there is more, for another request.
    """

    ended: Ended
    has_more: bool = False

    def shown(self) -> dict[str, Any]:
        """The members for the answer of the API."""
        return {
            **self.ended.counts,
            "has_more_jwts": self.ended.has_more_jwts,
            "jwts_until": self.ended.jwts_until,
            "has_more": self.has_more,
        }


def carry_out(engine: Engine, act: Act, *, dry_run: bool = False) -> Done:
    """Carry out the act, or only count, in the transaction of this request. Raises Problem if that would take too long."""
    stores, seconds = engine.stores, MAXIMUM_SECONDS if act.subject.owns_grants else math.inf
    if seconds == math.inf and max(stores.grants.count(), stores.consents.count()) > MAXIMUM_RECORDS:
        raise conflict(
            f"There are more than {MAXIMUM_RECORDS:,} grants or consents to search, which takes too long here: run "
            "`authserver end` or `authserver resource remove`, which work in batches."
        )
    do = plan_part if dry_run else end_part
    part = do(lambda: nullcontext(engine), act, Stage(), seconds=seconds)
    return Done(ended=part.ended, has_more=part.next is not None)


def _kind(call: Call) -> SubjectKind:
    try:
        return SubjectKind(call.named("kind"))
    except ValueError:
        raise nothing_there(f"The kind must be one of {', '.join(SubjectKind)}.") from None


def _act(call: Call, *, registrations: bool = False) -> tuple[Act, bool]:
    """The act that the request asks for, and whether its subject is known here. Raises NothingThere, Problem."""
    engine, kind, named = call.engine, _kind(call), call.named("subject")
    if registrations and kind is not SubjectKind.SCOPE:
        raise Problem(problems.CONFLICT, "Only a scope has registrations: leave out registrations.")
    match kind:
        case SubjectKind.USER:
            user_id = user_id_of(engine, named)
            user = engine.stores.users.find(user_id) if user_id else None
            subject, is_known = Subject.user(there(user)), True
        case SubjectKind.CLIENT:
            subject, is_known = Subject.client(named), engine.find_kept_client(named) is not None
        case SubjectKind.RESOURCE:
            try:
                form = canonical_resource(named)
            except InvalidTarget:
                raise nothing_there("A resource is an absolute URI without a fragment.") from None
            known = engine.resources.find(form)
            subject, is_known = Subject.resource(form, known.uri if known else named), known is not None
        case SubjectKind.SCOPE:
            subject, is_known = Subject.scope(named), named in engine.scopes
        case SubjectKind.ISSUER:
            subject, is_known = Subject.issuer(named), True
    return Act(subject=subject, registrations=registrations), is_known


def _answer(act: Act, done: Done, *, is_known: bool) -> Answer:
    subject = act.subject
    if not is_known and not done.ended:
        raise nothing_there(f"There is no such {subject.kind}, and nothing of it could end.")
    return Answer(body={"kind": subject.kind, "name": subject.name, "ended": done.shown()})


def show(call: Call) -> Answer:
    """How many grants, consents and sessions `end_all` would end; nothing changes."""
    act, is_known = _act(call, registrations=call.flag("registrations"))
    return _answer(act, carry_out(call.engine, act, dry_run=True), is_known=is_known)


def end_all(call: Call) -> Answer:
    """End all grants, consents and sessions of a user, client, resource, scope or issuer; the answer counts them."""
    sent = Sent(call.sent)
    registrations = sent.flag("registrations", False)
    sent.end()
    act, is_known = _act(call, registrations=registrations)
    return _answer(act, carry_out(call.engine, act), is_known=is_known)


SHOWN: Mapping[str, Parameter] = {
    "kind": Parameter(
        description="The kind of the subject.", schema={"enum": [*map(str, SubjectKind)]}, required=True
    ),
    "name": Parameter(description="The user name, client id, resource URI, scope or issuer.", required=True),
    "ended": ENDED,
}
ENTRIES = (
    Entry(
        method="GET",
        path="/ends/{kind}/{subject}",
        scope=READ,
        summary="Count what would end of a user, client, resource, scope or issuer. Nothing changes.",
        act=show,
        query={
            "registrations": Parameter(
                description="`true`: also the clients that are registered for the scope.",
                schema={"enum": ["true", "false"]},
            )
        },
        answer=SHOWN,
        problems=(problems.CONFLICT,),
    ),
    Entry(
        method="POST",
        path="/ends/{kind}/{subject}",
        scope=WRITE,
        summary="End everything of a user, client, resource, scope or issuer. Nobody is disabled: people may sign in and agree again.",
        act=end_all,
        body={
            "registrations": Parameter(
                description="Whether clients lose their registration for the scope, too.",
                schema={"type": ["boolean", "null"]},
            )
        },
        answer=SHOWN,
        problems=(problems.CONFLICT,),
    ),
)
