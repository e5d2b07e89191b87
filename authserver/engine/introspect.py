"""The introspection endpoint (RFC 7662): tells callers that may ask what a token allows; others learn nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authserver.engine import rates
from authserver.engine.clients.authentication import proven_client
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidClient
from authserver.engine.parameters import Parameters
from authserver.engine.questions import Counted, IntrospectedToken, IntrospectionQuestion, RateStep
from authserver.engine.records import Client, EventType, TokenKind
from authserver.engine.tokens import once
from authserver.engine.tokens.ancestry import is_client_enabled
from authserver.engine.tokens.issued import Issued, find_issued, foresee_issued
from authserver.engine.tokens.issuing import ACTOR

# The one answer about every token that is not active, not known, or not for this caller (RFC 7662, 2.2).
INACTIVE: Mapping[str, Any] = {"active": False}
# The `typ` of a signed answer, and with `application/` before it its media type (RFC 9701, 5).
SIGNED = "token-introspection+jwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """The answer.

    Attributes:
        caller_id: the client that asked.
        members: the members of the answer (RFC 7662, 2.2).
    """

    caller_id: str
    members: Mapping[str, Any]


def introspect(engine: Engine, parameters: Parameters) -> Introspection:
    """Answer an introspection request.

    Args:
        parameters: the form body; a `token_type_hint` is ignored, because it is not needed.

    Raises:
        InvalidRequest: `token` is missing, or something is repeated or malformed.
        InvalidClient: the caller proves nothing, or is a public client (M-07).
        TooManyRequests: the caller asked about too many unknown tokens (M-08).
        ServerError: a policy failed.
    """
    parameters.refuse_repeated()
    foresee_issued(engine, parameters.get("token") or "")
    proven = proven_client(engine, parameters)
    caller = proven.client
    refuse_public(caller)
    issued = find_issued(engine, parameters.require("token"))
    if (
        issued is not None
        and issued.is_active(engine.now)
        and _may_see(engine, caller, issued)
        and _may_client_use(engine, caller, issued)
    ):
        members = described(engine, issued)
    else:
        _slow_down(engine, caller, is_known=issued is not None)
        members = INACTIVE
    for use in proven.uses:
        once.claim(engine, caller, use)
    return Introspection(caller_id=caller.client_id, members=members)


def refuse_public(caller: Client) -> None:
    """Raises InvalidClient for a public client (M-07)."""
    if caller.is_public:
        raise InvalidClient("Introspection needs a client with a credential.", reason="public-caller")


def refusal_of(engine: Engine, caller: Client, token: IntrospectedToken) -> str | None:
    """The reason why policies or floor do not allow this caller to read the token; None if they do.

    Raises ServerError if a policy failed.
    """
    ruling = engine.ask(
        IntrospectionQuestion(caller=caller, token=token, registered=engine.resources.of(token.audience))
    )
    if not ruling.allowed:
        return ruling.reason
    # Refresh tokens are for this server alone: no policy shows one to anybody but its own client (M-07).
    if token.kind is TokenKind.REFRESH and token.client_id != caller.client_id:
        return "refresh-token-of-another-client"
    return None


def signed(engine: Engine, answer: Introspection) -> str:
    """The answer as a JWT that its caller can show to others (RFC 9701, 5).

    `sub` and `exp` are inside `token_introspection` only, so that it is never accepted as a token (8.1).
    """
    claims = {
        "iss": engine.settings.issuer,
        "aud": answer.caller_id,
        "iat": int(engine.now.timestamp()),
        "token_introspection": answer.members,
    }
    return engine.signer.sign(claims, typ=SIGNED)


def _slow_down(engine: Engine, caller: Client, *, is_known: bool) -> None:
    """Count unknown tokens; beyond the limit the caller gets 429 for every inactive one (M-08).

    Active ones are still answered; otherwise a stranger who sends an API many invented tokens could stop it
    for everybody. Tokens that are known here, such as one that has just expired, are not counted, but once the
    limit is reached they get the same response as unknown ones, so that the two cannot be distinguished (T078).

    Raises:
        TooManyRequests: the limit is reached.
    """
    step = RateStep.CHECK if is_known else RateStep.CLAIM
    rates.claim(engine, Counted.UNKNOWN_TOKEN, step=step, client_id=caller.client_id)


def _may_see(engine: Engine, caller: Client, issued: Issued) -> bool:
    """Whether policies and floor allow this caller to read the token.

    A refusal leaves an event, although its response is not an error.
    """
    engine.journal.grant_id, engine.journal.user_id = issued.grant.grant_id, issued.grant.user_id
    token = IntrospectedToken(
        client_id=issued.client_id,
        subject=issued.grant.subject,
        audience=issued.audience,
        scopes=issued.scopes,
        kind=issued.kind,
    )
    reason = refusal_of(engine, caller, token)
    if reason is None:
        return True
    engine.record(EventType.REQUEST_REFUSED, reason=reason, details={"endpoint": engine.caller.endpoint})
    return False


def _may_client_use(engine: Engine, caller: Client, issued: Issued) -> bool:
    """Whether the client that the token was issued to may still use it (M-04, R-09)."""
    if issued.client_id == caller.client_id:
        return caller.is_enabled
    return is_client_enabled(engine, issued.client_id)


def described(engine: Engine, issued: Issued) -> Mapping[str, Any]:
    """The members of RFC 7662, 2.2, as in the token's own claims; no name or address of a person (M-05)."""
    audience = issued.audience
    described: dict[str, Any] = {
        "active": True,
        "scope": " ".join(issued.scopes),
        "client_id": issued.client_id,
        "sub": issued.grant.subject,
        "aud": audience[0] if len(audience) == 1 else list(audience),
        "iss": engine.settings.issuer,
        "exp": int(issued.expires_at.timestamp()),
        "iat": int(issued.issued_at.timestamp()),
        "jti": issued.jti,
    }
    if issued.kind is TokenKind.ACCESS:
        # An API that verifies it must know that it is bound, and to which key (RFC 7662, 2.2; RFC 8705, 3.2).
        token_type = engine.token_type(issued.confirmation)
        if token_type is not None:
            described["token_type"] = token_type
    if issued.confirmation:
        described["cnf"] = dict(issued.confirmation)
    for name in ("acr", "auth_time", ACTOR):
        # When and how the person signed in, for an API that may require more (RFC 9470, 6.2); and who acts (RFC 8693,
        # 4.1).
        if name in issued.grant.details:
            described[name] = issued.grant.details[name]
    return described
