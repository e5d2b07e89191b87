"""The endpoint of the README, asked for real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from inspect import getsource
from pathlib import Path

import pytest
from listener import SECRET

from authserver.testing.server import Server
from authserver_webhook_policy import example

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the example listens."""
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    with ThreadingHTTPServer(("127.0.0.1", 0), example.Endpoint) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_the_readme_shows_the_example_as_it_is() -> None:
    assert getsource(example) in README.read_text(encoding="utf-8")


def test_the_example_narrows_what_machines_may_have(url: str, make_server: Callable[..., Server]) -> None:
    server = make_server(hooks="scope_decision", url=url)
    client, secret = server.add_client(
        grant_types=("client_credentials",), scopes=("files.read", "files.write")
    )
    answer = server.token(client, secret, grant_type="client_credentials", scope="files.read files.write")
    assert answer.json["scope"] == "files.read"


def test_the_example_refuses_who_does_not_know_the_secret(
    url: str, make_server: Callable[..., Server]
) -> None:
    server = make_server(
        hooks="scope_decision", url=url, secret="whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
    )
    client, secret = server.add_client(grant_types=("client_credentials",))
    answer = server.token(client, secret, grant_type="client_credentials")
    assert answer.json["error"] == "server_error"
