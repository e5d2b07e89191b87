"""A process that gets more requests than it can answer refuses some of them, and says when to come again."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from waitress.adjustments import Adjustments

from authserver.testing.threads import at_once
from authserver.web import connections
from authserver.web.connections import Bounds, listen

Application = Callable[..., Iterable[bytes]]
HOUR = timedelta(hours=1)
REQUEST = b"GET /oauth/token HTTP/1.1\r\nHost: localhost\r\n\r\n"


def slow(seconds: float) -> Application:
    """An application that takes its time, but to say that it lives."""

    def application(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
        time.sleep(0 if environ["PATH_INFO"] == "/health/live" else seconds)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    return application


@contextmanager
def serving(
    application: Application, *, per_address: int = 0, time_limit: int = 20, **settings: int
) -> Iterator[int]:
    """A server with one thread; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = listen(
        application,
        Adjustments(threads=1, sockets=[listener], **settings),
        [listener],
        Bounds(connections_per_address=per_address, request_time_limit=time_limit, trusts=lambda peer: False),
    )
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        running.end(accept=0, keep=0, limit=5)
        thread.join(timeout=20)
        listener.close()


def ask(port: int, path: str = "/oauth/token") -> tuple[str, int, dict[str, str], bytes]:
    """The path, and the status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return path, answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def assert_says_when_to_come_again(headers: dict[str, str], body: bytes) -> None:
    assert json.loads(body)["error"] == "temporarily_unavailable"
    assert (headers["Retry-After"], headers["Cache-Control"]) == ("2", "no-store")


def test_who_waited_for_a_thread_for_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T111: 503 with Retry-After, in the form of all answers; whoever asks whether it lives is told."""
    monkeypatch.setattr(connections, "QUEUE_SECONDS", 0.3)
    caplog.set_level(logging.WARNING, "authserver.web.connections")
    with serving(slow(0.5)) as port:
        answers = at_once(4, lambda number: ask(port, "/health/live" if number == 3 else "/oauth/token"))
    assert [status for path, status, _, _ in answers if path == "/health/live"] == [200]
    tokens = [answer for answer in answers if answer[0] != "/health/live"]
    assert sorted(status for _, status, _, _ in tokens) == [200, 503, 503]
    _, _, headers, body = next(answer for answer in tokens if answer[1] == 503)
    assert_says_when_to_come_again(headers, body)
    assert caplog.text.count("more requests than this process can answer") == 1


def test_nobody_waits_behind_one_who_has_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """T111: a request is refused when it comes, if it would wait for a thread for too long."""
    monkeypatch.setattr(connections, "BEHIND_SECONDS", 0.3)
    with ExitStack() as stack, serving(slow(2)) as port:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(2)]
        for connection in waiting:
            connection.sendall(REQUEST)
        time.sleep(0.6)
        began = time.monotonic()
        _, status, headers, body = ask(port)
        assert status == 503
        assert time.monotonic() - began < 1
        assert_says_when_to_come_again(headers, body)
        assert ask(port, "/health/live")[1] == 200
        for connection in waiting:
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_an_address_that_awaits_as_many_answers_as_it_may_gets_503_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T111: as many again are refused with an answer, and not with silence; nobody else waits for it."""
    caplog.set_level(logging.WARNING, "authserver.web.connections")
    with ExitStack() as stack, serving(slow(3), per_address=2) as port:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(2)]
        for connection in waiting:
            connection.sendall(REQUEST)
        time.sleep(0.5)
        for _ in range(4):
            began = time.monotonic()
            _, status, headers, body = ask(port)
            assert (status, headers["Connection"]) == (503, "close")
            assert time.monotonic() - began < 2
            assert_says_when_to_come_again(headers, body)
        for connection in waiting:
            assert connection.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 503")
    assert caplog.text.count("more at once than connections_per_address") == 1


def test_a_request_that_has_arrived_is_not_given_up_for_another_connection() -> None:
    """T111: that connection goes on which nothing has come, and not the one that was not read yet."""
    with ExitStack() as stack:
        # Nobody reads: its `run` is not called.
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        bounds = Bounds(connections_per_address=0, request_time_limit=20, trusts=lambda peer: False)
        running = listen(slow(0), Adjustments(threads=1, sockets=[listener]), [listener], bounds)
        first, second = (
            stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(2)
        )
        first.sendall(REQUEST)
        running._accept_all(running._listeners[0])
        channels = {channel.addr: channel for channel in running._connections()}
        assert connections.close_longest_waiting(channels.values(), 0.0)
        assert not channels[first.getsockname()].will_close and channels[second.getsockname()].will_close
        assert not connections.close_longest_waiting(channels.values(), 0.0)
        running._dispatcher.shutdown()
        connections.wasyncore.close_all(running._channels)


def test_a_clock_that_is_set_ahead_ends_no_request_that_arrives() -> None:
    """T150: what has come within an hour by the clock on the wall may have come within a second."""
    with (
        serving(slow(0), cleanup_interval=1, channel_timeout=20) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(REQUEST[:20])
        time.sleep(0.5)
        with time_machine.travel(datetime.now(UTC) + HOUR, tick=True):
            time.sleep(2.5)
            connection.sendall(REQUEST[20:])
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_clock_that_is_set_back_keeps_no_connection() -> None:
    """T150, T136: who drips is closed after seconds, and not after an hour."""
    with (
        serving(slow(0), cleanup_interval=1, time_limit=1) as port,
        time_machine.travel(datetime.now(UTC) - HOUR, tick=True),
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(REQUEST[:20])
        assert connection.recv(12) == b""
