"""GET /static/client-logo: the logo of a client, for the pages that name it."""

from __future__ import annotations

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.records import Client
from authserver.web.forms import read_page_query
from authserver.web.pages import own_url
from authserver.web.request import Request

# Browsers may keep a logo for long, because another logo has another address.
MAXIMUM_AGE = 31_536_000


def logo_url(request: Request, client: Client) -> str | None:
    """The address of the logo that an operator gave this client; None for a client without one."""
    if client.logo is None or client.is_self_registered:
        return None
    return own_url(request, "client_logo", client_id=client.client_id, digest=client.logo)


@view_config(route_name="client_logo", request_method="GET")
def client_logo(request: Request) -> Response:
    """GET: the logo that an operator gave a client; browsers keep it, because its digest is in the address."""
    query = read_page_query(request)
    logo = request.engine.stores.clients.find_logo(query.get("client_id") or "", query.get("digest") or "")
    if logo is None:
        raise HTTPNotFound()
    response = Response(body=logo.body, content_type=logo.media_type)
    response.headers["Cache-Control"] = f"public, max-age={MAXIMUM_AGE}, immutable"
    # If a browser opens the file itself, the file runs no script and loads nothing; only its own style applies.
    request.content_security_policy = {
        "sandbox": [],
        "style-src": ["'unsafe-inline'"],
        "img-src": None,
        "form-action": ["'none'"],
    }
    return response
