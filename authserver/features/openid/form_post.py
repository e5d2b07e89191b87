"""The response mode `form_post` (OAuth 2.0 Form Post Response Mode): the browser sends the response in a form.

The page works without scripts: then the person presses its button. Its only script is named by its hash, and its form
can go nowhere but to the origin of the redirect URI.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from pyramid.renderers import render_to_response
from pyramid.response import Response

from authserver.api import Request, display_host, origin_of

MODE = "form_post"
TEMPLATE = "authserver.features.openid:templates/form_post.jinja2"
SCRIPT = "document.forms[0].submit()"
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


def respond(request: Request, redirect_uri: str, parameters: Mapping[str, str]) -> Response:
    """A page that sends these parameters to the redirect URI, which has been accepted."""
    request.content_security_policy |= {
        "form-action": [origin_of(redirect_uri) or "'none'"],
        "script-src": [f"'sha256-{_HASH}'"],
    }
    page = {
        "redirect_uri": redirect_uri,
        "fields": parameters,
        "host": display_host(redirect_uri),
        "script": SCRIPT,
        "signed_in": None,
    }
    response: Response = render_to_response(TEMPLATE, page, request)
    return response
