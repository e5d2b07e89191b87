"""The loop that waits for all connections: no answer waits for it, and nothing makes it go round without need.

Left alone it goes round every 30 seconds here, so an answer that nobody wakes it for does not come within the time limits.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
from waitress.adjustments import Adjustments

from authserver.testing.threads import at_once
from authserver.web.connections import Bounds, listen

Application = Callable[..., Iterable[bytes]]
LARGE = 8_000_000


def application(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """`/slow` takes its time, and `/large` has a long answer; each says which number its query has."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.3)
    body = environ["QUERY_STRING"].encode().ljust(LARGE if environ["PATH_INFO"] == "/large" else 4, b".")
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def request(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


@contextmanager
def serving(**settings: int) -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    running = listen(
        application,
        Adjustments(threads=4, sockets=[listener], asyncore_loop_timeout=30, **settings),
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
    assert not thread.is_alive()


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=5) as connection:
        yield connection


def answers(connection: socket.socket, number: int) -> list[bytes]:
    """The contents of so many answers."""
    file = connection.makefile("rb")
    found = []
    for _ in range(number):
        assert file.readline() == b"HTTP/1.1 200 OK\r\n"
        head = iter(file.readline, b"\r\n")
        length = next(
            int(line.split()[1]) for line in list(head) if line.lower().startswith(b"content-length")
        )
        found.append(file.read(length))
    return found


def test_requests_that_are_sent_before_the_answer_are_answered_in_order() -> None:
    """RFC 9112, 9.3.2: the second comes while the first is answered, the third while the second waits."""
    with serving() as address, connected(address) as connection:
        for number in range(3):
            connection.sendall(request(f"/slow?{number}"))
            time.sleep(0.1)
        assert answers(connection, 3) == [b"0...", b"1...", b"2..."]
        connection.sendall(request("/?3") + request("/?4"))
        assert answers(connection, 2) == [b"3...", b"4..."]


def test_a_long_answer_comes_whole_to_a_slow_reader() -> None:
    with serving() as address, connected(address) as connection:
        connection.sendall(request("/large?1"))
        time.sleep(0.5)
        (large,) = answers(connection, 1)
        assert large == b"1".ljust(LARGE, b".")
        connection.sendall(request("/?2"))
        assert answers(connection, 1) == [b"2..."]


def test_a_connection_is_closed_after_its_last_answer() -> None:
    """RFC 9112, 9.6"""
    with serving() as address, connected(address) as connection:
        connection.sendall(request("/slow?1", "Connection: close"))
        assert answers(connection, 1) == [b"1..."]
        assert connection.recv(1) == b""


@pytest.mark.parametrize("path", ["/slow", "/large"])
def test_a_client_that_leaves_before_its_answer_leaves_nothing_behind(path: str) -> None:
    """T111: and the next one may get the same descriptor."""
    with serving() as address:
        for number in range(8):
            with connected(address) as left:
                left.sendall(request(path))
                time.sleep(0.02)
            with connected(address) as connection:
                connection.sendall(request(f"/?{number}"))
                assert answers(connection, 1) == [f"{number}...".encode()]


def test_a_client_that_sends_too_early_or_leaves_keeps_no_processor_busy() -> None:
    """While its first request is answered, nothing else of it is read."""
    with serving() as address, connected(address) as early, connected(address) as left:
        early.sendall(request("/slow"))
        left.sendall(request("/slow"))
        time.sleep(0.1)
        before = time.process_time()
        early.sendall(request("/?1"))
        left.close()
        time.sleep(0.15)
        assert time.process_time() - before < 0.075
        assert answers(early, 2)[1] == b"1..."


def test_many_connections_are_answered_at_once() -> None:
    with serving() as address:

        def ask(number: int) -> list[bytes]:
            with connected(address) as connection:
                found = []
                for turn in range(50):
                    connection.sendall(request(f"/?{number + turn}"))
                    found += answers(connection, 1)
                return found

        for number, found in enumerate(at_once(12, ask)):
            assert found == [f"{number + turn}".ljust(4, ".").encode() for turn in range(50)]
