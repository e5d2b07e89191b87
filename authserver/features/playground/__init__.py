"""A page that is a real public client of this server, so that a newcomer can watch OAuth.

All steps happen in the browser (`static/playground.js`), through the same endpoints that every other
client uses. The server side is one page and its files; it keeps no state and issues nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pyramid.config import Configurator

from authserver.api import Request, Route, hookimpl


@dataclass(frozen=True)
class Playground:
    """Serve `/playground`, where each step of the authorization code flow can be watched.

    Attributes:
        client_id: a registered public client whose redirect URI is the address of the page.
        scopes: the scopes that the page asks for, unless the visitor types others; if empty, it sends no
            `scope`, and the server's default applies.
        resource: the resource that the token is for (RFC 8707); if empty, it sends no `resource`.
    """

    development_only: ClassVar[bool] = True

    client_id: str = "playground"
    scopes: tuple[str, ...] = ()
    resource: str = ""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(
            Route("playground", "/playground", ("GET",)),
            self.page,
            renderer="authserver.features.playground:templates/playground.jinja2",
        )
        config.add_static_view(
            "playground/static", "authserver.features.playground:static", cache_max_age=300
        )
        issuer = config.registry.application.parts.settings.issuer
        config.add_home_link("Playground", f"{issuer}/playground")

    def page(self, request: Request) -> dict[str, Any]:
        """The page. Only its script reads the authorization response in the query."""
        request.content_security_policy = {"script-src": ["'self'"], "connect-src": ["'self'"]}
        settings = request.engine.settings
        return {
            "client_id": self.client_id,
            "scope": " ".join(self.scopes),
            "resource": self.resource,
            "issuer": settings.issuer,
            # RFC 8414, 3.1: the well-known part goes between the host and the path of the issuer.
            "metadata_path": f"/.well-known/oauth-authorization-server{settings.issuer_path}",
        }
