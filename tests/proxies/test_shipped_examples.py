"""Through each shipped configuration: the right address and scheme, whatever the client writes."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.proxies.conftest import CLIENT, HOST, Edge, pserve, read, request, statuses

NAMES = ("nginx", "haproxy", "chain", "caddy")
SPOOFED = {
    "X_Forwarded_For": "6.6.6.6, 127.0.0.1",
    "X_Forwarded_Proto": "http",
    "X_Forwarded_Host": "evil.example",
    "X_Forwarded_Port": "80",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=http",
    "X_Real_Ip": "6.6.6.6",
}


def source_of(edge: Edge, name: str, **headers: str) -> list[str]:
    """The address that the event of a refused token request has."""
    before = {event["event_id"] for event in edge.server.events("token.refused")}
    form = urlencode(
        {"grant_type": "client_credentials", "client_id": "unknown", "client_secret": "x"}
    ).encode()
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    answer = edge.front(name).ask(request("POST", "/oauth/token", form, source_headers={**kind, **headers}))
    assert statuses(answer) == [401], answer
    return [
        event["source"] for event in edge.server.events("token.refused") if event["event_id"] not in before
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_address_is_the_clients(edge: Edge, name: str) -> None:
    """T138: in the events, of one proxy and of two in a row, whatever headers the client itself sends."""
    assert source_of(edge, name) == [CLIENT]
    assert source_of(edge, name, **SPOOFED) == [CLIENT]


@pytest.mark.parametrize("name", NAMES)
def test_the_host_and_the_scheme_are_the_issuers(edge: Edge, name: str) -> None:
    """T138, Q-09."""
    answer = edge.front(name).get("/.well-known/oauth-authorization-server", **SPOOFED)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [200]
    assert json.loads(body)["issuer"] == f"https://{HOST}"
    assert b"strict-transport-security" in head.lower()
    assert b"evil" not in answer
    assert b"waitress" not in answer


def test_without_a_proxy_nothing_but_health_is_answered(edge: Edge) -> None:
    """Q-09, Q-10: a stranger who reaches the port itself cannot say that TLS was terminated."""
    assert statuses(
        edge.direct.get("/.well-known/oauth-authorization-server", X_Forwarded_Proto="https")
    ) == [400]
    assert statuses(edge.direct.get("/health/ready")) == [200]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nginx"])
def test_another_host_is_refused(edge: Edge, name: str) -> None:
    """T138: by this server, or by a proxy that knows only its own hosts."""
    data = request("GET", "/.well-known/oauth-authorization-server").replace(HOST.encode(), b"evil.example")
    answer = edge.front(name).ask(data)
    assert statuses(answer) in ([400], [421], [200])
    assert b'"issuer"' not in answer


def test_a_proxy_may_connect_through_a_unix_socket(migrated_sqlite_file: Path, tmp_path: Path) -> None:
    """T138: it is trusted by the word `unix`, and has no address itself."""
    folder = Path(
        tempfile.mkdtemp(prefix="authserver-unix-")
    )  # pytest's folders may be too long for a socket
    shutil.copy(migrated_sqlite_file, tmp_path / "authserver.db")
    settings = {
        "authserver.issuer": f"https://{HOST}",
        "authserver.database_url": f"sqlite:///{tmp_path}/authserver.db",
        "authserver.trusted_proxies": "unix",
    }
    path = "/.well-known/oauth-authorization-server"
    with pserve(tmp_path, settings, unix=folder / "socket"):
        for headers, status in (
            ({"X_Forwarded_For": CLIENT, "X_Forwarded_Proto": "https"}, 200),
            ({"X_Forwarded_For": "unknown", "X_Forwarded_Proto": "https"}, 400),
            ({}, 400),
        ):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"{folder}/socket-6543")
                connection.sendall(request("GET", path, source_headers=headers))
                assert statuses(read(connection, 10)) == [status]
    shutil.rmtree(folder)
