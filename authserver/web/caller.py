"""Makes the `Caller` of a request, which has everything that rules get from HTTP."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

from pyramid.config import Configurator

from authserver.engine.context import Caller
from authserver.engine.timeline import request_id
from authserver.web.request import Request

_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")


def includeme(config: Configurator) -> None:
    """Add `request.caller`."""
    config.add_request_method(caller, reify=True)


@lru_cache(maxsize=256)
def _header_name(variable: str) -> str:
    """The name of the header that WSGI has as this variable."""
    return variable[5:].replace("_", "-").lower()


def caller(request: Request) -> Caller:
    """The caller of this request; its endpoint is empty for a path or a page that is not in the route table."""
    route = request.route
    headers = {
        _header_name(name): value for name, value in request.environ.items() if name.startswith("HTTP_")
    }
    authorization = headers.get("authorization")
    for name in _CREDENTIALS:
        headers.pop(name, None)
    return Caller(
        endpoint=route.name if route else "",
        source=request.remote_addr or "",
        headers=MappingProxyType(headers),
        authorization=authorization,
        url=request.application.parts.settings.issuer_origin + route.path if route else "",
        method=request.method,
        request_id=request_id(),
    )
