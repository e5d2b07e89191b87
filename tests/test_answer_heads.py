"""The first line and the headers of answers, as this server writes them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import pytest
from waitress.adjustments import Adjustments

from authserver.web.connections import Bounds, listen

Headers = list[tuple[str, str]]
LENGTH = ("Content-Length", "4")


@contextmanager
def serving(status: str, headers: Headers, body: list[bytes], **settings: str) -> Iterator[tuple[str, int]]:
    def application(_environ: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response(status, headers)
        return body

    listener = socket.create_server(("127.0.0.1", 0))
    running = listen(
        application,
        Adjustments(threads=1, sockets=[listener], **{"ident": "", **settings}),
        [listener],
        Bounds(connections_per_address=0, request_time_limit=20, trusts=lambda peer: False),
    )
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        running.end(accept=0, keep=0, limit=5)
        thread.join(timeout=20)
        listener.close()


def asked(
    address: tuple[str, int], *, version: str = "1.1", more: tuple[str, ...] = ()
) -> tuple[str, Headers, bytes]:
    """The first line, the headers and what comes after them, until the server closes the connection."""
    with socket.create_connection(address, timeout=5) as connection:
        lines = [f"GET / HTTP/{version}", "Host: localhost", *more, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        if "Connection: close" not in more and version == "1.1":
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    return first, [(name, text) for name, _, text in (line.partition(": ") for line in rest)], body


def of(headers: Headers, name: str) -> list[str]:
    return [text for known, text in headers if known.lower() == name]


def test_headers_are_sent_as_they_are_with_a_date() -> None:
    """RFC 9110, 6.6.1; and the order of two headers of one name means something (5.3)."""
    own = [LENGTH, ("X-Request-ID", "7"), ("Link", "<b>"), ("Link", "<a>")]
    with serving("200 OK", own, [b"four"]) as address:
        first, headers, body = asked(address)
    assert (first, body) == ("HTTP/1.1 200 OK", b"four")
    assert headers[:-1] == own
    assert parsedate_to_datetime(*of(headers, "date"))


@pytest.mark.parametrize("name", ["Date", "date"])
def test_the_date_of_the_application_is_the_only_one(name: str) -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    with serving("200 OK", [LENGTH, (name, date)], [b"four"]) as address:
        assert of(asked(address)[1], "date") == [date]


def test_the_server_names_itself_only_if_it_is_told_to() -> None:
    with serving("200 OK", [LENGTH], [b"four"]) as address:
        assert of(asked(address)[1], "server") == []
    with serving("200 OK", [LENGTH], [b"four"], ident="ours") as address:
        assert of(asked(address)[1], "server") == ["ours"]


@pytest.mark.parametrize(("version", "more"), [("1.1", ("Connection: close",)), ("1.0", ())])
def test_an_answer_after_which_the_connection_ends_says_so(version: str, more: tuple[str, ...]) -> None:
    """RFC 9112, 9.6"""
    with serving("200 OK", [LENGTH], [b"four"]) as address:
        first, headers, body = asked(address, version=version, more=more)
    assert (first, body) == (f"HTTP/{version} 200 OK", b"four")
    assert of(headers, "connection") == ["close"]


@pytest.mark.parametrize("body", [[b"fo", b"ur"], [b"", b"four"]])
def test_an_answer_in_pieces_comes_whole(body: list[bytes]) -> None:
    with serving("200 OK", [LENGTH], body) as address:
        _, headers, received = asked(address)
    assert (received, of(headers, "content-length")) == (b"four", ["4"])


def test_an_answer_of_unknown_length_is_chunked() -> None:
    """RFC 9112, 7.1"""
    with serving("200 OK", [], [b"fo", b"ur"]) as address:
        _, headers, received = asked(address)
    assert of(headers, "transfer-encoding") == ["chunked"]
    assert received == b"2\r\nfo\r\n2\r\nur\r\n0\r\n\r\n"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_content_has_none(status: str) -> None:
    """RFC 9110, 8.6"""
    with serving(status, [], [b""]) as address:
        first, headers, received = asked(address)
    assert (first, received) == (f"HTTP/1.1 {status}", b"")
    assert not of(headers, "content-length") and not of(headers, "transfer-encoding")


def test_a_header_with_a_line_break_is_not_sent() -> None:
    """Nothing that the application puts into a header begins another one."""
    with serving("200 OK", [LENGTH, ("X-Name", "a\r\nSet-Cookie: b")], [b"four"]) as address:
        first, headers, _ = asked(address)
    assert first == "HTTP/1.1 500 Internal Server Error"
    assert not of(headers, "set-cookie")
