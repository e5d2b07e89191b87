"""FastMCP: a token verifier for inside. `authserver_resource.mcp.McpProtection` protects `FastMCP(...).http_app()` too."""

from __future__ import annotations

from fastmcp.server.auth import AccessToken, TokenVerifier
from starlette.middleware import Middleware

from authserver_resource.access import NOTHING, Requirement
from authserver_resource.mcp import ProtectedTokenVerifier, let_answer_outages
from authserver_resource.resource import ProtectedResource

__all__ = ["FastMcpTokenVerifier"]


class FastMcpTokenVerifier(TokenVerifier):
    """FastMCP's `TokenVerifier`: `FastMCP("files", auth=FastMcpTokenVerifier(protected, needs("files.read")))`.

    It has the limits of `ProtectedTokenVerifier`, and serves no metadata. FastMCP's `RemoteAuthProvider` around it does;
    then the app needs `answer_outages` of `authserver_resource.mcp`, which this class alone does not need.

    Args:
        protected: the resource.
        requirement: what every token needs.
    """

    def __init__(self, protected: ProtectedResource, requirement: Requirement = NOTHING) -> None:
        super().__init__(base_url=protected.origin, required_scopes=list(requirement.scopes))
        # FastMCP itself answers 403 for a missing scope.
        self._verifier = ProtectedTokenVerifier(
            protected, Requirement(acr_values=requirement.acr_values, max_age=requirement.max_age)
        )

    async def verify_token(self, token: str) -> AccessToken | None:
        """The access of a token, or None. Raises VerifierUnavailable when the issuer cannot be asked."""
        access = await self._verifier.verify_token(token)
        return None if access is None else AccessToken(**access.model_dump())

    def get_middleware(self) -> list[Middleware]:
        """FastMCP's own middleware, which answers 503 with `Retry-After` when the issuer cannot be asked."""
        stack: list[Middleware] = super().get_middleware()
        let_answer_outages(stack)
        return stack
