"""What an endpoint that clients call takes and answers, in the terms of the OpenAPI document (OpenAPI 3.1)."""

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
# Of client metadata, where what is empty or null counts as not sent.
FLAG: Schema = {"enum": [True, False, None, "", []]}
TEXTS: Schema = {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a form, a member of a JSON object, or a header.

    Attributes:
        description: what it is, with its source.
        schema: what its value must be; of a form parameter that may repeat, an array.
    """

    description: str
    schema: Schema = field(default_factory=lambda: STRING)
    required: bool = False


Members = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A bearer token in the Authorization header of a request (RFC 6750, 2.1).

    Attributes:
        name: of this kind of token, in the document.
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
        summary: what it does, with its source; the first sentence stands alone.
        query: the parameters of its address.
        form: the parameters of its form body, beside those that authenticate the client.
        headers: of the request, beside those that its other attributes say.
        json: the members of its JSON body.
        consumes: the media type of that.
        status: of its success; 204 has no body.
        answer: the members of its success.
        media_type: of a success that is no JSON, which the client may ask for; "" for none.
        authenticates: whether its clients prove who they are, as at the token endpoint.
        bearer: the bearer token that it reads; None if it reads none.
        scope: that the token needs; "" for none.
        errors: what it refuses with, beside what every endpoint does.
        problems: the same as kinds of problem details, of endpoints that answer so.
        limited: whether it can be asked too often.
        open_to: the hooks by which plugins add to it (`Described`).
        cached: whether it answers `If-None-Match` with 304.
        failure: the members of its 503, if that is no error of OAuth.
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
    """What a plugin adds to operations of others, for the OpenAPI document.

    A plugin has them in its class variable `described`, a mapping: by the name of a grant type, what a token request of it
    takes; by the name of a hook (`token_binding`, `assertion_profiles`, `code_details`, `client_metadata`,
    `registration_response`), what it adds to each operation that calls this hook; by that of `client_proofs`, what clients
    may authenticate with in a form.

    Attributes:
        members: parameters of the form, or members of the JSON object.
        answer: members of the success.
        headers: headers of the request.
        errors: what it refuses with.
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
