"""GET|POST /oauth/authorize, and the consent page at /oauth/consent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from pyramid.i18n import TranslationStringFactory
from pyramid.response import Response
from pyramid.view import exception_view_config, view_config

from authserver.engine import authorize as authorization
from authserver.engine import uris
from authserver.engine.authorize import AskConsent, AskLogin, FormOutOfDate, Outcome, Redirect
from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.parameters import Parameters
from authserver.engine.pending import RequestAnswered, RequestExpired
from authserver.engine.records import Client
from authserver.limits import MAXIMUM_BODY
from authserver.web.client_logos import logo_url
from authserver.web.forms import read_form, read_page_query, read_query
from authserver.web.onward import let_forms_lead_on, see_client
from authserver.web.pages import own_url, render_page, see_own
from authserver.web.request import Request
from authserver.web.scope_list import grouped
from authserver.web.session import end_session, mark_browser, read_form_from_here, see_login, token_of

_ = TranslationStringFactory("authserver")

Read = Callable[..., Parameters]
# The members of client metadata in words for the consent page; other members are shown by their names.
CHANGED = {
    "client_name": _("its name"),
    "redirect_uris": _("where access may go"),
    "token_endpoint_auth_method": _("how it proves who it is"),
    "jwks": _("its keys"),
    "jwks_uri": _("its keys"),
    "client_uri": _("its website"),
    "policy_uri": _("its privacy policy"),
    "tos_uri": _("its terms of service"),
    "logo_uri": _("its logo"),
    "contacts": _("whom to ask about it"),
}


@view_config(route_name="authorize", request_method="GET")
def authorize(request: Request) -> Response:
    """GET /oauth/authorize (OAuth 2.1, 4.1.1): a page, or the redirect to the client."""
    return show(request, _begin(request, read_query))


@view_config(route_name="authorize", request_method="POST")
def authorize_by_form(request: Request) -> Response:
    """POST /oauth/authorize. A form from another site has no session cookie; the next page gets the cookie."""
    outcome = _begin(request, read_form)
    if isinstance(outcome, AskConsent):
        return see_own(request, "consent", request=outcome.sealed_request)
    return show(request, outcome)


@view_config(route_name="consent", request_method="GET")
def consent(request: Request) -> Response:
    """GET /oauth/consent: a pending request after sign-in."""
    query = read_page_query(request)
    outcome = authorization.resume(request.engine, query.get("request") or "", request.browser)
    return show(request, outcome, ticked=() if "none" in query.all("ticks") else None)


@view_config(route_name="consent", request_method="POST")
def answer_consent(request: Request) -> Response:
    """POST /oauth/consent: the answer of the person, or the wish to sign in as another user.

    Raises:
        PageError: the form comes from another browser, or its request cannot be answered any more.
    """
    form = read_form_from_here(request)
    sealed, given = form.get("request") or "", form.get("answer")
    if given == "switch":
        return _switch_user(request, sealed, token_of(form))
    outcome = authorization.answer(
        request.engine,
        sealed,
        request.browser,
        form_token=token_of(form),
        allowed=given == "allow",
        scopes=form.all("scope"),
        confirmed="confirm_unverified" in form,
    )
    return show(request, outcome, ticked=form.all("scope"))


def show(request: Request, outcome: Outcome, *, ticked: Collection[str] | None = None) -> Response:
    """Render the outcome: a page, or the redirect to the client.

    Args:
        ticked: the scopes that are ticked on the consent page; None for all.
    """
    match outcome:
        case AskLogin(sealed_request=sealed):
            return see_login(request, request=sealed)
        case AskConsent():
            return _consent_page(request, outcome, ticked)
        case Redirect(location=location, mode=mode):
            return see_client(request, location, mode)


@exception_view_config(FormOutOfDate)
def ask_again(refusal: FormOutOfDate, request: Request) -> Response:
    """The consent page again with the present request, because the client changed after the form was shown."""
    response = _consent_page(request, refusal.asked)
    response.status_int = refusal.status
    return response


@exception_view_config(RequestExpired)
def show_expired(refusal: RequestExpired, request: Request) -> Response:
    """A page that says that the request has expired, with a link to start again if the browser can send it again."""
    sent = refusal.parameters
    again = f"{own_url(request, 'authorize')}?{sent.encoded()}" if sent is not None else None
    return _stopped(request, refusal, again=again, client=None)


@exception_view_config(RequestAnswered)
def show_answered(refusal: RequestAnswered, request: Request) -> Response:
    """A page that says that this request was answered before, because a code is issued only once."""
    return _stopped(request, refusal, again=None, client=describe_client(request, refusal.client))


def _begin(request: Request, read: Read) -> Outcome:
    outcome = authorization.begin(request.engine, _readable(read, request), request.browser)
    if not isinstance(outcome, Redirect):
        mark_browser(request, outcome.handle)
    return outcome


def _switch_user(request: Request, sealed_request: str, form_token: str) -> Response:
    """Let another user sign in for the same pending request."""
    outcome = authorization.switch_user(
        request.engine, sealed_request, request.browser, form_token=form_token
    )
    if isinstance(outcome, AskLogin) and not outcome.again:
        end_session(request)
    return show(request, outcome)


def _stopped(
    request: Request, refusal: PageError, *, again: str | None, client: dict[str, Any] | None
) -> Response:
    page = {
        "again": again,
        "client": client,
        "code": refusal.code,
        "details": None,
        "error_id": request.error_id,
        "signed_in": None,
    }
    response = render_page(request, "stopped.jinja2", page)
    response.status_int = refusal.status
    return response


def _readable(read: Read, request: Request) -> Parameters:
    """Read the request. An error is shown on a page, because an unreadable request has no redirect URI."""
    try:
        # The length of the whole request is limited elsewhere.
        parse = partial(Parameters.parse_readable, maximum=MAXIMUM_BODY)
        return read(request, parse=parse)
    except InvalidRequest as error:
        raise PageError(error) from None


def _consent_page(request: Request, asked: AskConsent, ticked: Collection[str] | None = None) -> Response:
    let_forms_lead_on(request)
    agreement = asked.agreement
    names = asked.more.held if asked.more else ()
    held = [(name, sentence) for name, sentence in asked.scopes if name in names]
    new = [(name, sentence) for name, sentence in asked.scopes if name not in names]
    list_of = partial(grouped, ticked=ticked, headings=dict(request.engine.settings.scope_groups))
    here = partial(own_url, request, "consent", request=asked.sealed_request)
    page = {
        "action": own_url(request, "consent"),
        "csrf_token": asked.form_token,
        "signed_in": agreement.user,
        "sealed_request": asked.sealed_request,
        "client": describe_client(request, agreement.client),
        "changed": list(dict.fromkeys(CHANGED.get(name, name) for name in asked.changed)),
        "agreed_at": asked.agreed_at,
        "redirect_host": uris.display_host(asked.redirect_uri),
        "redirect_is_local": uris.is_loopback(asked.redirect_uri),
        "redirect_is_app": not asked.redirect_uri.startswith(("https:", "http:")),
        "scopes": len(new),
        "groups": list_of(new),
        "more": asked.more,
        "held": list_of(held, start=len(new)),
        "held_scopes": held,
        "tick_all": here(ticks="all"),
        "tick_none": here(ticks="none"),
        "resources": named_resources(request, agreement.resources),
        "missing_confirmation": asked.problem == "not-confirmed",
        "nothing_ticked": asked.problem == "nothing-ticked",
        "shown_to_another": asked.problem == "shown-to-another",
    }
    response = render_page(request, "consent.jinja2", page)
    response.status_int = 400 if asked.problem else 200
    return response


def named_resources(request: Request, resources: Iterable[str]) -> list[tuple[str, str]]:
    """Resources with the names that the operator gave them; "" for those without."""
    known = request.engine.resources.find
    return [(resource, found.name if (found := known(resource)) else "") for resource in resources]


def describe_client(request: Request, client: Client) -> dict[str, Any]:
    """The facts about a client that a page may show; links only if they are acceptable."""
    links = {
        name: client.details.get(name) if not uris.link_problem(client.details.get(name, "")) else None
        for name in ("client_uri", "policy_uri", "tos_uri")
    }
    return {
        "name": client.name[:100],
        "address_host": uris.display_host(client.client_id) if client.is_known_by_address else None,
        "verified": not client.is_self_registered,
        "first_party": client.first_party,
        "registered_by": client.registered_by,
        "registered_at": client.created_at,
        "logo_url": logo_url(request, client),
        **links,
    }
