"""Endpoints of plugins: `config.add_endpoint(Route(...), view)` in `includeme`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from authserver.api import InvalidRequest, Medium, Origins, Route, hookimpl, json_response
from authserver.settings import SettingsError
from authserver.testing.server import Server, with_plugin
from authserver.testing.stories import assert_json_error

MakeServer = Callable[..., Server]
ORIGIN = {"Origin": "https://anywhere.example"}


@dataclass(frozen=True)
class Endpoints:
    """A page, and an endpoint for programs."""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(Route("about", "/about", ("GET",), stored=False), self.about, renderer="string")
        config.add_endpoint(
            Route(
                "beacon",
                "/beacon",
                ("GET", "POST"),
                Medium.JSON,
                Origins.ALL,
                metadata="acme_beacon_endpoint",
            ),
            self.beacon,
        )
        config.add_cross_origin_headers(sent=["Acme-Trace"], read=["Acme-Hint"])

    def about(self, request: Request) -> str:
        if request.query_string:
            raise InvalidRequest("Nothing may be asked here.")
        assert "tm" not in request.__dict__
        request.response.vary = "Acme-Theme"
        return "An authorization server."

    def beacon(self, request: Request) -> Response:
        if request.query_string:
            raise InvalidRequest("Nothing may be asked here.")
        return json_response({"method": request.method})


@dataclass(frozen=True)
class Takes:
    """An endpoint whose path or name in the metadata may be taken."""

    path: str = "/taken"
    metadata: str = ""

    @hookimpl
    def includeme(self, config: Any) -> None:
        route = Route("takes", self.path, ("GET",), metadata=self.metadata)
        config.add_endpoint(route, lambda request: Response())


@pytest.fixture(params=["", "/tenant"])
def server(make_server: MakeServer, request: pytest.FixtureRequest) -> Server:
    return make_server(
        {"authserver.issuer": f"https://as.example{request.param}", **with_plugin(Endpoints, {})}
    )


def test_a_page_of_a_plugin_is_as_our_own(server: Server) -> None:
    """includeme: headers of a page, errors as a page, 405 for other methods, and no transaction."""
    page = server.http.get(server.path("/about"))
    assert page.text == "An authorization server."
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Vary"] == "Acme-Theme, Accept-Language"
    assert server.http.head(server.path("/about")).status_int == 200
    refused = server.http.get(server.path("/about?x=1"), status=400)
    assert refused.content_type == "text/html"
    assert server.http.post(server.path("/about"), status=405).headers["Allow"] == "GET"
    assert not [name for name in page.headers if name.startswith("Access-Control")]


def test_an_endpoint_of_a_plugin_answers_programs(server: Server) -> None:
    """includeme, Q-01 to Q-04: each of its methods, errors in JSON, and CORS as it says."""
    path = server.path("/beacon")
    assert server.http.get(path).json == {"method": "GET"}
    answer = server.http.post(path, headers=ORIGIN)
    assert answer.json == {"method": "POST"}
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Expose-Headers"] == "Acme-Hint, Retry-After, WWW-Authenticate"
    preflight = server.http.options(path, headers=ORIGIN)
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert "Acme-Trace" in preflight.headers["Access-Control-Allow-Headers"].split(", ")
    refused = server.http.get(f"{path}?x=1", headers=ORIGIN, expect_errors=True)
    assert_json_error(refused, "invalid_request")
    assert refused.headers["Access-Control-Allow-Origin"] == "*"
    assert server.events()[-1]["type"] == "request.refused"
    assert server.http.put(path, status=405).headers["Allow"] == "GET, POST"


def test_the_metadata_names_an_endpoint_of_a_plugin(server: Server) -> None:
    """A-04: below the path of the issuer."""
    path = server.application.parts.settings.issuer_path
    members = server.http.get(f"/.well-known/oauth-authorization-server{path}").json
    assert members["acme_beacon_endpoint"] == f"{server.issuer}/beacon"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"path": "/oauth/token"}, "takes has the path of token: /oauth/token"),
        ({"metadata": "token_endpoint"}, "takes is token_endpoint in the metadata, as token is"),
    ],
)
def test_an_endpoint_cannot_take_the_place_of_another(
    make_server: MakeServer, fields: dict[str, str], problem: str
) -> None:
    """includeme: the start stops, naming both."""
    with pytest.raises(
        SettingsError, match=f"plugin takes failed in includeme: ConfigurationError: {problem}"
    ):
        make_server(with_plugin(Takes, fields))


@pytest.mark.parametrize("member", ["issuer", "scopes_supported"])
def test_an_endpoint_cannot_take_another_member_of_the_metadata(make_server: MakeServer, member: str) -> None:
    """A-03, T143: the start stops, naming the member."""
    with pytest.raises(SettingsError, match=f"an endpoint is called {member} in the metadata"):
        make_server(with_plugin(Takes, {"metadata": member}))


def test_an_endpoint_may_be_where_one_of_ours_is_switched_off(make_server: MakeServer) -> None:
    without = with_plugin(
        Takes,
        {"path": "/oauth/register", "metadata": "registration_endpoint"},
        without=("registration_open",),
    )
    server = make_server(without)
    assert server.http.get("/oauth/register").status_int == 200
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["registration_endpoint"] == f"{server.issuer}/oauth/register"
