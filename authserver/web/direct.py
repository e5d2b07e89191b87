"""What is answered before pyramid_tm and the router: endpoints for programs, and the pages on the way to a client.

Their views are found by the path in the route table (`Route.is_direct`). Each request has a short transaction of its own,
as commands have; other pages have that of pyramid_tm, which others may join.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyramid.events import BeforeTraversal, ContextFound, NewRequest
from pyramid.interfaces import IRouteRequest, IRoutesMapper, IView, IViewClassifier
from pyramid.response import Response
from pyramid_retry import is_last_attempt
from zope.interface import implementedBy, providedBy

from authserver.web.admin_networks import hiding
from authserver.web.request import Registry, Request
from authserver.web.routes import refuse_newline

# What Pyramid's router tells subscribers before it calls a view.
_ON_THE_WAY = (NewRequest, BeforeTraversal, ContextFound)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What Pyramid's router would find for a path.

    Attributes:
        matched: the route, as Pyramid has it.
        interface: of requests for it.
        view: answers each of its methods, and refuses all others.
        stored: as in the route table.
    """

    matched: Any
    interface: Any
    view: Callable[[None, Request], Response]
    stored: bool


def tween_factory(
    handler: Callable[[Request], Response], registry: Registry
) -> Callable[[Request], Response]:
    """A tween that answers the paths of such endpoints, and leaves every other request to the router."""
    endpoints = _endpoints(registry)
    hide = hiding(registry.application.parts.settings.admin_networks)

    def tween(request: Request) -> Response:
        hide(request)
        endpoint = endpoints.get(request.environ.get("PATH_INFO", ""))
        if endpoint is None:
            refuse_newline(request)
            return handler(request)
        request.request_iface = endpoint.interface
        request.matched_route, request.matchdict = endpoint.matched, {}
        if not endpoint.stored:
            return endpoint.view(None, request)
        with request.application.begin(
            caller=request.caller, journal=request.journal, optimistic=_may_repeat(request)
        ) as request.engine:
            return endpoint.view(None, request)

    return tween


def _may_repeat(request: Request) -> bool:
    """Whether this is the first of several attempts."""
    return not request.environ.get("retry.attempt") and not is_last_attempt(request)


def _endpoints(registry: Any) -> dict[str, Endpoint]:
    """By path; none if a plugin wants to hear from Pyramid's router of every request."""
    if any(registry.adapters.subscriptions((implementedBy(event),), None) for event in _ON_THE_WAY):
        return {}
    mapper = registry.getUtility(IRoutesMapper)
    found = {}
    for path, route in registry.paths.items():
        if route.is_direct:
            interface = registry.getUtility(IRouteRequest, name=route.name)
            view = registry.adapters.lookup((IViewClassifier, interface, providedBy(None)), IView)
            found[path] = Endpoint(mapper.get_route(route.name), interface, view, route.stored)
    return found
