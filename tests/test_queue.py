"""A process that gets more requests than it can answer refuses those that waited for long, and says when to come again."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterable

import pytest
from waitress.adjustments import Adjustments

from authserver.testing.threads import at_once
from authserver.web import connections
from authserver.web.connections import Bounds, listen


def test_who_waited_for_a_thread_for_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T111: 503 with Retry-After, in the form of all answers; whoever asks whether it lives is told."""
    monkeypatch.setattr(connections, "QUEUE_SECONDS", 0.3)
    caplog.set_level(logging.WARNING, "authserver.web.connections")

    def slow(environ: dict[str, str], start_response: object) -> Iterable[bytes]:
        time.sleep(0 if environ["PATH_INFO"] == "/health/live" else 0.5)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    running = listen(
        slow,
        Adjustments(threads=1, sockets=[listener]),
        [listener],
        Bounds(connections_per_address=0, request_time_limit=20, trusts=lambda peer: False),
    )
    thread = threading.Thread(target=running.run)
    thread.start()

    def ask(number: int) -> tuple[str, int, dict[str, str], bytes]:
        path = "/health/live" if number == 3 else "/oauth/token"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        told = path, answer.status, dict(answer.headers), answer.read()
        connection.close()
        return told

    try:
        answers = at_once(4, ask)
    finally:
        running.end(accept=0, keep=0, limit=5)
        thread.join(timeout=20)
        listener.close()
    assert [status for path, status, _, _ in answers if path == "/health/live"] == [200]
    tokens = [answer for answer in answers if answer[0] != "/health/live"]
    assert sorted(status for _, status, _, _ in tokens) == [200, 503, 503]
    _, _, headers, body = next(answer for answer in tokens if answer[1] == 503)
    assert json.loads(body)["error"] == "temporarily_unavailable"
    assert (headers["Retry-After"], headers["Cache-Control"]) == ("2", "no-store")
    assert caplog.text.count("more requests than this process can answer") == 1
