"""Exception views: they render each refusal in the medium of its endpoint, with no more than the client may learn.

`web.refusals` calls them after the event of the refusal is written. They use only the refusal: the request is not parsed
again.
"""

from __future__ import annotations

from typing import Any

from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPException, HTTPNotFound
from pyramid.i18n import TranslationStringFactory
from pyramid.response import Response
from pyramid.view import exception_view_config, forbidden_view_config, notfound_view_config

from authserver.engine import uris
from authserver.engine.authorize import error_location
from authserver.engine.errors import (
    QUERY,
    InsufficientScope,
    InvalidClient,
    InvalidToken,
    OAuthError,
    PageError,
    RedirectError,
    ServerError,
    TemporarilyUnavailable,
    TooManyRequests,
)
from authserver.engine.pending import ForeignRequest
from authserver.engine.ports import StorageUnavailable
from authserver.web.headers import PAGE_POLICY
from authserver.web.json import json_response
from authserver.web.languages import in_words
from authserver.web.onward import see_client
from authserver.web.pages import render_page
from authserver.web.problems import NothingThere, Problem, kind_of, problem_response
from authserver.web.request import Request
from authserver.web.retry_after import with_retry_after
from authserver.web.route import Medium
from authserver.web.routes import medium_of
from authserver.web.session import ForgedForm

_ = TranslationStringFactory("authserver")

RETRY_AFTER = 2
START_AGAIN = _(
    "Go back to the application and start again. If this happens again, tell the people who run it, and give them the "
    "details below."
)
# Programs register themselves and keep their client id, but the client may have been deleted here.
NO_SUCH_CLIENT = ("client-unknown", "client-disabled")
CONNECT_AGAIN = _(
    "If it worked before: remove the connection to this server in the application, and add it again. If this happens "
    "again, tell the people who run the application, and give them the details below."
)
# A browser without cookies fails here at every attempt.
ALLOW_COOKIES = _(
    "Go back to the application and start again. If you see this page again, allow cookies for this site, or use another "
    "browser."
)
# The same for pages that say already to go back and reload.
ALLOW_COOKIES_HERE = _("If you see this page again, allow cookies for this site, or use another browser.")
# The refusals of Pyramid itself, in words for the person who came to the page.
HTTP_ERRORS = {
    405: _("This page is not meant to be opened in this way. Go back and try again."),
    413: _("More was sent than this page accepts. Shorten it and try again."),
}


# The refusals of Pyramid itself, in words for the developer of a program.
HTTP_PROBLEMS = {
    404: "There is nothing at this address.",
    405: "This address does not accept this method; the header Allow names the accepted ones.",
    413: "The body is longer than this server accepts.",
    415: "Send the body without compressing it.",
}


@exception_view_config(OAuthError)
def oauth_error(error: OAuthError, request: Request) -> Response:
    """An error of an endpoint that clients call (OAuth 2.1, 3.2.4; RFC 7591, 3.2.2; RFC 6750, 3)."""
    medium = medium_of(request)
    if medium is Medium.PAGE:
        return _failed(request, error)
    if medium is Medium.PROBLEM:
        kind = kind_of(error.code, error.status)
        response = problem_response(kind, error.description, error_id=request.error_id)
        return _with_hints(request, response, error)
    body = {
        **error.members,
        "error": error.code,
        "error_description": error.description,
        "error_id": request.error_id,
    }
    return _with_hints(request, json_response(body, status=error.status), error)


@exception_view_config(Problem)
def problem(error: Problem, request: Request) -> Response:
    """An error with problem details of its own (RFC 9457)."""
    return problem_response(
        error.kind,
        error.description,
        error_id=request.error_id,
        headers=error.headers,
        members=error.members,
    )


@exception_view_config(PageError)
def page_error(error: PageError, request: Request) -> Response:
    """An authorization error that the user sees here."""
    title = _("This request cannot go on")
    if error.advises:
        return _page(
            request,
            error.status,
            title=title,
            message=in_words(error.description),
            what_to_do=_about_cookies(error),
            code=error.code,
        )
    return _page(
        request,
        error.status,
        title=title,
        message=_("The request that brought you here cannot be answered. Nothing of yours was shared."),
        what_to_do=CONNECT_AGAIN if error.reason in NO_SUCH_CLIENT else START_AGAIN,
        code=error.code,
        details=in_words(error.description),
    )


def _about_cookies(error: PageError) -> str | None:
    """Advice about cookies for errors that a browser without cookies always gets; None for other errors."""
    advice: str | None = None
    if isinstance(error, ForeignRequest):
        advice = ALLOW_COOKIES
    elif isinstance(error, ForgedForm):
        advice = ALLOW_COOKIES_HERE
    return advice


@exception_view_config(RedirectError)
def redirect_error(error: RedirectError, request: Request) -> Response:
    """An authorization error for the client; the user is asked first if the client registered the URI itself."""
    location = error_location(error, request.application.parts.settings.issuer)
    if not error.ask_first:
        return see_client(request, location, error.mode)
    fields: dict[str, str] = {}
    if error.mode != QUERY:
        location, fields = uris.without_response(location)
        request.content_security_policy["form-action"] = [
            *PAGE_POLICY["form-action"],
            uris.form_target(location),
        ]
    page: dict[str, Any] = {
        "client_name": None,
        "target_host": uris.display_host(error.redirect_uri),
        "target": location,
        "fields": fields,
        "code": error.code,
        "details": in_words(error.description),
        "error_id": request.error_id,
        "signed_in": None,
    }
    return render_page(request, "leave.jinja2", page)


@exception_view_config(StorageUnavailable)
def storage_unavailable(error: StorageUnavailable, request: Request) -> Response:
    """503 `temporarily_unavailable`: the storage is locked, down or too slow, and nothing was stored."""
    return _failed(request, TemporarilyUnavailable("The server is busy. Try again in a moment."))


@exception_view_config(Exception)
def unexpected(error: Exception, request: Request) -> Response:
    """A failure of the server: the log has the traceback, the client gets an id (F-12, B-19)."""
    return _failed(request, ServerError("The server failed to answer this request."))


@notfound_view_config()
@forbidden_view_config()
@exception_view_config(HTTPException)
def http_error(error: HTTPException, request: Request) -> Response:
    """404, 405, 413 and the like."""
    medium = medium_of(request)
    if medium is Medium.PROBLEM:
        is_known = error.status_int != 404
        response = problem_response(
            kind_of(error.title, error.status_int),
            error.detail
            if isinstance(error, NothingThere)
            else HTTP_PROBLEMS.get(error.status_int, error.title),
            error_id=request.error_id if is_known else "",
        )
    elif medium is Medium.JSON:
        body = {"error": "invalid_request", "error_description": error.title}
        if error.status_int != 404:
            body["error_id"] = request.error_id
        response = json_response(body, status=error.status_int)
    else:
        if error.status_int == 404:
            return _nothing_here(request)
        message = HTTP_ERRORS.get(
            error.status_int, _("This request cannot be answered. Go back and try again.")
        )
        response = _page(
            request, error.status_int, title=_("This cannot be done"), message=message, details=error.title
        )
    # Pyramid's own views raise redirects, too: a folder of files adds its slash.
    for name in ("Allow", "Accept-Encoding", "Location"):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


@exception_view_config(URLDecodeError)
def undecodable(error: URLDecodeError, request: Request) -> Response:
    """A path that is not UTF-8 is not found (T015)."""
    return http_error(HTTPNotFound(), request)


def _nothing_here(request: Request) -> Response:
    """The page for 404. It has no id, because no event is written: nothing was decided, and strangers cause very many."""
    return _page(
        request,
        404,
        title=_("Page not found"),
        message=_("There is no page at this address. Check the address, or begin at the front page."),
        leaves_record=False,
    )


def _failed(request: Request, error: OAuthError) -> Response:
    """An error that is not the fault of the client: as JSON, as a redirect if that is possible already, or as a page."""
    if medium_of(request).is_json:
        return oauth_error(error, request)
    target = request.journal.target
    if target is not None:
        redirect_uri, state, ask_first, mode = target
        redirected = RedirectError(
            error, redirect_uri=redirect_uri, state=state, ask_first=ask_first, mode=mode
        )
        return redirect_error(redirected, request)
    if isinstance(error, TooManyRequests):
        page = _page(
            request,
            error.status,
            title=_("Too many requests"),
            message=_("More requests came from your network than this page takes at once."),
            what_to_do=_("Wait a few minutes, then load the page again."),
            code=error.code,
        )
        return with_retry_after(page, error)
    is_ours = error.status >= 500
    response = _page(
        request,
        error.status,
        title=_("Something went wrong") if is_ours else _("This request cannot go on"),
        message=in_words(error.description),
        what_to_do=_(
            "It is not your fault. Wait a moment, then load the page again. If this happens again, ask for help and "
            "give the reference below."
        )
        if is_ours
        else None,
        code=error.code,
    )
    return _with_hints(request, response, error)


def _with_hints(request: Request, response: Response, error: OAuthError) -> Response:
    """Add the headers that say what the client may do (RFC 9110, 10.2.3 and 11.6.1)."""
    match error:
        case InvalidClient(scheme=scheme):
            response.headers["WWW-Authenticate"] = f'{_known(request, scheme)} realm="{_realm(request)}"'
        case InvalidToken(sent=True):
            response.headers["WWW-Authenticate"] = f'Bearer realm="{_realm(request)}", error="invalid_token"'
        case InvalidToken():
            response.headers["WWW-Authenticate"] = f'Bearer realm="{_realm(request)}"'
        case InsufficientScope(scope=scope):
            response.headers["WWW-Authenticate"] = (
                f'Bearer realm="{_realm(request)}", error="insufficient_scope", scope="{scope}"'
            )
        case TemporarilyUnavailable():
            response.headers["Retry-After"] = str(error.retry_after or RETRY_AFTER)
        case TooManyRequests():
            with_retry_after(response, error)
    return response


def _page(
    request: Request,
    status: int,
    *,
    title: str,
    message: str,
    what_to_do: str | None = None,
    code: str | None = None,
    details: str | None = None,
    leaves_record: bool = True,
) -> Response:
    page = {
        "title": title,
        "message": message,
        "what_to_do": what_to_do,
        "code": code,
        "details": details,
        "error_id": request.error_id if leaves_record else None,
        # A page about a failure must not depend on what may have failed.
        "signed_in": None,
    }
    response = render_page(request, "error.jinja2", page)
    response.status_int = status
    return response


def _known(request: Request, used: str) -> str:
    """The scheme that the client used, if this server has it; otherwise Basic."""
    token_types = request.registry.application.parts.token_types.values()
    return next((name for name in ("Bearer", *token_types) if name.lower() == used.lower()), "Basic")


def _realm(request: Request) -> str:
    issuer: str = request.application.parts.settings.issuer
    return issuer
