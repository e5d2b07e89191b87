"""Reads an authorization request, and checks it against client and policies (OAuth 2.1, 4.1.1).

`engine.authorize` processes an accepted request, page after page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from authserver.engine import pkce, uris
from authserver.engine.asking import allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.context import Engine
from authserver.engine.decisions import Ruling, Verdict
from authserver.engine.errors import (
    QUERY,
    AuthenticationRefused,
    InvalidRequest,
    OAuthError,
    PageError,
    RequestNotSupported,
    RequestUriNotSupported,
    ServerError,
    TooManyRequests,
    UnauthorizedClient,
    UnsupportedResponseType,
)
from authserver.engine.parameters import Parameters
from authserver.engine.questions import (
    AuthenticationQuestion,
    AuthenticationStep,
    RedirectUriQuestion,
    SignIn,
)
from authserver.engine.records import NOTHING, SUBJECT, Client, Session, User
from authserver.limits import MAXIMUM_LEVEL, MAXIMUM_WHY

# What a `sub` may be (OIDC Core, 2).
_SUBJECT = re.compile(r"[!-~]{1,255}")
# The name of a level of sign-in: printable, and without a space, because requests name several (RFC 9470, 4).
_LEVEL = re.compile(rf"[!-~]{{1,{MAXIMUM_LEVEL}}}")

# The parameters that a request must have itself, because no plugin can imply them.
CORE_PARAMETERS = frozenset(
    {
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "request",
        "request_uri",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """An authorization request as expanded by a plugin (hook `expand_authorization_request`).

    Attributes:
        parameters: those that count, in place of all that were sent.
        request_id: the id under which the request is answered only once, if it can be sent several times.
        sendable_until: the time until which it can be sent.
        bound: the key, as a `cnf`, that its client proved when it sent the request in advance; the code is bound to it.
        refusal: sent to the client instead of an answer, when its redirect URI has been accepted.
        reference: the few parameters that travel from page to page in place of these, if the plugin stores these. On
            each page it is asked to expand the reference, with an engine whose `now` is the time at which the request
            was sent.
    """

    parameters: Parameters
    request_id: str | None = None
    sendable_until: datetime | None = None
    bound: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    refusal: InvalidRequest | None = None
    reference: Parameters | None = None


def check_request(engine: Engine, parameters: Parameters, bound: Mapping[str, Any] = NOTHING) -> None:
    """Check everything about a request that does not depend on a user (RFC 9126, 2.1).

    Args:
        bound: the key that the client proved, as a `cnf`, if any.

    Raises:
        OAuthError: as the authorization endpoint would refuse it, on a page or to the client.
    """
    client, _ = _target(engine, parameters)
    read_state(parameters)
    parameters.refuse_repeated()
    parameters = complete(engine, client, parameters)
    read_details(engine, client, parameters, None, bound)


def expand(engine: Engine, parameters: Parameters) -> Expanded:
    """The request to which the parameters refer: the first plugin that expands it decides, and each may refuse."""
    engine.journal.note_languages(parameters)
    try:
        found = engine.contributions("expand_authorization_request", engine=engine, parameters=parameters)
    except (ServerError, TooManyRequests):
        raise
    except OAuthError as error:
        raise PageError(error) from None
    first = found[0] if found else Expanded(parameters=parameters)
    engine.journal.note_languages(first.parameters)
    return replace(first, refusal=next((item.refusal for item in found if item.refusal), None))


def carried(expanded: Expanded, maximum: int) -> Expanded:
    """The request as it travels from page to page; if it is too long, only the parameters that its refusal needs."""
    parameters = expanded.parameters
    try:
        parameters.refuse_unreadable()
        if len(parameters.encoded()) <= maximum:
            return expanded
        refusal = InvalidRequest("The request is too long.", reason="request-too-long")
    except InvalidRequest as unreadable:
        refusal = unreadable
    kept = parameters.only("client_id", "redirect_uri", "state")
    if not _can_return_state(kept) or len(kept.encoded()) > maximum:
        kept = kept.without("state")
    return replace(expanded, parameters=kept, refusal=expanded.refusal or refusal)


def _can_return_state(parameters: Parameters) -> bool:
    try:
        read_state(parameters)
    except InvalidRequest:
        return False
    return True


def accept_target(engine: Engine, parameters: Parameters) -> tuple[Client, str]:
    """The client and the redirect URI. Raises PageError."""
    try:
        return _target(engine, parameters)
    except (ServerError, TooManyRequests):
        raise
    except OAuthError as error:
        raise PageError(error) from None


def _target(engine: Engine, parameters: Parameters) -> tuple[Client, str]:
    """The client and the redirect URI. Raises OAuthError."""
    client_id = parameters.require("client_id")
    client = engine.find_client(client_id)
    if client is None or not client.is_enabled:
        raise InvalidRequest(
            "There is no such application here.", reason="client-disabled" if client else "client-unknown"
        )
    engine.journal.client_id = client.client_id
    redirect_uri = parameters.get("redirect_uri")
    if redirect_uri is None:
        if len(client.redirect_uris) != 1:
            raise InvalidRequest("redirect_uri is missing.", reason="redirect-uri-missing")
        redirect_uri = client.redirect_uris[0]
    accept_redirect_uri(engine, client, redirect_uri)
    return client, redirect_uri


def accept_redirect_uri(engine: Engine, client: Client, redirect_uri: str) -> None:
    """Check the redirect URI: the floor first, then the policies.

    Raises:
        InvalidRequest: it is not acceptable, or not registered for this client.
        ServerError: a policy failed.
    """
    if uris.redirect_uri_problem(redirect_uri, private_use=engine.private_use_redirect_uris):
        withdrawn = uris.needs_permission(redirect_uri)
        reason = "private-use-not-allowed" if withdrawn else "redirect-uri-malformed"
        raise InvalidRequest("The redirect_uri is not acceptable.", reason=reason)
    ruling = engine.ask(RedirectUriQuestion(client=client, redirect_uri=redirect_uri))
    if not ruling.allowed:
        raise InvalidRequest("The redirect_uri is not registered for this application.", reason=ruling.reason)


def required_sign_in(
    engine: Engine,
    client: Client,
    parameters: Parameters,
    user: User | None,
    session: Session | None,
    *,
    is_fresh: bool,
) -> SignIn:
    """The decision of the policies about the sign-in.

    Args:
        parameters: those of the request; none of them is repeated.
        is_fresh: whether this user signed in since the request began.

    Raises:
        AuthenticationRefused: a policy refuses; the client gets its code.
        ServerError: a policy failed.
    """
    if not engine.policies.serves(AuthenticationQuestion.hook):
        return SignIn()
    ruling = engine.ask(
        AuthenticationQuestion(
            client=client, user=user, session=session, is_fresh=is_fresh, parameters=parameters
        )
    )
    said = _said(engine, ruling)
    if ruling.verdict is Verdict.DENY:
        silent = any(each.silent for each in said)
        if ruling.error_code == InvalidRequest.code:
            raise AuthenticationRefused(
                "A parameter has a value that it cannot have.",
                reason=ruling.reason,
                code=ruling.error_code,
                silent=silent,
            )
        raise AuthenticationRefused(
            "This is not allowed here.", reason=ruling.reason, code=ruling.error_code, silent=silent
        )
    sign_in = _strictest(said)
    # A sign-in since the request began is always enough; otherwise a policy could ask for one sign-in after another.
    return replace(sign_in, step=AuthenticationStep.GO_ON) if is_fresh else sign_in


def _said(engine: Engine, ruling: Ruling[AuthenticationStep | SignIn]) -> list[SignIn]:
    """The sign-in of each policy that allows. Raises ServerError for an unusable one."""
    found = []
    for answer in ruling.answers:
        if answer.verdict is not Verdict.ALLOW:
            continue
        value = answer.value
        sign_in = value if isinstance(value, SignIn) else SignIn(step=value)
        # A step that is only a text would be ignored, and the request would continue.
        if not isinstance(sign_in.step, AuthenticationStep) or not all(
            isinstance(flag, bool) for flag in (sign_in.silent, sign_in.asks)
        ):
            raise engine.wrong_value(
                ruling, "its step is no AuthenticationStep, or silent or asks is no bool"
            )
        if len(sign_in.why) > MAXIMUM_WHY or (sign_in.acr is not None and not _LEVEL.fullmatch(sign_in.acr)):
            raise engine.wrong_value(ruling, "a sentence that is too long, or a malformed name of a level")
        found.append(sign_in)
    return found


def _strictest(said: Sequence[SignIn]) -> SignIn:
    """The sign-ins of several policies in one: a demand of any of them counts, in any order."""
    demands = [each for each in said if each.step is AuthenticationStep.SIGN_IN_AGAIN]
    return SignIn(
        step=AuthenticationStep.SIGN_IN_AGAIN if demands else AuthenticationStep.GO_ON,
        why=next((each.why for each in demands if each.why), ""),
        acr=next((each.acr for each in said if each.acr is not None), None),
        silent=any(each.silent for each in said),
        asks=any(each.asks for each in said),
    )


def read_details(
    engine: Engine, client: Client, parameters: Parameters, user: User | None, bound: Mapping[str, Any]
) -> tuple[str | None, tuple[str, ...], tuple[str, ...], Mapping[str, Any]]:
    """The code challenge, if needed; the allowed scopes and resources; the details that plugins add. Raises OAuthError."""
    _refuse_request_objects(parameters)
    _check_response(engine, client, parameters)
    code_challenge = parameters.get("code_challenge")
    if code_challenge is not None or not _needs_no_challenge(engine, client, parameters):
        pkce.check_challenge(code_challenge, parameters.get("code_challenge_method"))
    requested = requested_scopes(parameters)
    resources = allowed_resources(engine, client, parameters.all("resource"))
    scopes = allowed_scopes(engine, client, user, "authorization_code", requested, resources)
    kept = engine.gather("code_details", client=client, parameters=parameters)
    if bound:
        if kept.get("cnf", bound) != bound:
            raise InvalidRequest("The request names another key than was proven.", reason="key-differs")
        kept = {**kept, "cnf": bound}
    return code_challenge, scopes, resources, kept


def _needs_no_challenge(engine: Engine, client: Client, parameters: Parameters) -> bool:
    """Whether a plugin protects the code in another way than PKCE (OAuth 2.1, 7.5.1), or waives the protection.

    Nothing replaces PKCE for a public client, because anybody could get tokens with its code; and nothing does in a
    request that has a `code_challenge_method`.
    """
    accepted = engine.pkce_waivers
    if not client.is_public:
        accepted |= engine.pkce_replacements
    if not accepted or "code_challenge_method" in parameters:
        return False
    kept = engine.gather("code_details", client=client, parameters=parameters)
    return not accepted.isdisjoint(kept)


def mode_of(engine: Engine, parameters: Parameters, redirect_uri: str) -> str:
    """The response mode of the answer: the one that the client asks for, if it can be used."""
    asked = next(iter(parameters.all("response_mode")), QUERY)
    return asked if asked in engine.response_modes and uris.is_web(redirect_uri) else QUERY


def complete(engine: Engine, client: Client, parameters: Parameters) -> Parameters:
    """The request with the parameters that it implies (hook `implied_parameters`); its own parameters take precedence."""
    if not engine.policies.serves("implied_parameters"):
        return parameters
    implied = engine.gather("implied_parameters", client=client, parameters=parameters)
    if not all(isinstance(value, str) for value in implied.values()):
        raise engine.wrong_addition("implied_parameters", "a parameter is a text")
    return parameters.with_defaults(implied)


def kept_with_grant(
    engine: Engine,
    client: Client,
    user: User,
    parameters: Parameters,
    *,
    acr: str | None,
    scopes: tuple[str, ...],
) -> Mapping[str, Any]:
    """The details that plugins add to the grant (hook `grant_details`). Raises OAuthError."""
    kept = engine.gather(
        "grant_details",
        engine=engine,
        client=client,
        user=user,
        acr=acr,
        scopes=scopes,
        parameters=parameters,
    )
    subject = kept.get(SUBJECT, user.user_id)
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise engine.wrong_addition("grant_details", "a subject has 1 to 255 characters of ASCII")
    return kept


def _refuse_request_objects(parameters: Parameters) -> None:
    """A request object that no plugin reads must not be ignored, because its parameters would be lost (JAR-01)."""
    if "request" in parameters:
        raise RequestNotSupported("The request parameter is not supported.")
    if "request_uri" in parameters:
        raise RequestUriNotSupported("The request_uri parameter is not supported.")


def read_state(parameters: Parameters) -> str | None:
    """The state, which is returned as it was sent. Raises InvalidRequest if that is not possible (OAuth 2.1, A.5)."""
    state = parameters.get("state")
    if state is not None and not re.fullmatch(r"[\x20-\x7e]*", state):
        raise InvalidRequest("state holds characters outside %x20-7E.", reason="state-malformed")
    return state


def _check_response(engine: Engine, client: Client, parameters: Parameters) -> None:
    """Response type and mode, and whether this client may use them (B-07 to B-09, B-26)."""
    response_type = parameters.get("response_type")
    if response_type is None:
        raise InvalidRequest("response_type is missing.", reason="response-type-missing")
    if response_type != "code" or "authorization_code" not in engine.grant_types:
        raise UnsupportedResponseType("Only the response type code is offered.")
    if "authorization_code" not in client.grant_types or "code" not in client.response_types:
        raise UnauthorizedClient("This client may not use the authorization code grant.")
    mode = parameters.get("response_mode")
    if mode not in (None, QUERY, *engine.response_modes):
        raise InvalidRequest("This response mode is not offered.", reason="response-mode")
    redirect_uri = parameters.get("redirect_uri") or next(iter(client.redirect_uris), "")
    if mode in engine.response_modes and not uris.is_web(redirect_uri):
        raise InvalidRequest(
            "An application with a private-use scheme gets only addresses, and no form.",
            reason="response-mode",
        )
