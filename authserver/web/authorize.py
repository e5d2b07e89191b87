"""GET|POST /oauth/authorize, and the consent page at /oauth/consent."""

from __future__ import annotations

from functools import partial
from typing import Any

from pyramid.renderers import render_to_response
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine import authorize as engine
from authserver.engine import uris
from authserver.engine.authorize import AskConsent, AskLogin, Outcome, Redirect
from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.login import sign_out
from authserver.engine.parameters import Parameters
from authserver.engine.pending import rebind
from authserver.engine.records import Client
from authserver.limits import sealed_length
from authserver.web.forms import read_form, read_page_query, read_query
from authserver.web.pages import allow_redirect_to, own_url, see_other, see_own
from authserver.web.session import begin_session, new_visitor, read_own_form


@view_config(route_name="authorize", request_method="GET")
def authorize(request: Request) -> Response:
    return show(request, engine.begin(request.engine, _readable(read_query, request), request.browser))


@view_config(route_name="authorize", request_method="POST")
def authorize_by_form(request: Request) -> Response:
    return show(request, engine.begin(request.engine, _readable(read_form, request), request.browser))


@view_config(route_name="consent", request_method="GET")
def consent(request: Request) -> Response:
    sealed = read_page_query(request).get("request") or ""
    return show(request, engine.resume(request.engine, sealed, request.browser))


@view_config(route_name="consent", request_method="POST")
def answer_consent(request: Request) -> Response:
    form = read_own_form(request)
    sealed, given = form.get("request") or "", form.get("answer")
    if given == "switch":
        return switch_user(request, sealed)
    outcome = engine.answer(
        request.engine,
        sealed,
        request.browser,
        allowed=given == "allow",
        scopes=form.all("scope"),
        confirmed="confirm_unverified" in form,
    )
    return show(request, outcome)


def show(request: Request, outcome: Outcome) -> Response:
    """Render what came out: a page of ours, or the way back to the client."""
    match outcome:
        case AskLogin(sealed_request=sealed):
            return see_own(request, "login", request=sealed)
        case AskConsent():
            return _consent_page(request, outcome)
        case Redirect(location=location):
            return see_other(location)


def switch_user(request: Request, sealed_request: str) -> Response:
    """Let somebody else sign in for the same pending request."""
    new = new_visitor()
    sealed = rebind(request.engine, sealed_request, request.browser, new)
    sign_out(request.engine, request.browser.session_id)
    begin_session(request, new.session_id)
    return see_own(request, "login", request=sealed)


def _readable(read: Any, request: Request) -> Parameters:
    """What cannot be read is shown here: there is no redirect URI to send it to."""
    try:
        # A reference to a pushed request is such a request, sealed.
        maximum = sealed_length(request.registry.application.loaded.settings.maximum_request)
        parameters: Parameters = read(request, parse=partial(Parameters.parse_readable, maximum=maximum))
    except InvalidRequest as error:
        raise PageError(error) from None
    return parameters


def _consent_page(request: Request, asked: AskConsent) -> Response:
    allow_redirect_to(request, asked.redirect_uri)
    page = {
        "action": own_url(request, "consent"),
        "sealed_request": asked.sealed_request,
        "client": describe_client(asked.client),
        "redirect_host": uris.display_host(asked.redirect_uri),
        "redirect_is_local": uris.is_loopback(asked.redirect_uri),
        "redirect_is_app": not asked.redirect_uri.startswith(("https:", "http:")),
        "scopes": [
            {"name": name, "sentence": sentence, "index": index}
            for index, (name, sentence) in enumerate(asked.scopes)
        ],
        "resources": asked.resources,
        "missing_confirmation": asked.problem == "not-confirmed",
        "nothing_ticked": asked.problem == "nothing-ticked",
    }
    response: Response = render_to_response("consent.jinja2", page, request)
    response.status_int = 400 if asked.problem else 200
    return response


def describe_client(client: Client) -> dict[str, Any]:
    """What a page may say of a client; links only where they are acceptable."""
    links = {
        name: client.details.get(name) if not uris.link_problem(client.details.get(name, "")) else None
        for name in ("client_uri", "policy_uri", "tos_uri")
    }
    return {
        "name": client.name[:100],
        "verified": not client.is_self_registered,
        "registered_by": client.registered_by,
        "registered_at": client.created_at,
        **links,
    }
