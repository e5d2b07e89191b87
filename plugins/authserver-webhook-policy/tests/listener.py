"""An endpoint that decides: a server of `authserver.testing.origins` that is asked questions, and answers with decisions."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from authserver.testing import origins
from authserver.testing.origins import Origin, Received, Reply, dripping, raw, serving

__all__ = ["Listener", "answering", "dripping", "hanging", "listening", "raw", "sending"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Listener:
    """What came, and what is answered: each of `script` once, then `reply` for ever."""

    def __init__(self, origin: Origin, scheme: str) -> None:
        self._origin = origin
        self.url = f"{scheme}://localhost:{origin.port}/decide?tenant=1"
        self.reply = answering(verdict="none")

    @property
    def received(self) -> list[Received]:
        return self._origin.received

    @property
    def questions(self) -> list[dict[str, Any]]:
        return [json.loads(item.body) for item in self.received]

    @property
    def script(self) -> list[Reply]:
        return self._origin.script

    @script.setter
    def script(self, replies: list[Reply]) -> None:
        self._origin.script = replies

    @property
    def reply(self) -> Reply:
        return self._origin.reply

    @reply.setter
    def reply(self, reply: Reply) -> None:
        self._origin.reply = reply

    def answers(self, **answer: Any) -> None:
        """Answer everything so from now on."""
        self.reply = answering(**answer)

    def decides(self, decide: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer each question with what this function says to it."""
        self.reply = lambda handler: answering(**decide(self.questions[-1]))(handler)


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """An endpoint on a loopback port; with TLS where a context is given."""
    with serving(context) as origin:
        yield Listener(origin, "https" if context else "http")


def answering(**answer: Any) -> Reply:
    """A proper answer of these members."""
    return origins.sending(json.dumps(answer).encode())


def sending(status: int, body: bytes = b"", **headers: str) -> Reply:
    """Any HTTP answer; `_` in a header's name stands for `-`."""
    return origins.sending(body, status, **headers)


def hanging(seconds: float = 3) -> Reply:
    """Nothing at all, for so long."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return reply
