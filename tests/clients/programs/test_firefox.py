"""Debian's Firefox, driven by WebDriver BiDi, comes back to a client that sends it on twice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from authserver.testing.server import CHALLENGE
from tests.clients.programs.conftest import path_of

DONE = "example-app://done"


class Client(ThreadingHTTPServer):
    """A client whose callback sends the browser on to another host, and from there to a private-use scheme.

    Attributes:
        visits: the paths and parameters that the browser came with.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ClientHandler)
        self.redirect_uri = f"http://127.0.0.1:{self.server_port}/callback"
        self.onward = f"http://localhost:{self.server_port}/onward"
        self.visits: list[tuple[str, dict[str, str]]] = []


class ClientHandler(BaseHTTPRequestHandler):
    server: Client

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
        onward = {"/callback": self.server.onward, "/onward": DONE}
        if path in onward:
            self.server.visits.append((path, query))
        self.send_response(302 if path in onward else 404)
        if path in onward:
            self.send_header("Location", onward[path])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing to standard error."""


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        thread = Thread(target=client.serve_forever, daemon=True)
        thread.start()
        yield client
        client.shutdown()
        thread.join()


def test_firefox_reaches_a_client_that_sends_it_on_twice(server, npm, node, client):
    """E-06, B048: sign-in, Allow and Deny; whatever the client does with the browser then is its own affair."""
    client_id, _ = server.add_client(
        "--name=Onward", f"--redirect-uri={client.redirect_uri}", "--auth-method=none", "--scope=profile"
    )
    request = {
        "client_id": client_id,
        "response_type": "code",
        "redirect_uri": client.redirect_uri,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    words = [
        word
        for answer in ("deny", "allow")
        for word in (f"{server.issuer}/oauth/authorize?{urlencode({**request, 'state': answer})}", answer)
    ]
    command = [node, str(npm / "firefox.js"), path_of("firefox-esr"), server.password, client.onward, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    paths = [path for path, _ in client.visits]
    assert paths == ["/callback", "/onward"] * 2
    denied, allowed = (query for path, query in client.visits if path == "/callback")
    assert (denied["error"], denied["state"]) == ("access_denied", "deny")
    assert "code" in allowed
    assert allowed["state"] == "allow"
