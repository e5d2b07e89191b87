"""Every kind of odd path, method and version, over the wire: a fitting status, in the medium of the endpoint."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.proxies.conftest import HOST, Edge, statuses

FORM = "Content-Type: application/x-www-form-urlencoded"
JSON, PAGE = "application/json", "text/html"
TOKEN, LOGIN = "/oauth/token", "/login"
# The first line, the status, and what the answer is. All but one are from a proxy that is trusted.
ODD = [
    # Paths that other servers take for the same one (T141).
    (f"POST {TOKEN}/", 404, JSON),
    (f"POST /{TOKEN}", 404, JSON),
    ("POST /oauth//token", 404, JSON),
    (f"POST {TOKEN};jsessionid=1", 404, JSON),
    ("POST /oauth;x/token", 404, PAGE),
    ("POST /oauth%2Ftoken", 404, JSON),
    ("POST /oauth%2ftoken", 404, JSON),
    ("POST /oauth%5Ctoken", 404, JSON),
    ("POST /oauth\\token", 404, JSON),
    ("POST /oauth%252Ftoken", 404, JSON),
    (f"POST {TOKEN}%00", 404, JSON),
    (f"POST {TOKEN}%0A", 404, JSON),
    (f"POST {TOKEN}%20", 404, JSON),
    (f"POST {TOKEN}%FF", 404, JSON),
    ("POST /OAUTH/TOKEN", 404, JSON),
    ("POST /oauth/../oauth/token", 404, PAGE),
    ("POST /oauth/./token", 404, PAGE),
    ("POST /oauth/%2e/token", 404, PAGE),
    ("GET /.well-known/oauth-authorization-server/", 404, JSON),
    ("GET //.well-known/oauth-authorization-server", 404, JSON),
    ("GET /.Well-Known/OAuth-Authorization-Server", 404, JSON),
    (f"GET {LOGIN}/", 404, PAGE),
    (f"GET /{LOGIN}", 404, PAGE),
    (f"GET {LOGIN};x", 404, PAGE),
    (f"GET {LOGIN}%00", 404, PAGE),
    (f"GET {LOGIN}%2F", 404, PAGE),
    ("GET /LOGIN", 404, PAGE),
    ("GET /account%2Fsessions", 404, PAGE),
    ("GET /account//sessions", 404, PAGE),
    ("GET /static/../login", 404, PAGE),
    ("GET /nowhere", 404, PAGE),
    ("GET /admin", 404, PAGE),
    ("GET //", 404, PAGE),
    # An encoded letter is that letter (RFC 3986, 6.2.2.2), and a target may name the host (RFC 9112, 3.2.2).
    ("GET /l%6Fgin", 200, PAGE),
    (f"GET https://{HOST}/login", 200, PAGE),
    (f"GET https://{HOST}", 200, PAGE),
    (f"GET https://{HOST}//login", 404, PAGE),
    ("GET https://evil.example/login", 400, JSON),
    ("GET login", 404, PAGE),
    # Methods.
    ("HEAD /oauth/jwks", 200, JSON),
    (f"HEAD {LOGIN}", 200, PAGE),
    (f"HEAD {TOKEN}", 405, JSON),
    ("HEAD /nowhere", 404, PAGE),
    (f"GET {TOKEN}", 405, JSON),
    (f"PUT {TOKEN}", 405, JSON),
    (f"TRACE {LOGIN}", 405, PAGE),
    (f"BREW {LOGIN}", 405, PAGE),
    ("DELETE /oauth/jwks", 405, JSON),
    (f"OPTIONS {LOGIN}", 405, PAGE),
    (f"OPTIONS {TOKEN}", 204, None),
    ("OPTIONS *", 404, PAGE),
    ("CONNECT as.example:443", 404, PAGE),
    ("POST /oauth/jwks", 405, JSON),
    (f"POST {TOKEN}", 400, JSON),
]


def ask(edge: Edge, line: str, *headers: str, version: str = "1.1") -> bytes:
    sent = (
        f"Host: {HOST}",
        FORM,
        "Connection: close",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
    )
    text = "\r\n".join([f"{line} HTTP/{version}", *(headers or sent), "", ""])
    return edge.direct.ask(text.encode(), "127.0.0.1")


def checked(line: str, answer: bytes) -> tuple[int, str | None]:
    """The status and the media type; the headers of every answer are there, and the body is what they say."""
    head, _, body = answer.partition(b"\r\n\r\n")
    (status,) = statuses(answer[: len(head)])
    headers = dict(re.findall(r"(?m)^([a-z-]+): (.*?)\r?$", head.decode().lower()))
    assert headers["x-content-type-options"] == "nosniff", line
    assert "server" not in headers, line
    assert "location" not in headers, line
    kind = headers.get("content-type", "").partition(";")[0] or None
    if status >= 400:
        assert headers["cache-control"] == "no-store", line
    if kind == PAGE:
        assert "frame-ancestors 'none'" in headers["content-security-policy"], line
    if line.startswith("HEAD"):
        assert body == b"", line
    elif kind == JSON and status >= 400:
        assert json.loads(body)["error"] in ("invalid_request", "invalid_client"), line
    if status == 405:
        assert headers["allow"], line
    return status, kind


def test_every_odd_request_gets_a_fitting_answer(edge: Edge) -> None:
    """T141: exact paths only; JSON where programs ask, pages where people do."""
    expected = {line: (status, kind) for line, status, kind in ODD}
    assert {line: checked(line, ask(edge, line)) for line in expected} == expected


@pytest.mark.parametrize("accept", ["application/json", "application/json, */*;q=0.1"])
def test_a_program_that_asks_for_json_gets_it_at_unknown_paths_too(edge: Edge, accept: str) -> None:
    """T141."""
    headers = (
        f"Host: {HOST}",
        f"Accept: {accept}",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
    )
    answer = ask(edge, "GET /register", *headers, "Connection: close")
    assert checked("GET /register", answer) == (404, JSON)


def whole_answer(connection: socket.socket) -> bytes:
    """One answer of a connection that stays open: as much as its Content-Length says, in however many pieces."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
        head, blank, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if blank and length and len(body) >= int(length[1]):
            break
    return answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [((f"Host: {HOST}",), 200), ((), 400), (("Connection: keep-alive", f"Host: {HOST}"), 200)],
)
def test_http_1_0_is_answered(edge: Edge, headers: tuple[str, ...], status: int) -> None:
    """RFC 9112, 2.3: with the host, of course; the connection is closed unless the client asks otherwise."""
    proxy = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    if "Connection: keep-alive" not in headers:
        answer = ask(edge, "GET /oauth/jwks", *headers, *proxy, version="1.0")
        assert b"Connection: close" in answer
    else:
        with edge.direct.connect("127.0.0.1", 5) as connection:
            for _ in range(2):
                connection.sendall(
                    "\r\n".join(["GET /oauth/jwks HTTP/1.0", *headers, *proxy, "", ""]).encode()
                )
                answer = whole_answer(connection)
                assert b"Connection: Keep-Alive" in answer
    assert statuses(answer) == [status]
    assert answer.startswith(b"HTTP/1.0 ")
