"""GET /.well-known/… and the JWKS, whose answers are the same bytes for each request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

import msgspec
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.metadata import SCOPES, scopes_supported, server_metadata
from authserver.web import operations
from authserver.web.request import Request
from authserver.web.revalidation import or_not_modified
from authserver.web.routes import endpoints
from authserver.web.shared_answers import shared_answer

# The name of the document, and of its route (RFC 8414, 3).
METADATA = "oauth-authorization-server"
# How long clients may keep the server metadata, in seconds.
MAXIMUM_AGE = 300


def includeme(config: Configurator) -> None:
    """Add the endpoint of the server metadata (RFC 8414, 3)."""
    config.add_well_known(METADATA, metadata, operation=operations.METADATA_DOCUMENT)


def publish(config: Configurator) -> None:
    """Make the document, after all endpoints were added. Raises MetadataCollision."""
    parts = config.registry.application.parts
    described = server_metadata(parts, endpoints(config.registry, parts.settings.issuer_origin))
    config.registry.metadata = described
    config.registry.metadata_body = msgspec.json.encode(described)


def metadata(request: Request) -> Response:
    """GET: the server metadata (RFC 8414, 3.2), with the scopes of the store."""
    registry = request.registry
    parts = request.application.parts
    # The database may have more scopes (`authserver apply`). Nothing else in the document changes while the server runs.
    scopes = parts.offered.scopes()
    stored = [name for name in scopes_supported(parts, scopes) if name not in parts.offered.listed_scopes]
    body = registry.metadata_body
    if stored:
        named = dict.fromkeys([*registry.metadata.get(SCOPES, ()), *stored])
        body = msgspec.json.encode({**registry.metadata, SCOPES: list(named)})
    return _cacheable(
        request, body, MAXIMUM_AGE, lambda: registry.application.parts.offered.known_scopes() is scopes
    )


@view_config(route_name="jwks", request_method="GET")
def jwks(request: Request) -> Response:
    """GET /oauth/jwks: the public keys (RFC 7517, 5); APIs may cache them for `jwks_maximum_age` seconds."""
    registry, parts = request.registry, request.application.parts
    keys = parts.signer.jwks()
    body = msgspec.json.encode(keys)
    # A new key is published for longer than this before it signs (`engine.keys.signing_keys.publication_time`).
    maximum_age = parts.settings.jwks_maximum_age
    return _cacheable(
        request, body, maximum_age, lambda: registry.application.parts.signer.known_jwks() is keys
    )


def _cacheable(request: Request, body: bytes, maximum_age: int, same_while: Callable[[], bool]) -> Response:
    response = shared_answer(body, same_while=same_while, cache_control=f"public, max-age={maximum_age}")
    return or_not_modified(request, response, _etag(body))


@lru_cache(maxsize=16)
def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
