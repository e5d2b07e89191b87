"""The cookies of browsers, for sessions, pending requests and known devices, and the tokens of forms.

No cookie content is trusted without its MAC, so a cookie that this server did not make is never accepted (T098). The
database has only the digest of a session, and nothing about browsers without a session. The cookie of a session is set
only by signing in and out and by a changed password: a request from another site comes without the cookie (SameSite=Lax),
and the answer to it must not replace the cookie.
"""

from __future__ import annotations

import re
from collections import Counter

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.engine import session_handles
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import Unsealable, from_text, to_text
from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.parameters import Parameters
from authserver.engine.pending import Browser, form_token, is_marked, mark_of
from authserver.engine.people.known_devices import cookie_with
from authserver.engine.people.login import SESSION_KIND, current_session
from authserver.engine.records import User
from authserver.limits import MAXIMUM_MARKS
from authserver.web.forms import read_page_form, read_page_upload
from authserver.web.pages import see_own
from authserver.web.request import Request

COOKIE_PURPOSE = "session-cookie"
FORM_PURPOSE = "form-token"
SESSION = "authserver-session"
REQUEST = "authserver-request-"
DEVICE = "authserver-device"
# One year. The cookie only prevents that strangers lock people out (`people.known_devices`).
DEVICE_SECONDS = 31_536_000
# A pending request lives for minutes. Its mark lives longer, so that its page can still say that it has expired.
MARK_SECONDS = 86_400

_HANDLE = re.compile(r"[A-Za-z0-9_-]{22}")


class ForgedForm(PageError):
    """A form that our own page did not send (E-03, T092)."""

    status = 403

    def __init__(self) -> None:
        super().__init__(
            InvalidRequest("This form is out of date. Go back, reload and try again.", reason="form-token"),
            advises=True,
        )


class TwoSessions(PageError):
    """The browser sends two session cookies; another site has set one of them (T099)."""

    def __init__(self) -> None:
        super().__init__(
            InvalidRequest(
                "Your browser sends two sessions. Delete the cookies of this site and start again.",
                reason="two-sessions",
            ),
            advises=True,
        )


def includeme(config: Configurator) -> None:
    """Add `request.browser`."""
    config.add_request_method(_browser, "browser", reify=True)


def see_login(request: Request, /, **query: str) -> Response:
    """A redirect to the sign-in page, because nobody is signed in here.

    Raises:
        TwoSessions: a sign-in would not help, and the sign-in page might get only one cookie and redirect back.
    """
    if [name for name, _ in _sent_cookies(request)].count(SESSION) > 1:
        raise TwoSessions
    return see_own(request, "login", **query)


def begin_session(request: Request, session_id: str) -> None:
    """Give the browser this session, unless this request or its commit fails."""
    _set_cookies(request, {SESSION: f"{session_id}.{_mac(request, session_id, COOKIE_PURPOSE)}"})


def device_cookie(request: Request) -> str:
    """The device cookie, which a browser has in which somebody signed in before; "" if there is none."""
    return _read_cookies(request).get(DEVICE, "")


def remember_device(request: Request, user: User) -> None:
    """Set the device cookie, which shows from now on that this user signed in with this browser."""
    cookie = cookie_with(request.engine, device_cookie(request), user)
    _set_cookies(request, {DEVICE: cookie}, DEVICE_SECONDS)


def end_session(request: Request) -> None:
    """Delete the cookie of the session that has ended."""
    _set_cookies(request, {SESSION: None})


def session_handle(request: Request) -> str | None:
    """The public handle of the session of this browser (`engine.session_handles`), even after the session has ended.

    None if the browser never had a session.
    """
    session_id, session = request.browser.session_id, request.browser.session
    if session is not None:
        return session_handles.session_handle(session)
    return session_handles.handle_of(digests.digest(SESSION_KIND, session_id)) if session_id else None


def mark_browser(request: Request, handle: str) -> None:
    """Set a cookie which shows that the request with this handle began in this browser.

    If there are too many such cookies, the oldest are deleted; browsers send the oldest first (RFC 6265, 5.4).
    """
    older = [known for known in request.browser.marks if known != handle]
    cookies: dict[str, str | None] = {
        REQUEST + known: None for known in older[: max(0, len(older) - MAXIMUM_MARKS + 1)]
    }
    _set_cookies(request, cookies | {REQUEST + handle: mark_of(request.engine, handle)}, MARK_SECONDS)


def stranger_token(request: Request) -> str:
    """The token of a form that is not about a pending request, for somebody who may have no session (T092)."""
    return form_token(request.engine, browser_handle(request))


def browser_handle(request: Request) -> str:
    """A handle under which this browser is marked; it gets a mark if it has none."""
    browser = request.browser
    marked = (
        handle for handle in reversed(list(browser.marks)) if is_marked(request.engine, browser, handle)
    )
    handle = next(marked, None)
    if handle is None:
        handle = digests.new_identifier()
        mark_browser(request, handle)
    return handle


def session_token(request: Request, route_name: str) -> str:
    """The token of a form that this session sends to this route; "" without a session."""
    session_id = request.browser.session_id
    return _mac(request, _sent(session_id, route_name), FORM_PURPOSE) if session_id else ""


def read_own_form(request: Request, *, files: bool = False) -> Parameters:
    """A form for this route that one of our pages showed in this session.

    Args:
        files: whether it may have files (`read_page_upload`).

    Raises:
        ForgedForm: another origin sent it, or the token is missing, of another session or for another route.
        PageError: it is not a form.
    """
    form = read_form_from_here(request, files=files)
    session_id = request.browser.session_id
    sent = _sent(session_id or "", request.matched_route.name)
    if session_id is None or not _mac_matches(request, sent, FORM_PURPOSE, token_of(form)):
        raise ForgedForm
    return form


def read_form_from_here(request: Request, *, files: bool = False) -> Parameters:
    """A form that was not sent from another origin; its token shows whether a page of this server sent it.

    Raises:
        ForgedForm: another origin sent it.
        PageError: it is not a form.
    """
    # A page with `Referrer-Policy: no-referrer` sends `Origin: null`; then only the token decides.
    origin = request.environ.get("HTTP_ORIGIN", "null")
    form = read_page_upload(request) if files else read_page_form(request)
    if origin not in ("null", request.application.parts.settings.issuer_origin):
        raise ForgedForm
    return form


def token_of(form: Parameters) -> str:
    """The token in a form; "" if there is none, or more than one."""
    tokens = form.all("csrf_token")
    return tokens[0] if len(tokens) == 1 else ""


def _browser(request: Request) -> Browser:
    """The session, user and pending requests of this browser."""
    cookies = _read_cookies(request)
    marks = {
        name.removeprefix(REQUEST): value
        for name, value in cookies.items()
        if name.startswith(REQUEST) and _HANDLE.fullmatch(name, len(REQUEST))
    }
    session_id, _, mac = cookies.get(SESSION, "").partition(".")
    if not _mac_matches(request, session_id, COOKIE_PURPOSE, mac):
        return Browser(marks=marks)
    found = None
    if digests.well_formed(digests.SESSION, session_id):
        found = current_session(request.engine, session_id)
    if found is None:
        return Browser(session_id=session_id, marks=marks)
    return Browser(session_id=session_id, session=found.session, user=found.user, marks=marks)


def _sent_cookies(request: Request) -> list[tuple[str, str]]:
    """The cookies with names that this server sets, as sent and in that order."""
    prefix = _prefix(request) + "authserver-"
    pairs = [part.strip().partition("=") for part in request.environ.get("HTTP_COOKIE", "").split(";")]
    return [
        (name.removeprefix(_prefix(request)), value) for name, _, value in pairs if name.startswith(prefix)
    ]


def _read_cookies(request: Request) -> dict[str, str]:
    """The cookies with names that this server sets; two with the same name count as none (T099)."""
    ours = _sent_cookies(request)
    occurrences = Counter(name for name, _ in ours)
    return {name: value for name, value in ours if occurrences[name] == 1}


def _set_cookies(request: Request, cookies: dict[str, str | None], seconds: int | None = None) -> None:
    """Set these cookies, or delete those that are None, once the request has succeeded."""

    def set_cookies(request: Request, response: Response) -> None:
        if request.exception is not None:
            return
        for name, value in cookies.items():
            response.set_cookie(
                _prefix(request) + name,
                value,
                max_age=seconds,
                path="/",
                secure=_is_https(request),
                httponly=True,
                samesite="Lax",
                overwrite=True,
            )

    request.add_response_callback(set_cookies)


def _prefix(request: Request) -> str:
    """The prefix of cookie names. `__Host-` binds a cookie to this host; browsers accept it only over https."""
    return "__Host-" if _is_https(request) else ""


def _sent(session_id: str, route_name: str) -> str:
    return f"{session_id} {route_name}"


def _mac(request: Request, data: str, purpose: str) -> str:
    mac = request.application.parts.ring.mac(data.encode(), purpose=purpose)
    return to_text(mac)


def _mac_matches(request: Request, data: str, purpose: str, text: str) -> bool:
    """Whether this is the code that `_mac` made, under the active key or one that was active before."""
    try:
        mac = from_text(text)
    except Unsealable:
        return False
    matches: bool = request.application.parts.ring.mac_matches(data.encode(), mac, purpose=purpose)
    return matches


def _is_https(request: Request) -> bool:
    issuer: str = request.application.parts.settings.issuer
    return issuer.startswith("https:")
