"""The UserInfo endpoint (OIDC Core, 5.3): the claims about the person of an access token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pyramid.response import Response

from authserver.api import (
    MAXIMUM_PARAMETER,
    Bearer,
    Engine,
    InsufficientScope,
    InvalidClient,
    InvalidRequest,
    InvalidTarget,
    InvalidToken,
    Issued,
    Medium,
    Operation,
    Origins,
    Parameter,
    Parameters,
    Request,
    Route,
    TokenKind,
    allowed_resources,
    canonical_resource,
    claim,
    find_issued,
    json_response,
    proven_key,
    read_form,
    read_query,
)
from authserver.api import Client as ClientRecord
from authserver.features.openid.claims import ADDRESS, NAMES, OPENID

ALGORITHM = "userinfo_signed_response_alg"
# A signed answer is no token, so its type is not that of a token.
TYPE = "userinfo+jwt"
_FLAG = {"type": "boolean"}
_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "email_verified": _FLAG,
    "phone_number_verified": _FLAG,
    "address": {"type": "object", "properties": {name: {"type": "string"} for name in ADDRESS}},
}
_OPERATION = Operation(
    summary="The claims about the person that the application may get (OIDC Core, 5.3).",
    bearer=Bearer(name="access_token", description="With the scope `openid`."),
    answer={
        "sub": Parameter(description="As in the ID token.", required=True),
        **{
            name: Parameter(description="OIDC Core, 5.1.", schema=_SCHEMAS.get(name, {"type": "string"}))
            for name in NAMES
        },
    },
    errors=(InvalidRequest, InvalidToken, InsufficientScope),
    open_to=("token_binding",),
)
_BY_FORM = replace(
    _OPERATION,
    form={
        "access_token": Parameter(
            description="The access token, if it is not in the header (RFC 6750, 2.2).",
            schema={"type": "string", "minLength": 1, "maxLength": MAXIMUM_PARAMETER},
        )
    },
)
ROUTE = Route(
    "userinfo",
    "/oauth/userinfo",
    ("GET", "POST"),
    Medium.JSON,
    Origins.CLIENTS,
    metadata="userinfo_endpoint",
    operation={"GET": _OPERATION, "POST": _BY_FORM},
)
Describe = Callable[[Engine, ClientRecord, Issued], Mapping[str, Any]]


def answer(request: Request, describe: Describe) -> Response:
    """GET and POST /oauth/userinfo.

    Args:
        describe: the claims that this access token gives.

    Raises:
        InvalidRequest: the token is sent twice.
        InvalidToken: there is no token, or it is not valid here.
        InsufficientScope: it lacks the scope `openid`.
    """
    # A form without parameters has no content type; then the token is in the header.
    is_form = request.method == "POST" and request.content_length not in (None, 0)
    form = read_form(request) if is_form else read_query(request)
    client, claims = look_up(request.engine, form, describe, in_form=is_form)
    algorithm = client.details.get(ALGORITHM)
    if algorithm is None:
        return json_response(claims)
    response = json_response(signed(request.engine, client, claims, algorithm).encode())
    response.content_type = "application/jwt"
    return response


def signed(engine: Engine, client: ClientRecord, claims: Mapping[str, Any], algorithm: str) -> str:
    """The answer as a JWT for this client (OIDC Core, 5.3.2)."""
    members = {**claims, "iss": engine.settings.issuer, "aud": client.client_id}
    return engine.signer.sign(members, typ=TYPE, algorithm=algorithm)


def look_up(
    engine: Engine, form: Parameters, describe: Describe, *, in_form: bool = False
) -> tuple[ClientRecord, Mapping[str, Any]]:
    """The client of the access token of this request, and the claims for it.

    Args:
        form: the parameters of the request.
        describe: a function that returns the claims of an access token.
        in_form: whether the access token may be among the parameters; never if they are in an address (RFC 6750, 2.3).

    Raises:
        InvalidRequest, InvalidToken, InsufficientScope: as `answer`.
    """
    form.refuse_repeated()
    text, scheme = _presented(engine, form if in_form else None)
    issued = find_issued(engine, text) if text else None
    if issued is not None:
        # The event of a refusal names client and user.
        engine.journal.client_id, engine.journal.grant_id = issued.client_id, issued.grant.grant_id
    client = _live_client(engine, issued)
    if issued is None or client is None or issued.user is None:
        raise InvalidToken("The access token is not valid.", reason="userinfo-token", sent=bool(text))
    engine.journal.user_id = issued.user.user_id
    _check_key(engine, client, issued, scheme, form)
    if OPENID not in issued.scopes:
        raise InsufficientScope("This needs the scope openid.", scope=OPENID, reason="userinfo-scope")
    return client, {**describe(engine, client, issued), "sub": issued.grant.subject}


def _presented(engine: Engine, form: Parameters | None) -> tuple[str, str]:
    """The access token and the scheme it came with, in the header or in a form (RFC 6750, 2); "" without one."""
    scheme, _, text = (engine.caller.authorization or "").partition(" ")
    in_form = form.get("access_token") if form is not None else None
    if text and in_form:
        raise InvalidRequest("The access token is sent twice.", reason="userinfo-two-tokens")
    return (in_form, "Bearer") if in_form else (text.strip(), scheme)


def _live_client(engine: Engine, issued: Issued | None) -> ClientRecord | None:
    """The client of an access token that is valid at this endpoint; None for any other."""
    if issued is None or issued.kind is not TokenKind.ACCESS or not issued.is_active(engine.now):
        return None
    try:
        client = engine.find_client(issued.client_id)
    except InvalidClient:
        return None
    if client is None or not client.is_enabled or not _is_for_us(engine, client, issued):
        return None
    return client


def _is_for_us(engine: Engine, client: ClientRecord, issued: Issued) -> bool:
    """Whether the token is for this endpoint: this is its audience, or the request named no resource.

    A token that was asked for with another resource is only for that one (P-08).
    """
    audience = set(map(canonical_resource, issued.audience))
    if canonical_resource(engine.settings.issuer + ROUTE.path) in audience:
        return True
    try:
        default = allowed_resources(engine, client, ())
    except InvalidTarget:
        return False
    return not audience.isdisjoint(map(canonical_resource, default))


def _check_key(engine: Engine, client: ClientRecord, issued: Issued, scheme: str, form: Parameters) -> None:
    """Check that the token came with the scheme of its type, and with a proof of its key if it is bound (RFC 9449, 7).

    Raises:
        InvalidToken: it came with another scheme, or without a proof.
        OAuthError: the proof is refused.
    """
    refused = InvalidToken("The access token is not valid.", reason="userinfo-scheme")
    needed = engine.token_type(issued.confirmation)
    if needed is None or scheme.lower() != needed.lower():
        raise refused
    if not issued.confirmation:
        return
    binding = proven_key(engine, client, form)
    if binding is None or dict(binding.confirmation) != dict(issued.confirmation):
        raise refused
    for use in binding.uses:
        claim(engine, client, use)
