"""POST /oauth/register: client registration."""

from __future__ import annotations

from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.clients.registration import register
from authserver.web.forms import read_json
from authserver.web.json import json_response
from authserver.web.request import Request


@view_config(route_name="register", request_method="POST")
def register_client(request: Request) -> Response:
    """POST /oauth/register (RFC 7591, 3.1): 201 with the registered client."""
    return json_response(register(request.engine, read_json(request)), status=201)
