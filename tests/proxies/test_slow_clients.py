"""Clients that are slow, send too much or hold many connections: each loses its own, and nobody else waits for them."""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from authserver.engine.keys.following import AGING_SECONDS
from authserver.engine.offered import FOLLOW_SECONDS
from authserver.testing.server import SETTINGS, basic
from authserver.testing.threads import until
from tests.proxies.conftest import CLIENT, HOST, Edge, Front, Served, pserve, read, request, statuses

# None of these is a trusted proxy.
DRIPPING, HONEST = "127.0.0.66", "127.0.0.99"
HEAD = f"POST /oauth/token HTTP/1.1\r\nHost: {HOST}\r\n".encode()
KIND = b"Content-Type: application/x-www-form-urlencoded\r\n"
SLEEPS = """
import time
from dataclasses import dataclass
from pathlib import Path
from authserver.api import hookimpl

FOLDER = Path(__file__).parent

@dataclass(frozen=True)
class Rule:
    @hookimpl
    def rate_decision(self):
        (FOLDER / f"began-{time.monotonic_ns()}").touch()
        time.sleep(1.5)
        while (FOLDER / "hold").exists():
            time.sleep(0.05)
"""
PROXY = {"X_Forwarded_For": CLIENT, "X_Forwarded_Proto": "https"}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def small(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with few threads and connections and short times, one of whose plugins is slow."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copy(migrated_sqlite_file, folder / "authserver.db")
    (folder / "sleeps.py").write_text(SLEEPS)
    settings = {
        "authserver.issuer": f"https://{HOST}",
        "authserver.database_url": f"sqlite:///{folder}/authserver.db",
        "authserver.trusted_proxies": "127.0.0.1",
        "authserver.plugins": SETTINGS["authserver.plugins"] + "sleeps:Rule",
        "authserver.policy_time_limit": "30",
    }
    times = {"channel_timeout": "2", "request_time_limit": "2", "cleanup_interval": "1"}
    sizes = {"threads": "2", "connection_limit": "100"}
    with pserve(folder, settings, **times, **sizes) as served:
        yield served


def until_closed(connection: socket.socket, drip: bytes, seconds: float) -> float:
    """How long the server let the client send one byte after the other."""
    began = time.monotonic()
    connection.settimeout(0.2)
    with suppress(ConnectionError):
        while time.monotonic() - began < seconds:
            connection.sendall(drip)
            with suppress(TimeoutError):
                if connection.recv(1) == b"":
                    break
    return time.monotonic() - began


def test_whoever_drips_loses_the_connection(small: Served) -> None:
    """T136: headers and bodies, byte by byte, and nothing at all; a whole request has to arrive within its time."""
    begun = {
        "nothing": (b"", b""),
        "first line": (b"POST /oa", b"a"),
        "headers": (HEAD, b"a"),
        "body": (HEAD + KIND + b"Content-Length: 60000\r\n\r\n", b"a"),
        "chunks": (HEAD + KIND + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    }
    held: dict[str, float] = {}

    def hold(name: str, first: bytes, drip: bytes) -> None:
        with small.direct.connect(DRIPPING) as connection:
            connection.sendall(first)
            held[name] = until_closed(connection, drip, 15)

    threads = [threading.Thread(target=hold, args=(name, *parts)) for name, parts in begun.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: seconds for name, seconds in held.items() if not 1 < seconds < 10} == {}


@pytest.mark.parametrize(
    "data",
    [HEAD, HEAD + KIND + b"Content-Length: 100\r\n\r\nabc", b"", b"GET /health/live HT"],
)
def test_half_a_connection_is_closed(edge: Edge, data: bytes) -> None:
    """T136: who has said that nothing more comes, and said too little, is not waited for."""
    with edge.direct.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert read(connection, 5) == b""


LONG = "a" * 17_000
TOO_MUCH = [
    ("a header", HEAD + f"X-Long: {LONG}\r\n\r\n".encode(), 431),
    ("a target", f"GET /?{LONG} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(), 431),
    ("many headers", HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 100) for n in range(200)) + b"\r\n", 431),
    ("a body", HEAD + b"Content-Length: 65537\r\n\r\n", 413),
    ("a body that is asked for", HEAD + b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n", 413),
    ("chunks", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n%s\r\n" % (b"a" * 32768) * 3, 413),
    ("a coding", HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    ("no request", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
]


@pytest.mark.parametrize(("what", "data", "status"), TOO_MUCH, ids=[what for what, _, _ in TOO_MUCH])
def test_too_much_is_refused_before_it_is_read(edge: Edge, what: str, data: bytes, status: int) -> None:
    """T136, T142: in JSON, with the headers of all answers, without a word of what was sent or of what runs here."""
    answer = edge.direct.ask(data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [status]
    lines = head.decode().lower().split("\r\n")
    for header in (
        "content-type: application/json",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        "connection: close",
    ):
        assert header in lines
    assert set(json.loads(body)) == {"error", "error_description"}
    assert b"aaaa" not in answer
    for word in (b"waitress", b"traceback", b"server:", b"header_plus"):
        assert word not in answer.lower()


def test_the_longest_body_that_is_accepted_is_accepted(edge: Edge) -> None:
    """PAR-02: 64 KiB."""
    for length, status in ((65_536, 401), (65_537, 413)):
        form = b"token=" + b"&" * (length - 6)
        kind = {"Content_Type": "application/x-www-form-urlencoded", "X_Forwarded_Proto": "https"}
        kind["X_Forwarded_For"] = CLIENT
        answer = edge.direct.ask(request("POST", "/oauth/revoke", form, source_headers=kind), "127.0.0.1")
        assert statuses(answer)[0] in (status, 400 if status == 401 else 413), answer


@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy"])
def test_a_proxy_refuses_too_much_itself(edge: Edge, name: str) -> None:
    """T136: whatever it says, it is no failure of the server's."""
    front = edge.front(name)
    body = request("POST", "/oauth/token", b"a" * 100_000)
    headers = request("GET", "/login", source_headers={"X_Long": "a" * 120_000})
    # Caddy passes the beginning on, and has nobody to answer when it stops.
    assert statuses(front.ask(body))[0] in ((413, 502) if name == "caddy" else (413,))
    assert statuses(front.ask(headers))[0] in (400, 414, 431)
    assert statuses(front.get("/oauth/jwks")) == [200]


# ---- many connections -----------------------------------------------------------------------------------


@contextmanager
def dripping(front: Front, count: int, source: str = DRIPPING) -> Iterator[Callable[[], int]]:
    """So many connections, each with half a request; the function opens those again that were closed, as attackers do.

    It returns how many the server closed since the last call.
    """
    connections: list[socket.socket] = []

    def begin() -> None:
        connection = front.connect(source, 5)
        connection.sendall(HEAD)
        connections.append(connection)

    def again() -> int:
        lost = 0
        for connection in list(connections):
            try:
                connection.setblocking(False)
                connection.send(b"a")
                is_closed = connection.recv(1) == b""
            except BlockingIOError:
                is_closed = False
            except OSError:
                is_closed = True
            if is_closed:
                connection.close()
                connections.remove(connection)
                lost += 1
        for _ in range(lost):
            begin()
        return lost

    try:
        for _ in range(count):
            begin()
        yield again
    finally:
        for connection in connections:
            connection.close()


def seconds_of(call: Callable[[], bytes], times: int) -> float:
    """The 95th percentile, in seconds, of so many calls that are answered with 200."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        assert statuses(call()) == [200]
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=20)[-1]


def test_connections_that_drip_hold_up_nobody(edge: Edge, is_long: bool) -> None:
    """T136: neither somebody at another address, nor at the same, nor probes."""
    count, times = (500, 100) if is_long else (120, 20)
    live, ready = lambda: edge.management.get("/health/live"), lambda: edge.management.get("/health/ready")

    client, secret = edge.server.add_client(grant_types=("client_credentials",))
    data = request(
        "POST",
        "/oauth/token",
        b"grant_type=client_credentials&scope=profile",
        source_headers={**FORM, "Authorization": basic(client.client_id, secret or "")},
    )

    def token() -> bytes:
        return edge.front("nginx").ask(data, HONEST)

    def ask(source: str) -> Callable[[], bytes]:
        return lambda: edge.direct.get("/health/live", source)

    idle = {"live": seconds_of(live, times), "token": seconds_of(token, times)}
    with dripping(edge.direct, count) as again:
        again()
        busy = {
            "live": seconds_of(live, times),
            "ready": seconds_of(ready, times),
            "elsewhere": seconds_of(ask(HONEST), times),
            "same address": seconds_of(ask(DRIPPING), times),
            "token": seconds_of(token, times),
        }
        lost = again()
    sys.stdout.write(f"{count} dripping; p95 idle {idle}, then {busy}; {lost} of them were closed\n")
    assert lost >= count - 64
    assert {what: seconds for what, seconds in busy.items() if seconds > 1} == {}


def test_when_all_connections_are_taken_the_longest_waiting_goes(small: Served) -> None:
    """T136: many addresses, none of which holds too many."""
    with (
        dripping(small.direct, 60, "127.0.1.1") as first,
        dripping(small.direct, 60, "127.0.1.2"),
    ):
        assert statuses(small.direct.get("/health/live", HONEST)) == [200]
        assert first() >= 120 - 100


def slow_token(small: Served, answers: list[bytes]) -> threading.Thread:
    """A token request that takes a thread of the server for more than a second, in a thread of its own."""
    data = request("POST", "/oauth/token", b"grant_type=client_credentials", source_headers={**FORM, **PROXY})
    thread = threading.Thread(target=lambda: answers.append(small.direct.ask(data, "127.0.0.1", 60)))
    thread.start()
    return thread


@contextmanager
def all_threads_busy(small: Served, answers: list[bytes]) -> Iterator[None]:
    """Both threads of the server work on requests, and two more requests wait, until the block ends."""
    for path in small.folder.glob("began-*"):
        path.unlink()
    hold = small.folder / "hold"
    hold.touch()
    threads = [slow_token(small, answers) for _ in range(4)]
    try:
        assert until(lambda: len(list(small.folder.glob("began-*"))) == 2, 20)
        yield
    finally:
        hold.unlink()
        for thread in threads:
            thread.join()


def test_while_all_threads_are_busy_operators_and_shared_documents_are_answered(small: Served) -> None:
    """T136: liveness and readiness have threads of their own, and server metadata and keys need none.

    They need none either when it is time to read keys and scopes again.
    """
    documents = [
        request("GET", path, source_headers=PROXY)
        for path in ("/.well-known/oauth-authorization-server", "/oauth/jwks")
    ]
    made = [statuses(small.direct.ask(document, "127.0.0.1")) for document in documents]
    answers: list[bytes] = []
    with all_threads_busy(small, answers):
        ends = time.monotonic() + max(FOLLOW_SECONDS, AGING_SECONDS) + 1
        while time.monotonic() < ends:
            assert statuses(small.management.get("/health/live")) == [200]
            assert statuses(small.management.get("/health/ready")) == [200]
            assert made == [statuses(small.direct.ask(document, "127.0.0.1")) for document in documents]
            time.sleep(0.2)
        assert answers == []
    assert made == [[200], [200]]
    # Those that waited for so long are not worked on any more.
    assert sorted(statuses(answer) for answer in answers) == [[401], [401], [503], [503]]


def test_sigterm_ends_the_server_when_it_has_answered(small: Served) -> None:
    """Whoever drips is not waited for, and neither are operators. The last test of this server."""
    answers: list[bytes] = []
    with dripping(small.direct, 3), small.management.connect() as operator:
        operator.sendall(b"GET /health/live")
        thread = slow_token(small, answers)
        time.sleep(0.3)
        small.process.terminate()
        small.process.join(15)
        thread.join()
    assert [statuses(answer) for answer in answers] == [[401]]
    assert small.process.exitcode == 0


# ---- the port for operators --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/oauth/token", 404),
        ("/oauth/jwks", 404),
        ("/login", 404),
        ("/metrics", 404),
        ("//health/live", 404),
        ("/", 404),
    ],
)
def test_operators_have_endpoints_of_theirs_only(edge: Edge, path: str, status: int) -> None:
    """By any host and without TLS; figures only where their plugin is on."""
    for host in ("10.0.0.7", "localhost:16543", HOST):
        answer = edge.management.ask(request("GET", path).replace(HOST.encode(), host.encode()))
        assert statuses(answer) == [status]
        assert b"X-Content-Type-Options: nosniff" in answer
        assert b"Content-Type: application/json" in answer
