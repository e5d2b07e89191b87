"""Other servers for tests: real ones on loopback, with TLS by an authority of their own; the test sets their answers."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# A function that answers one request.
Reply = Callable[[BaseHTTPRequestHandler], None]


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Signs certificates for hosts. A client trusts it with `ca_file`.

    Its certificates are as RFC 5280 wants them (4.2.1.1 to 4.2.1.3): Python 3.13 and later accept no others.

    Args:
        folder: where its files are written.
        valid_for: how long its own certificate is valid.
    """

    def __init__(self, folder: Path, *, valid_for: timedelta = timedelta(hours=1)) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority for tests")])
        certificate = (
            self._certificate(self._name, self._key, valid_for)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
        )
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(
            certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def certificate(self, *hosts: str, valid_for: timedelta = timedelta(hours=1)) -> Path:
        """A file with a key and its certificate for all these host names or addresses.

        `valid_for` may be negative: the certificate has expired then.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "origin for tests")])
        certificate = self._certificate(name, key, valid_for).add_extension(
            x509.SubjectAlternativeName(list(map(_alternative_name, hosts))), critical=False
        )
        path = self._folder / f"{hosts[0].replace(':', '_')}-{valid_for.total_seconds():.0f}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        return path

    def context(self, *hosts: str, valid_for: timedelta = timedelta(hours=1)) -> ssl.SSLContext:
        """The TLS context of a server with all these host names or addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate(*hosts, valid_for=valid_for))
        return context

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, valid_for: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        ends = now + valid_for
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, ends) - timedelta(hours=1))
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


@dataclass(frozen=True)
class Received:
    """A received request; `peer` is the port of its sender, which identifies the connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: int


@dataclass
class Origin:
    """Another server.

    Attributes:
        port: its port on 127.0.0.1.
        received: the requests that arrived.
        script: the replies to the first requests, one each.
        reply: the reply to every later request.
        names: the host names of TLS handshakes (SNI).
    """

    port: int = 0
    received: list[Received] = field(default_factory=list)
    script: list[Reply] = field(default_factory=list)
    reply: Reply = field(default_factory=lambda: sending())
    names: list[str | None] = field(default_factory=list)


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Origin]:
    """An origin on a loopback port; with TLS if a context is given."""
    origin = Origin()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(b"")

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_OPTIONS(self) -> None:
            self._answer(b"")

        def do_DELETE(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            origin.received.append(
                Received(self.command, self.path, dict(self.headers), body, self.client_address[1])
            )
            reply = origin.script.pop(0) if origin.script else origin.reply
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

        def finish_request(self, request: Any, address: Any) -> None:
            # In the thread of the connection, so that a handshake that hangs delays no other.
            if context is not None:
                request = context.wrap_socket(request, server_side=True)
            try:
                super().finish_request(request, address)
            finally:
                if context is not None:
                    request.close()

        def handle_error(self, request: Any, address: Any) -> None:
            """Print nothing: in some tests the client hangs up or refuses the certificate on purpose."""

    if context is not None:
        context.sni_callback = lambda _socket, name, _context: origin.names.append(name)
    server = Server(("127.0.0.1", 0), Handler)
    origin.port = server.server_port
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()


def sending(body: bytes = b"{}", status: int = 200, **headers: str) -> Reply:
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
    """Send these bytes, and close the connection."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    return reply


def dripping(head: bytes, drop: bytes, *, seconds: float = 0.05) -> Reply:
    """Send these bytes, and then a byte at intervals while the client listens (at most 10 s)."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            handler.wfile.write(drop)
            handler.wfile.flush()
            time.sleep(seconds)

    return reply


def holding(gate: threading.Event, then: Reply | None = None) -> Reply:
    """Send nothing until the gate opens (at most 10 s), then this."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(10)
        (then or sending())(handler)

    return reply


@dataclass
class Tunnels:
    """An egress proxy: `asked` has the first line and the headers of each request."""

    port: int = 0
    asked: list[str] = field(default_factory=list)


@contextmanager
def proxying(ports: dict[str, int], *, refusal: bytes = b"") -> Iterator[Tunnels]:
    """A proxy that opens a tunnel to a loopback port for each of these hosts (CONNECT); others get 502.

    Args:
        refusal: the answer to every request, instead of a tunnel.
    """
    tunnels = Tunnels()
    listener = socket.create_server(("127.0.0.1", 0))
    tunnels.port = listener.getsockname()[1]

    def serve(client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head and (piece := client.recv(4096)):
                head += piece
            tunnels.asked.append(head.decode("latin-1"))
            host = head.split(b" ")[1].rpartition(b":")[0].decode()
            if refusal or host not in ports:
                client.sendall(refusal or b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", ports[host])) as origin:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_copy, args=(origin, client), daemon=True)
                back.start()
                _copy(client, origin)
                back.join(10)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield tunnels
    finally:
        # Wakes the accepting thread; `close` alone does not.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def resolving(names: dict[str, Sequence[str]]) -> Callable[[str, int], Sequence[str]]:
    """A resolver that knows these names and their addresses."""

    def resolve(host: str, port: int) -> Sequence[str]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[host]

    return resolve
