"""What a client sent on its way to a tool call: as steps that a test compares, and as a transcript that people read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# The pages that a person saw, in place of a method.
BROWSER = "browser"
METADATA = {
    "/.well-known/oauth-protected-resource/mcp": "resource metadata",
    "/.well-known/oauth-authorization-server": "server metadata",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request and its answer.

    Attributes:
        method: of HTTP, or BROWSER for everything between the authorization request and the redirect URI.
        url: where it went.
        authorization: the header of that name; "" without one.
        body: that was sent.
        status: of the answer.
        challenge: its `WWW-Authenticate`; "" without one.
    """

    method: str
    url: str
    authorization: str = ""
    body: str = ""
    status: int = 0
    challenge: str = ""

    @property
    def step(self) -> str:
        """What it is for, in a few words; "" for what MCP does besides."""
        path = urlsplit(self.url).path
        if self.method == BROWSER:
            return "the person allows"
        if path in METADATA:
            return METADATA[path]
        if path == "/oauth/register":
            return f"register {self._json().get('token_endpoint_auth_method')}"
        if path == "/oauth/token":
            return f"{self._form()['grant_type']} {self.authentication}"
        if self.status in (401, 403):
            return "refused" if self.status == 401 else "a scope lacks"
        if self._json().get("method") == "tools/call":
            return str(self._json()["params"]["name"])
        return ""

    @property
    def authentication(self) -> str:
        """How the client proved who it is."""
        form = self._form()
        if self.authorization.startswith("Basic "):
            return "client_secret_basic"
        if "client_assertion" in form:
            return "private_key_jwt"
        return "client_secret_post" if "client_secret" in form else "none"

    def line(self, servers: Mapping[str, str]) -> str:
        """For people; nothing in it is secret.

        Args:
            servers: what to call them, by their origins.
        """
        url = urlsplit(self.url)
        server = servers.get(f"{url.scheme}://{url.netloc}", url.netloc)
        said = self._asked() if self.method == BROWSER else self.step or str(self._json().get("method", ""))
        status = str(self.status or "")
        columns = f"  {self.method:<8}{server:<12}{url.path:<42}{status:<4} {said}".rstrip()
        return f"{columns}\n{'':<27}{self.challenge}" if self.challenge else columns

    def _asked(self) -> str:
        query = dict(parse_qsl(urlsplit(self.url).query))
        asked = [query[name] for name in ("client_id", "scope") if name in query]
        return "; ".join(["the person allows", *asked])

    def _form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body))

    def _json(self) -> dict[str, Any]:
        sent: dict[str, Any] = json.loads(self.body) if self.body.startswith("{") else {}
        return sent


def steps(exchanges: Iterable[Exchange]) -> list[str]:
    """The steps in their order, each once."""
    return list(dict.fromkeys(exchange.step for exchange in exchanges if exchange.step))


def transcript(title: str, exchanges: Iterable[Exchange], servers: Mapping[str, str]) -> str:
    """All of it."""
    return "\n".join(["", title, *(exchange.line(servers) for exchange in exchanges)])
