"""The tween around every request: checks host and scheme, and adds the headers of every answer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.response import Response

from authserver.web.json import json_response
from authserver.web.request import Request
from authserver.web.routes import Medium, Origins, medium_of, route_of

PAGE_POLICY: Mapping[str, list[str]] = {
    "default-src": ["'none'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}
# As browsers send it (RFC 6454, 6.1): no path, and never `null`.
_ORIGIN = re.compile(r"https?://[^/?#@]+")
Handler = Callable[[Request], Response]
log = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    config.add_request_method(lambda request: {}, "content_security_policy", reify=True)
    config.registry.cross_origin = CrossOrigin()
    config.add_directive("add_cross_origin_headers", add_cross_origin_headers)


@dataclass
class CrossOrigin:
    """Headers that programs in browsers may send to us from other origins, and those of answers that they may read."""

    sent: set[str] = field(default_factory=lambda: {"Authorization", "Content-Type", "MCP-Protocol-Version"})
    read: set[str] = field(default_factory=lambda: {"Retry-After", "WWW-Authenticate"})


def add_cross_origin_headers(
    config: Configurator, *, sent: Iterable[str] = (), read: Iterable[str] = ()
) -> None:
    """Directive for features: headers that programs of other origins may send, and read of answers, wherever they may call."""
    config.registry.cross_origin.sent.update(sent)
    config.registry.cross_origin.read.update(read)


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    settings = registry.application.parts.settings
    issuer = urlsplit(settings.issuer)
    host = issuer.netloc.lower()
    hosts = {host, f"{host}:{443 if issuer.scheme == 'https' else 80}"}
    is_https = issuer.scheme == "https"
    prefix = f"{settings.issuer_path}/health/"

    def refuse(request: Request) -> Response | None:
        # Probes reach the health endpoints by address; everything else must name the issuer's host (T138,
        #
        if request.environ.get("PATH_INFO", "").startswith(prefix):
            return None
        if request.environ.get("HTTP_HOST", "").lower() not in hosts:
            return _refused(request, "This host is not served here.")
        if is_https and request.environ["wsgi.url_scheme"] != "https":
            return _refused(request, "This server answers over https only.")
        return None

    def tween(request: Request) -> Response:
        return add_headers(request, refuse(request) or handler(request))

    return tween


def add_headers(request: Request, response: Response) -> Response:
    """The same answer with the headers that every one has, and those of pages and of cross-origin calls."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    # Over plain http the header has no place (RFC 6797, 7.2), and an issuer on plain http would never be reached again.
    if request.scheme == "https" and _is_https(request):
        headers["Strict-Transport-Security"] = "max-age=31536000"
    if response.content_type == "text/html" or medium_of(request) is Medium.PAGE:
        policy = {**PAGE_POLICY, **request.content_security_policy}
        headers["Content-Security-Policy"] = "; ".join(
            " ".join([directive, *sources]) for directive, sources in policy.items() if sources is not None
        )
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers.setdefault("Cache-Control", "no-store")
    _add_cross_origin(request, response)
    return response


def _is_https(request: Request) -> bool:
    issuer: str = request.application.parts.settings.issuer
    return issuer.startswith("https:")


def _refused(request: Request, description: str) -> Response:
    """Nothing was decided: only the log has this id."""
    log.info("refused before routing: %s error_id=%s", description, request.error_id)
    body = {"error": "invalid_request", "error_description": description, "error_id": request.error_id}
    return json_response(body, status=400)


def _add_cross_origin(request: Request, response: Response) -> None:
    """CORS (Q-01 to Q-04, T085): never with credentials, the same for errors and successes."""
    origin = request.environ.get("HTTP_ORIGIN")
    route = route_of(request)
    if origin is None or route is None or route.origins is Origins.NONE:
        return
    if route.origins is Origins.CLIENTS:
        response.headers.add("Vary", "Origin")
        if not _is_of_a_client(request, origin):
            return
    headers: CrossOrigin = request.registry.cross_origin
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
