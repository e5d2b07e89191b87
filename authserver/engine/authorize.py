"""The authorization endpoint (OAuth 2.1, 4.1): from a request to a question for the user, or an answer for the client.

The pending request, or the reference to one that a plugin keeps, travels sealed in the URL (`engine.pending`), and is
checked again at every step; nothing about a stranger is stored before someone signs in.

Order of checks (T001): first the client and the redirect URI; until then every refusal is a page. Then everything else;
these refusals are redirected, but only for a person who is signed in (OAuth 2.1, 7.13.2).

`engine.authorization_request` reads and checks a request; `engine.consent` has the rules about what a person allows a
client, and when the person is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from authserver.engine import rates, uris
from authserver.engine.authorization_request import (
    accept_target,
    carried,
    complete,
    expand,
    kept_with_grant,
    mode_of,
    read_details,
    read_state,
    required_sign_in,
)
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
    stands_for_a_silent_request,
)
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.errors import (
    QUERY,
    AccessDenied,
    AuthenticationRefused,
    InvalidRequest,
    OAuthError,
    PageError,
    RedirectError,
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
from authserver.engine.printable import without_hidden
from authserver.engine.questions import (
    AuthenticationStep,
    Counted,
    SignIn,
)
from authserver.engine.records import NOTHING, Client, Consent
from authserver.engine.tokens.issuing import issue_code, new_code
from authserver.limits import MAXIMUM_USERNAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """The client of a pending request, where the answer would go, and why a person must sign in again, if a policy says so.

    `hint` is the user name that the client expects (`login_hint`; OIDC Core, 3.1.2.1): anybody may have written it.
    `parameters` are all that it asks for.
    """

    handle: str
    client: Client
    redirect_uri: str
    why: str = ""
    hint: str = ""
    parameters: Parameters = field(default_factory=lambda: Parameters.parse(""), repr=False)


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
            page. For any other client the user is asked for all scopes, because anybody may have sent the request.
    """

    held: tuple[str, ...]
    stays: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskConsent:
    """The user must be asked whether they agree.

    `scopes` are (name, sentence) pairs; `more` is set if they are more than the user agreed to before. `changed` names
    the members of the client's own description that have changed since the user agreed (E-20), at the time `agreed_at`.
    `problem` says why the page is shown again: `nothing-ticked`, `not-confirmed` or `shown-to-another`.
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
    """The browser goes to the client with the response: in the query of the address, unless in another response mode."""

    location: str = field(repr=False)
    mode: str = QUERY


Outcome = AskLogin | AskConsent | Redirect


class FormOutOfDate(PageError):
    """An answer to a page that was not shown to the user who is signed in now (E-03, E-04); that user is asked instead.

    Also an answer to a page that showed the client as it was before an operator changed it.
    """

    status = 403

    def __init__(self, asked: AskConsent) -> None:
        super().__init__(InvalidRequest("This page was not shown to you.", reason="form-token"))
        self.asked = asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request whose every part was accepted, with what the user may agree to, and what is kept with code and grant."""

    agreement: Agreement
    redirect_uri: str
    state: str | None
    code_challenge: str | None
    mode: str = QUERY
    kept: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    kept_with_grant: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
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
    expanded = expand(engine, parameters)
    if expanded.reference is None:
        expanded = carried(expanded, engine.settings.maximum_request)
    # However often it is sent, it expires at the same time; its answer is remembered until then.
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
        form_token: the token of the page that was answered.
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
        return Redirect(location=location, mode=checked.mode)
    # Meanwhile a policy may have begun to refuse it.
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
    """Check, for every answer, that its page was shown to this user, and that the request is still open.

    A repeated answer leads to the same `Redirect` (E-05). Without a user an answer does not count.
    """
    client, redirect_uri = accept_target(engine, pending.parameters)
    user = browser.user
    is_theirs = (
        user is not None and form_handle(engine, browser, token, user, _asked_about(client)) == pending.handle
    )
    location = earlier_answer(engine, pending, client, browser, given if is_theirs else "")
    if location is not None:
        return Redirect(location=location, mode=mode_of(engine, pending.parameters, redirect_uri))
    checked = _check(engine, pending, client, redirect_uri, browser)
    if isinstance(checked, Checked) and not is_theirs:
        raise FormOutOfDate(_ask_consent(engine, pending, checked, "shown-to-another"))
    return checked


def describe_pending(engine: Engine, sealed_request: str, browser: Browser) -> Requester:
    """The facts about a pending request that the sign-in page may show.

    Raises:
        PageError: as for `resume`.
    """
    pending = _opened(engine, sealed_request, browser)
    client, redirect_uri = accept_target(engine, pending.parameters)
    earlier_answer(engine, pending, client, browser)
    hint = next(iter(pending.parameters.all("login_hint")), "")
    return Requester(
        handle=pending.handle,
        client=client,
        redirect_uri=redirect_uri,
        why=pending.why,
        hint=without_hidden(hint) if len(hint) <= MAXIMUM_USERNAME else "",
        parameters=pending.parameters,
    )


def wants_sign_in_again(engine: Engine, sealed_request: str, browser: Browser) -> bool:
    """Whether the person must sign in for this pending request, even if they signed in before it.

    False for a request that cannot continue: the next page says why.
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


def _opened(engine: Engine, sealed_request: str, browser: Browser) -> Pending:
    """The pending request with all its parameters.

    Raises:
        PageError: as for `resume`.
    """
    pending = unseal(engine, sealed_request, browser).for_user(browser.user, engine.now)
    if pending.reference is None:
        return pending
    as_of_then = replace(engine, now=datetime.fromtimestamp(pending.asked_at, UTC))
    expanded = expand(as_of_then, pending.reference)
    return replace(pending, parameters=expanded.parameters, refusal=pending.refusal or expanded.refusal)


def _proceed(engine: Engine, pending: Pending, browser: Browser, *, is_new: bool = False) -> Outcome:
    client, redirect_uri = accept_target(engine, pending.parameters)
    location = None if is_new else earlier_answer(engine, pending, client, browser)
    if location is not None:
        return Redirect(location=location, mode=mode_of(engine, pending.parameters, redirect_uri))
    checked = _check(engine, pending, client, redirect_uri, browser)
    if isinstance(checked, AskLogin):
        return checked
    if _passes_unasked(engine, checked) and not checked.sign_in.asks:
        return _approve(engine, pending, browser, checked)
    if checked.sign_in.silent:
        refusal = AuthenticationRefused(
            "The user would have to be asked.", reason="consent-needed", code="consent_required"
        )
        raise _redirected(engine, refusal, client, redirect_uri, checked.state, mode=checked.mode)
    return _ask_consent(engine, pending, checked)


def _ask_login(engine: Engine, pending: Pending, *, again: bool = False) -> AskLogin:
    return AskLogin(sealed_request=seal(engine, pending), handle=pending.handle, again=again)


def _check(
    engine: Engine, pending: Pending, client: Client, redirect_uri: str, browser: Browser
) -> Checked | AskLogin:
    """All other checks, for the signed-in user if there is one; from here on errors are sent to the client."""
    parameters, user = pending.parameters, browser.user
    engine.journal.user_id = user.user_id if user else None
    state: str | None = None
    silent, mode = False, mode_of(engine, parameters, redirect_uri)
    try:
        state = read_state(parameters)
        if user is not None:
            engine.journal.target = (redirect_uri, state, client.is_self_registered, mode)
        if pending.refusal:
            raise pending.refusal
        parameters.refuse_repeated()
        parameters = complete(engine, client, parameters)
        sign_in = required_sign_in(
            engine,
            client,
            parameters,
            user,
            browser.session,
            is_fresh=pending.began_before(browser.session, engine.now),
        )
        silent = sign_in.silent
        if user is not None:
            asks_first = client.is_self_registered and not silent
            engine.journal.target = (redirect_uri, state, asks_first, mode)
        again = sign_in.step is AuthenticationStep.SIGN_IN_AGAIN
        if again or user is None:
            asked = replace(
                pending,
                sign_in_again=again,
                why=sign_in.why if again else "",
                user_id=user.user_id if user else None,
            )
            return _ask_login(engine, asked, again=user is not None)
        code_challenge, scopes, resources, kept = read_details(
            engine, client, parameters, user, pending.bound
        )
        grant_details = kept_with_grant(engine, client, user, parameters, acr=sign_in.acr, scopes=scopes)
    except OAuthError as error:
        if user is None and isinstance(error, InvalidRequest):
            # Redirect for a mistake in the request only after the user has signed in (OAuth 2.1, 7.13.2).
            return _ask_login(engine, pending)
        raise _redirected(engine, error, client, redirect_uri, state, mode=mode, silent=silent) from None
    return Checked(
        agreement=Agreement(client=client, user=user, scopes=scopes, resources=resources),
        redirect_uri=redirect_uri,
        state=state,
        code_challenge=code_challenge,
        mode=mode,
        kept=kept,
        kept_with_grant=grant_details,
        sign_in=sign_in,
    )


def _redirected(
    engine: Engine,
    error: OAuthError,
    client: Client,
    redirect_uri: str,
    state: str | None,
    *,
    mode: str,
    silent: bool = False,
) -> RedirectError:
    """The error for the client; the user is asked first if the client registered itself (B-17).

    A request that may show no page is exempt (B-16): it has no user who could answer one.
    """
    if isinstance(error, AuthenticationRefused):
        silent = silent or error.silent
    user_id = engine.journal.user_id
    asks = client.is_self_registered and not silent
    ask_first = asks and (user_id is None or remembered(engine, client, user_id) is None)
    return RedirectError(error, redirect_uri=redirect_uri, state=state, ask_first=ask_first, mode=mode)


def _passes_unasked(engine: Engine, checked: Checked) -> bool:
    """Whether the user need not be asked. Raises RedirectError when a policy refuses."""
    client, redirect_uri = checked.agreement.client, checked.redirect_uri
    try:
        consents = consents_already(engine, checked.agreement)
    except AccessDenied as error:
        raise _redirected(
            engine,
            error,
            client,
            redirect_uri,
            checked.state,
            mode=checked.mode,
            silent=checked.sign_in.silent,
        ) from None
    alone = uris.is_remote_https(redirect_uri)
    return consents and (
        silent_approval_is_safe(client, reaches_client_alone=alone)
        or (
            checked.sign_in.silent
            and stands_for_a_silent_request(engine, checked.agreement, reaches_client_alone=alone)
        )
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
    """The stored consent of this user to this client, even if it does not count any more."""
    return engine.stores.consents.find(checked.agreement.user.user_id, checked.agreement.client.client_id)


def _for_more(engine: Engine, checked: Checked, found: Consent | None) -> More | None:
    """The earlier consent of the user, if the request is for more; else None."""
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
    """The facts about the client on the consent page, as one text: if they change meanwhile, the page is shown again."""
    return " ".join([*client.redirect_uris, client.name, *seen(client).values()])


def _approve(
    engine: Engine, pending: Pending, browser: Browser, checked: Checked, *, given: str | None = None
) -> Redirect:
    """Store what was agreed, and answer with a code.

    Args:
        given: the user's answer; None when a policy allowed without asking.
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
        agree(
            engine,
            agreement,
            browser.session,
            asked=given is not None,
            acr=checked.sign_in.acr,
            kept=checked.kept_with_grant,
        ),
        code,
        redirect_uri=checked.redirect_uri,
        code_challenge=checked.code_challenge,
        details=checked.kept,
    )
    return Redirect(location=location, mode=checked.mode)


def _same_again(
    engine: Engine, pending: Pending, client: Client, browser: Browser, given: str | None
) -> Redirect:
    """Another of two simultaneous answers was first."""
    location = earlier_answer(engine, pending, client, browser, given)
    if location is None:
        # It was answered before the database was restored.
        raise RequestAnswered(client)
    parameters = pending.parameters
    _, redirect_uri = accept_target(engine, parameters)
    return Redirect(location=location, mode=mode_of(engine, parameters, redirect_uri))
