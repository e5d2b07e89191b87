"""POST /oauth/introspect: token introspection."""

from __future__ import annotations

from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.introspect import SIGNED, introspect, signed
from authserver.web.forms import read_form
from authserver.web.json import json_response
from authserver.web.request import Request

_JSON, _JWT = "application/json", f"application/{SIGNED}"


@view_config(route_name="introspect", request_method="POST")
def introspect_token(request: Request) -> Response:
    """POST /oauth/introspect (RFC 7662, 2), as JSON or as a signed JWT (RFC 9701, 5), whichever the caller prefers.

    Raises:
        Refusal: as `engine.introspect.introspect` raises it.
    """
    answer = introspect(request.engine, read_form(request))
    if not _prefers_signed(request):
        return json_response(answer.members)
    response = Response(signed(request.engine, answer).encode(), content_type=_JWT, charset=None)
    response.headers["Cache-Control"] = "no-store"
    return response


def _prefers_signed(request: Request) -> bool:
    """Whether the caller accepts a JWT rather than JSON (RFC 9701, 4; RFC 9110, 12.5.1).

    All others get JSON, also those that accept neither, because RFC 7662 promises JSON to every caller.
    """
    offers = request.accept.acceptable_offers([_JSON, _JWT])
    return bool(offers) and offers[0][0] == _JWT
