"""HTTP: reads requests into values, calls the engine, renders the outcome. No OAuth meaning here."""

from __future__ import annotations

from pyramid.config import Configurator


def includeme(config: Configurator) -> None:
    """Add the routes, the tweens around every request, the pages and the views of this package."""
    config.include("authserver.web.forms")
    config.include("authserver.web.routes")
    config.include("authserver.web.session")
    config.include("authserver.web.refusals")
    config.include("authserver.web.headers")
    config.include("authserver.web.pages")
    config.include("authserver.web.metadata")
    config.scan("authserver.web")
