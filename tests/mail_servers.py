"""Real mail servers on loopback, with the certificates that tests need."""

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
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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


class Authority:
    """Makes certificates that mail servers use; `ca_file` is what trusts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        certificate = self._signed(
            self._name, self._key, timedelta(days=1), x509.BasicConstraints(ca=True, path_length=None)
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def certificate(self, host: str, *, lasts: timedelta = timedelta(days=1)) -> Path:
        """A file with certificate and key for this host; it may have ended already."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._signed(name, key, lasts, x509.SubjectAlternativeName([x509.DNSName(host)]))
        path = self._folder / f"{host}-{lasts.total_seconds():.0f}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _signed(self, name: x509.Name, key: Any, lasts: timedelta, extension: Any) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + lasts)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )
