"""GET|POST /login and /logout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pyramid.i18n import TranslationStringFactory
from pyramid.response import Response
from pyramid.view import exception_view_config, view_config

from authserver.engine import authorize, uris
from authserver.engine.authorize import Requester
from authserver.engine.errors import InvalidRequest, SignInRefused, TooManyRequests
from authserver.engine.parameters import Parameters
from authserver.engine.pending import form_handle, form_token
from authserver.engine.people.login import SignedIn, sign_in, sign_in_unasked, sign_out
from authserver.limits import MAXIMUM_USERNAME
from authserver.settings import Secret
from authserver.web.authorize import describe_client
from authserver.web.forms import read_page_query
from authserver.web.onward import let_forms_lead_on
from authserver.web.pages import own_url, render_page, see_other, see_own
from authserver.web.request import Request
from authserver.web.retry_after import minutes, with_retry_after
from authserver.web.session import (
    ForgedForm,
    begin_session,
    device_cookie,
    end_session,
    read_form_from_here,
    read_own_form,
    remember_device,
    session_token,
    stranger_token,
    token_of,
)

_ = TranslationStringFactory("authserver")

# The notices of the page; the address names one of these and cannot have text of its own.
NOTICES: Mapping[str, str] = {
    "password-set": _("Your password is set. Sign in with it."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPage:
    """The values of the sign-in page: for which request or page somebody signs in, and what was typed before.

    Attributes:
        return_page: the page that asked for the sign-in, in the form of `_personal_page`.
        again: whether that page needs a more recent sign-in than the present one.
    """

    csrf_token: str
    requester: Requester | None = None
    sealed_request: str = ""
    return_page: str = ""
    again: bool = False
    username: str = ""
    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """The request or page for which somebody signs in.

    Attributes:
        sealed_request: a pending authorization request; "" for none.
        return_page: the page that asked for the sign-in, in the form of `_personal_page`; "" for none.
        again: whether that page needs a more recent sign-in than the present one.
        must_sign_in: whether an existing session is not enough.
    """

    sealed_request: str = ""
    return_page: str = ""
    again: bool = False
    must_sign_in: bool = False

    @property
    def query(self) -> dict[str, str]:
        """The purpose as the query of a page for signing in."""
        found = {
            "request": self.sealed_request,
            "page": self.return_page,
            "again": "yes" if self.again else "",
        }
        return {name: text for name, text in found.items() if text}


class NotSignedIn(SignInRefused):
    """A refused sign-in, with the page on which to try again."""

    def __init__(self, refused: SignInRefused, page: SignInPage) -> None:
        super().__init__(refused.description, reason=refused.reason)
        self.page = page


class TooManySignIns(TooManyRequests):
    """Too many attempts to sign in, with the page on which to try again later."""

    def __init__(self, refused: TooManyRequests, page: SignInPage) -> None:
        super().__init__(
            refused.description,
            reason=refused.reason,
            retry_after=refused.retry_after,
            leaves_event=refused.leaves_event,
        )
        self.page = page


@view_config(route_name="login", request_method="GET")
def login(request: Request) -> Response:
    """GET /login: the form; or a redirect to the purpose, if a session or a policy identifies the person.

    Raises:
        PageError: the pending request has expired, or belongs to another browser.
    """
    query = read_page_query(request)
    purpose = read_purpose(request, query)
    # If a new sign-in is required, neither a session nor a policy replaces it.
    if not purpose.must_sign_in:
        if request.browser.user is not None and purpose.query:
            # The person has signed in already, perhaps in another tab, or went back to this page.
            return go_on(request, purpose)
        recognised = sign_in_unasked(request.engine, previous_session_id=request.browser.session_id)
        if recognised:
            return begin_and_go_on(request, recognised, purpose)
    requester = requester_of(request, purpose)
    page = SignInPage(
        csrf_token=form_token(request.engine, requester.handle) if requester else stranger_token(request),
        requester=requester,
        sealed_request=purpose.sealed_request,
        return_page=purpose.return_page,
        again=purpose.again,
        notice=NOTICES.get(query.get("notice") or "", ""),
    )
    return _login_page(request, page)


def read_purpose(request: Request, query: Parameters) -> Purpose:
    """The purpose of a sign-in, from the query of a page for signing in (E-18)."""
    sealed, return_page = query.get("request") or "", _personal_page(request, query.get("page") or "")
    again = bool(return_page) and bool(query.get("again"))
    return Purpose(
        sealed_request=sealed,
        return_page=return_page,
        again=again,
        must_sign_in=again
        or (bool(sealed) and authorize.wants_sign_in_again(request.engine, sealed, request.browser)),
    )


def requester_of(request: Request, purpose: Purpose) -> Requester | None:
    """The application behind the pending request for which somebody signs in; None if there is no request.

    Raises:
        PageError: the request cannot continue.
    """
    if not purpose.sealed_request:
        return None
    return authorize.describe_pending(request.engine, purpose.sealed_request, request.browser)


@view_config(route_name="login", request_method="POST")
def check_login(request: Request) -> Response:
    """POST /login: check the password, begin a session, and continue with the pending request or page.

    Raises:
        ForgedForm: the form comes from another browser (T098).
        NotSignedIn: the name or password is wrong; one answer for both.
        TooManySignIns: there were too many attempts.
    """
    form, engine = read_form_from_here(request), request.engine
    sealed = _once(form, "request") or ""
    # A request that cannot continue is refused before a password is checked.
    requester = authorize.describe_pending(engine, sealed, request.browser) if sealed else None
    token = token_of(form)
    handle = form_handle(engine, request.browser, token)
    if handle is None or (requester and requester.handle != handle):
        raise ForgedForm
    username, password = _once(form, "username"), _once(form, "password")
    page = SignInPage(
        csrf_token=token,
        requester=requester,
        sealed_request=sealed,
        return_page=_personal_page(request, _once(form, "page") or ""),
        again=bool(_once(form, "again")),
        username=(username or "")[:MAXIMUM_USERNAME],
    )
    try:
        if username is None or password is None or _once(form, "request") is None:
            raise SignInRefused("A field was sent twice.", reason="field-repeated")
        signed_in = sign_in(
            engine,
            username,
            Secret(password),
            previous_session_id=request.browser.session_id,
            device_cookie=device_cookie(request),
        )
    except SignInRefused as refused:
        raise NotSignedIn(refused, page) from None
    except TooManyRequests as refused:
        raise TooManySignIns(refused, page) from None
    return begin_and_go_on(request, signed_in, Purpose(sealed_request=sealed, return_page=page.return_page))


@exception_view_config(NotSignedIn)
def refuse_login(refusal: NotSignedIn, request: Request) -> Response:
    """The form again with one sentence for every cause, as status 400."""
    response = _login_page(request, refusal.page, failed=True)
    response.status_int = 400
    return response


@exception_view_config(TooManySignIns)
def hold_login(refusal: TooManySignIns, request: Request) -> Response:
    """The form again with the time to wait, as status 429 with `Retry-After`."""
    response = _login_page(request, refusal.page, failed=True, wait_seconds=refusal.retry_after)
    return with_retry_after(response, refusal)


@view_config(route_name="logout", request_method="GET")
def logout(request: Request) -> Response:
    """GET /logout: ask whether to end this session, so that a link on another site ends nothing."""
    if request.browser.user is None:
        return _signed_out(request)
    page = {"action": own_url(request, "logout"), "csrf_token": session_token(request, "logout")}
    return render_page(request, "sign_out.jinja2", page)


@view_config(route_name="logout", request_method="POST")
def confirm_logout(request: Request) -> Response:
    """POST /logout: end the session of this browser."""
    read_own_form(request)
    sign_out_here(request)
    return _signed_out(request)


def sign_out_here(request: Request) -> None:
    """End the session of this browser, which has or had one, and delete its cookie."""
    session_id = request.browser.session_id
    assert session_id is not None
    sign_out(request.engine, session_id)
    end_session(request)


def _signed_out(request: Request) -> Response:
    page = {"everywhere": False, "signed_in": None}
    return render_page(request, "signed_out.jinja2", page)


def _once(form: Parameters, name: str) -> str | None:
    """The value of a field, "" if it was left empty; None if it was sent twice."""
    try:
        return form.get(name) or ""
    except InvalidRequest:
        return None


def begin_and_go_on(request: Request, signed_in: SignedIn, purpose: Purpose) -> Response:
    """Give the browser the new session, and redirect to the purpose of the sign-in."""
    begin_session(request, signed_in.session_id)
    remember_device(request, signed_in.user)
    return go_on(request, purpose)


def go_on(request: Request, purpose: Purpose) -> Response:
    """A redirect to the pending request or the page for which somebody signs in; to the front page without one."""
    if purpose.sealed_request:
        return see_own(request, "consent", request=purpose.sealed_request)
    name, _, query = purpose.return_page.partition("?")
    return see_other(own_url(request, name or "home") + (f"?{query}" if query else ""))


def _personal_page(request: Request, text: str) -> str:
    """The name of a page that asked for a sign-in, with its query; "" for every other text (E-18, T025).

    So a form can lead only to such pages: the address is made from the route table, and its query is encoded again.
    """
    name, _, query = text.partition("?")
    route = request.registry.routes.get(name)
    if route is None or not route.personal:
        return ""
    pairs = parse_qsl(query, keep_blank_values=True)
    return f"{name}?{urlencode(pairs)}" if pairs else name


def _login_page(
    request: Request, shown: SignInPage, *, failed: bool = False, wait_seconds: int = 0
) -> Response:
    requester = shown.requester
    redirect_uri = requester.redirect_uri if requester else ""
    user = request.browser.user
    again = user is not None and (
        shown.again
        or (
            requester is not None
            and authorize.wants_sign_in_again(request.engine, shown.sealed_request, request.browser)
        )
    )
    return_route = request.registry.routes.get(shown.return_page.partition("?")[0])
    page: dict[str, Any] = {
        "action": own_url(request, "login"),
        "csrf_token": shown.csrf_token,
        "sealed_request": shown.sealed_request,
        "return_page": shown.return_page,
        "return_again": shown.again,
        "purpose": return_route.purpose if return_route else "",
        "client": describe_client(request, requester.client) if requester else None,
        "redirect_host": uris.display_host(redirect_uri),
        "redirect_is_remote": uris.is_remote_https(redirect_uri),
        "notice": shown.notice,
        "username": shown.username
        or (requester.hint if requester else "")
        or (user.username if again and user else ""),
        "again": again,
        "why": requester.why if again and requester else "",
        "ways": (ways := _ways(request, shown)),
        # If no plugin checks passwords, only the other ways are shown.
        "takes_passwords": not ways or request.application.parts.policies.serves("login_decision"),
        "failed": failed,
        "wait_minutes": minutes(wait_seconds),
        "error_id": request.error_id,
        "signed_in": None,
    }
    if requester:
        let_forms_lead_on(request)
    # The only script of these pages is a file of this server. The policy names its path, so that nothing else may run.
    request.content_security_policy = {
        **request.content_security_policy,
        "script-src": [own_url(request, "show_password")],
    }
    return render_page(request, "login.jinja2", page)


def _ways(request: Request, shown: SignInPage) -> list[dict[str, str]]:
    """The other ways to sign in, each with an address that has the purpose of the sign-in in its query."""
    asked = shown.requester.parameters if shown.requester else Parameters.parse("")
    purpose = Purpose(sealed_request=shown.sealed_request, return_page=shown.return_page, again=shown.again)
    ways = [way for found in request.registry.sign_in_ways for way in found(asked)]
    # The expected ways come first; otherwise they are in the order in which they were added.
    ways.sort(key=lambda way: not way.is_expected)
    origin = request.application.parts.settings.issuer_origin
    return [
        {"label": way.label, "url": uris.with_query(origin + way.path, purpose.query.items())} for way in ways
    ]
