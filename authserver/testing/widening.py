"""What a policy should never try: to allow more than was asked for, or what nothing has proven.

Each function says what is wrong with an allowed value, or None. The server's own checks refuse or cut all of
it; a policy that tries has misunderstood its question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from authserver.engine import uris
from authserver.engine.clients.registration import ClientMetadata
from authserver.engine.errors import InvalidTarget
from authserver.engine.people.login import Identity

Asked = Mapping[str, Any]


def _scopes(asked: Asked, value: tuple[str, ...]) -> str | None:
    ceiling = asked["requested"] or asked["client"].scopes
    extra = [scope for scope in value if scope not in ceiling]
    return f"it allows {extra}, which nobody asked for" if extra else None


def _resource(asked: Asked, value: str) -> str | None:
    try:
        form = uris.canonical_resource(value)
    except InvalidTarget:
        return f"it allows {value!r}, which is no resource"
    if asked["resource"] in (None, form):
        return None
    return f"it allows {value!r} instead of {asked['resource']!r}"


def _client(asked: Asked, value: object) -> str | None:
    credentials = asked["credentials"]
    if credentials.method.startswith("client_secret_"):
        return None if credentials.secret_matches else "it allows a client whose secret does not match"
    if asked["client"].auth_method == "none" or credentials.assertion or credentials.headers:
        return None
    return "it allows a client that has shown nothing"


def _login(asked: Asked, value: Identity) -> str | None:
    if not value.username:
        return "it signs in nobody in particular"
    if not asked["password"].value and not asked["headers"]:
        return "it signs in somebody who has shown nothing"
    return None


def _registration(asked: Asked, value: ClientMetadata) -> str | None:
    metadata: ClientMetadata = asked["metadata"]
    # Where nothing of what was asked for can be had, a policy may give what it has.
    some = set(value.scopes) & set(metadata.scopes)
    extra = [scope for scope in value.scopes if some and scope not in metadata.scopes]
    extra += [grant for grant in value.grant_types if grant not in metadata.grant_types]
    extra += [uri for uri in value.redirect_uris if uri not in metadata.redirect_uris]
    if extra:
        return f"it registers {extra}, which nobody asked for"
    if value.token_endpoint_auth_method == "none" != metadata.token_endpoint_auth_method:
        return "it registers a client without the authentication that it asked for"
    return None


WIDENING: Mapping[str, Callable[[Asked, Any], str | None]] = {
    "scope_decision": _scopes,
    "resource_decision": _resource,
    "client_auth_decision": _client,
    "registration_decision": _registration,
    "login_decision": _login,
}
