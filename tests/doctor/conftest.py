"""An authorization server of somebody else, as a table of what it answers: a good one, and changes that break it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authserver.doctor.examination import Report, examine
from authserver.doctor.findings import Finding, Result
from authserver.doctor.visit import Options
from authserver.doctor.wire import Wire
from authserver.testing.origins import Origin, serving

OPEN = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
KEY = {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
       "kid": "one", "alg": "ES256"}  # fmt: skip


@dataclass
class Reply:
    """What is answered; `{origin}` in a body or a header is that of the server."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"


Answers = Reply | Callable[["Other", str, Mapping[str, str], bytes, Mapping[str, str]], Reply]


def refuse(error: str, status: int = 400) -> Reply:
    return Reply(status, {"error": error}, {"Cache-Control": "no-store", **OPEN})


@dataclass
class Other:
    """The server.

    Attributes:
        answers: by `METHOD /path`; `* /path` for each method. Anything else is a 404.
        clients: those that registered, by id.
        removed: the ids of those that were removed.
    """

    origin: Origin
    answers: dict[str, Answers] = field(default_factory=dict)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.origin.port}"

    @property
    def metadata(self) -> dict[str, Any]:
        reply = self.answers["* /.well-known/oauth-authorization-server"]
        assert isinstance(reply, Reply)
        return reply.body

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        received = self.origin.received[-1]
        parts = urlsplit(received.path)
        headers = {name.lower(): text for name, text in received.headers.items()}
        key = f"{received.method} {parts.path}"
        found = self.answers.get(key) or self.answers.get(f"* {parts.path}")
        if received.method == "OPTIONS" and key not in self.answers and found is not None:
            found = Reply(204, None, OPEN)
        if found is None:
            found = Reply(404, {"error": "not_found"}, OPEN)
        if callable(found):
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            found = found(self, received.method, query, received.body, headers)
        self._send(handler, found, received.method)

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply, method: str) -> None:
        body = reply.body if isinstance(reply.body, bytes) else b""
        if isinstance(reply.body, str):
            body = reply.body.encode()
        elif reply.body is not None and not isinstance(reply.body, bytes):
            body = json.dumps(reply.body).encode()
        body = body.replace(b"{origin}", self.issuer.encode())
        handler.send_response(reply.status)
        for name, text in reply.headers.items():
            handler.send_header(name, text.replace("{origin}", self.issuer))
        if reply.kind:
            handler.send_header("Content-Type", reply.kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if method != "HEAD":
            handler.wfile.write(body)


def authorize(
    other: Other, _method: str, query: Mapping[str, str], _body: bytes, _headers: Mapping[str, str]
) -> Reply:
    """Refuse what must be refused, and lead everything else to a sign-in."""
    client = other.clients.get(query.get("client_id", ""))
    if client is None or query.get("redirect_uri") not in client["redirect_uris"]:
        return Reply(400, "<h1>No</h1><p>invalid_request</p>", kind="text/html")
    if query.get("code_challenge_method") != "S256":
        sent = f"?error=invalid_request&state={query.get('state', '')}&iss={other.issuer}"
        return Reply(303, None, {"Location": query["redirect_uri"] + sent})
    return Reply(303, None, {"Location": "{origin}/sign-in"})


def token(
    other: Other, _method: str, _query: Mapping[str, str], body: bytes, headers: Mapping[str, str]
) -> Reply:
    form = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
    if form.get("client_id") not in other.clients and "authorization" not in headers:
        return refuse("invalid_client", 401)
    return refuse("invalid_grant")


def register(
    other: Other, _method: str, _query: Mapping[str, str], body: bytes, _headers: Mapping[str, str]
) -> Reply:
    asked = json.loads(body)
    if not isinstance(asked, dict):
        return refuse("invalid_client_metadata")
    number = f"client-{len(other.clients)}"
    other.clients[number] = asked
    other.answers[f"DELETE /clients/{number}"] = remove
    answer = {
        **asked,
        "client_id": number,
        "registration_client_uri": f"{other.issuer}/clients/{number}",
        "registration_access_token": f"secret-{number}",
    }
    if asked.get("token_endpoint_auth_method", "client_secret_basic") != "none":
        answer |= {"client_secret": "hush", "client_secret_expires_at": 0}
    return Reply(201, answer, {**OPEN, "Cache-Control": "no-store"})


def remove(
    other: Other, _method: str, _query: Mapping[str, str], _body: bytes, headers: Mapping[str, str]
) -> Reply:
    number = other.origin.received[-1].path.rpartition("/")[2]
    if headers.get("authorization") != f"Bearer secret-{number}":
        return refuse("invalid_token", 401)
    other.removed.append(number)
    return Reply(204, None)


def good() -> dict[str, Answers]:
    """What a good server answers."""
    return {
        "* /.well-known/oauth-authorization-server": Reply(
            body={
                "issuer": "{origin}",
                "authorization_endpoint": "{origin}/authorize",
                "token_endpoint": "{origin}/token",
                "registration_endpoint": "{origin}/register",
                "jwks_uri": "{origin}/keys",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
                "authorization_response_iss_parameter_supported": True,
                "scopes_supported": ["read"],
            },
            headers={**OPEN, "Cache-Control": "max-age=300"},
        ),
        "* /keys": Reply(body={"keys": [KEY]}, headers=OPEN),
        "GET /authorize": authorize,
        "GET /sign-in": Reply(200, "<h1>Sign in</h1>", {"X-Frame-Options": "DENY"}, "text/html"),
        "OPTIONS /token": Reply(204, None, OPEN),
        "POST /token": token,
        "GET /token": Reply(405, {}),
        "OPTIONS /register": Reply(204, None, OPEN),
        "POST /register": register,
    }


@pytest.fixture
def other() -> Iterator[Other]:
    """A good server, whose answers a test changes."""
    with serving() as origin:
        other = Other(origin, good())
        origin.reply = other
        yield other


def looked_at(
    other: Other | None = None,
    *programs: str,
    issuer: str = "",
    resource: str = "",
    register: bool = False,
    client_id: str = "",
    seconds: float = 5.0,
    ca_file: str = "",
) -> Report:
    """What the doctor finds."""
    if other is not None and not resource:
        issuer = issuer or other.issuer
    return examine(
        Wire(filter(None, (issuer, resource)), seconds=seconds, ca_file=ca_file),
        issuer=issuer,
        resource=resource,
        programs=programs,
        options=Options(register=register, client_id=client_id),
        progress=lambda who, words: None,
    )


def bad(report: Report) -> set[tuple[str, str]]:
    """(check, result) of all that is not good, apart from http, which tests on loopback use."""
    return {
        (finding.check, finding.result.value)
        for finding in report.all_found
        if finding.result not in (Result.OK, Result.NOT_RUN)
        and finding.check not in ("issuer-https", "resource-https")
    }


def found(report: Report, check: str, result: Result) -> list[Finding]:
    return [finding for finding in report.all_found if (finding.check, finding.result) == (check, result)]
