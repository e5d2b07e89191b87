"""POST /oauth/register"""

from __future__ import annotations

from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.clients.registration import register
from authserver.web.forms import read_bearer, read_json
from authserver.web.json import json_response


@view_config(route_name="register", request_method="POST")
def register_client(request: Request) -> Response:
    described = register(request.engine, read_json(request), read_bearer(request), request.remote_addr or "")
    return json_response(described, status=201)
