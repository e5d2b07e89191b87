"""MCP servers of the official Python SDK: protection from outside, and a token verifier for inside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationError
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response

from authserver_resource.access import NOTHING, Access, Requirement
from authserver_resource.asgi import Application, AsgiProtection, Scope
from authserver_resource.refusals import Refusal, Unavailable
from authserver_resource.request import Request
from authserver_resource.resource import ProtectedResource
from authserver_resource.wsgi import Rule, refusal_response

__all__ = ["McpProtection", "ProtectedTokenVerifier", "VerifierUnavailable", "answer_outages"]

App = TypeVar("App", bound=Starlette)


class McpProtection(AsgiProtection):
    """Protect the application of an MCP server, and serve the metadata of the resource.

    server = MCPServer("files")
    app = McpProtection(server.streamable_http_app(host="mcp.example.com"), protected, needs("files.read"))

    Without `host` the SDK answers 421 to requests for any other host than this machine.
    Tools get the caller from the SDK's `get_access_token()`, without the token itself. The SDK's own `auth` and
    `token_verifier` are not needed: they know less of challenges, DPoP and 503.

    Args:
        application: the ASGI application of the server.
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
    """The SDK's `TokenVerifier`, for servers that keep the SDK's own `auth` settings.

    server = MCPServer("files", token_verifier=ProtectedTokenVerifier(protected), auth=AuthSettings(...))
    app = answer_outages(server.streamable_http_app())

    It gets only the token, so it accepts only bearer tokens that are not bound to a key. `McpProtection` accepts bound
    ones, too, and its challenges say more.

    Args:
        protected: the resource.
        requirement: what every token needs, or the SDK answers 401. Scopes belong into `required_scopes` of its
            `AuthSettings`: then it answers 403.
    """

    def __init__(self, protected: ProtectedResource, requirement: Requirement = NOTHING) -> None:
        self._protected = protected
        self._requirement = requirement

    async def verify_token(self, token: str) -> AccessToken | None:
        """The access of a token, or None.

        Raises:
            VerifierUnavailable: the issuer cannot be asked at the moment. The answer is 503 with `answer_outages`, and 400
                without; never 401, after which a client would discard a token that may be valid.
        """
        try:
            access = await self._protected.check_async(
                Request("POST", "", (f"Bearer {token}",)), self._requirement
            )
        except Unavailable as down:
            raise VerifierUnavailable(down.description, retry_after=down.retry_after) from None
        except Refusal:
            return None
        return access_token(access, token, self._protected.identifier)


class VerifierUnavailable(Unavailable, AuthenticationError):
    """An outage, as the error class of Starlette's middleware for authentication; any other class would be a 500."""


def answer_outages(app: App) -> App:
    """Let an app of the SDK or of FastMCP answer 503 with `Retry-After` when its verifier cannot ask the issuer.

    Args:
        app: before its first request.

    Raises:
        ValueError: the app does not authenticate.
    """
    if not let_answer_outages(app.user_middleware):
        raise ValueError("answer_outages: the app has no token verifier")
    return app


def let_answer_outages(stack: Iterable[Middleware]) -> bool:
    """Let the authentication in a stack of middleware answer outages; whether the stack has one."""
    authentication: object = AuthenticationMiddleware
    found = [middleware for middleware in stack if middleware.cls is authentication]
    for middleware in found:
        middleware.kwargs["on_error"] = _answer
    return bool(found)


def _answer(connection: HTTPConnection, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        return AuthenticationMiddleware.default_on_error(connection, error)
    status, headers, body = refusal_response(error)
    return Response(body, status, dict(headers))


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
