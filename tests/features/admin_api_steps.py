"""Servers with the admin API, and administrators who use it, for its tests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from webtest import TestResponse

from authserver.engine.records import Client
from authserver.features.admin_api.collected import ENTRIES, SCOPES
from authserver.testing.server import ISSUER, SETTINGS, Server
from authserver.web.openapi import document

API = f"{ISSUER}/admin/api"
EVERY = " ".join(SCOPES)
PROBLEM = "urn:authserver:problem:"


def settings(**more: str | None) -> dict[str, str | None]:
    """Those of a server with the admin API; members of the group `operators` may use it in their own name."""
    return {
        "authserver.plugins": SETTINGS["authserver.plugins"] + " admin_api dpop registration_token",
        "authserver.plugin.admin_api.groups": "operators",
        "authserver.plugin.registration_token.policies": "partners = scopes profile",
        **more,
    }


@dataclass
class Administrator:
    """A client of an operator with an access token for the API."""

    server: Server
    client: Client
    secret: str | None
    token: str

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int | None = None,
        token: str | None = None,
        raw: bytes | None = None,
        **headers: str,
    ) -> TestResponse:
        """A request; the names of headers are written with underscores."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        sent.setdefault("Authorization", f"Bearer {token or self.token}")
        if body is not None or raw is not None:
            media_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
            sent.setdefault("Content-Type", media_type)
        answer = self.server.http.request(
            path if path.startswith("https:") else API + path,
            method=method,
            body=raw if raw is not None else b"" if body is None else json.dumps(body).encode(),
            headers=sent,
            expect_errors=True,
        )
        if status is not None:
            assert answer.status_int == status, answer.text
        assert_described(self.server, method, path, answer)
        return answer

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        return self.ask("GET", path, status=status, **headers).json

    def post(self, path: str, body: object = None, status: int = 201, **headers: str) -> Any:
        return self.ask("POST", path, body, status=status, **headers).json

    def patch(self, path: str, body: object, status: int = 200, if_match: str = "*") -> Any:
        return self.ask("PATCH", path, body, status=status, If_Match=if_match).json

    def etag(self, path: str) -> str:
        return str(self.ask("GET", path, status=200).headers["ETag"])


# The document of these servers; made once.
_documents: list[Mapping[str, Any]] = []
_validators: dict[tuple[str, str, int], Draft202012Validator] = {}


def document_of(server: Server) -> Mapping[str, Any]:
    """The OpenAPI document of a server with these settings."""
    if not _documents:
        _documents.append(document(server.wsgi.registry))
    return _documents[0]


def template_of(path: str) -> str | None:
    """The path of the entries that are at this address; None for no such."""
    found = [
        entry.path for entry in ENTRIES if re.fullmatch(re.sub(r"\{[a-z_]+\}", "[^/]+", entry.path), path)
    ]
    return found[0] if found else None


def assert_described(server: Server, method: str, path: str, answer: TestResponse) -> None:
    """That the OpenAPI document says of this answer what it is."""
    template = template_of(path.removeprefix(API).partition("?")[0])
    methods = {entry.method for entry in ENTRIES if entry.path == template}
    if template is None or method not in methods:
        return
    made = document_of(server)
    operation = made["paths"][f"/admin/api{template}"][method.lower()]
    described = operation["responses"].get(str(answer.status_int))
    assert described is not None, f"{method} {template}: {answer.status} is not described"
    SEEN.add((method, template, answer.status_int))
    if answer.status_int in (204, 304):
        assert answer.body == b""
        return
    which = (method, template, answer.status_int)
    if which not in _validators:
        schema = described["content"][answer.content_type]["schema"]
        _validators[which] = Draft202012Validator({**schema, "components": made["components"]})
    assert answer.content_type in described["content"]
    _validators[which].validate(answer.json)


# Method, path and status of each answer that a test got.
SEEN: set[tuple[str, str, int]] = set()


def administrator(server: Server, scope: str = EVERY, **metadata: Any) -> Administrator:
    """One that uses the API on its own behalf."""
    client, secret = server.add_client(
        grant_types=("client_credentials",), scopes=(*SCOPES, "profile"), **metadata
    )
    answer = server.token(client, secret, grant_type="client_credentials", resource=API, scope=scope)
    return Administrator(server, client, secret, answer.json["access_token"])


def assert_problem(answer: TestResponse, status: int, slug: str) -> Mapping[str, Any]:
    """The body of an answer that is a problem of this kind (RFC 9457, 3)."""
    assert answer.status_int == status, answer.text
    assert answer.content_type == "application/problem+json"
    body: Mapping[str, Any] = answer.json
    assert body["type"] == PROBLEM + slug and body["status"] == status
    assert body["title"] and body["detail"].endswith((".", "?"))
    return body


def events(server: Server, type: str) -> list[dict[str, Any]]:
    """The events of a type, with their details read."""
    return [
        {**row, "details": json.loads(text) if isinstance(text := row["details"], str) else text}
        for row in server.events(type)
    ]
