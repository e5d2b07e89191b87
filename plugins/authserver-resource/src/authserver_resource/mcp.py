"""MCP servers of the official Python SDK: protection from outside, and a token verifier for inside."""

from __future__ import annotations

from typing import Any

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

from authserver_resource.asgi import Application, AsgiProtection, Scope
from authserver_resource.refusals import Refusal, Unavailable
from authserver_resource.request import Request
from authserver_resource.resource import NOTHING, Access, ProtectedResource, Requirement
from authserver_resource.wsgi import Rule

__all__ = ["McpProtection", "ProtectedTokenVerifier"]


class McpProtection(AsgiProtection):
    """Protect the application of an MCP server, and serve the metadata of the resource.

    server = MCPServer("files")
    app = McpProtection(server.streamable_http_app(host="mcp.example.com"), protected, needs("files.read"))

    Without `host` the SDK answers 421 to requests for any other host than this machine.
    Tools find who called with the SDK's `get_access_token()`, without the token itself. The SDK's own `auth` and
    `token_verifier` are not needed: challenges, DPoP and 503 are better known here.

    Args:
        application: of the server.
        protected: the resource; its identifier is the URL of the MCP endpoint.
        requires: what every request needs, or a rule for each method and path.
    """

    def __init__(
        self, application: Application, protected: ProtectedResource, requires: Requirement | Rule = NOTHING
    ) -> None:
        super().__init__(AuthContextMiddleware(application), protected, requires)
        self._resource = protected.identifier

    def inside(self, scope: Scope, access: Access) -> Scope:
        user = AuthenticatedUser(access_token(access, "", self._resource))
        return {
            **super().inside(scope, access),
            "user": user,
            "auth": AuthCredentials(user.scopes),
        }


class ProtectedTokenVerifier:
    """The SDK's `TokenVerifier`: `MCPServer(..., token_verifier=ProtectedTokenVerifier(protected), auth=...)`.

    It sees the token alone, so it takes bearer tokens that are bound to nothing. `McpProtection` takes the others
    too, and its challenges say more.

    Args:
        protected: the resource.
        requirement: what every token needs.
    """

    def __init__(self, protected: ProtectedResource, requirement: Requirement = NOTHING) -> None:
        self._protected = protected
        self._requirement = requirement

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who a token lets in, or None.

        Raises:
            Unavailable: nobody can say at the moment. The SDK answers 500 then, not that the token is bad.
        """
        try:
            access = await self._protected.check_async(
                Request("POST", "", (f"Bearer {token}",)), self._requirement
            )
        except Unavailable:
            raise
        except Refusal:
            return None
        return access_token(access, token, self._protected.identifier)


def access_token(access: Access, token: str, resource: str) -> AccessToken:
    """An access in the words of the SDK. `token` may be "", so that no tool can pass it on."""
    claims: dict[str, Any] = {**access.claims, "iss": access.issuer}
    return AccessToken(
        token=token,
        client_id=access.client_id,
        scopes=sorted(access.scopes),
        expires_at=None if access.expires_at is None else int(access.expires_at),
        resource=resource,
        subject=access.subject or None,
        claims=claims,
    )
