"""The one route table, the directives that add to it, and which of its routes a request is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPMethodNotAllowed, HTTPNotFound
from pyramid.response import Response

from authserver.engine.records import EventType
from authserver.web.cross_origin import preflight
from authserver.web.request import Registry, Request
from authserver.web.route import Medium, Origins, Route

ROUTES = (
    Route("home", "/", ("GET",)),
    Route(
        "authorize",
        "/oauth/authorize",
        ("GET", "POST"),
        refused=EventType.AUTHORIZATION_REFUSED,
        metadata="authorization_endpoint",
    ),
    Route("consent", "/oauth/consent", ("GET", "POST"), refused=EventType.AUTHORIZATION_REFUSED),
    Route(
        "token",
        "/oauth/token",
        ("POST",),
        Medium.JSON,
        Origins.CLIENTS,
        refused=EventType.TOKEN_REFUSED,
        metadata="token_endpoint",
    ),
    Route(
        "introspect",
        "/oauth/introspect",
        ("POST",),
        Medium.JSON,
        metadata="introspection_endpoint",
        decided_by="introspection_decision",
    ),
    Route("revoke", "/oauth/revoke", ("POST",), Medium.JSON, Origins.CLIENTS, metadata="revocation_endpoint"),
    Route(
        "register",
        "/oauth/register",
        ("POST",),
        Medium.JSON,
        Origins.ALL,
        refused=EventType.REGISTRATION_REFUSED,
        metadata="registration_endpoint",
        decided_by="registration_decision",
    ),
    Route("jwks", "/oauth/jwks", ("GET",), Medium.JSON, Origins.ALL, stored=False, metadata="jwks_uri"),
    Route("login", "/login", ("GET", "POST"), refused=EventType.SIGN_IN_REFUSED),
    Route("logout", "/logout", ("GET", "POST")),
    Route("account", "/account", ("GET",), personal=True),
    Route("account_apps", "/account/apps", ("GET", "POST"), personal=True),
    Route("account_sessions", "/account/sessions", ("GET", "POST"), personal=True),
    Route(
        "account_password",
        "/account/password",
        ("GET", "POST"),
        personal=True,
        refused=EventType.PASSWORD_REFUSED,
    ),
    Route("account_sign_out", "/account/sign-out-everywhere", ("GET", "POST"), personal=True),
    Route("live", "/health/live", ("GET",), Medium.JSON, stored=False),
    Route("ready", "/health/ready", ("GET",), Medium.JSON, stored=False),
    Route("style", "/static/style.css", ("GET",), stored=False),
    Route("theme", "/static/theme.css", ("GET",), stored=False),
    Route("favicon", "/static/favicon.svg", ("GET",), stored=False),
    Route("logo", "/static/logo", ("GET",), stored=False),
)


def includeme(config: Configurator) -> None:
    """Add every route below the path of the issuer, and an answer to the methods it does not have."""
    config.registry.routes = {}
    config.registry.paths = {}
    config.registry.folders = {}
    config.registry.unstored_paths = set()
    for route in ROUTES:
        _add(config, _below_issuer(config, route))
    config.add_subscriber(refuse_newline, NewRequest)
    config.add_directive("add_endpoint", add_endpoint)
    config.add_directive("add_well_known", add_well_known)


def _below_issuer(config: Configurator, route: Route) -> Route:
    prefix: str = config.registry.application.parts.settings.issuer_path
    return replace(route, path=prefix + route.path)


def _add(
    config: Configurator, route: Route, *, otherwise: Callable[[Request], Response] | None = None
) -> None:
    """Add a route with its whole path, and what answers where it has no view: 405 unless `otherwise` is given."""
    # A route that is switched off keeps its name for its view, but matches no path.
    is_off = bool(route.decided_by) and not config.registry.application.parts.policies.serves(
        route.decided_by
    )
    # Whatever prefix the caller is included with, the path has it already, or must not have it.
    config = config.with_package(config.package)
    config.route_prefix = None
    config.add_route(route.name, route.path, static=is_off)
    config.add_view(otherwise or method_not_allowed, route_name=route.name)
    if route.origins is not Origins.NONE:
        config.add_view(preflight, route_name=route.name, request_method="OPTIONS")
    config.registry.routes[route.name] = route
    if not is_off and otherwise is None:
        _refuse_twins(config, route)
        config.registry.paths[route.path] = route
    if not route.stored:
        config.registry.unstored_paths.add(route.path)


def _refuse_twins(config: Configurator, route: Route) -> None:
    """Pyramid compares names alone. Raises ConfigurationError."""
    for other in config.registry.paths.values():
        if route.path == other.path:
            raise ConfigurationError(f"{route.name} has the path of {other.name}: {route.path}")
        if route.metadata and route.metadata == other.metadata:
            raise ConfigurationError(f"{route.name} is {route.metadata} in the metadata, as {other.name} is")


def add_endpoint(config: Configurator, route: Route, view: Callable[[Request], Any], **options: Any) -> None:
    """Directive for features: an endpoint in the route table, as our own are.

    Args:
        view: answers each of its methods.
        options: of Pyramid's `add_view`, a `renderer` for instance.

    Raises:
        ConfigurationError: its name, its path or its member of the metadata is taken.
    """
    route = _below_issuer(config, route)
    _add(config, route)
    config.add_view(view, route_name=route.name, request_method=route.methods, **options)


def endpoints(registry: Registry, issuer_origin: str) -> dict[str, str]:
    """The URL of each endpoint that is switched on and that the server metadata names, by its member there."""
    return {route.metadata: issuer_origin + route.path for route in registry.paths.values() if route.metadata}


def add_well_known(
    config: Configurator, name: str, view: Callable[[Request], Response], *, appended: bool = False
) -> None:
    """Directive for a document about this issuer: GET, for everybody, where clients look for it.

    Args:
        name: what is behind `/.well-known/`. It goes between the host and the path of the issuer (RFC 8414, 3.1).
        appended: whether it is behind that path as well (OpenID Connect Discovery, 4).
    """
    inserted, below = well_known_paths(name, config.registry.application.parts.settings.issuer_path)
    paths = (
        {name: inserted, f"{name} appended": below} if appended and below != inserted else {name: inserted}
    )
    for route_name, path in paths.items():
        _add(config, Route(route_name, path, ("GET",), Medium.JSON, Origins.ALL, stored=False))
        config.add_view(view, route_name=route_name, request_method="GET")


def well_known_paths(name: str, issuer_path: str) -> tuple[str, str]:
    """Where clients look for a document about the issuer: between its host and path, and behind its path.

    The first is where RFC 8414, 3.1 has it, the second where OpenID Connect Discovery, 4 has it.
    """
    return f"/.well-known/{name}{issuer_path}", f"{issuer_path}/.well-known/{name}"


def refuse_other_well_known(config: Configurator) -> None:
    """Answer 404 in JSON that programs of every origin can read, for well-known addresses without a document.

    Clients ask for several documents in turn, and only a 404 sends each of them on to the next. This is included
    last, so that the pages of plugins come first.
    """
    issuer_path = config.registry.application.parts.settings.issuer_path
    for folder in dict.fromkeys(("/.well-known/", f"{issuer_path}/.well-known/")):
        route = Route(folder, f"{folder}*name", ("GET",), Medium.JSON, Origins.ALL)
        _add(config, route, otherwise=no_such_document)
        config.registry.folders[folder] = route


def route_of(request: Request) -> Route | None:
    """The entry of the route table at the path of this request, whether Pyramid came to match it or not.

    None where nothing is, and for plugins' pages.
    """
    path: str = request.environ.get("PATH_INFO") or "/"
    registry = request.registry
    route: Route | None = registry.paths.get(path)
    if route is None:
        return next((route for folder, route in registry.folders.items() if path.startswith(folder)), None)
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


def method_not_allowed(request: Request) -> Response:
    route = route_of(request)
    assert route is not None  # only added to routes of the table
    raise HTTPMethodNotAllowed(headers={"Allow": ", ".join(route.methods)})


def no_such_document(request: Request) -> Response:
    raise HTTPNotFound()
