"""The class of requests: one for all of them, with what plugins add to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from authserver.api import Medium, Route, hookimpl, json_response
from authserver.testing.server import Server, with_plugin


def team(request: Request) -> list[str]:
    return [request.environ["QUERY_STRING"]]


def greet(request: Request, name: str) -> str:
    return f"{name} of {request.team[0]}"


@dataclass(frozen=True)
class AddsToRequests:
    """An endpoint whose view uses what this plugin adds to requests."""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_request_method(team, reify=True)
        config.add_request_method(greet)
        config.add_endpoint(Route("greets", "/greets", ("GET",), Medium.JSON), self.view)

    def view(self, request: Request) -> Response:
        kept = request.team is request.team
        return json_response(
            {
                "greeting": request.greet("ann"),
                "kept": kept,
                "class": [type(request).__name__, id(type(request))],
            }
        )


def test_a_plugin_adds_methods_and_properties_to_requests(make_server: Callable[..., Server]) -> None:
    """`config.add_request_method` of Pyramid; no class is made for a request, which costs more than a small answer."""
    server = make_server(with_plugin(AddsToRequests, {}))
    first, second = (server.http.get(f"/greets?{query}").json for query in ("red", "blue"))
    assert (first["greeting"], second["greeting"]) == ("ann of red", "ann of blue")
    assert first["kept"] and second["kept"]
    assert first["class"] == second["class"]
    assert first["class"][0] == "Request"
