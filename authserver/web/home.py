"""GET /: the front page."""

from __future__ import annotations

from typing import Any

from pyramid.i18n import TranslationStringFactory
from pyramid.view import view_config

from authserver.web.metadata import METADATA
from authserver.web.pages import own_url
from authserver.web.request import Request
from authserver.web.session import session_token

_ = TranslationStringFactory("authserver")


@view_config(route_name="home", request_method="GET", renderer="authserver.web:templates/home.jinja2")
def home(request: Request) -> dict[str, Any]:
    """GET /: the front page with what this server publishes."""
    links = [
        (_("Server metadata"), own_url(request, METADATA)),
        (_("Signing keys"), own_url(request, "jwks")),
    ]
    return {
        "links": request.registry.home_links + links,
        "csrf_token": session_token(request, "logout"),
    }
