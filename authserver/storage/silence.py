"""Ends the wait for a PostgreSQL that is frozen, or whose packets the network drops, so no request waits long (T114).

The server's own timeouts end a slow statement only while the server runs. After some time without an answer, another
connection checks whether it runs. If it does, waiting continues. If not, the statement is abandoned. From then on one
request in each second tries to reach the server, and all others fail at once, so that no thread is blocked.
"""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Engine, event

Result = TypeVar("Result")

# Seconds of silence after which another connection is tried, and for which its answer is awaited.
PATIENCE, ANSWERS_WITHIN = 2.0, 0.7
# Seconds between two attempts at a server that was silent.
PAUSE = 1.0
# The SSLRequest of PostgreSQL's protocol: every server answers with a byte, with or without TLS.
_QUESTION = b"\0\0\0\x08\x04\xd2\x16\x2f"


class ServerSilent(psycopg.OperationalError):
    """The server answers neither a statement nor a new connection; it is unknown what the statement did."""


class Silence:
    """Whether the server of an engine answered the last time; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_attempt: float | None = None

    def check(self) -> None:
        """Raises ServerSilent unless the server answered the last time, or the caller is to try it now."""
        # A thread that reads this just before the silence ends makes one more attempt.
        if self._next_attempt is not None:
            self._take_turn()

    def _take_turn(self) -> None:
        with self._lock:
            now, due = time.monotonic(), self._next_attempt
            if due is not None and now < due:
                raise ServerSilent("the database was silent a moment ago")
            if due is not None:
                self._next_attempt = now + PAUSE

    def begin(self) -> None:
        """Note that the server did not answer: the next attempt is after a pause."""
        with self._lock:
            self._next_attempt = time.monotonic() + PAUSE

    def end(self) -> None:
        """Note that the server answered."""
        if self._next_attempt is not None:
            with self._lock:
                self._next_attempt = None


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that gives up when its server is silent. It is closed then."""

    silence: Silence | None = None

    def wait(self, gen: Generator[Any, Any, Result], *arguments: Any, **options: Any) -> Result:
        silence = self.silence
        if silence is None:
            return super().wait(gen, *arguments, **options)
        try:
            silence.check()
            result = super().wait(self._watched(gen), *arguments, **options)
        except ServerSilent:
            self.pgconn.finish()
            raise
        silence.end()
        return result

    def _watched(self, gen: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """The same generator, which psycopg resumes with 0 whenever nothing has come for a tenth of a second."""
        assert self.silence is not None
        ask_at = time.monotonic() + PATIENCE
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > ask_at:
                    if not is_there(self.info.hostaddr or self.info.host, self.info.port):
                        self.silence.begin()
                        raise ServerSilent("the database is silent")
                    ask_at = time.monotonic() + PATIENCE
                wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result


def watch(engine: Engine) -> None:
    """Let the connections of this engine give up when their server is silent."""
    silence = Silence()

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> WatchedConnection:
        silence.check()
        try:
            connection = WatchedConnection.connect(*arguments, **options)
        except psycopg.errors.ConnectionTimeout as error:
            # This error holds the driver's frames, and these hold the connection, until garbage is collected. The
            # connection would remain open, and a server that wakes up would begin a session that nobody uses.
            traceback.clear_frames(error.__traceback__)
            silence.begin()
            raise
        silence.end()
        connection.silence = silence
        return connection

    event.listen(engine, "do_connect", connect)


def is_there(host: str, port: int) -> bool:
    """Whether the server at this address, or with a Unix socket in this folder, answers; a refusal is an answer."""
    try:
        if host.startswith(("/", "@")):
            path = f"{host}/.s.PGSQL.{port}"
            asked = socket.socket(socket.AF_UNIX)
            asked.settimeout(ANSWERS_WITHIN)
            address: Any = path if host.startswith("/") else f"\0{path[1:]}"
            with asked:
                asked.connect(address)
                return _answers(asked)
        with socket.create_connection((host, port), ANSWERS_WITHIN) as asked:
            return _answers(asked)
    except (TimeoutError, BlockingIOError):
        # The latter is a Unix socket whose queue of connections is full.
        return False
    except OSError:
        return True


def _answers(asked: socket.socket) -> bool:
    asked.sendall(_QUESTION)
    asked.recv(1)
    return True
