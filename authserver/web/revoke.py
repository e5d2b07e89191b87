"""POST /oauth/revoke: token revocation."""

from __future__ import annotations

from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.revoke import revoke
from authserver.web.forms import read_form
from authserver.web.json import json_response
from authserver.web.request import Request


@view_config(route_name="revoke", request_method="POST")
def revoke_token(request: Request) -> Response:
    """POST /oauth/revoke (RFC 7009, 2): 200 for every token, known or not."""
    revoke(request.engine, read_form(request))
    # Clients ignore the body (RFC 7009, 2.2); those that parse every answer as JSON are served as well.
    return json_response({})
