"""GET /.well-known/… and the JWKS: the same bytes for each request."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import msgspec
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.metadata import SCOPES, scopes_supported, server_metadata
from authserver.web import operations
from authserver.web.json import json_response
from authserver.web.request import Request
from authserver.web.revalidation import or_not_modified
from authserver.web.routes import endpoints

# The name of the document, and of its route (RFC 8414, 3).
METADATA = "oauth-authorization-server"
# How long clients may keep the server metadata, in seconds.
MAXIMUM_AGE = 300


def includeme(config: Configurator) -> None:
    """Add the endpoint of the server metadata (RFC 8414, 3)."""
    config.add_well_known(METADATA, metadata, operation=operations.METADATA_DOCUMENT)


def publish(config: Configurator) -> None:
    """Make the document, once every endpoint is there. Raises MetadataCollision."""
    parts = config.registry.application.parts
    described = server_metadata(parts, endpoints(config.registry, parts.settings.issuer_origin))
    config.registry.metadata = described
    config.registry.metadata_body = msgspec.json.encode(described)


def metadata(request: Request) -> Response:
    """GET: the server metadata (RFC 8414, 3.2), with the scopes of the store."""
    registry = request.registry
    parts = request.application.parts
    # Others may be in the store (`authserver apply`); nothing else of it changes while the server runs.
    stored = [
        name
        for name in scopes_supported(parts, parts.offered.scopes())
        if name not in parts.offered.listed_scopes
    ]
    body = registry.metadata_body
    if stored:
        scopes = dict.fromkeys([*registry.metadata.get(SCOPES, ()), *stored])
        body = msgspec.json.encode({**registry.metadata, SCOPES: list(scopes)})
    return _cacheable(request, body, MAXIMUM_AGE)


@view_config(route_name="jwks", request_method="GET")
def jwks(request: Request) -> Response:
    """GET /oauth/jwks: the public keys (RFC 7517, 5); others may keep them for `jwks_maximum_age` seconds."""
    parts = request.application.parts
    body = msgspec.json.encode(parts.signer.jwks())
    # A new key is published for longer than this before it signs (`engine.keys.signing_keys.publication_time`).
    return _cacheable(request, body, parts.settings.jwks_maximum_age)


def _cacheable(request: Request, body: bytes, maximum_age: int) -> Response:
    response = json_response(body, cache_control=f"public, max-age={maximum_age}")
    return or_not_modified(request, response, _etag(body))


@lru_cache(maxsize=16)
def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
