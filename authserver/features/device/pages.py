"""The pages for people: one to type the code, and one to allow or deny what the device asks for.

They work on a telephone and without scripts. A link with a code only fills the field: the code is looked up when the person
sends the form (RFC 8628, 3.3.1 and 5.4).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from pyramid.config import Configurator
from pyramid.i18n import TranslationStringFactory
from pyramid.renderers import render_to_response
from pyramid.response import Response

from authserver.api import (
    ON_ANOTHER_DEVICE,
    Agreement,
    AuthenticationStep,
    Counted,
    Engine,
    EventType,
    InvalidRequest,
    OAuthError,
    PageError,
    Request,
    Route,
    Session,
    SignIn,
    User,
    agree,
    agreement_problem,
    allowed_resources,
    allowed_scopes,
    claim_rate,
    complete_parameters,
    consents_already,
    decline,
    describe_client,
    give_back_rate,
    grouped_scopes,
    hold_session,
    keep_approved,
    kept_with_grant,
    named_resources,
    own_url,
    read_own_form,
    read_page_query,
    required_sign_in,
    scope_sentences,
    see_login,
    session_token,
)
from authserver.features.device import requests
from authserver.features.device.protocol import GRANT_TYPE, check_client, check_person
from authserver.features.device.requests import DeviceRequest, Rules, State

_ = TranslationStringFactory("authserver")
_TEMPLATES = "authserver.features.device:templates"
_PURPOSE = _("to connect a device")
# How many seconds the clocks of our processes may differ (T150).
_APART = 60
TYPE = Route("device", "/device", ("GET", "POST"), personal=True, purpose=_PURPOSE)
ANSWER = Route("device_answer", "/device/answer", ("POST",))


class WrongCode(PageError):
    """There is no request with this code; the page asks for the code again."""

    def __init__(self, typed: str) -> None:
        super().__init__(
            InvalidRequest("There is no device with this code.", reason="user-code-unknown"), advises=True
        )
        self.typed = typed


class Over(PageError):
    """The request was answered, or has expired: a page says which (DEV-10)."""

    def __init__(self, *, reason: str, heading: str) -> None:
        super().__init__(InvalidRequest("This code cannot be used any more.", reason=reason), advises=True)
        self.heading = heading


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a device asks of a person; all of it is checked for the page, and again for the answer.

    Attributes:
        code: the code as it is shown.
        acr: the level of the sign-in, if a policy says so.
        kept: the details that plugins keep with the grant.
    """

    found: DeviceRequest
    code: str
    agreement: Agreement
    acr: str | None
    kept: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The views."""

    rules: Rules

    def type_code(self, request: Request) -> Response:
        """GET /device: the field for the code. POST: what the device with that code asks for."""
        posted = request.method == "POST"
        # The form token is checked before a redirect to the sign-in, because a form from another site must have no effect.
        sent = read_own_form(request) if posted else read_page_query(request)
        typed = (sent.get("user_code") or "")[:100]
        away = self._sign_in_first(request, typed)
        if away is not None:
            return away
        if not posted:
            return _code_page(request, typed)
        asked = find(request.engine, typed, *_person(request), self.rules)
        return _again(request, typed) if asked is None else _answer_page(request, asked)

    def answer(self, request: Request) -> Response:
        """POST /device/answer: the person allows or denies it."""
        form = read_own_form(request)
        typed = form.get("user_code") or ""
        away = self._sign_in_first(request, typed)
        if away is not None:
            return away
        person, session = _person(request)
        asked = find(request.engine, typed, person, session, self.rules)
        if asked is None:
            return _again(request, typed)
        ticked = form.all("scope")
        if form.get("answer") != "allow":
            deny(request.engine, asked)
            return _done_page(request, asked, allowed=False)
        problem = allow(
            request.engine,
            asked,
            session,
            scopes=ticked,
            confirmed="confirm_unverified" in form,
        )
        if problem:
            return _answer_page(request, asked, ticked=ticked, problem=problem)
        return _done_page(request, asked, allowed=True)

    def _sign_in_first(self, request: Request, typed: str) -> Response | None:
        """A redirect to the sign-in page and back; None if the person signed in recently (DEV-11)."""
        session = request.browser.session
        code = requests.read_user_code(typed)
        back = f"{TYPE.name}?user_code={requests.shown(code)}" if code else TYPE.name
        if request.browser.user is None or session is None:
            return see_login(request, page=back)
        if is_fresh(request.engine, session, self.rules):
            return None
        return see_login(request, page=back, again="yes")


def includeme(config: Configurator, rules: Rules) -> None:
    """Add the pages."""
    pages = Pages(rules=rules)
    config.add_endpoint(TYPE, pages.type_code)
    config.add_endpoint(ANSWER, pages.answer)
    config.add_exception_view(_wrong_code, context=WrongCode)
    config.add_exception_view(_over, context=Over)


def is_fresh(engine: Engine, session: Session, rules: Rules) -> bool:
    """Whether the sign-in of this session is recent enough for an answer."""
    return -_APART <= (engine.now - session.authenticated_at).total_seconds() <= rules.age_for_approving


def find(engine: Engine, typed: str, person: User, session: Session, rules: Rules) -> Asked | None:
    """What the device with this code asks of this person; None if a policy says that they must sign in again first.

    Every typed code is counted for the person, the network and everybody; a right one is subtracted again.

    Raises:
        TooManyRequests: too many guesses.
        WrongCode: there is no such request.
        Over: the request was answered, or has expired.
        PageError: client, person, scopes or resources are not allowed, or not allowed any more.
    """
    claimed = claim_rate(engine, Counted.TYPED_CODE, account=person.username)
    found = requests.find_by_user_code(engine, typed)
    code = requests.read_user_code(typed)
    # If somebody else typed this code before, this person learns no more than from a wrong code.
    if found is None or code is None or found.person_id not in (None, person.user_id):
        raise WrongCode(typed)
    give_back_rate(engine, claimed)
    engine.journal.client_id, engine.journal.user_id = found.client_id, person.user_id
    _check_open(engine, found, rules)
    try:
        asked = _checked(engine, found, requests.shown(code), person, session, rules)
    except OAuthError as error:
        raise PageError(error) from None
    # From here on no plugin is asked.
    found = requests.show_to(engine, found, person.user_id)
    if found is None:
        raise WrongCode(typed)
    return replace(asked, found=found) if asked else None


def allow(
    engine: Engine, asked: Asked, session: Session, *, scopes: Collection[str], confirmed: bool
) -> str | None:
    """Let the device have these scopes. Returns why the answer is no agreement (`agreement_problem`), or None.

    Raises:
        PageError: the session ended before the answer.
        Over: somebody answered before.
    """
    chosen = asked.agreement.narrowed(scopes)
    problem = agreement_problem(chosen, confirmed=confirmed)
    if problem:
        return problem
    hold_session(engine, session)
    found, client = asked.found, asked.agreement.client
    if not requests.answer_once(engine, found, State.APPROVED):
        raise _answered()
    # The consent is not remembered (`asked=False`): the next device with this client may belong to another person.
    grant = agree(engine, chosen, session, asked=False, acr=asked.acr, kept=asked.kept)
    grant = replace(grant, details={**grant.details, "grant_type": GRANT_TYPE, ON_ANOTHER_DEVICE: True})
    engine.journal.grant_id = grant.grant_id
    engine.record(
        EventType.CONSENT_GIVEN,
        details={"scopes": list(grant.scopes), "grant_type": GRANT_TYPE, "asked_from": found.source},
    )
    try:
        keep_approved(
            engine,
            client,
            grant,
            found.record.digest,
            expires_at=found.expires_at,
            details=found.code_details,
        )
    except OAuthError as error:
        raise PageError(error) from None
    return None


def deny(engine: Engine, asked: Asked) -> None:
    """Tell the device that it was denied. Raises Over if somebody answered before."""
    if not requests.answer_once(engine, asked.found, State.DENIED):
        raise _answered()
    decline(engine, asked.agreement)


def _check_open(engine: Engine, found: DeviceRequest, rules: Rules) -> None:
    """Check that the request can be answered, and that its device polls once more to get the answer. Raises Over."""
    if found.state is not State.PENDING:
        raise _answered(found.state)
    last_poll = timedelta(seconds=rules.interval)
    if found.is_over(engine) or found.expires_at - engine.now < last_poll:
        raise Over(reason="device-request-expired", heading=_("This code has expired"))


def _answered(state: State = State.PENDING) -> Over:
    heading = {
        State.APPROVED: _("You allowed this device already"),
        State.DENIED: _("This device was denied already"),
        # Somebody else has just answered it.
        State.PENDING: _("This code was used already"),
    }
    return Over(reason="device-request-answered", heading=heading[state])


def _checked(
    engine: Engine, found: DeviceRequest, code: str, person: User, session: Session, rules: Rules
) -> Asked | None:
    """Make the checks of an authorization request with the present rules (DEV-08). Raises OAuthError."""
    client = engine.find_client(found.client_id)
    if client is None or not client.is_enabled:
        raise InvalidRequest(
            "There is no such application here.", reason="client-disabled" if client else "client-unknown"
        )
    check_client(engine, client, rules)
    check_person(person, rules)
    parameters = complete_parameters(engine, client, found.parameters)
    sign_in: SignIn = required_sign_in(
        engine,
        client,
        parameters,
        person,
        session,
        is_fresh=session.authenticated_at >= found.record.created_at,
    )
    if sign_in.step is AuthenticationStep.SIGN_IN_AGAIN:
        return None
    resources = allowed_resources(engine, client, found.resources)
    scopes = allowed_scopes(engine, client, person, GRANT_TYPE, found.scopes, resources)
    agreement = Agreement(client=client, user=person, scopes=scopes, resources=resources)
    kept = kept_with_grant(engine, client, person, parameters, acr=sign_in.acr, scopes=scopes)
    # A policy may refuse here. If policies allow it without a question, the person is asked anyway.
    consents_already(engine, agreement)
    return Asked(found=found, code=code, agreement=agreement, acr=sign_in.acr, kept=kept)


def _person(request: Request) -> tuple[User, Session]:
    browser = request.browser
    assert browser.user is not None  # `_sign_in_first`
    assert browser.session is not None
    return browser.user, browser.session


def _again(request: Request, typed: str) -> Response:
    code = requests.read_user_code(typed)
    back = f"{TYPE.name}?user_code={requests.shown(code)}" if code else TYPE.name
    return see_login(request, page=back, again="yes")


def _code_page(request: Request, typed: str, *, failed: bool = False) -> Response:
    code = requests.read_user_code(typed)
    return _page(
        request,
        "code.jinja2",
        action=own_url(request, TYPE.name),
        csrf_token=session_token(request, TYPE.name),
        typed=requests.shown(code) if code else typed,
        failed=failed,
        error_id=request.error_id,
    )


def _answer_page(
    request: Request, asked: Asked, *, ticked: Collection[str] | None = None, problem: str = ""
) -> Response:
    engine, agreement, found = request.engine, asked.agreement, asked.found
    list_of = partial(grouped_scopes, ticked=ticked, headings=dict(engine.settings.scope_groups))
    response = _page(
        request,
        "answer.jinja2",
        action=own_url(request, ANSWER.name),
        csrf_token=session_token(request, ANSWER.name),
        user_code=asked.code,
        client=describe_client(request, agreement.client),
        source=found.source,
        minutes=max(0, int((engine.now - found.record.created_at).total_seconds() // 60)),
        same_network=found.source == engine.caller.source,
        scopes=len(agreement.scopes),
        groups=list_of(scope_sentences(engine, agreement)),
        resources=named_resources(request, agreement.resources),
        problem=problem,
    )
    response.status_int = 400 if problem else 200
    return response


def _done_page(request: Request, asked: Asked, *, allowed: bool) -> Response:
    return _page(
        request, "done.jinja2", allowed=allowed, client=describe_client(request, asked.agreement.client)
    )


def _wrong_code(refusal: WrongCode, request: Request) -> Response:
    response = _code_page(request, refusal.typed, failed=True)
    response.status_int = refusal.status
    return response


def _over(refusal: Over, request: Request) -> Response:
    response = _page(
        request,
        "over.jinja2",
        heading=refusal.heading,
        again=own_url(request, TYPE.name),
        error_id=request.error_id,
    )
    response.status_int = refusal.status
    return response


def _page(request: Request, template: str, **values: Any) -> Response:
    page: Mapping[str, Any] = values
    response: Response = render_to_response(f"{_TEMPLATES}/{template}", page, request)
    return response
