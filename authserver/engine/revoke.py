"""The revocation endpoint (RFC 7009): a client ends what it was granted."""

from __future__ import annotations

from dataclasses import replace

from authserver.engine.clients.authentication import proven_client
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.errors import UnsupportedTokenType
from authserver.engine.parameters import Parameters
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import EventType, TokenKind
from authserver.engine.tokens import once
from authserver.engine.tokens.issued import Issued, find_issued

_REVOKED = "token-revoked"
# Prefixes of credentials of this server that cannot be revoked here.
_UNSUPPORTED = (digests.CODE, digests.SECRET, digests.SESSION, digests.INITIAL, digests.LINK)


def revoke(engine: Engine, parameters: Parameters) -> None:
    """Revoke the grant that a token belongs to, and with it every token of that grant (L-07, T076).

    A token that is unknown, expired, revoked before or another client's changes nothing, and the response is the same
    for all of these (RFC 7009, 2.2; T074).

    Args:
        parameters: the form body; a `token_type_hint` is ignored, because it is not needed.

    Raises:
        InvalidRequest: `token` is missing, or something is repeated or malformed.
        InvalidClient: the client proves nothing.
        UnsupportedTokenType: a credential of this server that is not a token.
    """
    parameters.refuse_repeated()
    proven = proven_client(engine, parameters)
    client, text = proven.client, parameters.require("token")
    if any(digests.well_formed(prefix, text) for prefix in _UNSUPPORTED):
        raise UnsupportedTokenType("Only access tokens and refresh tokens can be revoked.")
    issued = find_issued(engine, text)
    # From here on no plugin is asked.
    for use in proven.uses:
        once.claim(engine, client, use)
    if issued is None:
        return
    engine.journal.grant_id, engine.journal.user_id = issued.grant.grant_id, issued.grant.user_id
    if issued.client_id != client.client_id:
        engine.record(
            EventType.REQUEST_REFUSED,
            reason="token-of-another-client",
            details={"endpoint": engine.caller.endpoint},
        )
    elif _counts(engine, issued) and _revoke_grant(engine, issued):
        engine.journal.acts(client)
        engine.record(EventType.GRANT_REVOKED, reason=_REVOKED, details={"kind": issued.kind})


def _counts(engine: Engine, issued: Issued) -> bool:
    """Whether this token ends its grant: an expired access token does not.

    A refresh token does, even a used one, because its client may have lost the next one.
    """
    return issued.kind is TokenKind.REFRESH or engine.now < issued.expires_at


def _revoke_grant(engine: Engine, issued: Issued) -> bool:
    """Whether it was live until now."""
    grants, grant = engine.stores.grants, issued.grant
    if grant.revoked_at is not None:
        return False
    if issued.is_stored:
        return grants.revoke(grant.grant_id, engine.now, _REVOKED)
    try:
        # A grant that is only in this JWT is stored now, as revoked.
        grants.add(replace(grant, revoked_at=engine.now, revoked_reason=_REVOKED))
    except AlreadyExists:
        return False
    return True
