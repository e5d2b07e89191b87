"""CORS: which headers programs of other origins may send, and whether they may read answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.engine.origins import REMEMBERED, may_read
from authserver.engine.records import NOTHING
from authserver.web.request import Request
from authserver.web.route import CrossOrigin, Origins, Route

log = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Add the directive `add_cross_origin_headers`."""
    config.registry.cross_origin = CrossOrigin()
    config.add_directive("add_cross_origin_headers", add_cross_origin_headers)


def add_cross_origin_headers(
    config: Configurator, *, sent: Iterable[str] = (), read: Iterable[str] = ()
) -> None:
    """Directive for features: add request headers that programs of other origins may send, and response headers to read."""
    config.registry.cross_origin.sent.update(sent)
    config.registry.cross_origin.read.update(read)


def or_preflight(otherwise: Callable[[Request], Response], request: Request) -> Response:
    """Answer a CORS preflight; `cross_origin_headers` adds the headers that say what this origin may do.

    Args:
        otherwise: answers all other requests.
    """
    return Response(status=204) if request.method == "OPTIONS" else otherwise(request)


def cross_origin_headers(request: Request, route: Route, response: Response) -> Mapping[str, str]:
    """The CORS headers (Q-01 to Q-04, T085): never with credentials, the same for errors and successes.

    If every origin may read the answers, each answer says so, because a cache may keep the answer to a request without
    `Origin`. If it depends on the origin, `Vary` of the response says so.
    """
    if route.origins is Origins.NONE:
        return NOTHING
    allowed = "*"
    if route.origins is Origins.CLIENTS:
        response.headers.add("Vary", "Origin")
        allowed = request.environ.get("HTTP_ORIGIN", "")
        if not allowed or not _may_read(request, allowed):
            return NOTHING
    what = request.registry.cross_origin
    headers = {
        "Access-Control-Allow-Origin": allowed,
        "Access-Control-Expose-Headers": what.readable,
    }
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = ", ".join(route.methods)
        headers["Access-Control-Allow-Headers"] = what.sendable
        headers["Access-Control-Max-Age"] = str(REMEMBERED.seconds)
    return headers


def _may_read(request: Request, origin: str) -> bool:
    try:
        with request.application.begin(caller=request.caller) as engine:
            return may_read(engine, origin, request.registry.cross_origin.known)
    except Exception as problem:
        # The answer exists already, and its transaction is committed, so a failure here only withholds the answer.
        log.warning("whether %r may read the answer could not be decided: %s", origin, problem)
        return False
