"""The requests of the device: it asks for its two codes, and then polls until its user has answered (RFC 8628, 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from authserver.api import (
    RESOURCE_PARAMETER,
    SCOPE_PARAMETER,
    SELF_REGISTERED,
    AccessDenied,
    Client,
    Counted,
    Engine,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    Issue,
    Medium,
    OAuthError,
    Operation,
    Origins,
    Parameter,
    Parameters,
    Route,
    TokenKind,
    UnauthorizedClient,
    User,
    allowed_resources,
    allowed_scopes,
    check_approved,
    claim,
    claim_rate,
    proven_client,
    proven_key,
    redeem_approved,
    requested_scopes,
)
from authserver.features.device import requests
from authserver.features.device.requests import DeviceRequest, Rules, State

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_REFUSED = "The device code is not valid."
# The credentials of the client, which are not stored with the request.
_CREDENTIALS = ("client_secret", "client_assertion", "client_assertion_type")
ROUTE = Route(
    "device_authorization",
    "/oauth/device_authorization",
    ("POST",),
    Medium.JSON,
    Origins.CLIENTS,
    metadata="device_authorization_endpoint",
    operation=Operation(
        summary="Ask for a code that the user types on another device (RFC 8628, 3.1).",
        form={
            "scope": SCOPE_PARAMETER,
            "resource": RESOURCE_PARAMETER,
        },
        authenticates=True,
        answer={
            "device_code": Parameter(description="The code with which the device polls.", required=True),
            "user_code": Parameter(description="The code that the user types.", required=True),
            "verification_uri": Parameter(
                description="The page on which the user types the code.", required=True
            ),
            "verification_uri_complete": Parameter(
                description="The address of that page with the code in it.", required=True
            ),
            "expires_in": Parameter(
                description="For how many seconds the codes are valid.",
                schema={"type": "integer", "minimum": 1},
                required=True,
            ),
            "interval": Parameter(
                description="Seconds to wait between two polls.",
                schema={"type": "integer", "minimum": 1},
                required=True,
            ),
        },
        errors=(InvalidScope, InvalidTarget, UnauthorizedClient),
        limited=True,
        open_to=("token_binding", "code_details"),
    ),
)


class AuthorizationPending(OAuthError):
    """The user has not answered yet (RFC 8628, 3.5). It leaves no event, because each device polls all the time."""

    code = "authorization_pending"
    leaves_event = False


class SlowDown(AuthorizationPending):
    """The device polls too often; from now on it must wait longer between two polls (RFC 8628, 3.5)."""

    code = "slow_down"


class ExpiredToken(OAuthError):
    """The user did not answer in time (RFC 8628, 3.5)."""

    code = "expired_token"


class Denied(AccessDenied):
    """The user denied the request, or may not allow it (RFC 8628, 3.5)."""

    status: ClassVar[int] = 400


def ask(engine: Engine, form: Parameters, rules: Rules, page: str) -> Mapping[str, Any]:
    """Store the request of a device, and answer with its codes (RFC 8628, 3.2).

    Args:
        page: the URL where people type codes.

    Raises:
        InvalidRequest: the request is malformed, or has a `code_challenge` or `nonce`, which nobody would check.
        InvalidClient, UnauthorizedClient: the client does not authenticate, or may not use the grant type.
        InvalidScope, InvalidTarget: as in an authorization request.
        TooManyRequests: there are too many requests of a client in whose name anybody can ask.
    """
    form.refuse_repeated()
    proven = proven_client(engine, form)
    client = proven.client
    check_client(engine, client, rules)
    if "code_challenge" in form or "code_challenge_method" in form:
        raise InvalidRequest("This grant has no code_challenge.", reason="code-challenge-at-device")
    if "nonce" in form:
        raise InvalidRequest("This grant has no nonce.", reason="nonce-at-device")
    if "request" in form or "request_uri" in form:
        raise InvalidRequest("This grant has no request object.", reason="request-object-at-device")
    sent = form.without(*_CREDENTIALS)
    if len(sent.encoded()) > engine.settings.maximum_request:
        raise InvalidRequest("The request is too long.", reason="request-too-long")
    binding = proven_key(engine, client, sent)
    kept = _kept(engine, client, sent, binding.confirmation if binding else {})
    resources = allowed_resources(engine, client, form.all("resource"))
    scopes = allowed_scopes(engine, client, None, GRANT_TYPE, requested_scopes(form), resources)
    if client.is_public or client.is_self_registered:
        who = SELF_REGISTERED if client.is_self_registered else client.client_id
        claim_rate(engine, Counted.REQUEST_IN_ADVANCE, client_id=who)
    for use in (*proven.uses, *(binding.uses if binding else ())):
        claim(engine, client, use)
    device_code, user_code = requests.keep(
        engine, client, rules, sent=sent, scopes=scopes, resources=resources, kept=kept
    )
    return {
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?{urlencode({'user_code': user_code})}",
        "expires_in": rules.lifetime,
        "interval": rules.interval,
    }


def check_client(engine: Engine, client: Client, rules: Rules) -> None:
    """Check that this client may use the grant type. Raises UnauthorizedClient."""
    if GRANT_TYPE not in client.grant_types:
        raise UnauthorizedClient(
            "This client may not use this grant type.", reason="grant-type-not-registered"
        )
    if (client.is_self_registered or client.is_known_by_address) and not rules.self_registered:
        raise UnauthorizedClient(
            "This client may not use this grant type.", reason="device-client-not-allowed"
        )


def check_person(user: User, rules: Rules) -> None:
    """Check that this person may connect devices. Raises AccessDenied."""
    if rules.refused_groups & {*user.groups}:
        raise Denied("You may not connect a device here.", reason="device-group-refused")


def redeem(engine: Engine, client: Client, parameters: Parameters, rules: Rules) -> Issue:
    """Answer a poll (RFC 8628, 3.5): with tokens once the user has agreed, and before that with an error that says why not.

    Raises:
        InvalidRequest: `device_code` is missing, or a `code_verifier` is sent although there was no challenge.
        AuthorizationPending, SlowDown: nobody has answered yet.
        Denied: the user denied it, or may not connect devices any more.
        ExpiredToken: nobody answered in time.
        InvalidGrant: this client has no such code, the code was used, or the grant has ended.
        InvalidTarget: the user did not agree to the resource.
    """
    device_code = parameters.require("device_code")
    if "code_verifier" in parameters:
        raise InvalidRequest("This grant has no code_verifier.", reason="code-challenge-at-device")
    check_client(engine, client, rules)
    found = requests.find_by_device_code(engine, device_code)
    if found is None:
        raise _unknown(reason="device-code-unknown")
    if found.client_id != client.client_id:
        raise _unknown(reason="device-code-of-another-client")
    match found.state:
        case State.APPROVED:
            return _approved(engine, client, found, parameters, rules)
        case State.DENIED:
            raise Denied("The user denied the request.", reason="device-denied")
        case State.PENDING if found.is_over(engine):
            raise ExpiredToken("The code has expired.")
        case State.PENDING:
            raise _pending(engine, found)


def _pending(engine: Engine, found: DeviceRequest) -> AuthorizationPending:
    polled, too_early = found.polled(engine.now)
    refusal = (
        SlowDown("Poll less often.") if too_early else AuthorizationPending("The user has not answered yet.")
    )
    refusal.kept_change = (found.record, polled.record)
    return refusal


def _approved(
    engine: Engine, client: Client, found: DeviceRequest, parameters: Parameters, rules: Rules
) -> Issue:
    approved = engine.stores.tokens.find(TokenKind.CODE, found.record.digest)
    if approved is None:
        raise _unknown(reason="grant-ended")
    engine.journal.grant_id, engine.journal.user_id = approved.grant.grant_id, approved.grant.user_id
    if approved.token.claimed_at is not None:
        raise _unknown(reason="device-code-used")
    if found.is_over(engine):
        raise ExpiredToken("The code has expired.")
    check_approved(engine, approved, refused=_REFUSED)
    if approved.user is not None:
        check_person(approved.user, rules)
    return redeem_approved(engine, client, approved, parameters.all("resource"), grant_type=GRANT_TYPE)


def _kept(engine: Engine, client: Client, sent: Parameters, bound: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details that plugins keep with the code, and the key that the device proved. Raises InvalidRequest."""
    kept = engine.gather("code_details", client=client, parameters=sent)
    if not bound:
        return kept
    if kept.get("cnf", bound) != bound:
        raise InvalidRequest("The request names another key than was proven.", reason="key-differs")
    return {**kept, "cnf": dict(bound)}


def _unknown(*, reason: str) -> InvalidGrant:
    """The same answer for a code that is unknown, used or of another client (DEV-03, DEV-15)."""
    return InvalidGrant(_REFUSED, reason=reason)
