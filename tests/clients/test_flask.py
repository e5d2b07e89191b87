"""A web application on Flask and Authlib, as the guide of Authlib writes one, on the same computer as the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import pytest
from authlib.integrations.flask_client import OAuth
from flask import Flask, url_for
from werkzeug.serving import make_server

from authserver.testing.live import free_port, live_server
from authserver.testing.server import Server
from tests.clients.conftest import Person
from tests.features.openid_steps import ATTRIBUTES, ON


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaskClient:
    """The application, where it is, the tokens that it got, and what it was told of their people."""

    address: str
    client_id: str
    tokens: list[dict[str, Any]]
    people: list[Mapping[str, Any]] = field(default_factory=list)


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    with live_server(sqlite_url) as server:
        server.add_user("ann")
        yield server


@contextmanager
def running_client(server: Server, document: str, *scopes: str) -> Iterator[FlaskClient]:
    """The application keeps who is signing in in its cookie `session`, and browsers know no ports of cookies."""
    port = free_port()
    address = f"http://localhost:{port}"
    client, secret = server.add_client(
        redirect_uris=(f"{address}/callback",), application_type="native", scopes=scopes
    )
    running = FlaskClient(address=address, client_id=client.client_id, tokens=[])
    application = Flask("client")
    application.secret_key = "not a secret"
    oauth = OAuth(application)
    oauth.register(
        "authserver",
        client_id=client.client_id,
        client_secret=secret,
        server_metadata_url=f"{server.issuer}/.well-known/{document}",
        client_kwargs={"scope": " ".join(scopes), "code_challenge_method": "S256"},
    )

    @application.get("/")
    def begin() -> Any:
        return oauth.authserver.authorize_redirect(url_for("callback", _external=True))

    @application.get("/callback")
    def callback() -> str:
        running.tokens.append(oauth.authserver.authorize_access_token())
        if "openid" in scopes:
            running.people.append(oauth.authserver.userinfo())
        return "Done."

    httpd = make_server("localhost", port, application, threaded=True)
    thread = Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield running
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def flask_client(server: Server) -> Iterator[FlaskClient]:
    with running_client(server, "oauth-authorization-server", "profile") as client:
        yield client


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


def test_a_flask_client_signs_a_person_in(sqlite_url: str) -> None:
    """OIDC-02, OIDC-09, OIDC-22, OIDC-28, OIDC-49: it finds all from the issuer, and checks signature, nonce and hashes."""
    with live_server(sqlite_url, ON) as server:
        user = server.add_user("ann", attributes=ATTRIBUTES)
        with running_client(server, "openid-configuration", "openid", "email", "profile") as client:
            person = Person(server.issuer)
            begun = person.http.get(client.address, allow_redirects=False, timeout=10)
            came = person.http.get(person.authorize(begun.headers["Location"]), timeout=10)
            assert (came.status_code, came.text) == (200, "Done.")
        (tokens,), (told,) = client.tokens, client.people
        # What Authlib read in the ID token.
        said = tokens["userinfo"]
        assert (said["sub"], said["aud"], said["iss"]) == (user.user_id, client.client_id, server.issuer)
        assert said["nonce"] and said["at_hash"]
        assert told["sub"] == user.user_id
        assert (told["name"], told["email"], told["email_verified"]) == ("Ann", "ann@example.com", True)
