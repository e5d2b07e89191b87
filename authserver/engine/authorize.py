"""The authorization endpoint (OAuth 2.1, 4.1): from a request to a question for the user, or an answer for the client.

The pending request travels sealed in the URL (`engine.pending`), and is checked again at every step; nothing about
a stranger is stored before someone signs in.

Order of checks (T001): client, redirect URI: until here every refusal is a page. Then everything else,
which is redirected, but only for someone who is signed in (OAuth 2.1, 7.13.2).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from authserver.engine import digests, pkce, uris
from authserver.engine.asking import allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict
from authserver.engine.errors import (
    AccessDenied,
    InvalidRequest,
    OAuthError,
    PageError,
    RedirectError,
    RequestNotSupported,
    RequestUriNotSupported,
    ServerError,
    UnauthorizedClient,
    UnsupportedResponseType,
)
from authserver.engine.issuing import issue_code
from authserver.engine.login import SESSION_KIND
from authserver.engine.parameters import Parameters
from authserver.engine.pending import MAXIMUM_REQUEST, Browser, Pending, answer_once, seal, unseal
from authserver.engine.records import NOTHING, Client, Consent, EventType, Grant, User

MAXIMUM_STATE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class AskLogin:
    """Somebody must sign in first."""

    sealed_request: str = field(repr=False)
    client: Client
    redirect_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskConsent:
    """The user must be asked.

    `scopes` are (name, sentence) pairs; `problem` says why the page comes back: `nothing-ticked` or
    `not-confirmed`.
    """

    sealed_request: str = field(repr=False)
    client: Client
    redirect_uri: str
    user: User
    scopes: tuple[tuple[str, str], ...]
    resources: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """The browser goes to the client with the answer."""

    location: str = field(repr=False)


Outcome = AskLogin | AskConsent | Redirect


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """What a plugin makes of an authorization request (hook `expand_authorization_request`).

    Attributes:
        parameters: what counts, in place of all that was sent.
        request_id: the id under which the request is answered once, for one that can be sent more often.
        sendable_until: until when it can be sent.
        refusal: what the client is told instead of an answer, once its redirect URI is accepted.
    """

    parameters: Parameters
    request_id: str | None = None
    sendable_until: datetime | None = None
    refusal: InvalidRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request whose every part was accepted, with what may be granted to whom, and what is kept with the code."""

    client: Client
    user: User
    redirect_uri: str
    state: str | None
    code_challenge: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    kept: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


def begin(engine: Engine, parameters: Parameters, browser: Browser) -> Outcome:
    """Take a new authorization request.

    Raises:
        PageError: client or redirect URI cannot be trusted; nothing is redirected.
        RedirectError: any other error, for a signed-in user.
    """
    expanded = _expand(engine, parameters)
    if len(expanded.parameters.encoded()) > MAXIMUM_REQUEST:
        raise PageError(InvalidRequest("The request is too long.", reason="request-too-long"))
    # However often it is sent, it expires at one time: until then its answer is remembered.
    begins = max(engine.now, expanded.sendable_until or engine.now)
    lifetime = timedelta(seconds=engine.settings.request_lifetime)
    pending = Pending(
        request_id=expanded.request_id or digests.new_identifier(),
        asked_at=int(engine.now.timestamp()),
        expires_at=int((begins + lifetime).timestamp()),
        parameters=expanded.parameters,
        refusal=expanded.refusal,
    )
    return _proceed(engine, pending, browser)


def resume(engine: Engine, sealed_request: str, browser: Browser) -> Outcome:
    """Go on with a pending request, after signing in or on returning to a page.

    Raises:
        PageError: also when it has expired or belongs to another session.
        RedirectError: as for `begin`.
    """
    return _proceed(engine, unseal(engine, sealed_request, browser), browser)


def answer(
    engine: Engine,
    sealed_request: str,
    browser: Browser,
    *,
    allowed: bool,
    scopes: Collection[str],
    confirmed: bool,
) -> Outcome:
    """Take the user's answer to the consent page; everything is checked again.

    Args:
        allowed: whether the user pressed Allow.
        scopes: the ticked scopes.
        confirmed: whether the user vouched for a client that nobody here vouches for (E-09).

    Raises:
        PageError: also when the request was answered before (E-05).
        RedirectError: `access_denied` when the user declined (E-07), and as for `begin`.
    """
    pending = unseal(engine, sealed_request, browser)
    client, redirect_uri = accept_target(engine, pending.parameters)
    if browser.user is None:
        return AskLogin(sealed_request=sealed_request, client=client, redirect_uri=redirect_uri)
    engine.journal.user_id = browser.user.user_id
    checked = _check(engine, pending, client, redirect_uri, browser.user)
    if not allowed:
        answer_once(engine, pending, checked.client)
        engine.record(EventType.CONSENT_REFUSED, details={"scopes": list(checked.scopes)})
        declined = RedirectError(
            AccessDenied("The user declined."), redirect_uri=checked.redirect_uri, state=checked.state
        )
        return Redirect(location=error_location(declined, engine.settings.issuer))
    consents_already(engine, checked)
    chosen = tuple(scope for scope in checked.scopes if scope in scopes)
    if not chosen:
        return _ask_consent(engine, pending, browser, checked, "nothing-ticked")
    if client.is_self_registered and not confirmed:
        return _ask_consent(engine, pending, browser, checked, "not-confirmed")
    checked = replace(checked, scopes=chosen)
    _hold_session(engine, browser)
    engine.stores.consents.remember(_merged_consent(engine, checked))
    engine.record(EventType.CONSENT_GIVEN, details={"scopes": list(chosen)})
    return _approve(engine, pending, browser, checked)


def describe_pending(engine: Engine, sealed_request: str, browser: Browser) -> AskLogin:
    """What the sign-in page may say about a pending request: who asks, and where the answer would go.

    Raises:
        PageError: as for `resume`.
    """
    client, redirect_uri = accept_target(engine, unseal(engine, sealed_request, browser).parameters)
    return AskLogin(sealed_request=sealed_request, client=client, redirect_uri=redirect_uri)


def with_response(redirect_uri: str, issuer: str, *answer: tuple[str, str | None]) -> str:
    """The redirect URI with the response parameters and `iss` (RFC 9207, 2)."""
    return uris.with_query(
        redirect_uri, [(name, value) for name, value in (*answer, ("iss", issuer)) if value is not None]
    )


def error_location(error: RedirectError, issuer: str) -> str:
    """Where a redirected error leads (OAuth 2.1, 4.1.2.1)."""
    return with_response(
        error.redirect_uri,
        issuer,
        ("error", error.code),
        ("error_description", error.description),
        ("state", error.state),
    )


def silent_approval_is_safe(client: Client, redirect_uri: str) -> bool:
    """Whether anything proves that it is this client, so that no page is needed (E-12, T088).

    Any program of the device may listen at a loopback address or take a private-use scheme, a client secret
    or not.
    """
    if client.is_self_registered or not uris.is_remote_https(redirect_uri):
        return False
    return client.first_party or not client.is_public


def check_request(engine: Engine, parameters: Parameters) -> None:
    """Check everything about a request that can be checked before somebody signs in (RFC 9126, 2.1).

    Raises:
        OAuthError: what the authorization endpoint would say, on a page or to the client.
    """
    client, _ = _target(engine, parameters)
    _state(parameters)
    _details(engine, client, parameters, None)


def _expand(engine: Engine, parameters: Parameters) -> Expanded:
    """The request that the parameters stand for: the first plugin that knows says so, and each may refuse."""
    try:
        found = engine.contributions("expand_authorization_request", engine=engine, parameters=parameters)
    except ServerError:
        raise
    except OAuthError as error:
        raise PageError(error) from None
    first = found[0] if found else Expanded(parameters=parameters)
    return replace(first, refusal=next((item.refusal for item in found if item.refusal), None))


def _proceed(engine: Engine, pending: Pending, browser: Browser) -> Outcome:
    client, redirect_uri = accept_target(engine, pending.parameters)
    if browser.user is None:
        return AskLogin(
            sealed_request=seal(engine, pending, browser), client=client, redirect_uri=redirect_uri
        )
    engine.journal.user_id = browser.user.user_id
    checked = _check(engine, pending, client, redirect_uri, browser.user)
    if consents_already(engine, checked) and silent_approval_is_safe(client, redirect_uri):
        _hold_session(engine, browser)
        return _approve(engine, pending, browser, checked)
    return _ask_consent(engine, pending, browser, checked)


def accept_target(engine: Engine, parameters: Parameters) -> tuple[Client, str]:
    """The client and the redirect URI, or a page."""
    try:
        return _target(engine, parameters)
    except ServerError:
        raise
    except OAuthError as error:
        raise PageError(error) from None


def _target(engine: Engine, parameters: Parameters) -> tuple[Client, str]:
    """The client and the redirect URI. Raises OAuthError."""
    client_id = parameters.require("client_id")
    client = engine.find_client(client_id) if _is_visible(client_id) else None
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
    if uris.redirect_uri_problem(redirect_uri, private_use=engine.private_use_redirect_uris):
        withdrawn = uris.needs_permission(redirect_uri)
        reason = "private-use-not-allowed" if withdrawn else "redirect-uri-malformed"
        raise InvalidRequest("The redirect_uri is not acceptable.", reason=reason)
    ruling = engine.ask("redirect_uri_decision", client=client, redirect_uri=redirect_uri)
    if not ruling.allowed:
        raise InvalidRequest("The redirect_uri is not registered for this application.", reason=ruling.reason)
    return client, redirect_uri


def _check(engine: Engine, pending: Pending, client: Client, redirect_uri: str, user: User) -> Checked:
    """Everything else; from here on errors go to the client."""
    parameters = pending.parameters
    state: str | None = None
    try:
        state = _state(parameters)
        engine.journal.target = (redirect_uri, state, client.is_self_registered)
        if pending.refusal:
            raise pending.refusal
        code_challenge, scopes, resources, kept = _details(engine, client, parameters, user)
    except OAuthError as error:
        raise _redirected(engine, error, client, redirect_uri, state) from None
    return Checked(
        client=client,
        user=user,
        redirect_uri=redirect_uri,
        state=state,
        code_challenge=code_challenge,
        scopes=scopes,
        resources=resources,
        kept=kept,
    )


def _details(
    engine: Engine, client: Client, parameters: Parameters, user: User | None
) -> tuple[str, tuple[str, ...], tuple[str, ...], Mapping[str, Any]]:
    """The code challenge, the scopes and resources that may be granted, what plugins keep. Raises OAuthError."""
    parameters.refuse_repeated()
    _refuse_request_objects(parameters)
    _check_response(engine, client, parameters)
    code_challenge = parameters.get("code_challenge")
    pkce.check_challenge(code_challenge, parameters.get("code_challenge_method"))
    assert code_challenge is not None  # check_challenge refuses its absence
    requested = requested_scopes(parameters)
    resources = allowed_resources(engine, client, parameters.all("resource"))
    scopes = allowed_scopes(engine, client, user, "authorization_code", requested, resources)
    kept = engine.gather("code_details", client=client, parameters=parameters)
    return code_challenge, scopes, resources, kept


def _refuse_request_objects(parameters: Parameters) -> None:
    """What no plugin expanded must not be ignored: the client means other parameters than these (JAR-01)."""
    if "request" in parameters:
        raise RequestNotSupported("The request parameter is not supported.")
    if "request_uri" in parameters:
        raise RequestUriNotSupported("The request_uri parameter is not supported.")


def _state(parameters: Parameters) -> str | None:
    state = parameters.get("state")
    if state is not None and len(state) > MAXIMUM_STATE:
        raise InvalidRequest(f"state is longer than {MAXIMUM_STATE} characters.", reason="state-too-long")
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
    if parameters.get("response_mode") not in (None, "query"):
        raise InvalidRequest("Only the response mode query is offered.", reason="response-mode")


def _redirected(
    engine: Engine, error: OAuthError, client: Client, redirect_uri: str, state: str | None
) -> RedirectError:
    """The error for the client; nobody is sent unasked where only the client itself vouches (B-17)."""
    user_id = engine.journal.user_id
    is_first = user_id is None or engine.stores.consents.find(user_id, client.client_id) is None
    return RedirectError(
        error, redirect_uri=redirect_uri, state=state, ask_first=client.is_self_registered and is_first
    )


def consents_already(engine: Engine, checked: Checked) -> bool:
    """Whether a policy lets the user pass unasked.

    Raises:
        RedirectError: a policy refuses, whatever the user would say.
    """
    ruling = engine.ask(
        "consent_decision",
        client=checked.client,
        user=checked.user,
        scopes=checked.scopes,
        resources=checked.resources,
        remembered=engine.stores.consents.find(checked.user.user_id, checked.client.client_id),
    )
    if ruling.verdict is Verdict.DENY:
        error = AccessDenied("This is not allowed here.", reason=ruling.reason)
        raise _redirected(engine, error, checked.client, checked.redirect_uri, checked.state)
    return ruling.allowed


def _ask_consent(
    engine: Engine, pending: Pending, browser: Browser, checked: Checked, problem: str | None = None
) -> AskConsent:
    sentences = engine.scopes
    return AskConsent(
        sealed_request=seal(engine, pending, browser),
        client=checked.client,
        redirect_uri=checked.redirect_uri,
        user=checked.user,
        scopes=tuple((scope, sentences[scope]) for scope in checked.scopes),
        resources=checked.resources,
        problem=problem,
    )


def _hold_session(engine: Engine, browser: Browser) -> None:
    """See to it that whatever ends this session ends what is agreed in it now, too (I-14, T068).

    Before anything is written: who ends sessions takes them first, and would wait for us while we wait for them.

    Raises:
        PageError: it ended after it was read for this request.
    """
    if not engine.stores.sessions.hold(digests.digest(SESSION_KIND, browser.session_id)):
        engine.journal.target = None
        raise PageError(InvalidRequest("You were signed out. Sign in and try again.", reason="session-ended"))


def _approve(engine: Engine, pending: Pending, browser: Browser, checked: Checked) -> Redirect:
    """Store what was agreed, and answer with a code."""
    answer_once(engine, pending, checked.client)
    details: dict[str, object] = {}
    if browser.authenticated_at is not None:
        details = {"auth_time": int(browser.authenticated_at.timestamp()), "amr": list(browser.methods)}
    grant = Grant(
        grant_id=digests.new_identifier(),
        client_id=checked.client.client_id,
        user_id=checked.user.user_id,
        scopes=checked.scopes,
        resources=checked.resources,
        created_at=engine.now,
        expires_at=engine.now + timedelta(seconds=engine.settings.grant_lifetime),
        details=details,
    )
    code = issue_code(
        engine,
        grant,
        redirect_uri=checked.redirect_uri,
        code_challenge=checked.code_challenge,
        details=checked.kept,
    )
    return Redirect(
        location=with_response(
            checked.redirect_uri, engine.settings.issuer, ("code", code), ("state", checked.state)
        )
    )


def _merged_consent(engine: Engine, checked: Checked) -> Consent:
    """What the user agreed to for this client so far; anew for other redirect URIs or resources (T089)."""
    user_id, client = checked.user.user_id, checked.client
    before = engine.stores.consents.find(user_id, client.client_id)
    same = before and (before.redirect_uris, before.resources) == (client.redirect_uris, checked.resources)
    return Consent(
        user_id=user_id,
        client_id=client.client_id,
        scopes=tuple(dict.fromkeys((*(before.scopes if before and same else ()), *checked.scopes))),
        resources=checked.resources,
        redirect_uris=client.redirect_uris,
        granted_at=engine.now,
    )


def _is_visible(text: str) -> bool:
    """The grammar of a client_id (OAuth 2.1, App. A.1); anything else is not looked up."""
    return len(text) <= 200 and bool(re.fullmatch(r"[\x20-\x7e]+", text))
