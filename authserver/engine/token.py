"""The token endpoint (OAuth 2.1, 3.2): authenticate, known, allowed, redeem, bind, issue.

Nothing is written before `issuing.issue`: grant types and bindings return the things that they use up (`SingleUse`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authserver.engine import rates
from authserver.engine.authorization_request import kept_with_grant
from authserver.engine.clients.authentication import NOBODY_NAMED, ProvenClient, proven_client
from authserver.engine.context import Binding, Engine, Issue, Redeem
from authserver.engine.crypto import digests
from authserver.engine.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    ServerError,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from authserver.engine.grants import assertion
from authserver.engine.parameters import MAY_REPEAT_FOR_TOKENS, Parameters
from authserver.engine.questions import Counted
from authserver.engine.records import NOTHING, Client, TokenKind
from authserver.engine.tokens import issuing, once
from authserver.engine.tokens.issuing import AlreadyClaimed, TokenResponse

log = logging.getLogger(__name__)

# The parameters that have a credential of this server.
_PRESENTED = (
    ("code", TokenKind.CODE, digests.CODE),
    ("refresh_token", TokenKind.REFRESH, digests.REFRESH),
)


def exchange(engine: Engine, parameters: Parameters) -> TokenResponse:
    """Answer a token request.

    Args:
        parameters: the form body.

    Raises:
        OAuthError: any error of OAuth 2.1, 3.2.4; nothing is issued then.
        TooManyRequests: the client, or the grant, gets tokens too often; or the client has presented too many grants
            that were refused. The latter is counted apart, because anybody can do that in the name of a public client
            (R-20).
    """
    parameters.refuse_repeated(allowed=MAY_REPEAT_FOR_TOKENS)
    _foresee(engine, parameters)
    named = _named_by_assertion(engine, parameters)
    try:
        proven = ProvenClient(client=named[0]) if named else proven_client(engine, parameters)
    except InvalidClient as refused:
        if refused.reason == NOBODY_NAMED:
            # A mistake in the request itself is the more useful refusal.
            offered_grant_type(engine, _requested_grant_type(parameters))
        raise
    client = proven.client
    redeem = allowed_grant_type(engine, client, _requested_grant_type(parameters))
    if named:
        redeem = named[1]
    try:
        order = _order(redeem, engine, proven, parameters)
    except InvalidGrant as refused:
        # The consequences of a refusal, such as the revocation after a replay, are carried out however often it
        # happens.
        if not (refused.revoke_grant or refused.failed_token):
            rates.claim(engine, Counted.FAILED_GRANT, client_id=client.client_id)
        raise
    rates.claim(
        engine,
        Counted.TOKEN_REQUEST,
        client_id=client.client_id,
        grant_id=None if order.is_new else order.grant.grant_id,
    )
    binding = proven_key(engine, client, parameters, order)
    try:
        return issuing.issue(engine, client, order, binding)
    except AlreadyClaimed:
        # Another request was first. The grant type, asked again, sees its result: a replay, or a retry.
        engine.stores.undo()
        return issuing.issue(engine, client, _order(redeem, engine, proven, parameters), binding)


def _named_by_assertion(engine: Engine, parameters: Parameters) -> tuple[Client, Redeem] | None:
    """As `assertion.named_client`; refusals are counted for the source and the issuer (R-20)."""
    if parameters.get("grant_type") != assertion.GRANT_TYPE or assertion.GRANT_TYPE not in engine.grant_types:
        return None
    engine.journal.grant_type = assertion.GRANT_TYPE
    try:
        return assertion.named_client(engine, parameters)
    except InvalidGrant as refused:
        rates.claim(engine, Counted.FAILED_GRANT, client_id=refused.facts.get("issuer"))
        raise


def _foresee(engine: Engine, parameters: Parameters) -> None:
    """The presented credential is read together with the client, because the two reads do not depend on each other."""
    for name, kind, prefix in _PRESENTED:
        text = parameters.get(name)
        if text is not None and digests.well_formed(prefix, text):
            engine.stores.tokens.foresee(kind, digests.digest(kind, text))


def authenticate(engine: Engine, parameters: Parameters) -> Client:
    """The client that sent this request. Its proof is used up at once, so ask no plugin afterwards.

    For endpoints of plugins. Raises as `proven_client`, and InvalidClient for a proof that was used before.
    """
    proven = proven_client(engine, parameters)
    for use in proven.uses:
        once.claim(engine, proven.client, use)
    return proven.client


def _order(redeem: Redeem, engine: Engine, proven: ProvenClient, parameters: Parameters) -> Issue:
    """The order of the grant type, to which the things of single use in the client's own proof are added.

    A new grant of a person has the grant type, so that the person sees in a list where the grant came from.
    """
    order = redeem(engine, proven.client, parameters)
    if proven.uses:
        order = replace(order, uses=(*proven.uses, *order.uses))
    grant = order.grant
    if not order.is_new or grant.user_id is None:
        return order
    kept: Mapping[str, Any] = NOTHING
    if order.user is not None:
        acr = grant.details.get("acr")
        kept = kept_with_grant(
            engine, proven.client, order.user, Parameters.of(()), acr=acr, scopes=grant.scopes
        )
    details = {**kept, **grant.details, "grant_type": parameters.require("grant_type")}
    if details == grant.details:
        return order
    return replace(order, grant=replace(grant, details=details))


def proven_key(
    engine: Engine, client: Client, parameters: Parameters, order: Issue | None = None
) -> Binding | None:
    """The key that the client proves to have, if any. Call this once in a request, because a proof is used up.

    Args:
        parameters: the parameters of this request.
        order: what may be issued; None at an endpoint that issues nothing.

    Raises:
        OAuthError: a plugin refuses the proof.
        ServerError: a plugin failed, or two of them bind.
    """
    if not engine.policies.serves("token_binding"):
        return None
    bindings = engine.contributions(
        "token_binding",
        engine=engine,
        client=client,
        parameters=parameters,
        grant=order.grant if order else None,
        spends=order.spends if order else None,
    )
    if len(bindings) > 1:
        log.error("two plugins prove one key in token_binding: refusing; leave one of them out")
        raise ServerError("The server could not answer this request.", reason="two-bindings")
    return bindings[0] if bindings else None


def _requested_grant_type(parameters: Parameters) -> str:
    grant_type = parameters.get("grant_type")
    if grant_type is None:
        raise InvalidRequest("grant_type is missing.", reason="grant-type-missing")
    return grant_type


def offered_grant_type(engine: Engine, grant_type: str) -> Redeem:
    """The grant type of this name. Raises UnsupportedGrantType: it is not offered."""
    redeem = engine.grant_types.get(grant_type)
    if redeem is None:
        raise UnsupportedGrantType("This grant type is not offered.")
    engine.journal.grant_type = grant_type
    return redeem


def allowed_grant_type(engine: Engine, client: Client, grant_type: str) -> Redeem:
    """The grant type of this name, if it is offered and the client is registered for it.

    Raises:
        UnsupportedGrantType, UnauthorizedClient: it is not.
    """
    redeem = offered_grant_type(engine, grant_type)
    if grant_type not in client.grant_types:
        refused = UnauthorizedClient(
            "This client may not use this grant type.", reason="grant-type-not-registered"
        )
        refused.facts = {"grant_type": grant_type}
        raise refused
    return redeem
