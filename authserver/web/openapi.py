"""Makes the OpenAPI document (OpenAPI 3.1) of the endpoints that answer JSON, from the route table and from plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from itertools import chain
from typing import Any

import msgspec

from authserver.engine.errors import (
    InvalidClient,
    InvalidRequest,
    OAuthError,
    ServerError,
    TemporarilyUnavailable,
    TooManyRequests,
)
from authserver.web.metadata import METADATA
from authserver.web.operation import TEXT, Described, Members, Operation, Parameter, Schema, object_schema
from authserver.web.operations import GRANT_FORMS
from authserver.web.problems import MEDIA_TYPE, TYPE, kind_of
from authserver.web.request import Registry
from authserver.web.route import Medium, Route

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
# The header of every refusal that is temporary.
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}
_CHALLENGE = {
    "WWW-Authenticate": {"description": "How to authenticate (RFC 9110, 11.6.1).", "schema": dict(TEXT)}
}
_STATUSES: Mapping[int, str] = {
    400: "The request cannot be answered.",
    401: "The caller is not authenticated.",
    403: "The caller may not do this.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "There were too many requests.",
    500: "The server failed.",
    503: "The server cannot answer now.",
}
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "The code (OAuth 2.1, 3.2.4)."},
        "error_description": {"type": "string", "description": "A fixed text for developers."},
        "error_id": {"type": "string", "description": "The id of the event, for the operator."},
    },
    "required": ["error", "error_description", "error_id"],
}
_PROBLEM: Schema = {
    "type": "object",
    "properties": {
        "type": {
            "type": "string",
            "description": "The kind of problem, which never changes (RFC 9457, 3.1.1).",
        },
        "title": {"type": "string", "description": "The kind of problem in words."},
        "status": {"type": "integer", "description": "The status of the response."},
        "detail": {"type": "string", "description": "The problem of this request, and what to do."},
        "errors": {
            "type": "array",
            "description": "The members of the body that cannot be used.",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "description": "The member (RFC 6901, as a fragment)."},
                    "detail": {"type": "string", "description": "What the member must be."},
                },
                "required": ["pointer", "detail"],
            },
        },
        "error_id": {"type": "string", "description": "The id of the event, for the operator."},
    },
    "required": ["type", "title", "status", "detail"],
}
# The problems of a body that the server does not read, by their status.
_UNREAD = {413: "request-entity-too-large", 415: "unsupported-media-type"}
# A placeholder in the path of a route.
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ID = Parameter(
    description=(
        "The id; an id with other characters than letters, digits, `-`, `.` and `_` is written as `~` and its base64url."
    ),
    schema=dict(TEXT),
    required=True,
)


def document(registry: Registry) -> dict[str, Any]:
    """The document of this server, with the features that are switched on.

    Args:
        registry: the registry of its application, with the endpoints of its plugins.
    """
    return _Document(registry).made()


class _Document:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._parts = registry.application.parts
        self._described: Mapping[str, Sequence[Described]] = self._parts.policies.all_declared("described")
        self._routes = [route for route in registry.paths.values() if route.medium.is_json]

    def made(self) -> dict[str, Any]:
        settings = self._parts.settings
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "authserver",
                "version": version("authserver"),
                "description": (
                    "The endpoints of an OAuth 2.1 authorization server that answer JSON. People's pages, the authorization "
                    "endpoint among them, answer HTML."
                ),
            },
            "servers": [{"url": settings.issuer_origin}],
            "paths": {route.path: self._path(route) for route in self._routes},
            "components": {"schemas": self._schemas(), "securitySchemes": self._security_schemes()},
        }

    def _schemas(self) -> dict[str, Any]:
        has_problems = any(route.medium is Medium.PROBLEM for route in self._routes)
        return {"Error": _ERROR, **({"Problem": _PROBLEM} if has_problems else {})}

    def _path(self, route: Route) -> dict[str, Any]:
        operations = route.operations()
        return {
            method.lower(): self._operation(
                route, operation, route.name if len(operations) == 1 else f"{route.name}_{method.lower()}"
            )
            for method, operation in operations.items()
        }

    def _operation(self, route: Route, operation: Operation, name: str) -> dict[str, Any]:
        added = [plugin for hook in operation.open_to for plugin in self._described.get(hook, ())]
        made: dict[str, Any] = {"operationId": name, "summary": operation.summary}
        headers = dict(chain(operation.headers.items(), *(plugin.headers.items() for plugin in added)))
        if operation.cached:
            headers["If-None-Match"] = Parameter(description="RFC 9110, 13.1.2.")
        ids = dict.fromkeys(_PLACEHOLDER.findall(route.path), _ID)
        if headers or operation.query or ids:
            made["parameters"] = [
                {
                    "name": name,
                    "in": place,
                    "description": parameter.description,
                    "required": parameter.required,
                    "schema": parameter.schema,
                }
                for place, parameters in (("path", ids), ("query", operation.query), ("header", headers))
                for name, parameter in parameters.items()
            ]
        if (body := self._body(route, operation, added)) is not None:
            made["requestBody"] = {"required": True, "content": body}
        made["security"] = self._security(operation)
        made["responses"] = self._responses(route, operation, added)
        return made

    # ---- requests ---------------------------------------------------------------------------------------

    def _body(self, route: Route, operation: Operation, added: Iterable[Described]) -> dict[str, Any] | None:
        more = dict(chain.from_iterable(plugin.members.items() for plugin in added))
        if operation.json is not None:
            return {operation.consumes: {"schema": object_schema({**operation.json, **more})}}
        if operation.form is None:
            return None
        own = {**operation.form, **more, **(self._credentials() if operation.authenticates else {})}
        if route.name != "token":
            return {FORM: {"schema": object_schema(own)}}
        forms = [
            {"title": grant_type, **object_schema({"grant_type": _constant(grant_type), **form, **own})}
            for grant_type, form in self._grant_forms()
        ]
        return {FORM: {"schema": {"oneOf": forms}}}

    def _grant_forms(self) -> Iterator[tuple[str, Members]]:
        for grant_type in self._parts.grant_types:
            described = self._described.get(grant_type)
            yield grant_type, described[0].members if described else GRANT_FORMS.get(grant_type, {})

    def _grant_errors(self) -> Iterator[type[OAuthError]]:
        for grant_type in self._parts.grant_types:
            for described in self._described.get(grant_type, ()):
                yield from described.errors

    def _credentials(self) -> Members:
        """The parameters of the form that authenticate a client, for the offered methods."""
        methods = self._parts.auth_methods
        named = Parameter(description="The client, if it does not authenticate in the header.")
        members = {"client_id": named}
        for described in self._described.get("client_proofs", ()):
            members |= described.members
        if "client_secret_post" in methods:
            members["client_secret"] = Parameter(
                description="The secret, with the method `client_secret_post`."
            )
        return members

    # ---- responses --------------------------------------------------------------------------------------

    def _responses(self, route: Route, operation: Operation, added: Iterable[Described]) -> dict[str, Any]:
        success: dict[str, Any] = {JSON: {"schema": self._answer(route, operation, added)}}
        if operation.media_type:
            success[operation.media_type] = {"schema": {"type": "string"}}
        responses: dict[str, Any] = {
            str(operation.status): {"description": "It is done."}
            if operation.status == HTTPStatus.NO_CONTENT
            else {"description": "The answer.", "content": success}
        }
        if operation.cached:
            responses["304"] = {"description": "It has not changed."}
        errors = [*operation.errors, *chain.from_iterable(plugin.errors for plugin in added)]
        if route.name == "token":
            errors += self._grant_errors()
        if route.medium is Medium.PROBLEM:
            responses |= _problems(route, operation, errors)
            return responses
        for status, codes in sorted(_by_status(route, operation, errors).items()):
            responses[str(status)] = _refused(status, codes)
        if operation.failure is not None:
            responses["503"] = {
                "description": _STATUSES[503],
                "headers": _RETRY_AFTER,
                "content": {JSON: {"schema": object_schema(operation.failure)}},
            }
        return responses

    def _answer(self, route: Route, operation: Operation, added: Iterable[Described]) -> Schema:
        if route.name.startswith(METADATA):
            return _schema_of(msgspec.json.decode(self._registry.metadata_body))
        more = dict(chain.from_iterable(plugin.answer.items() for plugin in added))
        answer = object_schema({**operation.answer, **more})
        if "active" in operation.answer:
            inactive = {"properties": {"active": {"const": False}}, "maxProperties": 1}
            live = {
                "properties": {"active": {"const": True}},
                "required": ["scope", "client_id", "sub", "aud", "iss", "exp", "iat", "jti"],
            }
            return {**answer, "oneOf": [inactive, live]}
        return answer

    # ---- security ---------------------------------------------------------------------------------------

    def _security_schemes(self) -> dict[str, Any]:
        bearers = [
            operation.bearer
            for route in self._routes
            for operation in route.operations().values()
            if operation.bearer
        ]
        schemes: dict[str, Any] = {
            bearer.name: {"type": "http", "scheme": "bearer", "description": bearer.description}
            for bearer in bearers
        }
        if "client_secret_basic" in self._parts.auth_methods:
            schemes["client_secret_basic"] = {
                "type": "http",
                "scheme": "basic",
                "description": "The client_id and the secret, each form-encoded first (OAuth 2.1, 2.4.1).",
            }
        return schemes

    def _security(self, operation: Operation) -> list[dict[str, list[str]]]:
        if operation.bearer:
            # For a security scheme other than `oauth2`, these are roles (OpenAPI 3.1, Security Requirement Object).
            scopes = [operation.scope] if operation.scope else []
            needed: list[dict[str, list[str]]] = [{operation.bearer.name: scopes}]
            return needed if operation.bearer.required else [*needed, {}]
        if operation.authenticates and "client_secret_basic" in self._parts.auth_methods:
            return [{"client_secret_basic": []}, {}]
        return []


def _by_status(route: Route, operation: Operation, errors: Iterable[type[OAuthError]]) -> dict[int, set[str]]:
    """The possible error codes for each status."""
    kinds: list[type[OAuthError]] = [*errors, InvalidRequest, ServerError]
    if route.stored:
        kinds.append(TemporarilyUnavailable)
    if operation.authenticates:
        kinds.append(InvalidClient)
    if operation.limited:
        kinds.append(TooManyRequests)
    found: dict[int, set[str]] = {}
    for kind in kinds:
        found.setdefault(kind.status, set()).add(kind.code)
    if operation.form is not None or operation.json is not None:
        found.setdefault(413, set()).add(InvalidRequest.code)
        found.setdefault(415, set()).add(InvalidRequest.code)
    return found


def _refused(status: int, codes: set[str]) -> dict[str, Any]:
    error = {"$ref": "#/components/schemas/Error"}
    refused: dict[str, Any] = {
        "description": _STATUSES.get(status, HTTPStatus(status).phrase),
        "content": {JSON: {"schema": {"allOf": [error], "properties": {"error": {"enum": sorted(codes)}}}}},
    }
    if status in (TooManyRequests.status, TemporarilyUnavailable.status):
        refused["headers"] = _RETRY_AFTER
    if status == 401:
        refused["headers"] = _CHALLENGE
    return refused


def _problems(
    route: Route, operation: Operation, errors: Iterable[type[OAuthError]]
) -> dict[str, dict[str, Any]]:
    """The answers with problem details, by their status."""
    slugs: dict[int, set[str]] = {}
    for status, codes in _by_status(route, operation, errors).items():
        # A body that is not read is a problem of HTTP. All other requests that cannot be read are problems of the endpoint.
        of_http = {_UNREAD[status]} if status in _UNREAD else set()
        of_errors = {kind_of(code, status).slug for code in codes - {InvalidRequest.code}}
        if of_http or of_errors:
            slugs.setdefault(status, set()).update(of_http | of_errors)
    for kind in operation.problems:
        slugs.setdefault(kind.status, set()).add(kind.slug)
    found: dict[str, dict[str, Any]] = {}
    for status in sorted(slugs):
        refused = _refused(status, set())
        types = [TYPE + slug for slug in sorted(slugs[status])]
        refused["content"] = {
            MEDIA_TYPE: {
                "schema": {
                    "allOf": [{"$ref": "#/components/schemas/Problem"}],
                    "properties": {"type": {"enum": types}},
                }
            }
        }
        found[str(status)] = refused
    return found


def _constant(text: str) -> Parameter:
    return Parameter(description="The grant type (OAuth 2.1, 3.2.2).", schema={"const": text}, required=True)


def _schema_of(value: object) -> Schema:
    """The schema of a value that is always present, and always of this type."""
    match value:
        case dict():
            return {
                "type": "object",
                "properties": {name: _schema_of(member) for name, member in value.items()},
                "required": list(value),
            }
        case list():
            return {"type": "array", "items": _schema_of(value[0])}
        case bool():
            return {"type": "boolean", "const": value}
        case str() if value.startswith("https:"):
            return {"type": "string", "format": "uri"}
        case _:
            return dict(TEXT)
