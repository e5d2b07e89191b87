"""Initial access tokens, with which clients may register themselves (RFC 7591, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from authserver.administration import (
    MAXIMUM_USES,
    BadInitialToken,
    InitialTokenState,
    make_initial_token,
    operators,
    revoke_initial_token,
)
from authserver.api import InitialAccessToken, Parameter
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    TIME,
    Answer,
    Call,
    Entry,
    Sent,
    conflict,
    invalid,
    nothing_there,
    sentence,
)
from authserver.features.admin_api.paging import gathered

READ, WRITE = "authserver:initial-tokens:read", "authserver:initial-tokens:write"
SCOPES = {
    READ: "See the tokens with which applications may register themselves",
    WRITE: "Make and revoke tokens with which applications may register themselves",
}
DAY = 86_400
MAXIMUM_SECONDS = 3650 * DAY
COUNT = {"type": "integer", "minimum": 0}
SHOWN: Mapping[str, Parameter] = {
    "initial_token": Parameter(description="The id of the token; it is not the token itself.", required=True),
    "policy": Parameter(description="The registration policy of its clients.", required=True),
    "state": Parameter(
        description="Whether it lets clients register.",
        schema={"enum": [*map(str, InitialTokenState)]},
        required=True,
    ),
    "used": Parameter(description="How many clients it registered.", schema=COUNT, required=True),
    "uses": Parameter(
        description="How many it may register; null: any number.",
        schema={"type": ["integer", "null"], "minimum": 1},
        required=True,
    ),
    "expires_at": Parameter(description="Until when it can be used.", schema=TIME, required=True),
    "created_at": Parameter(description="When it was made.", schema=TIME, required=True),
    "revoked_at": Parameter(description="When it was revoked.", schema=NULL_OR_TIME, required=True),
    "made_by": Parameter(description="Who made it, as events name them.", required=True),
    "note": Parameter(description="What it is for.", required=True),
}


def list_tokens(call: Call) -> Answer:
    """The initial access tokens, newest first."""
    stored = call.engine.stores.initial_tokens

    def read(place: tuple[str, ...], limit: int) -> Sequence[InitialAccessToken]:
        after = (datetime.fromisoformat(place[0]), place[1]) if place[0] else None
        return stored.page(after=after, limit=limit)

    return gathered(
        call,
        read,
        lambda token: (token.created_at.isoformat(), token.token_id),
        lambda token: operators.initial_token(token, call.engine.now),
        start=("", ""),
    )


def make(call: Call) -> Answer:
    """Make an initial access token (RFC 7591, 3). The answer has its text, which is not shown again.

    Raises:
        Problem: the policy is unknown, or another member cannot be used.
    """
    engine, sent = call.engine, Sent(call.sent)
    policy, note = sent.text("policy", required=True), sent.text("note")
    uses = None if sent.is_null("uses") else sent.number("uses", 1, least=1, most=MAXIMUM_USES)
    seconds = sent.number("expires_in", 30 * DAY, least=60, most=MAXIMUM_SECONDS)
    sent.end()
    try:
        token, text = make_initial_token(
            engine,
            policy=policy,
            uses=uses,
            expires_at=engine.now + timedelta(seconds=seconds or 0),
            note=note,
        )
    except BadInitialToken as error:
        told = sentence(str(error))
        raise (invalid(**{error.member: told}) if error.member else conflict(told)) from error
    return Answer(body={**operators.initial_token(token, engine.now), "token": text})


def revoke(call: Call) -> Answer:
    """Revoke an initial access token. Raises Problem when it is unknown or revoked already."""
    named = call.named("initial_token")
    if not revoke_initial_token(call.engine, named):
        if call.engine.stores.initial_tokens.find_by_id(named):
            raise conflict("It is revoked already.")
        raise nothing_there()
    return Answer()


ENTRIES = (
    Entry(
        method="GET",
        path="/initial-tokens",
        scope=READ,
        summary="List the initial access tokens. The texts of the tokens cannot be read.",
        act=list_tokens,
        answer=SHOWN,
        listed=True,
        paged=True,
    ),
    Entry(
        method="POST",
        path="/initial-tokens",
        scope=WRITE,
        summary="Make an initial access token. Its text is only in this answer.",
        act=make,
        body={
            "policy": replace(SHOWN["policy"], required=True),
            "uses": Parameter(
                description="How many clients it may register, one unless given; null: any number.",
                schema={"type": ["integer", "null"], "minimum": 1, "maximum": MAXIMUM_USES},
            ),
            "expires_in": Parameter(
                description="Seconds for which it can be used; 30 days unless given.",
                schema={"type": ["integer", "null"], "minimum": 60, "maximum": MAXIMUM_SECONDS},
            ),
            "note": Parameter(description="What it is for.", schema={"type": ["string", "null"]}),
        },
        status=201,
        answer={
            **SHOWN,
            "token": Parameter(description="The text of the token; it is not shown again.", required=True),
        },
        problems=(problems.CONFLICT,),
    ),
    Entry(
        method="DELETE",
        path="/initial-tokens/{initial_token}",
        scope=WRITE,
        summary="Revoke an initial access token. The clients that it registered stay.",
        act=revoke,
        status=204,
        problems=(problems.CONFLICT,),
    ),
)
