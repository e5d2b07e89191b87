"""Requests to an authorization server, against real servers on this machine that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from authserver.testing import forgeries
from authserver.testing.origins import Authority, serving
from authserver.testing.origins import sending as origin_sending
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


GOOD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)


def get(url: str) -> dict[str, object]:
    return read_json(Fetcher(development=True)("GET", url, {}))


def test_a_document_is_read():
    with listening(sending(GOOD)) as url:
        assert get(url) == {}


@pytest.mark.parametrize("what", forgeries.ANSWERS)
def test_another_answer_is_none(what):
    """T126: nothing is decompressed, and size counts while it arrives."""
    with serving() as origin:
        origin.reply = forgeries.ANSWERS[what]
        start = time.monotonic()
        with pytest.raises(FetchFailed):
            get(f"http://127.0.0.1:{origin.port}/keys")
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("status", forgeries.REDIRECTS)
def test_no_redirect_is_followed(status):
    """T125: not even to the same host."""
    with serving() as origin:
        origin.reply = origin_sending(b"", status, Location=f"http://127.0.0.1:{origin.port}/elsewhere")
        with pytest.raises(FetchFailed):
            get(f"http://127.0.0.1:{origin.port}/keys")
        assert {received.path for received in origin.received} == {"/keys"}


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/jwt", ""])
def test_what_is_not_json_by_its_type_is_none(kind):
    """T129."""
    with serving() as origin:
        origin.reply = origin_sending(b"{}", Content_Type=kind)
        with pytest.raises(FetchFailed, match="Content-Type"):
            get(f"http://127.0.0.1:{origin.port}/keys")


def test_an_endless_answer_is_cut_off():
    """T126."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * (MAXIMUM_BODY + 2)
    with listening(sending(endless)) as url, pytest.raises(FetchFailed, match="longer than"):
        get(url)


@pytest.mark.parametrize("what", forgeries.DRIPS)
def test_a_server_that_sends_a_byte_now_and_then_does_not_keep_us(what, monkeypatch):
    """T126: each piece comes in time, and the whole never does."""
    monkeypatch.setattr(fetching, "DEADLINE", 0.4)
    with serving() as origin:
        origin.reply = forgeries.DRIPS[what]
        start = time.monotonic()
        with pytest.raises(FetchFailed):
            get(f"http://127.0.0.1:{origin.port}/keys")
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("reply", [forgeries.DRIPS["body"], forgeries.ANSWERS["trailers without end"]])
def test_time_and_size_count_within_tls_too(reply, monkeypatch, tmp_path):
    """T126."""
    monkeypatch.setattr(fetching, "DEADLINE", 0.8)
    authority = Authority(tmp_path)
    with serving(authority.context("localhost")) as origin:
        fetch, url = Fetcher(ca_file=str(authority.ca_file)), f"https://localhost:{origin.port}/keys"
        assert fetch("GET", url, {}).body == b"{}"
        origin.reply = reply
        start = time.monotonic()
        with pytest.raises(FetchFailed):
            fetch("GET", url, {})
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
