"""POST /oauth/token: the token endpoint."""

from __future__ import annotations

from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.token import exchange
from authserver.web.forms import read_form
from authserver.web.json import json_response
from authserver.web.request import Request


@view_config(route_name="token", request_method="POST")
def token(request: Request) -> Response:
    """POST /oauth/token (OAuth 2.1, 3.2): the tokens as JSON."""
    return json_response(exchange(request.engine, read_form(request)).as_json())
