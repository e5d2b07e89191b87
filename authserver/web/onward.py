"""Leads the browser from one of our forms to the client.

Chromium checks every redirect after a form against the `form-action` of its page: the redirect to the client, and all
redirects that the client makes afterwards, perhaps to a private-use scheme of an app. No list could contain all of them.
So a browser gets a page that redirects by itself, which ends the chain of redirects after the form. Then `form-action`
can stay narrow: a form that an attacker injects into a page cannot send anything to another site.

A program, or a browser too old to send `Sec-Fetch-Dest`, gets a plain redirect, and pages without `form-action`, which
would block the redirect. The same header decides about both, so that page and response always fit.
"""

from __future__ import annotations

from pyramid.response import Response

from authserver.engine import uris
from authserver.engine.errors import QUERY
from authserver.web.pages import render_page, see_other
from authserver.web.request import Request

# The routes that a form of this server leads to, directly or by a redirect.
AFTER_A_FORM = ("login", "consent")


def needs_a_page(request: Request) -> bool:
    """Whether this browser gets pages that redirect by themselves: recent browsers send Fetch Metadata."""
    return "HTTP_SEC_FETCH_DEST" in request.environ


def let_forms_lead_on(request: Request) -> None:
    """Let the forms of this page, which are sent to us, lead to the client."""
    if not needs_a_page(request):
        request.content_security_policy = {"form-action": None}


def see_client(request: Request, location: str, mode: str = QUERY) -> Response:
    """The answer that leads to the client, at an accepted address, in this response mode."""
    if mode != QUERY:
        response: Response = request.application.parts.response_modes[mode](
            request, *uris.without_response(location)
        )
        return response
    return lead_on(request, location) if request.matched_route.name in AFTER_A_FORM else see_other(location)


def lead_on(request: Request, location: str) -> Response:
    """The answer that leads from a form of ours to an application, at an accepted address."""
    if not needs_a_page(request):
        return see_other(location)
    redirect_uri = location.partition("?")[0]
    page = {
        "location": location,
        "host": uris.display_host(redirect_uri),
        "is_app": redirect_uri.partition(":")[0].lower() not in ("https", "http"),
        "signed_in": None,
    }
    return render_page(request, "onward.jinja2", page)
