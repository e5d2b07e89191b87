"""Requests to an authorization server, against real servers on this machine that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from authserver_resource import fetching
from authserver_resource.fetching import MAXIMUM_BODY, Fetcher, FetchFailed, read_json


@contextmanager
def listening(*answers: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that answers one connection after the other in these ways, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        connection.recv(65_536)
                        answer(connection)
                    except OSError:
                        pass  # the client has gone, which is what it should do

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def sending(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text)


def dripping(head: bytes) -> Callable[[socket.socket], None]:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    return drip


GOOD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)


def get(url: str) -> dict[str, object]:
    return read_json(Fetcher(development=True)("GET", url, {}))


def test_a_document_is_read():
    with listening(sending(GOOD)) as url:
        assert get(url) == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_another_answer_is_none(answer):
    with listening(sending(answer), sending(answer)) as url, pytest.raises(FetchFailed):
        get(url)


def test_an_endless_answer_is_cut_off():
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * (MAXIMUM_BODY + 2)
    with listening(sending(endless)) as url, pytest.raises(FetchFailed, match="longer than"):
        get(url)


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"],
    ids=["status", "header", "body"],
)
def test_a_server_that_sends_a_byte_now_and_then_does_not_keep_us(head, monkeypatch):
    monkeypatch.setattr(fetching, "DEADLINE", 0.4)
    with listening(dripping(head), dripping(head)) as url:
        start = time.monotonic()
        with pytest.raises(FetchFailed):
            get(url)
        assert time.monotonic() - start < 3


def test_a_kept_connection_that_has_died_is_replaced():
    kept = GOOD.replace(b"Connection: close\r\n", b"")
    fetch = Fetcher(development=True)
    with listening(sending(kept), sending(kept)) as url:
        for _ in range(2):
            assert fetch("GET", url, {}).status == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://as.example/",
        "file:///etc/passwd",
        "http://127.0.0.1.evil.example/",
        "https:///x",
        "//x",
        "https://a b/",
    ],
)
def test_only_https_is_asked_or_this_machine_in_development(url):
    with pytest.raises(FetchFailed):
        Fetcher(development=True)("GET", url, {})
    with pytest.raises(FetchFailed, match="development=True"):
        Fetcher()("GET", "http://127.0.0.1:1/", {})


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    import ssl

    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    certificate, key = self_signed()
    file = tmp_path / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)

    def serve_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65_536)
            secured.sendall(GOOD)

    with tls_listening(serve_tls) as port:
        for url, ca_file, good in (
            (f"https://localhost:{port}/", str(file), True),
            (f"https://localhost:{port}/", "", False),
            (f"https://127.0.0.1:{port}/", str(file), False),  # vouched for, under another name
        ):
            if good:
                assert read_json(Fetcher(ca_file=ca_file)("GET", url, {})) == {}
            else:
                with pytest.raises(FetchFailed):
                    Fetcher(ca_file=ca_file)("GET", url, {})


def self_signed():
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return builder.sign(key, hashes.SHA256()), key


@contextmanager
def tls_listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    serve(connection)
                except OSError:
                    if listener.fileno() < 0 or closing.is_set():
                        return

        closing = threading.Event()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        closing.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
