"""Signing keys: lists, replaces and revokes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from authserver.administration import ALGORITHMS, KeyState, operators, ring
from authserver.administration import signing_keys as rules
from authserver.api import Parameter
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    TIME,
    Answer,
    Call,
    Entry,
    Sent,
    nothing_there,
    write_id,
)

READ, WRITE = "authserver:keys:read", "authserver:keys:write"
SCOPES = {
    READ: "See the keys with which this server signs",
    WRITE: "Replace and revoke the keys with which this server signs",
}
SHOWN: Mapping[str, Parameter] = {
    "kid": Parameter(description="The key.", required=True),
    "algorithm": Parameter(description="The signature algorithm (RFC 7518, 3.1).", required=True),
    "state": Parameter(
        description="What it is used for now.", schema={"enum": [*map(str, KeyState)]}, required=True
    ),
    "signs": Parameter(
        description="Whether new tokens are signed with it.", schema={"type": "boolean"}, required=True
    ),
    "created_at": Parameter(description="Since when it is published.", schema=TIME, required=True),
    "activates_at": Parameter(description="Since when it signs.", schema=TIME, required=True),
    "retires_at": Parameter(description="Until when it signs.", schema=NULL_OR_TIME, required=True),
    "ends_at": Parameter(
        description="Until when its signatures are accepted.", schema=NULL_OR_TIME, required=True
    ),
    "sealed_by": Parameter(
        description="The key of the ring that encrypts its private part.",
        schema={"type": ["string", "null"]},
        required=True,
    ),
    "public_jwk": Parameter(
        description="The public key (RFC 7517).", schema={"type": "object"}, required=True
    ),
}
KEY = {"type": "object"}
NULL_OR_KEY = {"type": ["object", "null"]}


def _shown(call: Call, key: Any) -> dict[str, Any] | None:
    engine = call.engine
    signs = rules.signing_key(
        engine.stores.signing_keys.list(), engine.settings.signing_algorithm, engine.now
    )
    return None if key is None else operators.signing_key(key, engine.now, signs)


def list_keys(call: Call) -> Answer:
    """The signing keys, oldest first; removed ones only with `all=true`."""
    keys = call.engine.stores.signing_keys.list()
    if not call.flag("all"):
        keys = [key for key in keys if key.state(call.engine.now) is not KeyState.REMOVED]
    return Answer(body={"items": [_shown(call, key) for key in keys]})


def rotate(call: Call) -> Answer:
    """Make a successor of the active key of an algorithm. It signs once it has been published for long enough.

    Args:
        call: `after` may give the seconds until it signs, and `algorithm` another algorithm than the configured one.
    """
    engine, sent = call.engine, Sent(call.sent)
    algorithm = sent.text("algorithm") or None
    if algorithm is not None and algorithm not in ALGORITHMS:
        sent.wrong("algorithm", f"It must be one of {', '.join(ALGORITHMS)}.")
    after = sent.number("after", None, least=0, most=365 * 86_400)
    sent.end()
    ring.check(engine)
    rotation = rules.rotate(
        engine, algorithm=algorithm, after=None if after is None else timedelta(seconds=after)
    )
    return Answer(
        body={"new": _shown(call, rotation.new), "old": _shown(call, rotation.old)},
        location=f"/keys/{write_id(rotation.new.kid)}",
    )


def _found(call: Call) -> Any:
    """The stored key that the address names. Raises NothingThere."""
    kid = call.named("kid")
    for key in call.engine.stores.signing_keys.list():
        if key.kid == kid:
            return key
    raise nothing_there()


def show(call: Call) -> Answer:
    """One signing key: its state, times and public part."""
    return Answer(body=_shown(call, _found(call)))


def revoke(call: Call) -> Answer:
    """Remove a signing key at once, so that its tokens are refused. The answer names the key that signs now."""
    engine, kid, sent = call.engine, _found(call).kid, Sent(call.sent)
    reason = sent.text("reason") or rules.REVOKED_BY_OPERATOR
    if len(reason) > 100:
        sent.wrong("reason", "It may have up to 100 characters.")
    sent.end()
    # Only known keys of the ring are checked. So an operator who lost a key of the ring can still revoke the signing keys
    # that it sealed.
    ring.check_known(engine)
    revocation = rules.revoke(engine, kid, reason=reason)
    signs = rules.signing_key(
        engine.stores.signing_keys.list(), engine.settings.signing_algorithm, engine.now
    )
    return Answer(
        body={
            "revoked": _shown(call, revocation.revoked),
            "was": str(revocation.was),
            "signs": signs.kid if signs else None,
        }
    )


ENTRIES = (
    Entry(
        method="GET",
        path="/keys",
        scope=READ,
        summary="List the signing keys, oldest first. Their private parts stay sealed.",
        act=list_keys,
        answer=SHOWN,
        listed=True,
        query={
            "all": Parameter(
                description="`true`: also those that have ended.", schema={"enum": ["true", "false"]}
            )
        },
    ),
    Entry(
        method="POST",
        path="/keys",
        scope=WRITE,
        summary="Publish a new signing key, which signs as soon as all APIs can have fetched it.",
        act=rotate,
        body={
            "algorithm": Parameter(
                description="The algorithm of the new key; that of the settings unless given.",
                schema={"enum": [*ALGORITHMS, None]},
            ),
            "after": Parameter(
                description="Seconds until it signs; the least and the default is the time until all APIs can have it.",
                schema={"type": ["integer", "null"], "minimum": 0},
            ),
        },
        status=201,
        answer={
            "new": Parameter(description="The new key.", schema=KEY, required=True),
            "old": Parameter(description="The key that it replaces.", schema=NULL_OR_KEY, required=True),
        },
        problems=(problems.CONFLICT,),
    ),
    Entry(
        method="GET",
        path="/keys/{kid}",
        scope=READ,
        summary="Show a signing key.",
        act=show,
        answer=SHOWN,
    ),
    Entry(
        method="POST",
        path="/keys/{kid}/revoke",
        scope=WRITE,
        summary="Revoke a signing key at once. Nothing that it signed is valid any more, not even access tokens for this API.",
        act=revoke,
        body={
            "reason": Parameter(
                description="Why it is revoked, for the events.", schema={"type": ["string", "null"]}
            )
        },
        answer={
            "revoked": Parameter(description="The key.", schema=KEY, required=True),
            "was": Parameter(
                description="Its state before.", schema={"enum": [*map(str, KeyState)]}, required=True
            ),
            "signs": Parameter(
                description="The key that signs from now on.",
                schema={"type": ["string", "null"]},
                required=True,
            ),
        },
        problems=(problems.CONFLICT,),
    ),
)
