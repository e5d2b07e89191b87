"""What may go wrong on the way to an endpoint and back, each time with a real one."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from listener import SECRET, Listener, answering, dripping, hanging, listening, raw, sending

from authserver.testing.live import free_port
from authserver_webhook_policy.endpoint import MAXIMUM_ANSWER, Endpoint, EndpointFailed
from authserver_webhook_policy.signature import key_of

ANSWER = b'{"verdict": "none"}'
Make = Callable[..., Endpoint]


def asking(url: str, *, timeout: float = 2.0, retries: int = 0, ca_file: str = "") -> Endpoint:
    return Endpoint(url, key_of(SECRET), timeout=timeout, retries=retries, ca_file=ca_file)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is inside takes no longer."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def test_a_question_is_posted_as_json_and_the_answer_comes_back(endpoint: Listener) -> None:
    assert asking(endpoint.url).ask(b"{}") == ANSWER
    (received,) = endpoint.received
    assert received.path == "/decide?tenant=1" and received.body == b"{}"
    assert received.headers["Content-Type"] == received.headers["Accept"] == "application/json"
    assert received.headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in received.headers and "Authorization" not in received.headers


def test_a_connection_is_kept_for_the_next_question(endpoint: Listener) -> None:
    asked = asking(endpoint.url)
    for _ in range(5):
        asked.ask(b"{}")
    assert len({item.peer for item in endpoint.received}) == 1


def test_many_threads_ask_at_once_and_get_their_own_answers(endpoint: Listener) -> None:
    from authserver_webhook_policy import endpoint as module

    endpoint.reply = lambda handler: sending(200, handler.headers["webhook-id"].encode())(handler)
    asked = asking(endpoint.url, timeout=10)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(asked.ask, [b"%d" % number for number in range(200)]))
    assert sorted(answers) == sorted(item.headers["webhook-id"].encode() for item in endpoint.received)
    assert len(set(answers)) == 200
    assert len({item.peer for item in endpoint.received}) <= module.CONNECTIONS


def test_a_kept_connection_that_died_is_replaced(endpoint: Listener) -> None:
    asked = asking(endpoint.url)
    endpoint.script = [
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    ]
    asked.ask(b"{}")
    time.sleep(0.1)
    assert asked.ask(b"{}") == ANSWER


DRIPS = {
    "nothing": hanging(),
    "status line": dripping(b"HTTP/1.1 2", b"0"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X-Drop: drop\r\n"),
    "header value": dripping(b"HTTP/1.1 200 OK\r\nX-Drop: ", b"d"),
    "body": dripping(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n", b" "
    ),
    "chunks": dripping(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\n \r\n",
    ),
    "chunk": dripping(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
        b" ",
    ),
    "until the end": dripping(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" "),
    "interim answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("what", DRIPS)
def test_a_slow_endpoint_has_the_time_of_one_question_and_no_more(what: str, endpoint: Listener) -> None:
    """T140: each piece comes in time, and the whole never does."""
    endpoint.reply = DRIPS[what]
    with within(2), pytest.raises(EndpointFailed, match=r"no whole answer within 0\.4 s"):
        asking(endpoint.url, timeout=0.4, retries=3).ask(b"{}")
    assert len(endpoint.received) == 1


def test_new_attempts_share_the_time_of_one_question(endpoint: Listener) -> None:
    endpoint.script = [sending(503), sending(503)]
    endpoint.reply = hanging()
    with within(2.5), pytest.raises(EndpointFailed, match="no whole answer within 1"):
        asking(endpoint.url, timeout=1.0, retries=5).ask(b"{}")


def test_an_address_that_swallows_everything_uses_the_time_up() -> None:
    with socket.socket() as listener:
        # Full: further connections are neither taken nor refused.
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.05)
        with within(2), pytest.raises(EndpointFailed, match=r"no whole answer within 0\.3 s"):
            asking(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.3, retries=2).ask(b"{}")
        for filler in fillers:
            filler.close()


def test_nobody_at_the_address_is_tried_again_and_then_said() -> None:
    with within(2.5), pytest.raises(EndpointFailed, match=r"no connection: .*, 3 attempts"):
        asking(f"http://localhost:{free_port()}/", retries=2).ask(b"{}")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_trouble_is_tried_again(status: int, endpoint: Listener) -> None:
    endpoint.script = [sending(status), sending(status)]
    assert asking(endpoint.url, retries=2).ask(b"{}") == ANSWER
    assert len(endpoint.received) == 3


def test_attempts_are_bounded(endpoint: Listener) -> None:
    endpoint.reply = sending(503)
    with pytest.raises(EndpointFailed, match="status 503, 2 attempts"):
        asking(endpoint.url, retries=1).ask(b"{}")
    assert len(endpoint.received) == 2


def test_a_connection_that_breaks_is_tried_again(endpoint: Listener) -> None:
    endpoint.script = [raw(b"")]
    assert asking(endpoint.url, retries=1).ask(b"{}") == ANSWER


REFUSED = {
    "500": sending(500, ANSWER),
    "404": sending(404, ANSWER),
    "401": sending(401, ANSWER),
    "201": sending(201, ANSWER),
    "204": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "no http": raw(b"gibberish\r\n\r\n"),
    "text": sending(200, ANSWER, Content_Type="text/html"),
    "no type": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "gzip": sending(200, ANSWER, Content_Encoding="gzip"),
    "too long": sending(200, b" " * (MAXIMUM_ANSWER + 1)),
    "said to be too long": sending(200, b" " * 100_000, Content_Length="99999999999"),
    "too long in chunks": raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n"
        % (b"4000\r\n%b\r\n" % (b" " * 0x4000) * 5)
    ),
    "cut short": raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{}"),
    "many headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"),
    "a header without end": raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_proper_answer_is_refused_at_once(what: str, endpoint: Listener) -> None:
    endpoint.reply = REFUSED[what]
    with within(2), pytest.raises(EndpointFailed):
        asking(endpoint.url, retries=3).ask(b"{}")
    assert len(endpoint.received) == 1


def test_the_longest_answer_is_still_read(endpoint: Listener) -> None:
    endpoint.reply = sending(200, b" " * MAXIMUM_ANSWER)
    assert len(asking(endpoint.url).ask(b"{}")) == MAXIMUM_ANSWER


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int, endpoint: Listener) -> None:
    with listening() as elsewhere:
        endpoint.reply = sending(status, Location=elsewhere.url)
        with pytest.raises(EndpointFailed, match=f"status {status}; redirects are not followed"):
            asking(endpoint.url).ask(b"{}")
    assert elsewhere.received == []


def test_no_proxy_of_the_environment_sees_a_question(
    endpoint: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert asking(endpoint.url).ask(b"{}") == ANSWER


def test_the_message_repeats_nothing_of_question_and_answer(endpoint: Listener) -> None:
    endpoint.reply = sending(500, b"canary-answer", X_Canary="canary-header")
    with pytest.raises(EndpointFailed) as failed:
        asking(endpoint.url).ask(b"canary-question")
    assert "canary" not in str(failed.value) and "tenant" not in str(failed.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for `localhost` that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    return self_signed(folder / "ours", "localhost"), folder / "ours.key"


def self_signed(base: Path, host: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "endpoint")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ip_address("192.0.2.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = base.with_suffix(".pem")
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    base.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_with_its_ca_file_an_https_endpoint_is_asked(certificate: tuple[Path, Path]) -> None:
    with listening(server_context(certificate)) as endpoint:
        asked = asking(endpoint.url, ca_file=str(certificate[0]))
        assert asked.ask(b"{}") == asked.ask(b"{}") == ANSWER
        assert len({item.peer for item in endpoint.received}) == 1


def test_a_stranger_s_certificate_is_refused_before_anything_is_sent(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    other = self_signed(tmp_path / "other", "localhost")
    with listening(server_context(certificate)) as endpoint:
        for ca_file in ("", str(other)):
            with pytest.raises(EndpointFailed, match="TLS"):
                asking(endpoint.url, ca_file=ca_file, retries=2).ask(b"{}")
        assert endpoint.received == []


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    ours = self_signed(tmp_path / "ours", "policy.example"), tmp_path / "ours.key"
    with listening(server_context(ours)) as endpoint:
        with pytest.raises(EndpointFailed, match="TLS"):
            asking(endpoint.url, ca_file=str(ours[0])).ask(b"{}")
        assert endpoint.received == []


@pytest.mark.parametrize("what", ["headers", "body"])
def test_the_deadline_holds_over_tls_too(what: str, certificate: tuple[Path, Path]) -> None:
    with listening(server_context(certificate)) as endpoint:
        endpoint.reply = DRIPS[what]
        with within(2), pytest.raises(EndpointFailed, match="no whole answer"):
            asking(endpoint.url, timeout=0.4, ca_file=str(certificate[0])).ask(b"{}")


def test_a_handshake_that_never_comes_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, within(2):
        asked = asking(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.3)
        with pytest.raises(EndpointFailed, match=r"no whole answer within 0\.3 s"):
            asked.ask(b"{}")


def test_a_failure_leaves_no_thread_behind(endpoint: Listener) -> None:
    """The server has so many threads for plugins; a slow endpoint must give them back."""
    endpoint.reply = dripping(b"HTTP/1.1 200 OK\r\n", b"X-Drop: drop\r\n")
    asked = asking(endpoint.url, timeout=0.2)

    def ask() -> None:
        with pytest.raises(EndpointFailed):
            asked.ask(b"{}")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2)
    assert not any(thread.is_alive() for thread in threads)


def test_answering_again_after_trouble_is_noticed_at_once(endpoint: Listener) -> None:
    endpoint.script = [hanging(0.6), sending(500), raw(b"gibberish\r\n\r\n"), answering(verdict="none")]
    asked = asking(endpoint.url, timeout=0.3)
    for _ in range(3):
        with pytest.raises(EndpointFailed):
            asked.ask(b"{}")
    assert asked.ask(b"{}") == ANSWER
