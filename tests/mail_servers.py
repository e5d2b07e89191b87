"""Real mail servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope

USERNAME, PASSWORD = "authserver", "the password of the mail server"


@dataclass
class MailServer:
    """A mail server.

    Attributes:
        port: on 127.0.0.1.
        envelopes: what it took.
        answer: what it says to a recipient instead of taking it; "" to take it.
        signed_in: whether each of them came after a sign-in.
    """

    port: int = 0
    answer: str = ""
    envelopes: list[Envelope] = field(default_factory=list)
    signed_in: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  # the name that aiosmtpd calls
        self, server: SMTP, session: Any, envelope: Envelope, address: str, options: Any
    ) -> str:
        if not self.answer:
            envelope.rcpt_tos.append(address)
        return self.answer or "250 OK"

    async def handle_DATA(  # noqa: N802  # likewise
        self, server: SMTP, session: Any, envelope: Envelope
    ) -> str:
        self.envelopes.append(envelope)
        self.signed_in.append(bool(session.authenticated))
        return "250 taken"

    def messages(self, number: int = 1, *, seconds: float = 10) -> list[EmailMessage]:
        """Wait for so many messages; all that came."""
        end = time.monotonic() + seconds
        while len(self.envelopes) < number and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.envelopes) >= number, f"{len(self.envelopes)} mails came"
        return [message_from_bytes(envelope.original_content, policy=default) for envelope in self.envelopes]


@contextmanager
def mail_server(
    certificate: Path | None = None, *, implicit: bool = False, asks_password: bool = False
) -> Iterator[MailServer]:
    """A mail server; with a certificate it offers STARTTLS, or has TLS from the first byte."""
    server = MailServer()
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)

    def authenticate(smtp: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = (data.login, data.password) == (USERNAME.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    options: dict[str, Any] = {}
    if asks_password:
        options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": not implicit}
    if tls is not None and not implicit:
        options |= {"tls_context": tls, "require_starttls": True}
    loop = asyncio.new_event_loop()

    def smtp() -> SMTP:
        with warnings.catch_warnings():
            # It does not see that TLS began with the connection, and warns of signing in without.
            warnings.simplefilter("ignore", UserWarning)
            return SMTP(server, loop=loop, hostname="localhost", **options)

    async def listen() -> asyncio.Server:
        return await loop.create_server(smtp, "127.0.0.1", 0, ssl=tls if implicit else None)

    # In a thread of its own: in this one the loop of a browser may run.
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    server.port = listening.sockets[0].getsockname()[1]

    def end() -> None:
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_later(0.05, loop.stop)

    try:
        yield server
    finally:
        loop.call_soon_threadsafe(end)
        thread.join(timeout=10)
        loop.close()


@contextmanager
def raw_server(answer: Callable[[Any], None]) -> Iterator[int]:
    """The port of a server that does with each connection what `answer` does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
