"""What is sent over a real connection: heads and bodies at their limits, encodings, cookies, media types and credentials."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from waitress.server import create_server

from authserver.limits import MAXIMUM_BODY, MAXIMUM_HEAD
from authserver.testing.server import Server, basic

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


class Wire:
    """Connections to waitress, with the limits of both INI files."""

    def __init__(self, port: int, server: Server) -> None:
        self.port = port
        self.server = server

    def send(self, *pieces: bytes) -> tuple[int, str]:
        """The status and the whole text of what is answered to these bytes; 0 and "" if the connection is cut."""
        answer = b""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        with connection, suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
            while received := connection.recv(65_536):
                answer += received
        return (int(answer.split(b" ", 2)[1]), answer.decode()) if answer else (0, "")

    def head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{self.port}", "Connection: close"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        sent = {"Content-Type": FORM, "Content-Length": str(len(body))}
        sent |= {name.replace("_", "-"): text for name, text in headers.items()}
        return self.send(self.head("POST", path, sent), body)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.send(self.head("GET", path, sent))


@pytest.fixture(scope="module")
def wire(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    path = tmp_path_factory.mktemp("wire") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = Server(f"sqlite:///{path}", {"authserver.issuer": f"http://localhost:{port}"})
    running = create_server(
        server.wsgi,
        sockets=[listener],
        threads=2,
        max_request_body_size=MAXIMUM_BODY,
        max_request_header_size=MAXIMUM_HEAD,
        expose_tracebacks=False,
    )
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    yield Wire(port, server)
    running.close()
    thread.join(5)
    server.close()


def error_of(answer: str) -> str:
    """The `error` of a JSON answer that is one of ours."""
    head, _, body = answer.partition("\r\n\r\n")
    assert "\r\nContent-Type: application/json" in head
    assert "\r\nX-Content-Type-Options: nosniff" in head
    error: str = json.loads(body)["error"]
    return error


def test_a_longer_head_is_refused(wire: Wire) -> None:
    """T137: before anything is parsed. The number is where waitress begins to refuse."""
    without = len(wire.head("GET", "/health/live", {"X-Long": ""}))
    for length, status in ((MAXIMUM_HEAD - 1, 200), (MAXIMUM_HEAD + 1, 431)):
        assert wire.get("/health/live", X_Long="x" * (length - without))[0] == status


def test_a_longer_body_is_refused_unread(wire: Wire) -> None:
    """T136, T137: the number is where waitress begins to refuse."""
    status, answer = wire.post("/oauth/token", b"x" * (MAXIMUM_BODY - 1))
    assert (status, error_of(answer)) == (400, "invalid_request")
    # It may be cut off before it has read that.
    status, answer = wire.post("/oauth/token", b"x" * (MAXIMUM_BODY + 1))
    assert status in (413, 0)
    assert "Traceback" not in answer


def test_the_application_itself_refuses_a_longer_body(wire: Wire) -> None:
    """T136, T137: if the server in front does not; exactly so much is read."""
    headers = {"Host": f"localhost:{wire.port}"}
    for length, status in ((MAXIMUM_BODY, 400), (MAXIMUM_BODY + 1, 413)):
        answer = wire.server.http.post(
            "/oauth/token", b"x" * length, content_type=FORM, headers=headers, expect_errors=True
        )
        assert (answer.status_int, answer.json["error"]) == (status, "invalid_request")


def test_a_chunked_body_has_the_same_limit(wire: Wire) -> None:
    """T137: although it says no length beforehand."""
    head = wire.head("POST", "/oauth/token", {"Content-Type": FORM, "Transfer-Encoding": "chunked"})
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    status, answer = wire.send(head, chunk * 15, b"0\r\n\r\n")
    assert (status, error_of(answer)) == (400, "invalid_request")
    status, _ = wire.send(head, chunk * 17, b"0\r\n\r\n")
    assert status in (413, 0)


def test_a_client_that_waits_to_send_its_body_is_asked_for_it(wire: Wire) -> None:
    """RFC 9110, 10.1.1."""
    body = b"grant_type=x"
    headers = {"Content-Type": FORM, "Content-Length": str(len(body)), "Expect": "100-continue"}
    with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as connection:
        connection.sendall(wire.head("POST", "/oauth/token", headers))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/register"])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "x"])
def test_a_compressed_body_is_not_unpacked(path: str, encoding: str, wire: Wire) -> None:
    """T137; RFC 9110, 15.5.16: 415, and which encoding is taken."""
    kind = JSON if path.endswith("register") else FORM
    body = gzip.compress(b"x" * 1_000_000)
    status, answer = wire.post(path, body, Content_Encoding=encoding, Content_Type=kind)
    assert (status, error_of(answer)) == (415, "invalid_request")
    assert "\r\nAccept-Encoding: identity\r\n" in answer


def test_a_body_that_says_it_is_not_compressed_is_read(wire: Wire) -> None:
    for encoding in ("identity", "Identity", ""):
        status, answer = wire.post("/oauth/token", b"grant_type=x", Content_Encoding=encoding)
        assert (status, error_of(answer)) == (400, "unsupported_grant_type")


def test_a_compressed_form_of_a_page_is_refused_on_a_page(wire: Wire) -> None:
    """T137: with our own words and headers."""
    status, answer = wire.post("/login", gzip.compress(b"x"), Content_Encoding="gzip")
    assert status == 415
    assert "Content-Security-Policy" in answer
    assert "<h1>" in answer


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        f"{FORM}; charset=utf-16",
        f"{FORM}; charset=utf-7",
        f"{FORM}; charset",
        f"{FORM}, {JSON}",
        f"{FORM}; charset=utf-8; charset=utf-16",
        "application/json; charset=utf-16",
        "x" * 10_000,
        "application/x-www-form-urlencoded\t; boundary=\xff",
    ],
)
def test_another_media_type_is_refused_before_the_body_is_parsed(kind: str, wire: Wire) -> None:
    """T083."""
    for path in ("/oauth/token", "/oauth/register"):
        status, answer = wire.post(path, b"\xff\x00%", Content_Type=kind)
        assert (status, error_of(answer)) == (400, "invalid_request")


COOKIES = {
    "many": "; ".join(f"c{number}=x" for number in range(1500)),
    "many of ours": "; ".join(f"authserver-request-{number:022}=x.y" for number in range(300)),
    "huge": "authserver-session=" + "x" * 12_000,
    "twice": "authserver-session=a; authserver-session=b",
    "no equals": "authserver-session; authserver-device; ;;;===",
    "quotes": 'authserver-session="a;b\\"c"; authserver-device="x',
    "control": "authserver-session=a\x01b\x7f; x=\t",
    "high bytes": "authserver-session=\xff\xfe; authserver-device=\xe9.\xe9",
    "device": "authserver-device=" + "A" * 22 + ("." + "B" * 100) * 100,
    "expiry words": "$Version=1; authserver-session=x; $Path=/; expires=now",
}


@pytest.mark.parametrize("cookie", COOKIES.values(), ids=COOKIES)
def test_odd_cookies_are_nobodys(cookie: str, wire: Wire) -> None:
    """T098, T099, T137: nobody is signed in by them, and no page fails."""
    for path in ("/", "/login", "/account"):
        status, answer = wire.get(path, Cookie=cookie)
        assert status in (200, 303, 400), answer[:200]
        assert "Sign out" not in answer


@pytest.mark.parametrize(
    "languages",
    [
        "x" * 10_000,
        ",".join(f"l{number};q=0.{number % 10}" for number in range(1000)),
        "de;q=9999999999999999999999",
        "*;q=nan, \xff",
        "-,--,;;q",
        "de-" + "-".join(["a"] * 2000),
    ],
)
def test_odd_languages_are_not_read(languages: str, wire: Wire) -> None:
    """T137."""
    status, answer = wire.get("/login", Accept_Language=languages)
    assert status == 200
    assert "\r\nContent-Language: " in answer


@pytest.mark.parametrize(
    "query", ["x" * 12_000, "&" * 12_000, "%" * 5_000, "a=b&" * 3_000, "\xff\xfe", "a=%00"]
)
def test_long_and_odd_queries_are_refused(query: str, wire: Wire) -> None:
    """T015, T137: on a page where people send them, and ignored where none is read."""
    assert wire.get(f"/oauth/authorize?{query}")[0] == 400
    if query.isascii():
        assert wire.get(f"/.well-known/oauth-authorization-server?{query}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/" + "a" * 12_000, "/" + "a/" * 6_000, "/%ff%fe", "/login%00", "/oauth/token/" + "%2e" * 4_000]
)
def test_long_and_odd_paths_are_not_found(path: str, wire: Wire) -> None:
    """T015, T137."""
    status, answer = wire.get(path)
    assert status in (400, 404)
    assert "Traceback" not in answer


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


AUTHORIZATIONS = {
    "nothing after it": "Basic",
    "only a space": "Basic ",
    "not base64": "Basic !!!!",
    "no padding": f"Basic {encoded(b'a:bb')[:-1]}" if encoded(b"a:bb").endswith("=") else "Basic YTpi" + "Yg",
    "white space within": "Basic YTpi Yg==",
    "base64url": f"Basic {encoded(bytes([0x61, 0x3A, 0xFB, 0xFF])).replace('/', '_').replace('+', '-')}",
    "bits left over": "Basic YTpiYh==",
    "no colon": f"Basic {encoded(b'nobody')}",
    "no name": f"Basic {encoded(b':secret')}",
    "NUL": f"Basic {encoded(b'nobody:a%00')}",
    "bad escape": f"Basic {encoded(b'nobody:a%zz')}",
    "not UTF-8": f"Basic {encoded(bytes([0x61, 0x3A, 0xFF]))}",
    "a name too long": basic("x" * 201, "as_cs_secret"),
    "huge": f"Basic {encoded(b'a:' + b'x' * 9_000)}",
    "two of them": f"Basic {encoded(b'a:b')}, Basic {encoded(b'c:d')}",
    "Bearer": "Bearer x",
    "BearerX": "BearerX x",
    "Digest": 'Digest username="a"',
}


@pytest.mark.parametrize("authorization", AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
def test_credentials_that_are_not_strictly_basic_are_refused(authorization: str, wire: Wire) -> None:
    """T045, T086: 401 with a challenge, whatever it is; two headers as well."""
    status, answer = wire.post("/oauth/token", b"grant_type=client_credentials", Authorization=authorization)
    assert (status, error_of(answer)) == (401, "invalid_client")
    assert re.search(r"\r\nWWW-Authenticate: (Basic|Bearer) realm=", answer, re.IGNORECASE)


def test_what_is_refused_for_its_size_leaves_little(wire: Wire) -> None:
    """T137: nothing of what was sent is stored."""
    for event in wire.server.rows("events"):
        assert len(json.dumps(event, default=str)) < 2_000
