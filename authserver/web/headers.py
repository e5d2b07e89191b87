"""The tween around every request: checks host and scheme, and adds the headers of every answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.response import Response

from authserver.engine.timeline import request_id
from authserver.engine.uris import is_loopback
from authserver.settings import Settings
from authserver.web.cross_origin import cross_origin_headers
from authserver.web.forwarding import UNREADABLE
from authserver.web.json import json_response, put_headers
from authserver.web.request import Request
from authserver.web.request_ids import HEADER as REQUEST_ID_HEADER
from authserver.web.request_log import note_answer, note_refusal
from authserver.web.route import Medium
from authserver.web.routes import medium_of

PAGE_POLICY: Mapping[str, list[str]] = {
    "default-src": ["'none'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}
# The key in the environ of requests that came to the management listener (`web.management`).
FOR_OPERATORS = "authserver.for_operators"
Handler = Callable[[Request], Response]
log = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Add `request.content_security_policy`, which a view may extend."""
    config.add_request_method(lambda request: {}, "content_security_policy", reify=True)
    config.registry.refusal_of = refusal_of(config.registry.application.parts.settings)


def refusal_of(settings: Settings) -> Callable[[Mapping[str, Any]], str]:
    """A function that says why a request with this environ is not for this server (T138); "" if it is.

    Health endpoints are answered under any host, because probes reach them by address.
    """
    issuer = urlsplit(settings.issuer)
    host = issuer.netloc.lower()
    hosts = {host, f"{host}:{443 if issuer.scheme == 'https' else 80}"}
    is_https = issuer.scheme == "https"
    prefix = f"{settings.issuer_path}/health/"
    # People type 127.0.0.1 for localhost. Elsewhere the name is not shown to strangers who scan addresses.
    there = f" Use {settings.issuer} instead." if is_loopback(settings.issuer) else ""

    def refused(environ: Mapping[str, Any]) -> str:
        if name := environ.get(UNREADABLE):
            return f"The header {name} of the proxy cannot be read."
        # Probes reach the health endpoints by address; everything else must name the issuer's host (T138,
        #
        if FOR_OPERATORS in environ or environ.get("PATH_INFO", "").startswith(prefix):
            return ""
        if environ.get("HTTP_HOST", "").lower() not in hosts:
            return f"This host is not served here.{there}"
        if is_https and environ["wsgi.url_scheme"] != "https":
            return "This server answers over https only."
        return ""

    return refused


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """A tween that refuses requests for another host, and sets the security headers of every answer."""

    def tween(request: Request) -> Response:
        refusal = registry.refusal_of(request.environ)
        return add_headers(request, _refused(request, refusal) if refusal else handler(request))

    return tween


def add_headers(request: Request, response: Response) -> Response:
    """Add the headers of every answer to this one, and those of pages and of cross-origin calls."""
    note_answer(request, response)
    headers = {"X-Content-Type-Options": "nosniff", REQUEST_ID_HEADER: request_id()}
    # The header must not be sent over plain http (RFC 6797, 7.2), where browsers could never reach the issuer again.
    if request.environ["wsgi.url_scheme"] == "https" and _is_https(request):
        headers["Strict-Transport-Security"] = "max-age=31536000"
    if response.content_type == "text/html" or medium_of(request) is Medium.PAGE:
        policy = {**PAGE_POLICY, **request.content_security_policy}
        headers["Content-Security-Policy"] = "; ".join(
            " ".join([directive, *sources]) for directive, sources in policy.items() if sources is not None
        )
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-store")
    if request.route:
        headers |= cross_origin_headers(request, request.route, response)
    put_headers(response, headers)
    return response


def _is_https(request: Request) -> bool:
    issuer: str = request.application.parts.settings.issuer
    return issuer.startswith("https:")


def _refused(request: Request, description: str) -> Response:
    """The refusal of a wrong host or scheme. It leaves no event: only the log has this id."""
    log.info("refused before routing: %s error_id=%s", description, request.error_id)
    note_refusal("invalid_request", "refused-before-routing", request.error_id)
    body = {"error": "invalid_request", "error_description": description, "error_id": request.error_id}
    return json_response(body, status=400)
