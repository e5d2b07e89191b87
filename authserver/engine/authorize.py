"""The authorization endpoint (OAuth 2.1, 4.1): from a request to a question for the user, or an answer for the client.

The pending request, or the reference to one that a plugin keeps, travels sealed in the URL (`engine.pending`), and is
checked again at every step; nothing about a stranger is stored before someone signs in.

Order of checks (T001): client, redirect URI: until here every refusal is a page. Then everything else,
which is redirected, but only for someone who is signed in (OAuth 2.1, 7.13.2).

What a person lets a client have, and when they are asked, is in `engine.consent`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from authserver.engine import pkce, rates, uris
from authserver.engine.asking import allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.consent import (
    Agreement,
    agree,
    changed_since,
    consents_already,
    decline,
    earlier_consent,
    hold_session,
    problem_with,
    remembered,
    seen,
    sentences,
    silent_approval_is_safe,
)
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.decisions import Verdict
from authserver.engine.errors import (
    AccessDenied,
    AuthenticationRefused,
    InvalidRequest,
    OAuthError,
    PageError,
    RedirectError,
    RequestNotSupported,
    RequestUriNotSupported,
    ServerError,
    TooManyRequests,
    UnauthorizedClient,
    UnsupportedResponseType,
)
from authserver.engine.parameters import Parameters
from authserver.engine.pending import (
    Browser,
    Pending,
    RequestAnswered,
    answer_once,
    earlier_answer,
    form_handle,
    form_token,
    seal,
    unseal,
)
from authserver.engine.people.login import sign_out
from authserver.engine.questions import (
    AuthenticationQuestion,
    AuthenticationStep,
    Counted,
    RedirectUriQuestion,
    SignIn,
)
from authserver.engine.records import NOTHING, Client, Consent, Session, User
from authserver.engine.tokens.issuing import issue_code, new_code
from authserver.limits import MAXIMUM_LEVEL, MAXIMUM_WHY

# The name of a level of sign-in: printable, and without a space, because requests name several (RFC 9470, 4).
_LEVEL = re.compile(rf"[!-~]{{1,{MAXIMUM_LEVEL}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks in a pending request, where the answer would go, and why somebody must sign in again, if a policy said."""

    handle: str
    client: Client
    redirect_uri: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskLogin:
    """The user must sign in first; `again` if they are signed in already, and that is not enough."""

    sealed_request: str = field(repr=False)
    handle: str
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class More:
    """A request for more than the user agreed to before (P-14).

    Attributes:
        held: those of its scopes that they agreed to before.
        stays: whether the page lists these without asking for them again, because this client would get them without a
            page. For any other client the user is asked for all of it: anybody may have sent the request.
    """

    held: tuple[str, ...]
    stays: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskConsent:
    """The user must be asked whether they agree.

    `scopes` are (name, sentence) pairs; `more` says that they are more than the user agreed to before. `changed` names
    what the client says of itself in another way than when the user agreed before (E-20), at the time `agreed_at`;
    `problem` says why the page comes back: `nothing-ticked`, `not-confirmed` or `shown-to-another`.
    """

    sealed_request: str = field(repr=False)
    handle: str
    form_token: str = field(repr=False)
    redirect_uri: str
    agreement: Agreement
    scopes: tuple[tuple[str, str], ...]
    more: More | None = None
    changed: tuple[str, ...] = ()
    agreed_at: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """The browser is redirected to the client with the response."""

    location: str = field(repr=False)


Outcome = AskLogin | AskConsent | Redirect


class FormOutOfDate(PageError):
    """An answer to a page that was not shown to the user who is signed in now (E-03, E-04); they are asked instead.

    Also to a page that showed the client as it was before an operator changed it.
    """

    status = 403

    def __init__(self, asked: AskConsent) -> None:
        super().__init__(InvalidRequest("This page was not shown to you.", reason="form-token"))
        self.asked = asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """What a plugin makes of an authorization request (hook `expand_authorization_request`).

    Attributes:
        parameters: what counts, in place of all that was sent.
        request_id: the id under which the request is answered once, for one that can be sent more often.
        sendable_until: until when it can be sent.
        bound: the key that its client proved when it sent this in advance, as a `cnf`; the code is bound to it.
        refusal: sent to the client instead of an answer, once its redirect URI is accepted.
        reference: the few parameters that travel from page to page in place of these, where the plugin keeps these.
            On each page it is asked to expand the reference, with an engine whose `now` is when the request was sent.
    """

    parameters: Parameters
    request_id: str | None = None
    sendable_until: datetime | None = None
    bound: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    refusal: InvalidRequest | None = None
    reference: Parameters | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request whose every part was accepted, with what the user may agree to, and what is kept with the code."""

    agreement: Agreement
    redirect_uri: str
    state: str | None
    code_challenge: str
    kept: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    sign_in: SignIn = field(default_factory=SignIn)


def begin(engine: Engine, parameters: Parameters, browser: Browser) -> Outcome:
    """Take a new authorization request.

    Raises:
        PageError: client or redirect URI cannot be trusted; nothing is redirected.
        RedirectError: any other error, for a signed-in user.
        TooManyRequests: too many come from browsers in which nobody is signed in.
    """
    if browser.user is None:
        rates.claim(engine, Counted.AUTHORIZATION_REQUEST)
    expanded = _expand(engine, parameters)
    if expanded.reference is None:
        expanded = _carried(expanded, engine.settings.maximum_request)
    # However often it is sent, it expires at one time: until then its answer is remembered.
    begins = max(engine.now, expanded.sendable_until or engine.now)
    lifetime = timedelta(seconds=engine.settings.request_lifetime)
    pending = Pending(
        handle=digests.new_identifier(),
        request_id=expanded.request_id or digests.new_identifier(),
        asked_at=engine.now.timestamp(),
        expires_at=int((begins + lifetime).timestamp()),
        parameters=expanded.parameters,
        bound=expanded.bound,
        refusal=expanded.refusal,
        as_sent=expanded.parameters == parameters,
        reference=expanded.reference,
    )
    return _proceed(engine, pending, browser, is_new=expanded.request_id is None)


def resume(engine: Engine, sealed_request: str, browser: Browser) -> Outcome:
    """Continue a pending request, after sign-in or on returning to a page.

    Raises:
        PageError: also when it has expired, belongs to another browser, or was answered before.
        RedirectError: as for `begin`.
    """
    return _proceed(engine, _opened(engine, sealed_request, browser), browser)


def answer(
    engine: Engine,
    sealed_request: str,
    browser: Browser,
    *,
    form_token: str,
    allowed: bool,
    scopes: Collection[str],
    confirmed: bool,
) -> Outcome:
    """Take the user's answer to the consent page; everything is checked again.

    Args:
        form_token: of the page that was answered.
        allowed: whether the user pressed Allow.
        scopes: the ticked scopes.
        confirmed: whether the user confirmed a client that registered itself (E-09).

    Raises:
        PageError: also when the request was answered before (E-05).
        FormOutOfDate: the page was shown to another user (E-04).
        RedirectError: as for `begin`.
    """
    given = " ".join(["allow", *sorted(set(scopes))]) if allowed else "deny"
    pending = _opened(engine, sealed_request, browser)
    answered = _answered(engine, pending, browser, form_token, given)
    if not isinstance(answered, Checked):
        return answered
    checked, agreement = answered, answered.agreement
    if not allowed:
        declined = RedirectError(
            AccessDenied("The user declined."), redirect_uri=checked.redirect_uri, state=checked.state
        )
        location = error_location(declined, engine.settings.issuer)
        if not answer_once(engine, pending, agreement.client, browser, given=given, location=location):
            return _same_again(engine, pending, agreement.client, browser, given)
        decline(engine, agreement)
        return Redirect(location=location)
    # A policy may refuse now what the user was asked.
    _passes_unasked(engine, checked)
    chosen = agreement.narrowed(scopes)
    more = _for_more(engine, checked, _kept_consent(engine, checked))
    problem = problem_with(chosen, confirmed=confirmed, unasked=more.held if more and more.stays else ())
    if problem:
        return _ask_consent(engine, pending, checked, problem)
    return _approve(engine, pending, browser, replace(checked, agreement=chosen), given=given)


def switch_user(engine: Engine, sealed_request: str, browser: Browser, *, form_token: str) -> Outcome:
    """Sign out the signed-in user, so that another user can answer.

    Raises:
        PageError: as for `answer`.
        RedirectError: as for `answer`.
    """
    pending = _opened(engine, sealed_request, browser)
    answered = _answered(engine, pending, browser, form_token, "switch")
    if not isinstance(answered, Checked):
        return answered
    assert browser.session_id is not None  # the page was shown to a user
    sign_out(engine, browser.session_id)
    return _ask_login(engine, replace(pending, user_id=None))


def _answered(
    engine: Engine, pending: Pending, browser: Browser, token: str, given: str
) -> Checked | AskLogin | Redirect:
    """The checks for every answer: that its page was shown to this user, and that the request is still open.

    The same answer once more is a `Redirect` (E-05); without a user it does not count.
    """
    client, redirect_uri = accept_target(engine, pending.parameters)
    user = browser.user
    is_theirs = (
        user is not None and form_handle(engine, browser, token, user, _asked_about(client)) == pending.handle
    )
    location = earlier_answer(engine, pending, client, browser, given if is_theirs else "")
    if location is not None:
        return Redirect(location=location)
    checked = _check(engine, pending, client, redirect_uri, browser)
    if isinstance(checked, Checked) and not is_theirs:
        raise FormOutOfDate(_ask_consent(engine, pending, checked, "shown-to-another"))
    return checked


def describe_pending(engine: Engine, sealed_request: str, browser: Browser) -> Requester:
    """What the sign-in page may say about a pending request.

    Raises:
        PageError: as for `resume`.
    """
    pending = _opened(engine, sealed_request, browser)
    client, redirect_uri = accept_target(engine, pending.parameters)
    earlier_answer(engine, pending, client, browser)
    return Requester(handle=pending.handle, client=client, redirect_uri=redirect_uri, why=pending.why)


def wants_sign_in_again(engine: Engine, sealed_request: str, browser: Browser) -> bool:
    """Whether somebody must sign in for this pending request, although they may have done so before it.

    False for a request that cannot go on: where it leads, a page says so.
    """
    try:
        pending = unseal(engine, sealed_request, browser)
    except PageError:
        return False
    return pending.sign_in_again and not pending.began_before(browser.session, engine.now)


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


def check_request(engine: Engine, parameters: Parameters, bound: Mapping[str, Any] = NOTHING) -> None:
    """Check everything about a request that does not depend on a user (RFC 9126, 2.1).

    Args:
        bound: the key that the client proved, as a `cnf`, if any.

    Raises:
        OAuthError: what the authorization endpoint would say, on a page or to the client.
    """
    client, _ = _target(engine, parameters)
    _state(parameters)
    parameters.refuse_repeated()
    _details(engine, client, parameters, None, bound)


def _expand(engine: Engine, parameters: Parameters) -> Expanded:
    """The request that the parameters refer to: the first plugin that expands it decides, and each may refuse."""
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


def _opened(engine: Engine, sealed_request: str, browser: Browser) -> Pending:
    """The pending request with all its parameters.

    Raises:
        PageError: as for `resume`.
    """
    pending = unseal(engine, sealed_request, browser).for_user(browser.user, engine.now)
    if pending.reference is None:
        return pending
    as_of_then = replace(engine, now=datetime.fromtimestamp(pending.asked_at, UTC))
    expanded = _expand(as_of_then, pending.reference)
    return replace(pending, parameters=expanded.parameters, refusal=pending.refusal or expanded.refusal)


def _carried(expanded: Expanded, maximum: int) -> Expanded:
    """The request as it travels on. If it cannot be carried, only the parameters that its refusal needs."""
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
        _state(parameters)
    except InvalidRequest:
        return False
    return True


def _proceed(engine: Engine, pending: Pending, browser: Browser, *, is_new: bool = False) -> Outcome:
    client, redirect_uri = accept_target(engine, pending.parameters)
    location = None if is_new else earlier_answer(engine, pending, client, browser)
    if location is not None:
        return Redirect(location=location)
    checked = _check(engine, pending, client, redirect_uri, browser)
    if isinstance(checked, AskLogin):
        return checked
    if _passes_unasked(engine, checked):
        return _approve(engine, pending, browser, checked)
    if checked.sign_in.silent:
        refusal = AuthenticationRefused(
            "The user would have to be asked.", reason="consent-needed", code="consent_required"
        )
        raise _redirected(engine, refusal, client, redirect_uri, checked.state)
    return _ask_consent(engine, pending, checked)


def _ask_login(engine: Engine, pending: Pending, *, again: bool = False) -> AskLogin:
    return AskLogin(sealed_request=seal(engine, pending), handle=pending.handle, again=again)


def accept_target(engine: Engine, parameters: Parameters) -> tuple[Client, str]:
    """The client and the redirect URI, or a page."""
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
    """Judge where the answer would go: the floor first, then the policies.

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


def _check(
    engine: Engine, pending: Pending, client: Client, redirect_uri: str, browser: Browser
) -> Checked | AskLogin:
    """All other checks, for the signed-in user if there is one; from here on errors are sent to the client."""
    parameters, user = pending.parameters, browser.user
    engine.journal.user_id = user.user_id if user else None
    state: str | None = None
    try:
        state = _state(parameters)
        if user is not None:
            engine.journal.target = (redirect_uri, state, client.is_self_registered)
        if pending.refusal:
            raise pending.refusal
        parameters.refuse_repeated()
        sign_in = required_sign_in(
            engine,
            client,
            parameters,
            user,
            browser.session,
            is_fresh=pending.began_before(browser.session, engine.now),
        )
        again = sign_in.step is AuthenticationStep.SIGN_IN_AGAIN
        if again or user is None:
            asked = replace(
                pending,
                sign_in_again=again,
                why=sign_in.why if again else "",
                user_id=user.user_id if user else None,
            )
            return _ask_login(engine, asked, again=user is not None)
        code_challenge, scopes, resources, kept = _details(engine, client, parameters, user, pending.bound)
    except OAuthError as error:
        if user is None and isinstance(error, InvalidRequest):
            # Redirect for a mistake in the request only after the user has signed in (OAuth 2.1, 7.13.2).
            return _ask_login(engine, pending)
        raise _redirected(engine, error, client, redirect_uri, state) from None
    return Checked(
        agreement=Agreement(client=client, user=user, scopes=scopes, resources=resources),
        redirect_uri=redirect_uri,
        state=state,
        code_challenge=code_challenge,
        kept=kept,
        sign_in=sign_in,
    )


def required_sign_in(
    engine: Engine,
    client: Client,
    parameters: Parameters,
    user: User | None,
    session: Session | None,
    *,
    is_fresh: bool,
) -> SignIn:
    """What policies decide about the sign-in.

    Args:
        parameters: none of them is repeated.
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
    if ruling.verdict is Verdict.DENY and ruling.error_code == InvalidRequest.code:
        raise AuthenticationRefused(
            "A parameter has a value that it cannot have.", reason=ruling.reason, code=ruling.error_code
        )
    if ruling.verdict is Verdict.DENY:
        raise AuthenticationRefused("This is not allowed here.", reason=ruling.reason, code=ruling.error_code)
    if not ruling.allowed:
        return SignIn()
    said = ruling.allowed_value
    sign_in = said if isinstance(said, SignIn) else SignIn(step=said)
    # A step that is a mere text would be taken for no step: then the request would go on.
    if not isinstance(sign_in.step, AuthenticationStep) or not isinstance(sign_in.silent, bool):
        raise engine.wrong_value(ruling, "no step, or neither silent nor not")
    if len(sign_in.why) > MAXIMUM_WHY or (sign_in.acr is not None and not _LEVEL.fullmatch(sign_in.acr)):
        raise engine.wrong_value(ruling, "a long sentence, or no name of a level")
    # A sign-in since the request began is always enough; otherwise a policy could ask for sign-ins without end.
    return replace(sign_in, step=AuthenticationStep.GO_ON) if is_fresh else sign_in


def _details(
    engine: Engine, client: Client, parameters: Parameters, user: User | None, bound: Mapping[str, Any]
) -> tuple[str, tuple[str, ...], tuple[str, ...], Mapping[str, Any]]:
    """The code challenge, the scopes and resources that may be granted, what plugins keep. Raises OAuthError."""
    _refuse_request_objects(parameters)
    _check_response(engine, client, parameters)
    code_challenge = parameters.get("code_challenge")
    pkce.check_challenge(code_challenge, parameters.get("code_challenge_method"))
    assert code_challenge is not None  # check_challenge refuses its absence
    requested = requested_scopes(parameters)
    resources = allowed_resources(engine, client, parameters.all("resource"))
    scopes = allowed_scopes(engine, client, user, "authorization_code", requested, resources)
    kept = engine.gather("code_details", client=client, parameters=parameters)
    if bound:
        if kept.get("cnf", bound) != bound:
            raise InvalidRequest("The request names another key than was proven.", reason="key-differs")
        kept = {**kept, "cnf": bound}
    return code_challenge, scopes, resources, kept


def _refuse_request_objects(parameters: Parameters) -> None:
    """A request object that no plugin reads must not be ignored, because its parameters would be lost (JAR-01)."""
    if "request" in parameters:
        raise RequestNotSupported("The request parameter is not supported.")
    if "request_uri" in parameters:
        raise RequestUriNotSupported("The request_uri parameter is not supported.")


def _state(parameters: Parameters) -> str | None:
    """The state, which comes back as it was sent. Raises InvalidRequest when it cannot (OAuth 2.1, A.5)."""
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
    if parameters.get("response_mode") not in (None, "query"):
        raise InvalidRequest("Only the response mode query is offered.", reason="response-mode")


def _redirected(
    engine: Engine, error: OAuthError, client: Client, redirect_uri: str, state: str | None
) -> RedirectError:
    """The error for the client; the user is asked first if the client registered itself (B-17)."""
    user_id = engine.journal.user_id
    is_first = user_id is None or remembered(engine, client, user_id) is None
    return RedirectError(
        error, redirect_uri=redirect_uri, state=state, ask_first=client.is_self_registered and is_first
    )


def _passes_unasked(engine: Engine, checked: Checked) -> bool:
    """Whether the user need not be asked. Raises RedirectError when a policy refuses."""
    client, redirect_uri = checked.agreement.client, checked.redirect_uri
    try:
        consents = consents_already(engine, checked.agreement)
    except AccessDenied as error:
        raise _redirected(engine, error, client, redirect_uri, checked.state) from None
    return consents and silent_approval_is_safe(
        client, reaches_client_alone=uris.is_remote_https(redirect_uri)
    )


def _ask_consent(
    engine: Engine, pending: Pending, checked: Checked, problem: str | None = None
) -> AskConsent:
    client, user = checked.agreement.client, checked.agreement.user
    found = _kept_consent(engine, checked)
    before = found if client.is_known_by_address else None
    return AskConsent(
        sealed_request=seal(engine, pending),
        handle=pending.handle,
        form_token=form_token(engine, pending.handle, user, _asked_about(client)),
        redirect_uri=checked.redirect_uri,
        agreement=checked.agreement,
        scopes=sentences(engine, checked.agreement),
        more=_for_more(engine, checked, found),
        changed=changed_since(before, client) if before else (),
        agreed_at=before.granted_at if before else None,
        problem=problem,
    )


def _kept_consent(engine: Engine, checked: Checked) -> Consent | None:
    """What is kept of this user and client, whether it still counts or not."""
    return engine.stores.consents.find(checked.agreement.user.user_id, checked.agreement.client.client_id)


def _for_more(engine: Engine, checked: Checked, found: Consent | None) -> More | None:
    """What the user agreed to before, if the request is for more than that; else None."""
    earlier = earlier_consent(found, checked.agreement)
    if earlier is None or set(checked.agreement.scopes) <= set(earlier.scopes):
        return None
    held = checked.agreement.narrowed(earlier.scopes)
    try:
        stays = bool(held.scopes) and _passes_unasked(engine, replace(checked, agreement=held))
    except RedirectError:
        stays = False
    return More(held=held.scopes, stays=stays)


def _asked_about(client: Client) -> str:
    """What an answer to the consent page is about: if that changes meanwhile, the page is shown again."""
    return " ".join([*client.redirect_uris, client.name, *seen(client).values()])


def _approve(
    engine: Engine, pending: Pending, browser: Browser, checked: Checked, *, given: str | None = None
) -> Redirect:
    """Store what was agreed, and answer with a code.

    Args:
        given: the answer of the user; None when a policy allowed without asking.
    """
    agreement = checked.agreement
    assert browser.session is not None  # somebody is signed in
    hold_session(engine, browser.session)
    code = new_code()
    location = with_response(
        checked.redirect_uri, engine.settings.issuer, ("code", code), ("state", checked.state)
    )
    if not answer_once(
        engine, pending, agreement.client, browser, given=given or "", location=location, code=code
    ):
        return _same_again(engine, pending, agreement.client, browser, given)
    issue_code(
        engine,
        agreement.client,
        agree(engine, agreement, browser.session, asked=given is not None, acr=checked.sign_in.acr),
        code,
        redirect_uri=checked.redirect_uri,
        code_challenge=checked.code_challenge,
        details=checked.kept,
    )
    return Redirect(location=location)


def _same_again(
    engine: Engine, pending: Pending, client: Client, browser: Browser, given: str | None
) -> Redirect:
    """Of two simultaneous answers, the other one was first."""
    location = earlier_answer(engine, pending, client, browser, given)
    if location is None:
        # It was answered before the database was restored.
        raise RequestAnswered(client)
    return Redirect(location=location)
