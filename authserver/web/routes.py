"""The route table, the directives that add to it, and the route of a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPMethodNotAllowed, HTTPNotFound
from pyramid.i18n import TranslationStringFactory
from pyramid.response import Response

from authserver.engine.letters import HOOK as MAIL_HOOK
from authserver.engine.people import password_links
from authserver.engine.records import EventType
from authserver.web import operations
from authserver.web.cross_origin import or_preflight
from authserver.web.operation import Operation
from authserver.web.request import Registry, Request
from authserver.web.route import Medium, Origins, Route

_ = TranslationStringFactory("authserver")
# The texts that people and proxies use as a slash.
_SLASHES = re.compile(r"(?:/|\\|%2f|%5c)+")
LOOK_AFTER = _("to look after your account")
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")
ROUTES = (
    Route("home", "/", ("GET",)),
    Route(
        "authorize",
        "/oauth/authorize",
        ("GET", "POST"),
        direct=True,
        refused=EventType.AUTHORIZATION_REFUSED,
        metadata="authorization_endpoint",
    ),
    Route("consent", "/oauth/consent", ("GET", "POST"), direct=True, refused=EventType.AUTHORIZATION_REFUSED),
    Route(
        "token",
        "/oauth/token",
        ("POST",),
        Medium.JSON,
        Origins.CLIENTS,
        refused=EventType.TOKEN_REFUSED,
        metadata="token_endpoint",
        operation=operations.TOKEN,
    ),
    Route(
        "introspect",
        "/oauth/introspect",
        ("POST",),
        Medium.JSON,
        metadata="introspection_endpoint",
        decided_by="introspection_decision",
        operation=operations.INTROSPECT,
    ),
    Route(
        "revoke",
        "/oauth/revoke",
        ("POST",),
        Medium.JSON,
        Origins.CLIENTS,
        metadata="revocation_endpoint",
        operation=operations.REVOKE,
    ),
    Route(
        "register",
        "/oauth/register",
        ("POST",),
        Medium.JSON,
        Origins.ALL,
        refused=EventType.REGISTRATION_REFUSED,
        metadata="registration_endpoint",
        decided_by="registration_decision",
        operation=operations.REGISTER,
    ),
    Route(
        "jwks",
        "/oauth/jwks",
        ("GET",),
        Medium.JSON,
        Origins.ALL,
        stored=False,
        metadata="jwks_uri",
        operation=operations.JWKS,
    ),
    Route(
        "login",
        "/login",
        ("GET", "POST"),
        direct=True,
        takes_password=True,
        refused=EventType.SIGN_IN_REFUSED,
    ),
    Route("logout", "/logout", ("GET", "POST")),
    Route(
        "password_link",
        password_links.PAGE,
        ("GET", "POST"),
        takes_password=True,
        refused=EventType.PASSWORD_REFUSED,
    ),
    Route(
        "forgotten_password",
        password_links.ASK_PAGE,
        ("GET", "POST"),
        refused=EventType.PASSWORD_REFUSED,
        decided_by=MAIL_HOOK,
    ),
    Route("account", "/account", ("GET",), personal=True, purpose=LOOK_AFTER),
    Route("account_apps", "/account/apps", ("GET", "POST"), personal=True, purpose=LOOK_AFTER),
    Route("account_sessions", "/account/sessions", ("GET", "POST"), personal=True, purpose=LOOK_AFTER),
    Route(
        "account_password",
        "/account/password",
        ("GET", "POST"),
        personal=True,
        takes_password=True,
        purpose=LOOK_AFTER,
        refused=EventType.PASSWORD_REFUSED,
    ),
    Route(
        "account_sign_out", "/account/sign-out-everywhere", ("GET", "POST"), personal=True, purpose=LOOK_AFTER
    ),
    Route(
        "live",
        "/health/live",
        ("GET",),
        Medium.JSON,
        stored=False,
        for_operators=True,
        operation=operations.LIVE,
    ),
    Route(
        "ready",
        "/health/ready",
        ("GET",),
        Medium.JSON,
        stored=False,
        for_operators=True,
        operation=operations.READY,
    ),
    Route("style", "/static/style.css", ("GET",), stored=False),
    Route("theme", "/static/theme.css", ("GET",), stored=False),
    Route("favicon", "/static/favicon.svg", ("GET",), stored=False),
    Route("show_password", "/static/show-password.js", ("GET",), stored=False),
    Route("open_link", "/static/open-link.js", ("GET",), stored=False),
    Route("logo", "/static/logo", ("GET",), stored=False),
    Route("client_logo", "/static/client-logo", ("GET",)),
)


def includeme(config: Configurator) -> None:
    """Add every route below the path of the issuer, with 405 for all other methods."""
    config.registry.routes = {}
    config.registry.paths = {}
    config.registry.patterns = {}
    config.registry.folders = {}
    config.registry.switched_off = {}
    for route in ROUTES:
        _add(config, _below_issuer(config, route))
    config.add_request_method(_route, "route", reify=True)
    config.add_directive("add_endpoint", add_endpoint)
    config.add_directive("add_well_known", add_well_known)


def _below_issuer(config: Configurator, route: Route) -> Route:
    prefix: str = config.registry.application.parts.settings.issuer_path
    return replace(route, path=prefix + route.path)


def _add(
    config: Configurator,
    route: Route,
    *,
    otherwise: Callable[[Request], Response] | None = None,
    is_listed: bool = True,
) -> None:
    """Add a route with its complete path.

    Args:
        otherwise: answers requests that none of its views answers; by default with 405.
        is_listed: whether it is an endpoint, and not an answer for paths without an endpoint.
    """
    # A route that is switched off keeps its name, which its view needs, but matches no path.
    is_off = _is_off(config, route)
    # The path is complete, so the prefix with which the calling module was included must not be added.
    config = config.with_package(config.package)
    config.route_prefix = None
    config.add_route(route.name, route.path, static=is_off)
    otherwise = otherwise or method_not_allowed
    config.add_view(
        otherwise if route.origins is Origins.NONE else partial(or_preflight, otherwise),
        route_name=route.name,
    )
    config.registry.routes[route.name] = route
    if not is_off and is_listed:
        _refuse_twins(config, route)
        config.registry.paths[route.path] = route
        if _PLACEHOLDER.search(route.path):
            config.registry.patterns[_pattern(route.path)] = route


def _pattern(path: str) -> re.Pattern[str]:
    """A pattern for the paths of a route with placeholders; as in Pyramid, a placeholder is one segment."""
    literal = map(re.escape, _PLACEHOLDER.split(path))
    return re.compile("[^/]+".join(literal))


def _is_off(config: Configurator, route: Route) -> bool:
    policies = config.registry.application.parts.policies
    return bool(route.decided_by) and not policies.serves(route.decided_by)


def _refuse_twins(config: Configurator, route: Route) -> None:
    """Refuse a second route with the same path or member of the metadata, because Pyramid compares only names.

    Raises ConfigurationError.
    """
    for other in config.registry.paths.values():
        if route.path == other.path:
            raise ConfigurationError(f"{route.name} has the path of {other.name}: {route.path}")
        if route.metadata and route.metadata == other.metadata:
            raise ConfigurationError(f"{route.name} is {route.metadata} in the metadata, as {other.name} is")


def add_endpoint(
    config: Configurator,
    route: Route,
    view: Callable[[Request], Any],
    *,
    otherwise: Callable[[Request], Response] | None = None,
    **options: Any,
) -> None:
    """Directive for features: add an endpoint to the route table, like those of the core.

    Args:
        view: answers each of its methods.
        otherwise: answers all other methods; by default with 405.
        options: options of `add_view` of Pyramid, for example a `renderer`.

    Raises:
        ConfigurationError: another endpoint has its name, its path or its member of the metadata.
    """
    route = _below_issuer(config, route)
    _add(config, route, otherwise=otherwise)
    config.add_view(view, route_name=route.name, request_method=route.methods, **options)


def endpoints(registry: Registry, issuer_origin: str) -> dict[str, str]:
    """The URLs of all endpoints that are switched on and have a member in the server metadata, by that member."""
    return {route.metadata: issuer_origin + route.path for route in registry.paths.values() if route.metadata}


def add_well_known(
    config: Configurator,
    name: str,
    view: Callable[[Request], Response],
    *,
    appended: bool = False,
    below: str = "",
    administers: bool = False,
    operation: Operation | None = None,
) -> None:
    """Directive that adds a document about this issuer at its well-known address: GET, for all origins.

    Args:
        name: the name after `/.well-known/`, which is between the host and the path of the issuer (RFC 8414, 3.1).
        appended: whether the document is also at the address after that path (OIDC Discovery, 4).
        below: the path below the issuer of the resource that it is about; "" for the issuer itself (RFC 9728, 3.1).
        administers: as that of a route.
        operation: its description for the OpenAPI document.
    """
    inserted, behind = well_known_paths(name, config.registry.application.parts.settings.issuer_path)
    paths = (
        {name: inserted, f"{name} appended": behind} if appended and behind != inserted else {name: inserted}
    )
    paths = {name: path + below for name, path in paths.items()}
    for route_name, path in paths.items():
        route = Route(
            route_name,
            path,
            ("GET",),
            Medium.JSON,
            Origins.ALL,
            stored=False,
            administers=administers,
            operation=operation,
        )
        _add(config, route)
        config.add_view(view, route_name=route_name, request_method="GET")


def well_known_paths(name: str, issuer_path: str) -> tuple[str, str]:
    """The two addresses at which clients look for a document about the issuer.

    The first has the name between host and path (RFC 8414, 3.1), the second after the path (OIDC
    Discovery, 4).
    """
    return f"/.well-known/{name}{issuer_path}", f"{issuer_path}/.well-known/{name}"


def refuse_other_well_known(config: Configurator) -> None:
    """Answer 404 in JSON, readable for every origin, at well-known addresses without a document.

    Clients ask for several documents one after the other, and only a 404 makes them try the next one. This is included
    last, so that the pages of plugins are found first.
    """
    issuer_path = config.registry.application.parts.settings.issuer_path
    for folder in dict.fromkeys(("/.well-known/", f"{issuer_path}/.well-known/")):
        route = Route(folder, f"{folder}*name", ("GET",), Medium.JSON, Origins.ALL)
        _add(config, route, otherwise=no_such_document, is_listed=False)
        config.registry.folders[folder] = route


def refuse_switched_off(config: Configurator) -> None:
    """Answer 404 at endpoints that are switched off, readable for the same origins as the endpoints themselves.

    This is included after the pages of plugins, which may have such an address.
    """
    registry = config.registry
    for route in tuple(registry.routes.values()):
        if _is_off(config, route) and route.path not in registry.paths:
            is_like = replace(route, name=f"{route.name} switched off", decided_by="")
            _add(config, is_like, otherwise=no_such_document, is_listed=False)
            registry.switched_off[route.path] = is_like


def _route(request: Request) -> Route | None:
    """The entry of the route table for the path of this request, even before Pyramid has matched it.

    None for an unknown path, and for pages that are not in the route table.
    """
    path: str = request.environ.get("PATH_INFO") or "/"
    return request.registry.paths.get(path) or _other_route(request.registry, path)


def _other_route(registry: Registry, path: str) -> Route | None:
    """The route of a path with placeholders, or of a path that answers 404."""
    if path in registry.switched_off:
        return registry.switched_off[path]
    route = next((route for pattern, route in registry.patterns.items() if pattern.fullmatch(path)), None)
    return route or next(
        (route for folder, route in registry.folders.items() if path.startswith(folder)), None
    )


def medium_of(request: Request) -> Medium:
    """The medium in which an error of this request is shown."""
    return request.route.medium if request.route else _expected_medium(request)


def _expected_medium(request: Request) -> Medium:
    """The medium for an unknown path: JSON for clients that accept it, and for a misspelt endpoint that answers JSON."""
    accepted: str = request.environ.get("HTTP_ACCEPT", "").lower()
    if "application/json" in accepted and "text/html" not in accepted:
        return Medium.JSON
    meant = _SLASHES.sub("/", request.environ.get("PATH_INFO", "").lower())
    return next(
        (
            route.medium
            for route in request.registry.routes.values()
            if route.medium.is_json and meant.startswith(route.path.lower())
        ),
        Medium.PAGE,
    )


def refuse_newline(request: Request) -> None:
    """Refuse `/login%0A`, which is not `/login` (T015): the `$` of Pyramid's patterns also matches before a newline."""
    if request.environ.get("PATH_INFO", "").endswith("\n"):
        raise HTTPNotFound()


def needs_transaction(request: Request) -> bool:
    """Hook of pyramid_tm: whether the request reads or writes records at all."""
    return request.route is None or request.route.stored


def method_not_allowed(request: Request) -> Response:
    """Refuse a method that the route does not have: 405 with `Allow` (RFC 9110, 15.5.6)."""
    assert request.route is not None  # only added to routes of the table
    raise HTTPMethodNotAllowed(headers={"Allow": ", ".join(request.route.methods)})


def no_such_document(request: Request) -> Response:
    """Refuse a path without a document: 404."""
    raise HTTPNotFound()
