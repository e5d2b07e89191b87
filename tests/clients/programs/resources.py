"""What the tokens are for: an MCP server made with the protocol's Python SDK, and an API beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import anyio
import joserfc.errors
import requests
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

SCOPE = "notes.read"


class Resources:
    """Two resource servers in one process, which believe the JWT access tokens of one issuer (RFC 9068, 4).

    Attributes:
        mcp: the MCP server; its tool `read_notes` returns the claims of the token that it was called with.
        notes: an API that answers GET with those claims.
        seen: the claims of the accepted tokens, of both.
    """

    def __init__(self, *, issuer: str, port: int) -> None:
        self.issuer = issuer
        self.port = port
        self.mcp = f"http://localhost:{port}/mcp"
        self.notes = f"http://localhost:{port}/notes"
        self.seen: list[dict[str, Any]] = []

    @contextmanager
    def serving(self) -> Iterator[Resources]:
        """Serve until the block ends."""
        settings = uvicorn.Config(self._application(), host="localhost", port=self.port, log_level="error")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield self
        server.should_exit = True
        thread.join(timeout=10)

    def claims(self, token: str, audience: str) -> dict[str, Any] | None:
        """The claims of an access token for this audience; None when it is none of the issuer's, or expired."""
        try:
            decoded = jwt.decode(token, self._keys)
        except (joserfc.errors.JoseError, ValueError):
            return None
        claims = decoded.claims
        valid = (
            decoded.header.get("typ") == "at+jwt"
            and (claims["iss"], claims["aud"]) == (self.issuer, audience)
            and claims["exp"] > time.time()
        )
        if not valid:
            return None
        self.seen.append(claims)
        return claims

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the SDK asks about each request to the MCP server."""
        claims = await anyio.to_thread.run_sync(self.claims, token, self.mcp)
        return claims and AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
            claims=claims,
        )

    @cached_property
    def _keys(self) -> KeySet:
        return KeySet.import_key_set(requests.get(f"{self.issuer}/oauth/jwks", timeout=10).json())

    def _application(self) -> Starlette:
        server = MCPServer(
            "notes",
            token_verifier=self,
            auth=AuthSettings(
                issuer_url=self.issuer,
                resource_server_url=self.mcp,
                required_scopes=[SCOPE],
                validate_token_resource=True,
            ),
        )

        @server.tool()
        def read_notes() -> dict[str, Any]:
            """Read the notes: the claims of the token."""
            token = get_access_token()
            assert token is not None
            return token.claims or {}

        @server.custom_route("/notes", methods=["GET"])
        async def notes(request: Request) -> JSONResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            claims = scheme == "Bearer" and await anyio.to_thread.run_sync(self.claims, token, self.notes)
            if not claims:
                return JSONResponse({}, 401, {"WWW-Authenticate": "Bearer"})
            return JSONResponse(claims)

        return server.streamable_http_app()
