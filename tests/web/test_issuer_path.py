"""An issuer with a path, such as one tenant of several behind one host: the same stories, all below it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from webtest import TestResponse

from authserver.testing.server import REDIRECT_URI, SETTINGS, Server, forged, form_with, query_of
from authserver.testing.stories import sign_in_at

MakeServer = Callable[..., Server]
ISSUER = "https://as.example/tenant"
WELL_KNOWN = "/.well-known/oauth-authorization-server/tenant"


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server below /tenant, with the playground; one for all these stories."""
    path = tmp_path_factory.mktemp("tenant") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    plugins = f"{SETTINGS['authserver.plugins']} playground"
    server = Server(f"sqlite:///{path}", {"authserver.issuer": ISSUER, "authserver.plugins": plugins})
    server.add_user("ann")
    yield server
    server.close()


def own_addresses(page: TestResponse) -> list[str]:
    """Every address in a page."""
    found: list[str] = re.findall(r'\s(?:href|src|action)="([^"#]+)"', page.text)
    return found


def test_the_metadata_is_between_host_and_path(server: Server) -> None:
    """A-05: and every address in it is below the path."""
    members = server.http.get(WELL_KNOWN).json
    assert members["issuer"] == ISSUER
    addresses = [members[name] for name in members if name.endswith(("_endpoint", "_uri"))]
    assert len(addresses) == 6
    for address in addresses:
        assert address.startswith(f"{ISSUER}/oauth/")
        assert server.http.get(urlsplit(address).path, expect_errors=True).status_int != 404


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/",
        "/.well-known/oauth-authorization-server/other",
        "/.well-known/oauth-authorization-server/tenant/",
        "/.well-known/oauth-authorization-server/tenant/more",
        "/.well-known/oauth-authorization-server/Tenant",
        "/.well-known/openid-configuration/other",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
        "/other/.well-known/openid-configuration",
        "/tenant/.well-known/oauth-authorization-server",
        "/oauth/token",
        "/oauth/authorize",
        "/oauth/jwks",
        "/login",
        "/playground",
        "/static/style.css",
        "/health/live",
        "/",
        "/tenantx/login",
        "/tenant/tenant/login",
    ],
)
def test_another_path_is_not_found(path: str, server: Server) -> None:
    """A-07: 404 for what is not this issuer's, never its document or page."""
    answer = server.http.get(path, expect_errors=True)
    assert answer.status_int == 404
    assert "token_endpoint" not in answer.text


def test_the_whole_code_flow_runs_below_the_path(server: Server) -> None:
    """A-03, ISS-01: sign-in, consent, code, tokens, refresh; the issuer is the same to the byte everywhere."""
    client, secret = server.add_client()
    browser = server.browser()
    to_login = browser.get(server.authorization_url(client))
    assert to_login.location.startswith(f"{ISSUER}/login?request=")
    form = form_with(to_login.follow(), "username")
    assert form.action == f"{ISSUER}/login"
    form["username"], form["password"] = "ann", "correct horse battery staple"
    to_consent = form.submit()
    assert to_consent.location.startswith(f"{ISSUER}/oauth/consent?request=")
    page = to_consent.follow()
    assert form_with(page, "scope").action == f"{ISSUER}/oauth/consent"
    to_client = server.consent(page)
    assert to_client.location.startswith(f"{REDIRECT_URI}?")
    answer = query_of(to_client)
    assert (answer["iss"], answer["state"]) == (ISSUER, "xyz")
    tokens = server.redeem(client, secret, answer["code"]).json
    assert server.claims(tokens["access_token"])["iss"] == ISSUER
    renewed = server.refresh(client, secret, tokens["refresh_token"]).json
    assert server.claims(renewed["access_token"])["iss"] == ISSUER


def test_errors_and_challenges_name_the_issuer(server: Server) -> None:
    """ISS-01, ISS-02: a redirected error, and the realm of a 401."""
    client, _ = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    error = query_of(browser.get(server.authorization_url(client, scope="no.such.scope")))
    assert (error["error"], error["iss"]) == ("invalid_scope", ISSUER)
    refused = server.token(client, forged("as_secret_"), grant_type="client_credentials")
    assert refused.headers["WWW-Authenticate"] == f'Basic realm="{ISSUER}"'


def test_every_address_of_every_page_lies_below_the_path(server: Server) -> None:
    """A-04: links, forms, styles and scripts; each of our own answers."""
    client, _ = server.add_client()
    browser = server.browser()
    pages = [browser.get("/tenant/"), browser.get("/tenant/login")]
    server.sign_in(browser)
    pages += [
        browser.get("/tenant/"),
        browser.get("/tenant/logout"),
        browser.get("/tenant/account").follow(),
        browser.get("/tenant/account/sessions"),
        browser.get("/tenant/account/password"),
        browser.get("/tenant/account/sign-out-everywhere"),
        browser.get("/tenant/playground"),
        browser.get(server.authorization_url(client)),
        browser.get("/tenant/oauth/authorize", expect_errors=True),
        browser.get("/tenant/nowhere", expect_errors=True),
    ]
    found = {address for page in pages for address in own_addresses(page)}
    assert len(found) > 5
    for address in found:
        parts = urlsplit(address)
        assert parts.netloc in ("", "as.example")
        assert parts.path.startswith("/tenant/") or parts.path in (WELL_KNOWN, "/tenant"), address
        answer = browser.get(parts.path, expect_errors=True)
        assert answer.status_int in (200, 400, 403), address


def test_signing_out_stays_below_the_path(server: Server) -> None:
    browser = server.browser()
    server.sign_in(browser)
    form = browser.get("/tenant/logout").forms[0]
    assert form.action == f"{ISSUER}/logout"
    assert form.submit().status_int == 200
    assert "You are signed in as" not in browser.get("/tenant/").text


def test_the_cookies_are_bound_to_the_host(server: Server) -> None:
    """E-17: `__Host-` demands the path /, whatever the path of the issuer."""
    page = server.http.get("/tenant/login")
    names = {"__Host-authserver-request-": page, "__Host-authserver-session=": sign_in_at(page)}
    for name, answer in names.items():
        (header,) = [each for each in answer.headers.getall("Set-Cookie") if each.startswith(name)]
        attributes = {part.strip().lower() for part in header.split(";")[1:]}
        assert attributes >= {"path=/", "secure", "httponly", "samesite=lax"}
        assert not any(part.startswith("domain") for part in attributes)


def test_the_playground_and_its_files_are_below_the_path(server: Server) -> None:
    """Its page tells the script where the metadata of this very issuer is."""
    page = server.http.get("/tenant/playground")
    assert 'data-metadata-path="/.well-known/oauth-authorization-server/tenant"' in page.text
    assert f'data-issuer="{ISSUER}"' in page.text
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    for name in ("playground.js", "playground.css"):
        assert server.http.get(f"/tenant/playground/static/{name}").status_int == 200
        assert server.http.get(f"/playground/static/{name}", expect_errors=True).status_int == 404


def test_registration_and_cross_origin_work_below_the_path(server: Server) -> None:
    """Q-01: the route table moves as a whole."""
    server.add_client()
    answer = server.http.post_json(
        "/tenant/oauth/register", {"redirect_uris": [REDIRECT_URI]}, headers={"Origin": "https://x.example"}
    )
    assert answer.status_int == 201
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    preflight = server.http.options("/tenant/oauth/token", headers={"Origin": "https://client.example"})
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://client.example"


def test_probes_reach_health_below_the_path_by_address(server: Server) -> None:
    for name in ("live", "ready"):
        by_address = {"HTTP_HOST": "10.0.0.7:6543", "wsgi.url_scheme": "http"}
        assert server.http.get(f"/tenant/health/{name}", extra_environ=by_address).status_int == 200


@pytest.mark.parametrize(
    "issuer", ["https://as.example/a/b.c", "https://as.example:8443/tenant", "http://localhost:6543/t"]
)
def test_other_shapes_of_a_path_work_too(issuer: str, make_server: MakeServer) -> None:
    """A-02, A-05: several segments, a port, a development issuer; a token request from end to end."""
    server = make_server({"authserver.issuer": issuer})
    path = urlsplit(issuer).path
    members = server.http.get(f"/.well-known/oauth-authorization-server{path}").json
    assert members["token_endpoint"] == f"{issuer}/oauth/token"
    client, secret = server.add_client(grant_types=("client_credentials",))
    answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert server.claims(answer.json["access_token"])["iss"] == issuer
