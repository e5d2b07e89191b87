"""`authserver.admin_networks`: from elsewhere there is nothing below `/admin` (T141)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from authserver.testing.server import SETTINGS, Server
from tests.features.admin_api_steps import settings as with_admin_api

INSIDE, OUTSIDE, PROXY = "10.1.2.3", "192.0.2.1", "10.9.9.9"
NETWORKS = "10.1.0.0/16 2001:db8:7::/48"
METADATA = "/.well-known/oauth-protected-resource/admin/api"


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    settings = with_admin_api(**{"authserver.admin_networks": NETWORKS, "authserver.trusted_proxies": PROXY})
    settings["authserver.plugins"] = f"{settings['authserver.plugins']} admin_console"
    with closing(Server(sqlite_url, settings)) as server:
        yield server


def status(server: Server, path: str, peer: str, method: str = "GET", **headers: str) -> int:
    """Of the answer to a request from this address."""
    answer = server.http.request(
        path,
        method=method,
        headers=headers,
        environ={**server.http.extra_environ, "REMOTE_ADDR": peer},
        expect_errors=True,
    )
    return int(answer.status_int)


def test_everything_of_operators_is_hidden(server: Server) -> None:
    """Every method of every path below `/admin`, also those that the endpoints do not have."""
    routes = [route for path, route in server.wsgi.registry.paths.items() if path.startswith("/admin")]
    assert len(routes) > 60
    for route in routes:
        path = route.path.replace("{", "").replace("}", "")
        for method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"):
            assert status(server, path, OUTSIDE, method) == 404
        assert status(server, path, INSIDE, route.methods[0]) in {303, 400, 401, 403, 415}
    assert status(server, METADATA, OUTSIDE) == 404
    assert status(server, METADATA, INSIDE) == 200


def test_an_administrator_finds_nothing_from_elsewhere(server: Server) -> None:
    server.add_user("ada", groups=("authserver-admins",))
    browser = server.browser()
    server.sign_in(browser, "ada")
    assert browser.get("/admin", extra_environ={"REMOTE_ADDR": INSIDE}).status_int == 200
    assert browser.get("/admin", extra_environ={"REMOTE_ADDR": OUTSIDE}, status=404)
    assert browser.get("/account/apps", extra_environ={"REMOTE_ADDR": OUTSIDE}).status_int == 200


@pytest.mark.parametrize(
    ("peer", "is_inside"),
    [
        ("10.1.255.255", True),
        ("10.2.0.0", False),
        ("::ffff:10.1.0.1", True),
        ("2001:db8:7::1", True),
        ("2001:db8:8::1", False),
        ("", False),
        ("unix", False),
    ],
)
def test_it_counts_where_a_request_comes_from(server: Server, peer: str, is_inside: bool) -> None:
    assert (status(server, "/admin", peer) != 404) is is_inside


@pytest.mark.parametrize(
    ("peer", "told", "is_inside"),
    [
        (PROXY, INSIDE, True),
        (PROXY, OUTSIDE, False),
        (PROXY, f"{INSIDE}, {OUTSIDE}", False),
        (OUTSIDE, INSIDE, False),
    ],
    ids=["inside", "outside", "a-lie-in-front", "no-proxy-of-ours"],
)
def test_a_proxy_of_ours_tells_the_address(server: Server, peer: str, told: str, is_inside: bool) -> None:
    headers = {"X-Forwarded-For": told, "X-Forwarded-Proto": "https"}
    assert (status(server, "/admin", peer, **headers) != 404) is is_inside


@pytest.mark.parametrize(
    "path", ["//admin", "/admin/", "/admin;a", "/admin%2f", "/Admin", "/x/../admin", "/admin/api;a/clients"]
)
def test_another_spelling_reaches_nothing(server: Server, path: str) -> None:
    """T141: endpoints have one spelling, from everywhere."""
    assert status(server, path, OUTSIDE) == status(server, path, INSIDE) == 404


def test_everything_else_is_for_everybody(server: Server) -> None:
    for path in ("/login", "/account", "/oauth/jwks", "/.well-known/oauth-authorization-server"):
        assert status(server, path, OUTSIDE) in {200, 303}
    assert status(server, "/administrators", OUTSIDE) == status(server, "/administrators", INSIDE) == 404


def test_without_the_setting_nothing_is_hidden(sqlite_url: str) -> None:
    settings = {**SETTINGS, "authserver.plugins": f"{SETTINGS['authserver.plugins']} admin_console"}
    with closing(Server(sqlite_url, settings)) as server:
        assert status(server, "/admin", OUTSIDE) == 303
