"""A real endpoint in a thread, which answers as a test says and remembers what it was sent."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Received:
    """A request as it arrived; `peer` is the port that it came from, so a connection of its own."""

    path: str
    headers: dict[str, str]
    body: bytes
    peer: int

    @property
    def question(self) -> dict[str, Any]:
        question: dict[str, Any] = json.loads(self.body)
        return question


class Listener:
    """What came, and what is answered: each of `script` once, then `reply` for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.script: list[Reply] = []
        self.reply: Reply = answering(verdict="none")

    @property
    def questions(self) -> list[dict[str, Any]]:
        return [item.question for item in self.received]

    def answers(self, **answer: Any) -> None:
        """Answer everything so from now on."""
        self.reply = answering(**answer)

    def decides(self, decide: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer each question with what this function says to it."""
        self.reply = lambda handler: answering(**decide(self.received[-1].question))(handler)


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """An endpoint on a loopback port; with TLS where a context is given."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.received.append(Received(self.path, dict(self.headers), body, self.client_address[1]))
            reply = listener.script.pop(0) if listener.script else listener.reply
            try:
                reply(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Tests need no access log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128  # many threads may connect at the same moment

        def handle_error(self, request: Any, address: Any) -> None:
            """A client that hangs up, or refuses the certificate, is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    listener.url = f"{'https' if context else 'http'}://localhost:{server.server_port}/decide?tenant=1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()


def answering(**answer: Any) -> Reply:
    """A proper answer of these members."""
    return sending(200, json.dumps(answer).encode())


def sending(status: int, body: bytes = b"", **headers: str) -> Reply:
    """Any HTTP answer; `_` in a header's name stands for `-`."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        sent = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
        for name, text in sent.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def raw(text: bytes) -> Reply:
    """These bytes and the end."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    return reply


def dripping(head: bytes, drop: bytes, *, seconds: float = 0.05) -> Reply:
    """These bytes, and then a drop every so often for as long as somebody listens (at most 10 s)."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            handler.wfile.write(drop)
            handler.wfile.flush()
            time.sleep(seconds)

    return reply


def hanging(seconds: float = 3) -> Reply:
    """Nothing at all, for so long."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return reply
