"""Which programs in browsers may call from other origins (CORS): what they may send, and read of answers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.web.request import Request
from authserver.web.route import CrossOrigin, Origins, Route

# As browsers send it (RFC 6454, 6.1): no path, and never `null`.
_ORIGIN = re.compile(r"https?://[^/?#@]+")
log = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    config.registry.cross_origin = CrossOrigin()
    config.add_directive("add_cross_origin_headers", add_cross_origin_headers)


def add_cross_origin_headers(
    config: Configurator, *, sent: Iterable[str] = (), read: Iterable[str] = ()
) -> None:
    """Directive for features: headers that programs of other origins may send, and may read of answers."""
    config.registry.cross_origin.sent.update(sent)
    config.registry.cross_origin.read.update(read)


def preflight(request: Request) -> Response:
    """Answer a CORS preflight; `add_cross_origin` adds the headers that say what this origin may do."""
    return Response(status=204)


def add_cross_origin(request: Request, route: Route, response: Response) -> None:
    """CORS (Q-01 to Q-04, T085): never with credentials, the same for errors and successes."""
    origin = request.environ.get("HTTP_ORIGIN")
    if origin is None or route.origins is Origins.NONE:
        return
    if route.origins is Origins.CLIENTS:
        response.headers.add("Vary", "Origin")
        if not _is_of_a_client(request, origin):
            return
    headers = request.registry.cross_origin
    response.headers["Access-Control-Allow-Origin"] = "*" if route.origins is Origins.ALL else origin
    response.headers["Access-Control-Expose-Headers"] = ", ".join(sorted(headers.read))
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = ", ".join(route.methods)
        response.headers["Access-Control-Allow-Headers"] = ", ".join(sorted(headers.sent))
        response.headers["Access-Control-Max-Age"] = "3600"


def _is_of_a_client(request: Request, origin: str) -> bool:
    if not _ORIGIN.fullmatch(origin):
        return False
    try:
        with request.application.storage.begin() as stores:
            known: bool = stores.clients.knows_origin(origin)
    except Exception as problem:
        # The answer is made, and what it says is done.
        log.warning("whether %r is the origin of a client could not be looked up: %s", origin, problem)
        return False
    return known
