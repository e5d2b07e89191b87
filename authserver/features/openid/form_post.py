"""The response mode `form_post` (OAuth 2.0 Form Post Response Mode): the browser sends the response in a form.

The page also works without scripts: the person then presses its button. It may run only the script at one address, and
its form may be sent only to the origin of the redirect URI.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from pyramid.renderers import render_to_response
from pyramid.response import Response

from authserver.api import Request, Route, display_host, form_target, own_url

MODE = "form_post"
TEMPLATE = "authserver.features.openid:templates/form_post.jinja2"
SCRIPT = Route("send_form", "/static/send-form.js", ("GET",), stored=False)
_SCRIPT = (files(__package__) / "static" / "send-form.js").read_bytes()
MAXIMUM_AGE = 300


def respond(request: Request, redirect_uri: str, parameters: Mapping[str, str]) -> Response:
    """A page that sends these parameters to the accepted redirect URI."""
    script = own_url(request, SCRIPT.name)
    request.content_security_policy |= {
        "form-action": [form_target(redirect_uri)],
        "script-src": [script],
    }
    page = {
        "redirect_uri": redirect_uri,
        "fields": parameters,
        "host": display_host(redirect_uri),
        "script": script,
        "signed_in": None,
    }
    response: Response = render_to_response(TEMPLATE, page, request)
    return response


def script(request: Request) -> Response:
    """GET /static/send-form.js"""
    return Response(
        body=_SCRIPT,
        content_type="text/javascript",
        charset="utf-8",
        cache_control=f"public, max-age={MAXIMUM_AGE}",
    )
