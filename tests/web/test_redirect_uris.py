"""Redirect URIs: which may be registered, and which request is answered at which of them."""

from __future__ import annotations

import pytest

from authserver.testing.server import Server, with_plugin
from authserver.testing.stories import (
    assert_code,
    assert_json_error,
    assert_page_error,
    records,
    register,
    sign_in_at,
    signed_in,
)


@pytest.fixture
def server(shared_server: Server) -> Server:
    return shared_server


@pytest.mark.parametrize(
    "uri", ["http://client.example/cb", 'https://client.example/<">', "javascript:alert(1)"]
)
def test_a_uri_that_cannot_be_trusted_is_refused(server: Server, uri: str) -> None:
    """C-08, C-10, B-06, T001: at registration in JSON, at authorization on a page that leads nowhere."""
    body = {"redirect_uris": [uri], "token_endpoint_auth_method": "none"}
    answer = server.http.post_json(server.path("/oauth/register"), body, status="*")
    assert_json_error(answer, "invalid_redirect_uri")
    client, _ = server.add_client()
    for browser in (signed_in(server), server.browser()):
        before = records(server)
        answer = browser.get(server.authorization_url(client, redirect_uri=uri), status="*")
        assert_page_error(answer, supplied=uri)
        assert records(server) == before


def test_a_native_app_with_an_https_uri_stays_public(server: Server) -> None:
    """J-16, C-14: the client type is stored, and a claimed https URI does not make it confidential."""
    client = register(server, application_type="native", redirect_uris=["https://app.example/cb"])
    assert client.is_public
    assert (client.application_type, client.secrets) == ("native", ())
    answer = signed_in(server).get(server.authorization_url(client))
    assert_code(server.consent(answer), redirect_uri="https://app.example/cb")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://App.Example.com/cb", "app.example.com"),
        ("https://app.example.com:443/cb", "app.example.com"),
        ("https://Pos_Integration.example/cb", "pos_integration.example"),
        ("https://xn--pple-43d.example/cb", "xn--pple-43d.example"),
        ("https://LOCALHOST:5001/cb", "localhost"),
        ("com.example.app://accounts.google.com/cb", "com.example.app"),
    ],
)
def test_pages_show_the_host_in_lower_case(server: Server, uri: str, shown: str) -> None:
    """B027, C-16, E-09: sign-in and consent name one and the same; an application by its scheme."""
    client = register(server, redirect_uris=[uri])
    page = server.browser().get(server.authorization_url(client)).follow()
    for answer in (page, sign_in_at(page).follow()):
        assert f">{shown}</bdi>" in answer.text
        assert "accounts.google.com" not in answer.text
        assert "App.Example" not in answer.headers["Content-Security-Policy"]


def test_a_loopback_uri_without_a_path_goes_through_the_whole_flow(server: Server) -> None:
    """B010, C-02, C-04, C-05: registered without port and path, redeemed with the port of the request."""
    client = register(server, redirect_uris=["http://localhost"])
    assert (client.redirect_uris, client.application_type) == (("http://localhost",), "native")
    uri = "http://localhost:40123"
    page = server.browser().get(server.authorization_url(client, redirect_uri=uri)).follow()
    code = assert_code(server.consent(sign_in_at(page).follow()), redirect_uri=uri)
    assert server.redeem(client, None, code, redirect_uri=uri).status_int == 200


# ---- Private-use schemes without a period ----------------------------------------------------------

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"


@pytest.fixture
def with_preset(make_server) -> Server:
    server = make_server(with_plugin("mcp_clients", {}))
    server.add_user("ann")
    return server


def test_a_uri_that_an_operator_allows_goes_through_the_whole_flow(with_preset: Server) -> None:
    """C-16, K-26: the page names the application and no host, and asks each time."""
    client = register(with_preset, redirect_uris=[CURSOR, "http://localhost:8787/callback"])
    browser = signed_in(with_preset)
    for _ in range(2):
        page = browser.get(with_preset.authorization_url(client, redirect_uri=CURSOR))
        assert page.status_int == 200
        assert "an app on this device" in page.text
        assert ">cursor</bdi>" in page.text
        assert "anysphere" not in page.text
        code = assert_code(with_preset.consent(page), redirect_uri=CURSOR)
        assert with_preset.redeem(client, None, code, redirect_uri=CURSOR).status_int == 200


def test_an_allowed_uri_ends_with_the_line_that_allowed_it(with_preset: Server, make_server) -> None:
    """C-16, K-26: the floor holds for clients that are registered already."""
    client = register(with_preset, redirect_uris=[CURSOR])
    without = Server(with_preset.ini["authserver.database_url"])
    answer = signed_in(without).get(without.authorization_url(client), status="*")
    assert_page_error(answer, supplied=CURSOR)
    (event,) = without.events("authorization.refused")
    assert event["reason"] == "private-use-not-allowed"
    without.close()
