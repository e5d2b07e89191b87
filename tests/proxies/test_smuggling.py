"""Requests that two servers in a row might read differently: nothing is ever smuggled past the first one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.proxies.conftest import CLIENT, HOST, Edge, Front, read, request, send, statuses

REFUSED = {400, 413, 431, 501, 505}
REGISTRATION = json.dumps({"redirect_uris": ["https://client.example/cb"]}).encode()
# What must never be done. It says that it comes from here, which a proxy would not let it say.
SMUGGLER = "6.6.6.6"
HIDDEN = (
    f"POST /oauth/register HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {SMUGGLER}\r\nX-Forwarded-Proto: https\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(REGISTRATION)}\r\n\r\n"
).encode() + REGISTRATION
LENGTH = len(HIDDEN)
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (LENGTH, HIDDEN)


def attack(
    *headers: str, body: bytes = b"", first: str = "POST /oauth/revoke HTTP/1.1", end: str = "\r\n"
) -> bytes:
    lines = [first, f"Host: {HOST}", "Content-Type: application/x-www-form-urlencoded", *headers, "", ""]
    return end.join(lines).encode("latin-1") + body


# The server itself takes a trusted proxy's word, which is this machine's; by TLS it is a proxy that is asked.
SOURCES = {False: "127.0.0.1", True: CLIENT}
CHUNKED = "Transfer-Encoding: chunked"
ATTACKS = {
    "a length beside chunks": attack(f"Content-Length: {LENGTH + 5}", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "chunks beside a length": attack(CHUNKED, "Content-Length: 4", body=CHUNK),
    "two lengths, the shorter first": attack("Content-Length: 0", f"Content-Length: {LENGTH}", body=HIDDEN),
    "two lengths, the longer first": attack(f"Content-Length: {LENGTH}", "Content-Length: 0", body=HIDDEN),
    "a list of lengths": attack(f"Content-Length: 0, {LENGTH}", body=HIDDEN),
    "a length with a sign": attack("Content-Length: +0", body=HIDDEN),
    "a negative length": attack("Content-Length: -1", body=HIDDEN),
    "a hexadecimal length": attack("Content-Length: 0x0", body=HIDDEN),
    "a length and more": attack("Content-Length: 0;x", body=HIDDEN),
    "an empty length": attack("Content-Length:", body=HIDDEN),
    "an underscored digit": attack("Content-Length: 0_0", body=HIDDEN),
    "a length in superscript": attack("Content-Length: \xb2", body=HIDDEN),
    "an unknown coding": attack("Transfer-Encoding: xchunked", body=CHUNK),
    "identity": attack("Transfer-Encoding: identity", f"Content-Length: {LENGTH}", body=HIDDEN),
    "chunked and more": attack("Transfer-Encoding: chunked, identity", body=CHUNK),
    "more and chunked": attack("Transfer-Encoding: gzip, chunked", body=CHUNK),
    "two codings": attack(CHUNKED, "Transfer-Encoding: x", body=CHUNK),
    "a coding after a vertical tab": attack("Transfer-Encoding: \x0bchunked", f"Content-Length: {LENGTH}", body=HIDDEN),
    "a coding after a strange space": attack("Transfer-Encoding: \xa0chunked", body=CHUNK),
    "a space before the colon": attack("Transfer-Encoding : chunked", f"Content-Length: {LENGTH}", body=HIDDEN),
    "a length with a space before the colon": attack("Content-Length : 0", body=HIDDEN),
    "chunks in HTTP/1.0": attack(CHUNKED, body=CHUNK, first="POST /oauth/revoke HTTP/1.0"),
    "a folded length": attack("Content-Length:", f" {LENGTH}", body=HIDDEN),
    "a folded coding": attack("Transfer-Encoding:", "\tchunked", body=CHUNK),
    "a folded header": attack("X-Something: a", f" Content-Length: {LENGTH}", "Content-Length: 0", body=HIDDEN),
    "a first header that is folded": attack(first="POST /oauth/revoke HTTP/1.1\r\n X: y"),
    "a bare line feed in a header": attack(f"X-Something: a\nContent-Length: {LENGTH}", "Content-Length: 0", body=HIDDEN),
    "a bare carriage return in a header": attack(f"X-Something: a\rContent-Length: {LENGTH}", "Content-Length: 0"),
    "bare line feeds": attack("Content-Length: 0", CHUNKED, end="\n", body=HIDDEN),
    "a NUL in a header": attack("X-Something: a\0b", "Content-Length: 0"),
    "a header without a name": attack(": 0", body=HIDDEN),
    "a line that is no header": attack("Nothing", body=HIDDEN),
    "a size with a sign": attack(CHUNKED, body=b"+0\r\n\r\n" + HIDDEN),
    "a size in another notation": attack(CHUNKED, body=b"0x0\r\n\r\n" + HIDDEN),
    "a size and a space": attack(CHUNKED, body=b"0 0\r\n\r\n" + HIDDEN),
    "a size that overflows": attack(CHUNKED, body=b"1" + b"0" * 16 + b"\r\n" + HIDDEN),
    "a line feed in an extension": attack(CHUNKED, body=b"3;x\nxxxxx\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a chunk that is longer than its size": attack(CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a target with another host": attack(
        "Content-Length: 0", first="POST http://evil.example/oauth/revoke HTTP/1.1"
    ),
    "a target with a space": attack("Content-Length: 0", first="POST /oauth/revoke /x HTTP/1.1", body=HIDDEN),
    "a target with a NUL": attack("Content-Length: 0", first="POST /oauth/revoke\0 HTTP/1.1", body=HIDDEN),
    "a method in lower case": attack("Content-Length: 0", first="post /oauth/revoke HTTP/1.1", body=HIDDEN),
    "two hosts": attack("Host: evil.example", "Content-Length: 0", body=HIDDEN),
    "another version": attack("Content-Length: 0", first="POST /oauth/revoke HTTP/1.7\r\nX: y", body=HIDDEN),
    "no version": b"GET /health/live\r\n\r\n" + HIDDEN,
    "HTTP/2 in the clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a refused request and another": attack("Content-Length: x") + HIDDEN,
    "too long headers and a request": attack("X-Long: " + "a" * 70_000) + HIDDEN,
    "a too long body and a request": attack("Content-Length: 10000000", body=b"a" * 200) + HIDDEN,
    "a too long body that is announced": attack("Expect: 100-continue", "Content-Length: 10000000") + HIDDEN,
}  # fmt: skip
# A chunk of that size is waited for, and everything that follows is in it.
WAITS = "a size that overflows"
# A proxy may refuse, repair or answer in its own way, and pass a second request on as one of its own.
BY_PROXIES = {200, 201, 401, 404, 405, 408, 414, 421, 422, 502, *REFUSED}


def tried(front: Front) -> Iterator[tuple[str, list[int], bool]]:
    """Each attack, the statuses that came back, and whether the connection was closed; all of them at once."""
    with ExitStack() as opened:
        connections = {name: opened.enter_context(front.connect(SOURCES[front.tls])) for name in ATTACKS}
        for name, connection in connections.items():
            send(connection, ATTACKS[name])
        end = time.monotonic() + 2
        for name, connection in connections.items():
            received = read(connection, max(0.05, end - time.monotonic()))
            yield name, statuses(received), is_closed(connection)


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def sources(edge: Edge) -> list[str]:
    """Where the registrations so far came from."""
    return [event["source"] for event in edge.server.events("client.registered")]


def test_the_hidden_request_would_leave_its_event(edge: Edge) -> None:
    """Or the tests of this file could not fail: the server believes this address, as it believes its proxy."""
    data = HIDDEN.replace(SMUGGLER.encode(), b"6.6.6.7\r\nConnection: close")
    assert statuses(edge.direct.ask(data, SOURCES[False])) == [201]
    assert "6.6.6.7" in sources(edge)
    assert statuses(edge.front("nginx").ask(data)) == [201]
    assert CLIENT in sources(edge)


def test_the_server_refuses_whatever_could_be_read_in_two_ways(edge: Edge) -> None:
    """T135: RFC 9112, 11.2; one answer with 400 or the like, the connection is closed, and nothing after it is read."""
    wrong = {
        name: (codes, closed)
        for name, codes, closed in tried(edge.direct)
        if not ((len(codes) == 1 and codes[0] in REFUSED and closed) or (name == WAITS and not codes))
    }
    assert wrong == {}
    assert SMUGGLER not in sources(edge)


@pytest.mark.parametrize("name", ["nginx", "haproxy", "chain", "caddy"])
def test_nothing_is_smuggled_past_a_proxy(edge: Edge, name: str) -> None:
    """T135: the hidden request is never done unseen, and the next client of the proxy gets its own answer."""
    front = edge.front(name)
    outcomes = {attempt: codes for attempt, codes, _ in tried(front)}
    for _ in range(5):
        answer = front.get("/oauth/jwks")
        assert statuses(answer) == [200]
        assert b'"keys"' in answer
    assert {attempt: codes for attempt, codes in outcomes.items() if not BY_PROXIES.issuperset(codes)} == {}
    assert sum(REFUSED.issuperset(codes) for codes in outcomes.values()) > len(ATTACKS) / 2
    assert SMUGGLER not in sources(edge)


@pytest.mark.parametrize(
    "body",
    [
        b"b\r\ntoken=unset\r\n0\r\n\r\n",
        b"B;name=value\r\ntoken=unset\r\n0\r\n\r\n",
        b"0000b\r\ntoken=unset\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("name", ["direct", "nginx", "haproxy", "chain", "caddy"])
def test_chunks_that_are_in_order_are_read(edge: Edge, name: str, body: bytes) -> None:
    """RFC 9112, 7.1: with extensions and trailers, which mean nothing here."""
    data = attack(
        CHUNKED, "Connection: close", "X-Forwarded-For: 127.0.0.77", "X-Forwarded-Proto: https", body=body
    )
    front = edge.front(name)
    answer = front.ask(data, SOURCES[front.tls])
    assert statuses(answer) == [401], answer


def test_requests_in_a_row_are_answered_in_a_row(edge: Edge) -> None:
    first = request("GET", "/health/live").replace(b"Connection: close\r\n", b"")
    answer = edge.direct.ask(first + first + request("GET", "/health/ready"))
    assert statuses(answer) == [200, 200, 200]
