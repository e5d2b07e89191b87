"""POST /oauth/introspect"""

from __future__ import annotations

from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.introspect import introspect
from authserver.web.forms import headers_of, read_form
from authserver.web.json import json_response


@view_config(route_name="introspect", request_method="POST")
def introspect_token(request: Request) -> Response:
    described = introspect(
        request.engine,
        read_form(request),
        authorization=request.environ.get("HTTP_AUTHORIZATION"),
        headers=headers_of(request),
    )
    return json_response(described)
