"""The one route table: every path there is, its methods, how its errors look, and who may call it cross-origin."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.httpexceptions import HTTPMethodNotAllowed, HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import BeforeRetry

from authserver.engine.metadata import introspection_is_on, registration_is_open, well_known_paths
from authserver.web.forms import is_too_large


class Medium(StrEnum):
    """What an endpoint answers with, errors included."""

    PAGE = "page"
    JSON = "json"


class Origins(StrEnum):
    """Which web origins may read the answers (CORS)."""

    NONE = "none"
    ALL = "all"
    CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Route:
    """One path, below the path of the issuer.

    `stored` says whether it needs the request's transaction, `personal` whether it is for signed-in people, who
    come back to it when they have signed in.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    medium: Medium = Medium.PAGE
    origins: Origins = Origins.NONE
    stored: bool = True
    personal: bool = False


ROUTES = (
    Route("home", "/", ("GET",)),
    Route("authorize", "/oauth/authorize", ("GET", "POST")),
    Route("consent", "/oauth/consent", ("GET", "POST")),
    Route("token", "/oauth/token", ("POST",), Medium.JSON, Origins.CLIENTS),
    Route("introspect", "/oauth/introspect", ("POST",), Medium.JSON),
    Route("revoke", "/oauth/revoke", ("POST",), Medium.JSON, Origins.CLIENTS),
    Route("register", "/oauth/register", ("POST",), Medium.JSON, Origins.ALL),
    Route("jwks", "/oauth/jwks", ("GET",), Medium.JSON, Origins.ALL, stored=False),
    Route("login", "/login", ("GET", "POST")),
    Route("logout", "/logout", ("GET", "POST")),
    Route("account", "/account", ("GET",), personal=True),
    Route("account_apps", "/account/apps", ("GET", "POST"), personal=True),
    Route("account_sessions", "/account/sessions", ("GET", "POST"), personal=True),
    Route("account_password", "/account/password", ("GET", "POST"), personal=True),
    Route("account_sign_out", "/account/sign-out-everywhere", ("GET", "POST"), personal=True),
    Route("live", "/health/live", ("GET",), Medium.JSON, stored=False),
    Route("ready", "/health/ready", ("GET",), Medium.JSON, stored=False),
    Route("style", "/static/style.css", ("GET",), stored=False),
    Route("theme", "/static/theme.css", ("GET",), stored=False),
    Route("favicon", "/static/favicon.svg", ("GET",), stored=False),
    Route("logo", "/static/logo", ("GET",), stored=False),
)

# The metadata document has up to three addresses; the first is RFC 8414's.
METADATA_ROUTES = ("metadata", "metadata_openid", "metadata_appended")


def includeme(config: Configurator) -> None:
    """Add every route below the path of the issuer, and an answer to the methods it does not have."""
    application: Any = config.registry.application
    prefix = application.loaded.settings.issuer_path
    metadata = [
        Route(name, path, ("GET",), Medium.JSON, Origins.ALL, stored=False)
        for name, path in zip(METADATA_ROUTES, well_known_paths(prefix), strict=False)
    ]
    policies = application.plugins
    # What is switched off keeps its name for its view, but matches nothing.
    off = {
        "register": not registration_is_open(policies),
        "introspect": not introspection_is_on(policies),
    }
    table, paths = {}, {}
    for route in (*metadata, *(replace(route, path=prefix + route.path) for route in ROUTES)):
        config.add_route(route.name, route.path, static=off.get(route.name, False))
        config.add_view(method_not_allowed, route_name=route.name)
        table[route.name] = route
        if not off.get(route.name):
            paths[route.path] = route
        if route.origins is not Origins.NONE:
            config.add_view(preflight, route_name=route.name, request_method="OPTIONS")
    config.add_subscriber(refuse_newline, NewRequest)
    config.add_subscriber(wait_before_retry, BeforeRetry)
    config.add_directive("add_json_endpoint", add_json_endpoint)
    config.registry.routes = table
    config.registry.paths = paths
    config.registry.unstored_paths = frozenset(route.path for route in table.values() if not route.stored)


def add_json_endpoint(
    config: Configurator, name: str, path: str, view: Callable[[Request], Response], *, origins: str = "none"
) -> None:
    """Directive for features: an endpoint that clients POST to, in the route table as our own are.

    Errors are JSON. `origins` says which web origins may read the answers: `none`, `all` or `clients`.
    """
    prefix: str = config.registry.application.loaded.settings.issuer_path
    route = Route(name, prefix + path, ("POST",), Medium.JSON, Origins(origins))
    config.add_route(name, path)
    config.add_view(method_not_allowed, route_name=name)
    config.add_view(view, route_name=name, request_method="POST")
    if route.origins is not Origins.NONE:
        config.add_view(preflight, route_name=name, request_method="OPTIONS")
    config.registry.routes[name] = config.registry.paths[route.path] = route


def route_of(request: Request) -> Route | None:
    """The entry of the route table at the path of this request, whether Pyramid came to match it or not.

    None where nothing is, and for plugins' pages.
    """
    route: Route | None = request.registry.paths.get(request.environ.get("PATH_INFO") or "/")
    return route


def medium_of(request: Request) -> Medium:
    """How an error of this request is shown."""
    route = route_of(request)
    return route.medium if route else Medium.PAGE


def refuse_newline(event: NewRequest) -> None:
    """`/login%0A` is not `/login` (T015): the `$` at the end of Pyramid's patterns matches before a newline, too."""
    if event.request.environ.get("PATH_INFO", "").endswith("\n"):
        raise HTTPNotFound()


def needs_transaction(request: Request) -> bool:
    """Hook of pyramid_tm: whether the request reads or writes records at all."""
    return request.environ.get("PATH_INFO", "/") not in request.registry.unstored_paths


def retry_attempts(request: Request) -> int | None:
    """Hook of pyramid_retry: one attempt for what has no transaction, else the configured number.

    For more than one it copies the body, so a body that nobody will read gets one attempt too.
    """
    return None if needs_transaction(request) and not is_too_large(request) else 1


def wait_before_retry(event: BeforeRetry) -> None:
    """Let whoever was in the way finish; two that met do not try again at the same moment (T111)."""
    time.sleep((10 + secrets.randbelow(90)) / 1000)


def method_not_allowed(request: Request) -> Response:
    route = route_of(request)
    assert route is not None  # only added to routes of the table
    raise HTTPMethodNotAllowed(headers={"Allow": ", ".join(route.methods)})


def preflight(request: Request) -> Response:
    """Answer a CORS preflight; `web.headers` adds what this origin may do."""
    return Response(status=204)
