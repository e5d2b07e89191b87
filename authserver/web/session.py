"""The browser's session: a cookie that we made, and the form token that goes with it.

The cookie holds an identifier and its MAC; one that we did not make is never adopted (T098). A visitor's
identifier is stored nowhere; a signed-in session is stored as a digest, and gets a new identifier at sign-in.
"""

from __future__ import annotations

import re

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from authserver.engine import digests
from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.login import current_session
from authserver.engine.parameters import Parameters
from authserver.engine.pending import Browser
from authserver.engine.sealing import Unsealable, from_text, to_text
from authserver.web.forms import read_page_form

COOKIE_PURPOSE = "session-cookie"
FORM_PURPOSE = "form-token"
VISITOR = "visitor_"


class ForgedForm(PageError):
    """A form that our own page did not send (E-03, T092)."""

    status = 403


def includeme(config: Configurator) -> None:
    config.add_request_method(_browser, "browser", reify=True)
    config.add_request_method(form_token, "form_token", reify=True)


def begin_session(request: Request, session_id: str) -> None:
    """Give the browser this session from the next request on; not when this one fails, its commit included."""
    request.add_response_callback(lambda request, response: _set_cookie(request, response, session_id))


def new_visitor() -> Browser:
    """A stranger, whose session is stored nowhere."""
    return Browser(session_id=digests.new_identifier(VISITOR))


def form_token(request: Request) -> str:
    """The token that the forms of this session carry."""
    return _mac(request, request.browser.session_id, FORM_PURPOSE)


def read_own_form(request: Request) -> Parameters:
    """The form of one of our pages, sent from that page in this session.

    Raises:
        ForgedForm: another origin sent it, or the token is missing or another session's.
        PageError: it is no form.
    """
    # A page with `Referrer-Policy: no-referrer` sends `Origin: null`; the token alone decides then.
    origin = request.environ.get("HTTP_ORIGIN", "null")
    form = read_page_form(request)
    try:
        token = form.get("csrf_token") or ""
    except InvalidRequest:
        token = ""
    settings = request.registry.application.loaded.settings
    is_ours = _mac_matches(request, request.browser.session_id, FORM_PURPOSE, token)
    if origin not in ("null", settings.issuer_origin) or not is_ours:
        raise ForgedForm(
            InvalidRequest("This form is out of date. Go back, reload and try again.", reason="form-token")
        )
    return form


def cookie_name(request: Request) -> str:
    """`__Host-` binds the cookie to this very host; browsers take it over https only."""
    return "__Host-session" if _is_https(request) else "session"


def _browser(request: Request) -> Browser:
    """Who is at the other end; a stranger gets an identifier that is stored nowhere."""
    session_id = _read_cookie(request)
    if session_id is None:
        visitor = new_visitor()
        begin_session(request, visitor.session_id)
        return visitor
    found = None
    if digests.well_formed(digests.SESSION, session_id):
        found = current_session(request.engine, session_id)
    if found is None:
        return Browser(session_id=session_id)
    return Browser(
        session_id=session_id,
        user=found.user,
        authenticated_at=found.session.authenticated_at,
        methods=tuple(found.session.details.get("amr", ())),
    )


def _read_cookie(request: Request) -> str | None:
    """The identifier of a cookie that we made; two cookies of that name count as none (T099)."""
    pattern = rf"(?:^|;)\s*{re.escape(cookie_name(request))}=([^;]*)"
    values = re.findall(pattern, request.environ.get("HTTP_COOKIE", ""))
    if len(values) != 1:
        return None
    session_id, _, mac = values[0].strip().partition(".")
    return session_id if _mac_matches(request, session_id, COOKIE_PURPOSE, mac) else None


def _set_cookie(request: Request, response: Response, session_id: str) -> None:
    if request.exception is not None:
        return
    response.set_cookie(
        cookie_name(request),
        f"{session_id}.{_mac(request, session_id, COOKIE_PURPOSE)}",
        path="/",
        secure=_is_https(request),
        httponly=True,
        samesite="Lax",
        overwrite=True,
    )


def _mac(request: Request, session_id: str, purpose: str) -> str:
    mac = request.registry.application.parts.keys.mac(session_id.encode(), purpose=purpose)
    return to_text(mac)


def _mac_matches(request: Request, session_id: str, purpose: str, text: str) -> bool:
    """Whether this is the code that `_mac` made, under the active key or one that was active before."""
    try:
        mac = from_text(text)
    except Unsealable:
        return False
    matches: bool = request.registry.application.parts.keys.mac_matches(
        session_id.encode(), mac, purpose=purpose
    )
    return matches


def _is_https(request: Request) -> bool:
    issuer: str = request.registry.application.loaded.settings.issuer
    return issuer.startswith("https:")
