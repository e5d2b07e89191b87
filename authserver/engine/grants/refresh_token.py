"""A client renews its access (OAuth 2.1, 4.3): rotation, retry and reuse as one state machine.

A refresh token is *live* until it is used; then it is *rotated*, and knows its successor. If it is presented again
while its successor is unused and the window is open, that is a *retry*: the same successor is sent again. Anything else
is *reuse*: somebody copied it, so the grant and all its tokens are revoked.

A client with a credential of its own may be registered to keep its refresh token instead (FAPI 2.0, 5.3.2.1). Then a
live token remains live; a token that was rotated earlier remains rotated.
"""

from __future__ import annotations

from datetime import timedelta

from authserver.engine.asking import (
    allowed_scopes,
    narrower_resources,
    remaining_resources,
    requested_scopes,
    still_registered,
)
from authserver.engine.context import Engine, Issue
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import Unsealable, open_under
from authserver.engine.errors import InvalidGrant, InvalidScope
from authserver.engine.parameters import Parameters
from authserver.engine.records import (
    AUTHENTICATES,
    MADE_PUBLIC,
    NOTHING,
    Client,
    FoundToken,
    Token,
    TokenKind,
)
from authserver.engine.tokens.ancestry import why_ended

_REFUSED = "The refresh token is not valid."
# The difference that the clocks of our processes may have. A use further in the future happened before the clock was
# set back, so its age is unknown: the window must not be open again for an hour (T150).
_APART = timedelta(seconds=60)


def redeem(engine: Engine, client: Client, parameters: Parameters) -> Issue:
    """Check the refresh token and its grant; it is rotated when tokens are issued.

    Raises:
        InvalidRequest: `refresh_token` is missing.
        InvalidGrant: it is not this client's or not live; reuse revokes the grant (I-06). Or no resource of the grant
            exists any more (I-17).
        InvalidScope, InvalidTarget: more than was granted, or a resource that does not exist any more (I-10, I-16).
    """
    presented = parameters.require("refresh_token")
    found = _find(engine, client, presented)
    token, grant = found.token, found.grant
    _check_live(engine, client, found)
    # This comes before everything that the request asks for: it is reuse even if the rest of the request is wrong
    # (I-06).
    successor = _successor_again(engine, token, presented) if token.claimed_at else None
    granted = found.refreshable_scopes
    requested = requested_scopes(parameters) or still_registered(client, granted)
    if any(scope not in granted for scope in requested):
        raise InvalidScope("The requested scope was not granted.", reason="scope-not-granted")
    named = parameters.all("resource")
    narrowed = narrower_resources(named, token.resources)
    resources = remaining_resources(engine, client, found, narrowed, named=bool(named))
    scopes = allowed_scopes(engine, client, found.user, "refresh_token", requested, resources)
    keeps = successor is None and not _rotates(client)
    spends = successor is None and not keeps
    return Issue(
        grant=grant,
        user=found.user,
        scopes=scopes,
        resources=resources,
        refreshable=not keeps,
        spends=token if spends else None,
        presented=presented if spends else None,
        keeps=token if keeps else None,
        refresh_token=successor,
        bound=token.details.get("cnf", NOTHING),
    )


def _rotates(client: Client) -> bool:
    """Whether refresh tokens rotate; always for a public client, because nothing else protects them (I-04)."""
    return client.rotates_refresh_tokens or client.is_public


def _find(engine: Engine, client: Client, presented: str) -> FoundToken:
    """The refresh token, if it is one of this client's (I-02)."""
    if not digests.well_formed(digests.REFRESH, presented):
        raise InvalidGrant(_REFUSED, reason="refresh-token-malformed")
    found = engine.stores.tokens.find(TokenKind.REFRESH, digests.digest(TokenKind.REFRESH, presented))
    if found is None:
        raise InvalidGrant(_REFUSED, reason="refresh-token-unknown")
    if found.token.client_id != client.client_id:
        raise InvalidGrant(_REFUSED, reason="refresh-token-of-another-client")
    engine.journal.grant_id = found.grant.grant_id
    engine.journal.user_id = found.grant.user_id
    return found


def _check_live(engine: Engine, client: Client, found: FoundToken) -> None:
    """Check revocation and both lifetimes (I-12, I-13); after a revocation there is no retry, even in the window (T067).

    Raises:
        InvalidGrant: it is not live. It ends with its grant if only the client's own credential protected it, and the
            client has none any more, as when an operator makes a client public.
    """
    if found.grant.revoked_at is not None:
        raise InvalidGrant(_REFUSED, reason="grant-revoked")
    if client.is_public and AUTHENTICATES in found.grant.details:
        raise InvalidGrant(_REFUSED, reason=MADE_PUBLIC, revoke_grant=found.grant.grant_id)
    if (problem := why_ended(engine, found.grant)) is not None:
        raise InvalidGrant(_REFUSED, reason=problem)
    if found.grant.expires_at <= engine.now:
        raise InvalidGrant(_REFUSED, reason="grant-expired")
    if found.user is None or not found.user.is_enabled:
        raise InvalidGrant(_REFUSED, reason="user-disabled")
    if found.token.claimed_at is None and found.token.expires_at <= engine.now:
        raise InvalidGrant(_REFUSED, reason="refresh-token-idle")


def _successor_again(engine: Engine, token: Token, presented: str) -> str:
    """The successor of a token that was just used, for a client that lost the answer (I-08).

    Raises:
        InvalidGrant: it is reuse, and the grant must be revoked.
    """
    reuse = InvalidGrant(_REFUSED, reason="refresh-token-reused", revoke_grant=token.grant_id)
    window = timedelta(seconds=engine.settings.refresh_token_retry_window)
    if token.claimed_at is None or token.sealed_successor is None or token.successor_digest is None:
        raise reuse
    if not window or not -_APART <= engine.now - token.claimed_at <= window:
        raise reuse
    successor = engine.stores.tokens.find(TokenKind.REFRESH, token.successor_digest)
    if successor is None or successor.token.claimed_at is not None:
        raise reuse
    try:
        return open_under(presented, token.sealed_successor).decode()
    except Unsealable:
        raise reuse from None
