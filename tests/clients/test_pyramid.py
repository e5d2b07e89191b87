"""A web application on Pyramid that signs people in with Authlib's client, as docs/openid-recipes.rst writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from authserver.testing.live import free_port, live_server
from authserver.testing.server import Server
from tests.clients.conftest import Person
from tests.features.openid_steps import ATTRIBUTES, ON

PAGE = Path(__file__).parents[2] / "docs" / "openid-recipes.rst"


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tests need no access log."""


def recipe() -> dict[str, Any]:
    """What the code of the page defines."""
    (code,) = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    exec(compile(re.sub(r"^   ", "", code, flags=re.MULTILINE), str(PAGE), "exec"), names)
    return names


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    with live_server(sqlite_url, ON) as server:
        server.add_user("ann", attributes=ATTRIBUTES)
        yield server


@pytest.fixture
def address(server: Server) -> Iterator[str]:
    """Where the application is."""
    port = free_port()
    address = f"http://localhost:{port}"
    client, secret = server.add_client(
        redirect_uris=(f"{address}/callback",),
        application_type="native",
        scopes=("openid", "profile", "email"),
        details={"post_logout_redirect_uris": [f"{address}/"]},
    )
    application = recipe()["make_app"](server.issuer, client.client_id, secret, "not a secret")
    httpd = make_server("localhost", port, application, handler_class=Quiet)
    thread = Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield address
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_pyramid_application_signs_a_person_in_and_out(server: Server, address: str) -> None:
    """OIDC-02, OIDC-22, OIDC-28, OUT-01: issuer, audience, nonce, signature and hash are checked by Authlib and joserfc."""
    person = Person(server.issuer)
    begun = person.http.get(f"{address}/sign-in", allow_redirects=False, timeout=10)
    came = person.http.get(person.authorize(begun.headers["Location"]), timeout=10)
    assert (came.status_code, came.text) == (200, "Hello, Ann <ann@example.com>")
    assert person.http.get(f"{address}/", timeout=10).text == "Hello, Ann <ann@example.com>"
    # Here, too: the session has ended.
    left = person.http.get(f"{address}/sign-out", timeout=10)
    assert (left.url, left.text) == (f"{address}/", "Nobody is signed in.")
    again = person.http.get(f"{address}/sign-in", timeout=10)
    assert again.url.startswith(f"{server.issuer}/login")
