"""The requests of a program, made from its recording and the answers so far: pure functions, nothing is sent here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from authserver.doctor.reading import Json, encoded, parts_of, text_of, texts_of
from authserver.doctor.recordings import Authorization, Recording, Scope, TokenRequest


@dataclass(slots=True, kw_only=True)
class Told:
    """The answers that a program got so far.

    Attributes:
        resource: the identifier of the protected resource as its metadata has it; None where there is none.
        challenge: the scopes of its 401.
        resource_scopes: the `scopes_supported` of its metadata.
        metadata: of the authorization server.
        registered: the answer to the registration; if a client id was given, only that client id.
        tokens: the last token response.
    """

    resource: str | None = None
    challenge: tuple[str, ...] = ()
    resource_scopes: tuple[str, ...] = ()
    metadata: Json = field(default_factory=dict)
    registered: Json = field(default_factory=dict)
    tokens: Json = field(default_factory=dict)


def scope_of(rule: Scope, told: Told) -> str | None:
    """The scope that a program asks for by this rule; None when it sends none."""
    advertised = texts_of(told.metadata, "scopes_supported")
    says = {
        "challenge": " ".join(told.challenge),
        "resource": " ".join(told.resource_scopes),
        "registered": text_of(told.registered, "scope"),
        "server": " ".join(advertised),
        "granted": text_of(told.tokens, "scope"),
    }
    chosen = next((says[source] for source in rule.first_of if says[source]), rule.otherwise)
    added = [scope for scope in rule.added_if_advertised if scope in advertised]
    if not added:
        return chosen
    return " ".join(dict.fromkeys([*(chosen or "").split(), *added]))


def resource_of(recording: Recording, identifier: str | None) -> str | None:
    """The parameter `resource` in the program's form; None when it sends none."""
    if identifier is None or recording.resource is None:
        return None
    match recording.resource:
        case "href" if not parts_of(identifier).path:
            return identifier + "/"
        case "without slash":
            return identifier.removesuffix("/")
    return identifier


def documents_of(recording: Recording, origin: str, path: str) -> list[str]:
    """The addresses at which it asks for the metadata, each once, in its order."""
    documents = recording.discovery.documents
    return list(dict.fromkeys(document.format(origin=origin, path=path) for document in documents))


def registration_of(recording: Recording, told: Told) -> dict[str, Any]:
    """The body of its registration.

    If the metadata lists no values to choose from, those of the recording are used.
    """
    recorded = recording.registration
    body = dict(recorded.body)
    for member, listed_in in recorded.cut_to.items():
        if listed := texts_of(told.metadata, listed_in):
            body[member] = [value for value in body[member] if value in listed]
    for member, choice in recorded.chosen.items():
        listed = texts_of(told.metadata, choice.listed_in)
        body[member] = next((value for value in choice.first_of if value in listed), choice.first_of[0])
    scope = scope_of(recorded.scope, told)
    if scope is not None:
        body["scope"] = scope
    return body


def authorization_of(recording: Recording, way: Authorization, told: Told) -> dict[str, str]:
    """The parameters with which it opens a browser, in order."""
    scope = scope_of(way.scope, told)
    values = {
        "client_id": text_of(told.registered, "client_id"),
        "redirect_uri": way.redirect_uri,
        "state": way.state,
        "code_challenge": challenge_of(recording.code_verifier),
        "resource": resource_of(recording, told.resource),
        "scope": scope,
        "prompt": "consent" if scope and "offline_access" in scope.split() else None,
    }
    return filled(way.parameters, values)


def token_request_of(
    recording: Recording, request: TokenRequest, told: Told, values: Mapping[str, str | None]
) -> tuple[dict[str, str], bytes]:
    """The headers and the form of a request to the token endpoint, with the program's authentication.

    Args:
        values: the values of the placeholders of the form; client id, resource and scope are added.
    """
    client_id, secret = text_of(told.registered, "client_id"), text_of(told.registered, "client_secret")
    values = {
        **values,
        "client_id": client_id,
        "resource": resource_of(recording, told.resource),
        "scope": scope_of(request.scope, told),
    }
    form, headers = filled(request.form, values), dict(request.headers)
    method: str = request.authentication
    if method == "registered":
        # RFC 7591, 2: the default.
        method = text_of(told.registered, "token_endpoint_auth_method") or "client_secret_basic"
    if method == "client_secret_basic" and secret:
        credentials = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        headers["Authorization"] = f"Basic {credentials}"
    else:
        form["client_id"] = client_id
        if method != "none" and secret:
            form["client_secret"] = secret
    return headers, urlencode(form).encode()


def filled(template: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    """The parameters, in order, with `{name}` replaced; one without a value is left out."""
    made = {}
    for name, text in template.items():
        value = values[text[1:-1]] if text.startswith("{") else text
        if value is not None:
            made[name] = value
    return made


def challenge_of(verifier: str) -> str:
    """RFC 7636, 4.2."""
    return encoded(hashlib.sha256(verifier.encode()).digest())
