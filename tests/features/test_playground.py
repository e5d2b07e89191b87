"""The playground as the server sees it: one page and its files, for development alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile

import pytest

from authserver.settings import SettingsError
from authserver.testing.live import with_playground
from authserver.testing.server import SETTINGS, Server, query_of
from authserver.testing.stories import records


@pytest.fixture(scope="module")
def database(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("playground") / "authserver.db"
    copyfile(migrated_sqlite_file, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[Server]:
    server = Server(
        database, with_playground({"authserver.plugin.playground.resource": "https://api.example/"})
    )
    yield server
    server.close()


def test_the_page_names_its_client_and_its_server(server: Server) -> None:
    """What its script starts from: issuer, metadata, client_id, and what to ask for."""
    page = server.http.get("/playground")
    root = page.html.find(id="playground")
    assert root["data-issuer"] == server.issuer
    assert root["data-metadata-path"] == "/.well-known/oauth-authorization-server"
    assert root["data-client-id"] == "playground"
    assert page.html.find(id="scope")["value"] == "profile files.read"
    assert page.html.find(id="resource")["value"] == "https://api.example/"
    assert server.http.get(root["data-metadata-path"]).json["issuer"] == server.issuer


def test_its_script_may_speak_to_this_server_alone(server: Server) -> None:
    """E-06, Q-06, Q-07: the policy of every page, widened to scripts and requests of our own; nothing inline."""
    page = server.http.get("/playground")
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert {
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    } <= set(policy)
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    scripts = page.html.find_all("script")
    assert len(scripts) == 1 and scripts[0]["src"].startswith("/") and not scripts[0].text.strip()
    assert not page.html.find_all(style=True)
    sheets = [link["href"] for link in page.html.find_all("link", rel="stylesheet")]
    for path in (scripts[0]["src"], *sheets):
        assert server.http.get(path).headers["X-Content-Type-Options"] == "nosniff"


def test_the_sign_in_page_runs_no_script_of_it(server: Server) -> None:
    """Q-07: what the playground may do is its own."""
    policy = server.http.get("/login").headers["Content-Security-Policy"]
    assert (
        "script-src" in policy
        and "playground" not in policy
        and "'self'" not in policy.partition("script-src ")[2].partition(";")[0]
    )
    assert "connect-src" not in policy


def test_the_answer_in_the_address_is_left_to_the_script(server: Server) -> None:
    """T094: nothing of the query comes back in the page, and nothing is stored."""
    before = records(server)
    query = {"code": "<b>reflected</b>", "state": "'\"><script>reflected", "error": "reflected"}
    page = server.http.get("/playground", query)
    assert "reflected" not in page.text
    assert page.html.find_all("script") == page.html.find_all("script", type="module")
    assert records(server) == before


def test_the_front_page_leads_to_it(server: Server) -> None:
    """A newcomer finds it."""
    assert f"{server.issuer}/playground" in server.http.get("/").text


def test_its_client_is_an_ordinary_one(server: Server) -> None:
    """The flow that the script runs, request by request: nothing on the server knows the playground."""
    server.add_user("ann")
    client, _ = server.add_client(
        client_id="playground",
        redirect_uris=(f"{server.issuer}/playground",),
        token_endpoint_auth_method="none",
        application_type="native",
    )
    browser = server.browser()
    code = server.code(client, browser)
    landed = browser.get("/playground", {"code": code, "state": "xyz", "iss": server.issuer})
    assert code not in landed.text
    tokens = server.redeem(client, None, code, redirect_uri=client.redirect_uris[0]).json
    assert server.refresh(client, None, tokens["refresh_token"]).status_int == 200
    assert (
        server.redeem(client, None, code, redirect_uri=client.redirect_uris[0]).json["error"]
        == "invalid_grant"
    )
    assert query_of(browser.get(server.authorization_url(client, scope="nope")))["error"] == "invalid_scope"


def test_it_works_below_the_path_of_an_issuer(database: str) -> None:
    """RFC 8414, 3.1: page and files move with the issuer, the metadata's path goes between host and path."""
    server = Server(database, with_playground({"authserver.issuer": "https://as.example/tenant"}))
    page = server.http.get("/tenant/playground")
    root = page.html.find(id="playground")
    assert root["data-metadata-path"] == "/.well-known/oauth-authorization-server/tenant"
    assert server.http.get(page.html.find("script")["src"]).status_int == 200
    assert "https://as.example/tenant/playground" in server.http.get("/tenant/").text
    server.http.get("/playground", status=404)
    server.close()


def test_without_its_line_it_is_not_there(database: str) -> None:
    """Only what the INI names is loaded."""
    server = Server(database)
    server.http.get("/playground", status=404)
    assert "/playground" not in server.http.get("/").text
    server.close()


def test_production_refuses_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page for learning has no place there; the key and the plugin are named."""
    monkeypatch.setenv("SECRET_KEYS", SETTINGS["authserver.secret_keys"])
    production = {
        "authserver.environment": "production",
        "authserver.secret_keys": "env:SECRET_KEYS",
        "authserver.plugins": "playground",
    }
    with pytest.raises(SettingsError, match=r"authserver\.plugins: playground"):
        Server(database, production)
