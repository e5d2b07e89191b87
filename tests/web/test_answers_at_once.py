"""Shared documents that the thread that waits for connections sends itself: the same answers, and no thread is needed."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from pyramid.events import NewRequest
from waitress.adjustments import Adjustments

from authserver.api import Timeline, hookimpl
from authserver.engine.keys import following, signing_keys
from authserver.testing.server import Server, with_plugin
from authserver.web import connections
from authserver.web.connections import Bounds, Running, listen
from authserver.web.last_resort import answer_at_once

MakeServer = Callable[..., Server]
Environ = dict[str, Any]
METADATA = "/.well-known/oauth-authorization-server"
JWKS = "/oauth/jwks"
# A proxy on this machine says that the client used https, and which id the request has.
BEHIND_PROXY = {"authserver.trusted_proxies": "127.0.0.1", "authserver.request_id_header": "X-Request-ID"}
SENT = ("Host: as.example", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1")
METADATA_ENDPOINT = "oauth-authorization-server"
HELD = "/held"


def request(
    path: str = METADATA,
    *more: str,
    line: str = "GET {} HTTP/1.1",
    sent: tuple[str, ...] = SENT,
    number: int = 7,
) -> bytes:
    return "\r\n".join([line.format(path), *sent, f"X-Request-ID: {number}", *more, "", ""]).encode()


@dataclass
class Served:
    """A server with one thread, which a request to `HELD` keeps busy until `release` is set."""

    address: tuple[str, int]
    running: Running
    release: threading.Event
    at_once: list[bool]
    in_thread: list[str]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def ask(self, data: bytes) -> bytes:
        """All that the server sends for this, until it closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def serving(
    server: Server, *, at_once: bool = True, send_buffer: int = 0, per_address: int = 0
) -> Iterator[Served]:
    release = threading.Event()
    found: list[bool] = []
    in_thread: list[str] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        in_thread.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == HELD:
            release.wait(20)
        answer: Iterable[bytes] = server.wsgi(environ, start_response)
        return answer

    def asked(environ: Environ) -> Any:
        answer = answer_at_once(environ, server.wsgi)
        found.append(answer is not None)
        return answer

    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    bounds = Bounds(connections_per_address=per_address, request_time_limit=20, trusts=lambda peer: False)
    settings = Adjustments(
        threads=1,
        sockets=[listener],
        ident="",
        asyncore_use_poll=True,
        clear_untrusted_proxy_headers=False,
    )
    running = listen(application, settings, [listener], bounds, at_once=asked if at_once else None)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield Served(listener.getsockname(), running, release, found, in_thread)
    finally:
        release.set()
        running.end(accept=0, keep=0, limit=5)
        thread.join(timeout=20)
        listener.close()


def keep(served: Served) -> None:
    """Let a thread make the documents."""
    for path in (METADATA, JWKS):
        assert served.ask(request(path)).startswith(b"HTTP/1.1 200 OK\r\n")
    served.at_once.clear()
    served.in_thread.clear()


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server(BEHIND_PROXY)


@pytest.fixture
def served(server: Server) -> Iterator[Served]:
    with serving(server) as served:
        keep(served)
        yield served


AT_ONCE = {
    "metadata": request(),
    "jwks": request(JWKS),
    "of-another-origin": request(METADATA, "Origin: https://app.example"),
    "with-a-query": request(f"{METADATA}?a=b"),
    "of-a-whole-address": request(f"http://as.example{METADATA}"),
    "to-be-closed": request(METADATA, "Connection: close"),
    "http-1.0": request(line="GET {} HTTP/1.0"),
    "http-1.0-kept-alive": request(METADATA, "Connection: Keep-Alive", line="GET {} HTTP/1.0"),
    "with-a-body": request(METADATA, "Content-Length: 3") + b"abc",
    "with-an-announced-body": request(METADATA, "Content-Length: 3", "Expect: 100-continue") + b"abc",
}
BY_A_THREAD = {
    "head": request(line="HEAD {} HTTP/1.1"),
    "post": request(METADATA, "Content-Length: 0", line="POST {} HTTP/1.1"),
    "preflight": request(METADATA, "Origin: https://app.example", line="OPTIONS {} HTTP/1.1"),
    "known-already": request(METADATA, 'If-None-Match: "*"'),
    "of-another-host": request(sent=("Host: evil.example", *SENT[1:])),
    "by-plain-http": request(sent=("Host: as.example", "X-Forwarded-Proto: http", SENT[2])),
    "of-an-unreadable-client": request(sent=(*SENT[:2], "X-Forwarded-For: nobody")),
    "another-path": request(METADATA + "/"),
    "two-slashes": request("/" + METADATA),
    "another-document": request("/health/live"),
    "malformed": request(METADATA, " folded"),
}


def compared(data: bytes, served: Served, server: Server) -> tuple[bytes, bytes]:
    """What a server sends at once, and what one sends that has threads answer; without what differs at each request."""
    with serving(server, at_once=False) as other:
        answers = [served.ask(data), other.ask(data)]
    for number, answer in enumerate(answers):
        undated, dates = re.subn(rb"(\r\nDate: )\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", rb"\1\r\n", answer)
        assert dates == len(re.findall(rb"HTTP/1\.[01] [2-5]\d\d ", answer))
        answers[number] = re.sub(rb'("error_id":\s*")[^"]+', rb"\1", undated)
    return answers[0], answers[1]


@pytest.mark.parametrize("name", AT_ONCE)
def test_an_answer_sent_at_once_is_that_of_a_thread(name: str, served: Served, server: Server) -> None:
    """Byte for byte: its headers, the request id of a proxy, and what becomes of the connection (RFC 9112, 9.3)."""
    one, two = compared(AT_ONCE[name], served, server)
    assert one == two
    assert one.count(b"200 OK\r\n") == 1
    assert served.at_once == [True] and not served.in_thread


@pytest.mark.parametrize("name", BY_A_THREAD)
def test_a_request_that_needs_another_answer_gets_it_from_a_thread(
    name: str, served: Served, server: Server
) -> None:
    """T138: nothing else is answered at once, and no other host."""
    one, two = compared(BY_A_THREAD[name], served, server)
    assert one == two and one.startswith(b"HTTP/1.")
    assert not any(served.at_once)


IN_A_ROW = {
    "": request(number=1) + request(JWKS, number=2) + request(number=3),
    "others-between": request(number=1)
    + request(line="HEAD {} HTTP/1.1", number=2)
    + request(JWKS, number=3),
    "the-first-needs-a-thread": request("/nowhere", number=1) + request(number=2) + request(JWKS, number=3),
    "closed-before-the-end": request(number=1) + request(METADATA, "Connection: close", number=2) + request(),
    "closed-by-the-first": request(METADATA, "Connection: close", number=1) + request(number=2),
}


@pytest.mark.parametrize("name", IN_A_ROW)
def test_answers_in_a_row_come_in_that_order(name: str, served: Served, server: Server) -> None:
    """RFC 9112, 9.3.2: they are left to a thread, so that nobody keeps busy the one that waits for connections."""
    data = IN_A_ROW[name]
    one, two = compared(data, served, server)
    assert one == two
    answered = data.partition(b"Connection: close")[0].count(b" HTTP/1.1\r\n")
    assert re.findall(rb"(?i)X-Request-ID: (\d)", one) == [b"1", b"2", b"3"][:answered]
    assert not served.at_once and len(served.in_thread) == answered


def test_documents_are_sent_while_all_threads_are_busy(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T111: whoever needs a thread is refused, and the documents are for everybody."""
    monkeypatch.setattr(connections, "BEHIND_SECONDS", 0.0)
    with served.connect() as first, served.connect() as second:
        first.sendall(request(HELD))
        while not served.in_thread:
            time.sleep(0.01)
        second.sendall(request("/health/ready"))
        time.sleep(0.1)
        assert served.ask(request("/health/ready")).startswith(b"HTTP/1.1 503 ")
        for path in (METADATA, JWKS):
            assert served.ask(request(path)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert served.in_thread == [HELD]
        served.release.set()
        assert first.recv(12) == b"HTTP/1.1 404"
        assert second.recv(12) == b"HTTP/1.1 200"


def test_an_address_that_awaits_as_many_answers_as_it_may_gets_no_document(server: Server) -> None:
    """T111: one connection more gets 503, whatever it asks for, and is closed."""
    with serving(server, per_address=1) as served:
        keep(served)
        with served.connect() as first:
            first.sendall(request(HELD))
            while not served.in_thread:
                time.sleep(0.01)
            answer = served.ask(request())
            assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nConnection: close\r\n" in answer
            served.release.set()
            assert first.recv(12) == b"HTTP/1.1 404"
        assert not any(served.at_once)


def test_who_reads_slowly_holds_up_nobody(server: Server) -> None:
    """T136: what one client does not take waits for it, others are answered meanwhile, and it gets all of it."""
    with serving(server, send_buffer=4096) as served, socket.socket() as slow:
        keep(served)
        slow.settimeout(20)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(served.address)
        sent = 0
        # Until the server reads no more of it.
        while len(served.at_once) == sent < 1000:
            slow.sendall(request(number=1000 + sent))
            sent += 1
            until = time.monotonic() + 1
            while len(served.at_once) < sent and time.monotonic() < until:
                time.sleep(0.001)
        assert len(served.at_once) == sent - 1 > 1
        began = time.monotonic()
        assert served.ask(request(JWKS)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert time.monotonic() - began < 2
        received, numbers = b"", list[bytes]()
        while len(numbers) < sent:
            data = slow.recv(65536)
            assert data, len(numbers)
            whole, _, received = (received + data).rpartition(b"\r\n\r\n")
            numbers += re.findall(rb"X-Request-ID: (\d+)", whole)
        assert list(map(int, numbers)) == list(range(1000, 1000 + sent))
        assert all(served.at_once) and not served.in_thread


def test_at_the_end_of_the_process_the_answer_closes_the_connection(served: Served) -> None:
    """RFC 9112, 9.6: the next request goes to another process."""
    with served.connect() as connection:
        connection.sendall(request())
        assert b"\r\nConnection: close\r\n" not in connection.recv(65536)
        served.running.end(accept=1, keep=1, limit=5)
        connection.sendall(request())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\nConnection: close\r\n" in answer
    assert served.at_once == [True, True]


def at_once(server: Server, path: str, **more: str) -> Any:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "HTTP_HOST": "as.example",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1",
        **more,
    }
    return answer_at_once(environ, server.wsgi)


@pytest.mark.parametrize("path", [METADATA, JWKS])
def test_what_has_to_be_read_is_read_by_a_thread(
    path: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-17: the thread that waits for connections never waits for the database; what it does not know it leaves to others."""
    assert at_once(server, path) is None
    server.http.get(path)
    assert at_once(server, path) is not None
    parts = server.application.parts
    followed: Any = {METADATA: parts.offered, JWKS: parts.signer}[path]
    monkeypatch.setattr(followed, "_clock", lambda: time.monotonic() + following.AGING_SECONDS + 1)
    assert at_once(server, path) is None
    # As of every thread: while one reads, the others use what was read before.
    with followed._lock:
        assert at_once(server, path) is not None
    assert at_once(server, path) is None
    server.http.get(path)
    assert at_once(server, path) is not None


def test_keys_that_are_too_old_are_not_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while another thread reads them, for however long."""
    server.http.get(JWKS)
    signer: Any = server.application.parts.signer
    monkeypatch.setattr(signer, "_clock", lambda: time.monotonic() + following.OLD_SECONDS + 1)
    with signer._lock:
        assert at_once(server, JWKS) is None


def test_a_new_key_is_in_the_next_answer(server: Server) -> None:
    server.http.get(JWKS)
    before = at_once(server, JWKS)
    with server.begin() as engine:
        signing_keys.rotate(engine)
    server.application.parts.signer.load()
    assert at_once(server, JWKS) is None
    made = server.http.get(JWKS).body
    after = at_once(server, JWKS)
    assert before.body != made == after.body


SEEN: list[Timeline] = []


@dataclass(frozen=True)
class Sees:
    """Keeps the timeline of each request, and the name of the thread that told of it."""

    fails: bool = False
    immediate: ClassVar[bool] = True

    @hookimpl
    def observe_request(self, timeline: Timeline) -> None:
        SEEN.append(timeline)
        if self.fails:
            raise OSError("no space left")


@dataclass(frozen=True)
class SeesInTime(Sees):
    """May wait for something, so the server sets a time limit."""

    immediate: ClassVar[bool] = False


@dataclass(frozen=True)
class Listens:
    """Wants to hear of every request from Pyramid."""

    @hookimpl
    def includeme(self, config: Any) -> None:
        config.add_subscriber(lambda event: None, NewRequest)


def told(timeline: Timeline) -> tuple[Any, ...]:
    """What is the same of two requests for one document."""
    return (
        *(timeline.request_id, timeline.endpoint, timeline.path, timeline.method, timeline.status),
        *(timeline.client_id, timeline.error, timeline.reason, timeline.error_id),
    )


@pytest.mark.parametrize("fails", ["false", "true"])
def test_observers_and_the_log_are_told(
    fails: str, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same facts as of an answer by a thread; one that fails changes no answer."""
    caplog.set_level(logging.INFO, "authserver.requests")
    server = make_server({**BEHIND_PROXY, **with_plugin(f"{__name__}:Sees", {"fails": fails})})
    with serving(server) as served:
        keep(served)
        SEEN.clear()
        caplog.clear()
        assert served.ask(request()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert served.at_once == [True]
        with serving(server, at_once=False) as other:
            assert other.ask(request()).startswith(b"HTTP/1.1 200 OK\r\n")
    one, two = SEEN
    assert told(one) == told(two) == ("7", METADATA_ENDPOINT, METADATA, "GET", 200, None, "", "", "")
    assert 0 < one.nanoseconds < 10**9
    lines = [record for record in caplog.records if record.name == "authserver.requests"]
    assert [record.getMessage().rpartition(" 200 ")[0] for record in lines] == [
        f"GET {METADATA_ENDPOINT}"
    ] * 2


@pytest.mark.parametrize("plugin", [SeesInTime, Listens])
def test_a_plugin_that_may_wait_is_not_waited_for(plugin: type, make_server: MakeServer) -> None:
    """It hears of each request in the thread that answers it."""
    server = make_server({**BEHIND_PROXY, **with_plugin(f"{__name__}:{plugin.__name__}", {})})
    SEEN.clear()
    with serving(server) as served:
        keep(served)
        assert served.ask(request()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert served.at_once == [False] and served.in_thread == [METADATA]
    assert len(SEEN) == (3 if plugin is SeesInTime else 0)
