"""A web application on Flask and Authlib, as the guide of Authlib writes one, on the same computer as the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest
from authlib.integrations.flask_client import OAuth
from flask import Flask, url_for
from werkzeug.serving import make_server

from authserver.testing.live import free_port, live_server
from authserver.testing.server import Server
from tests.clients.conftest import Person


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaskClient:
    """The application, where it is, and the tokens that it got."""

    address: str
    client_id: str
    tokens: list[dict[str, Any]]


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    with live_server(sqlite_url) as server:
        server.add_user("ann")
        yield server


@pytest.fixture
def flask_client(server: Server) -> Iterator[FlaskClient]:
    """The application keeps who is signing in in its cookie `session`, and browsers know no ports of cookies."""
    port = free_port()
    address = f"http://localhost:{port}"
    client, secret = server.add_client(redirect_uris=(f"{address}/callback",), application_type="native")
    tokens: list[dict[str, Any]] = []
    application = Flask("client")
    application.secret_key = "not a secret"
    oauth = OAuth(application)
    oauth.register(
        "authserver",
        client_id=client.client_id,
        client_secret=secret,
        server_metadata_url=f"{server.issuer}/.well-known/oauth-authorization-server",
        client_kwargs={"scope": "profile", "code_challenge_method": "S256"},
    )

    @application.get("/")
    def begin() -> Any:
        return oauth.authserver.authorize_redirect(url_for("callback", _external=True))

    @application.get("/callback")
    def callback() -> str:
        tokens.append(oauth.authserver.authorize_access_token())
        return "Done."

    httpd = make_server("localhost", port, application, threaded=True)
    thread = Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield FlaskClient(address=address, client_id=client.client_id, tokens=tokens)
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_flask_client_on_another_port_of_localhost_gets_its_token(server: Server, flask_client) -> None:
    """B113: its cookie session is still there when the browser comes back (RFC 6265, 8.5)."""
    person = Person(server.issuer)
    begun = person.http.get(flask_client.address, allow_redirects=False, timeout=10)
    kept = person.http.cookies["session"]
    answer = person.authorize(begun.headers["Location"])
    assert person.http.cookies["session"] == kept
    came = person.http.get(answer, timeout=10)
    assert (came.status_code, came.text) == (200, "Done.")
    (tokens,) = flask_client.tokens
    claims = server.claims(tokens["access_token"])
    assert claims["client_id"] == flask_client.client_id
