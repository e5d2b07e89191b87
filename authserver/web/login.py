"""GET|POST /login and /logout."""

from __future__ import annotations

from typing import Any

from pyramid.renderers import render_to_response
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import exception_view_config, view_config

from authserver.engine import authorize, uris
from authserver.engine.errors import SignInRefused
from authserver.engine.login import Attempt, SignedIn, sign_in, sign_in_unasked, sign_out
from authserver.engine.pending import Browser, rebind
from authserver.settings import Secret
from authserver.web.authorize import describe_client
from authserver.web.forms import headers_of, read_page_query
from authserver.web.pages import allow_redirect_to, own_url, see_own
from authserver.web.session import begin_session, new_visitor, read_own_form


@view_config(route_name="login", request_method="GET")
def login(request: Request) -> Response:
    query = read_page_query(request)
    sealed, page = query.get("request") or "", query.get("page") or ""
    recognised = sign_in_unasked(
        request.engine, _attempt(request), previous_session_id=request.browser.session_id
    )
    return _continue(request, recognised, sealed, page) if recognised else _login_page(request, sealed, page)


@view_config(route_name="login", request_method="POST")
def check_login(request: Request) -> Response:
    form = read_own_form(request)
    sealed = form.get("request") or ""
    if sealed:
        # A request that cannot go on should not cost a password.
        authorize.describe_pending(request.engine, sealed, request.browser)
    attempt = _attempt(
        request, username=form.get("username") or "", password=Secret(form.get("password") or "")
    )
    signed_in = sign_in(request.engine, attempt, previous_session_id=request.browser.session_id)
    return _continue(request, signed_in, sealed, form.get("page") or "")


@exception_view_config(SignInRefused)
def refuse_login(refusal: SignInRefused, request: Request) -> Response:
    form = read_own_form(request)
    response = _login_page(
        request,
        form.get("request") or "",
        form.get("page") or "",
        username=(form.get("username") or "")[:100],
        failed=True,
    )
    response.status_int = 400
    return response


@view_config(route_name="logout", request_method="GET", renderer="sign_out.jinja2")
def logout(request: Request) -> dict[str, Any]:
    return {"action": own_url(request, "logout")}


@view_config(route_name="logout", request_method="POST", renderer="signed_out.jinja2")
def confirm_logout(request: Request) -> dict[str, Any]:
    read_own_form(request)
    sign_out(request.engine, request.browser.session_id)
    begin_session(request, new_visitor().session_id)
    return {"everywhere": False}


def _attempt(request: Request, **typed: Any) -> Attempt:
    headers = headers_of(request)
    headers.pop("cookie", None)
    return Attempt(headers=headers, source=request.remote_addr or "", **typed)


def _continue(request: Request, signed_in: SignedIn, sealed_request: str, page: str) -> Response:
    """Begin the new session, and go on with the pending request or to the page that was asked for, if any."""
    begin_session(request, signed_in.session_id)
    if not sealed_request:
        return see_own(request, _personal_page(request, page) or "home")
    new = Browser(session_id=signed_in.session_id)
    rebound = rebind(request.engine, sealed_request, request.browser, new)
    return see_own(request, "consent", request=rebound)


def _personal_page(request: Request, name: str) -> str:
    """The name of a page that asked for a sign-in; "" for what is none: a form leads nowhere else (E-18, T025)."""
    route = request.registry.routes.get(name)
    return name if route is not None and route.personal else ""


def _login_page(
    request: Request, sealed_request: str, return_page: str, *, username: str = "", failed: bool = False
) -> Response:
    page: dict[str, Any] = {
        "action": own_url(request, "login"),
        "sealed_request": sealed_request,
        "return_page": _personal_page(request, return_page),
        "client_name": None,
        "client_verified": False,
        "redirect_host": None,
        "username": username,
        "failed": failed,
        "error_id": request.error_id,
    }
    if sealed_request:
        pending = authorize.describe_pending(request.engine, sealed_request, request.browser)
        client = describe_client(pending.client)
        page |= {
            "client_name": client["name"],
            "client_verified": client["verified"],
            "redirect_host": uris.display_host(pending.redirect_uri),
        }
        # Signing in may lead straight on to the client.
        allow_redirect_to(request, pending.redirect_uri)
    response: Response = render_to_response("login.jinja2", page, request)
    return response
