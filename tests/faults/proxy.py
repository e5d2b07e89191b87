"""A proxy between servers and PostgreSQL, on a Unix socket, that delays, loses, swallows and cuts what goes through it."""

from __future__ import annotations

import random
import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

# What PostgreSQL answers when a transaction is committed: CommandComplete with the tag COMMIT; or, at the end of a round trip
# that was a transaction by itself, with that of an INSERT, and then that it is ready and in no transaction.
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
INSERTED, READY = b"INSERT 0 1\x00", b"Z\x00\x00\x00\x05I"


class Proxy:
    """Stands before the socket of a PostgreSQL.

    Attributes:
        folder: what to give as `host`.
        delay: seconds for which each answer is kept back.
        loss: the share of pieces that end their connection instead of arriving.
        cut_commits: how many answers to a COMMIT are still to be lost, with their connection.
    """

    def __init__(self, target: str) -> None:
        # A path under pytest's folders may be too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="authserver-proxy-"))
        self.delay = self.loss = 0.0
        self.cut_commits = 0
        self._target = target
        self._path = self.folder / ".s.PGSQL.5432"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._speaks = threading.Event()
        self._speaks.set()
        self.open()

    def open(self) -> None:
        """Take connections, after `cut`."""
        self._speaks.set()
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._path.chmod(0o777)
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections, and end those that there are in the middle of whatever they do."""
        self._path.unlink(missing_ok=True)
        _shut(self._listener)
        for pair in self._pairs:
            for end in pair:
                _shut(end)
        self._pairs = []
        self._speaks.set()

    def silence(self) -> None:
        """Take connections, and swallow everything on all of them, until `speak`: as a frozen machine does."""
        self._speaks.clear()

    def speak(self) -> None:
        """What was said meanwhile arrives now."""
        self._speaks.set()

    def close(self) -> None:
        self.cut()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            # PostgreSQL would wait for what such a client has to say, and run out of room for others.
            self._speaks.wait()
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._target)
            except OSError:
                # It is stopped.
                _shut(client)
                _shut(server)
                continue
            self._pairs.append((client, server))
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._carry, args=(source, sink, answers), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while piece := source.recv(65536):
                if answers:
                    if self.delay:
                        time.sleep(self.delay)
                    if self.cut_commits > 0 and _commits(piece):
                        self.cut_commits -= 1
                        break
                if self.loss and random.random() < self.loss:
                    break
                self._speaks.wait()
                sink.sendall(piece)
        except OSError:
            pass
        _shut(source)
        _shut(sink)


def _commits(piece: bytes) -> bool:
    return COMMITTED in piece or (INSERTED in piece and piece.endswith(READY))


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
