"""Describes the requests and answers of an endpoint for clients, in the terms of OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authserver.engine.errors import OAuthError
from authserver.engine.records import NOTHING
from authserver.web.problems import Kind

# A JSON Schema (2020-12).
Schema = Mapping[str, Any]

STRING: Schema = {"type": "string"}
# An empty parameter counts as not sent.
TEXT: Schema = {"type": "string", "minLength": 1}
# A flag in client metadata, where an empty value or null counts as not sent.
FLAG: Schema = {"enum": [True, False, None, "", []]}
TEXTS: Schema = {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a form, a member of a JSON object, or a header.

    Attributes:
        description: what it is, with its source.
        schema: the schema of its value; an array for a form parameter that may be repeated.
    """

    description: str
    schema: Schema = field(default_factory=lambda: STRING)
    required: bool = False


Members = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A bearer token in the Authorization header of a request (RFC 6750, 2.1).

    Attributes:
        name: the name of this kind of token in the document.
        description: what it is, with its source.
        required: whether every request needs one.
    """

    name: str
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of an endpoint.

    Attributes:
        summary: what it does, with its source; the first sentence can stand alone.
        query: the parameters of its address.
        form: the parameters of its form body, without those that authenticate the client.
        headers: the headers of the request, without those that follow from the other attributes.
        json: the members of its JSON body.
        consumes: the media type of the JSON body.
        status: the status of a successful answer; 204 has no body.
        answer: the members of a successful answer.
        media_type: the media type of another successful answer than JSON, which the client may ask for; "" for none.
        authenticates: whether its clients authenticate, as at the token endpoint.
        bearer: the bearer token that it reads; None if it reads none.
        scope: the scope that the token needs; "" for none.
        errors: the errors that it may answer, beside those of every endpoint.
        problems: the same as kinds of problem details, for an endpoint with `Medium.PROBLEM`.
        limited: whether there is a limit on its requests.
        open_to: the hooks by which plugins add to it (`Described`).
        cached: whether it answers `If-None-Match` with 304.
        failure: the members of its answer 503, if that is not an OAuth error.
    """

    summary: str
    query: Members = field(default_factory=lambda: NOTHING)
    headers: Members = field(default_factory=lambda: NOTHING)
    form: Members | None = None
    json: Members | None = None
    consumes: str = "application/json"
    status: int = 200
    answer: Members = field(default_factory=lambda: NOTHING)
    media_type: str = ""
    authenticates: bool = False
    bearer: Bearer | None = None
    scope: str = ""
    errors: tuple[type[OAuthError], ...] = ()
    problems: tuple[Kind, ...] = ()
    limited: bool = False
    open_to: tuple[str, ...] = ()
    cached: bool = False
    failure: Members | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The additions of a plugin to operations of others, for the OpenAPI document.

    A plugin has them in its class variable `described`, a mapping. Its keys are: the name of a grant type, for the
    parameters of its token request; the name of a hook (`token_binding`, `assertion_profiles`, `code_details`,
    `client_metadata`, `registration_response`), for additions to each operation that calls this hook; and
    `client_proofs`, for the parameters of a form with which clients authenticate.

    Attributes:
        members: parameters of the form, or members of the JSON object.
        answer: members of a successful answer.
        headers: headers of the request.
        errors: the errors that it may answer.
    """

    members: Members = field(default_factory=lambda: NOTHING)
    answer: Members = field(default_factory=lambda: NOTHING)
    headers: Members = field(default_factory=lambda: NOTHING)
    errors: tuple[type[OAuthError], ...] = ()


def object_schema(members: Members) -> dict[str, Any]:
    """The schema of a JSON object with these members."""
    made: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: {**member.schema, "description": member.description} for name, member in members.items()
        },
    }
    if required := [name for name, member in members.items() if member.required]:
        made["required"] = required
    return made
