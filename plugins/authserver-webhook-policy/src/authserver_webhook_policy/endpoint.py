"""Asking an endpoint over HTTP: one deadline for everything, a few attempts, connections kept.

urllib3 keeps the connections, finds those that are dead, and checks certificates and host names. Its timeouts apply
to each piece that arrives, so an endpoint that sends one byte a second would never exceed one. So the sockets here
check the deadline of the whole question before they wait.
"""

from __future__ import annotations

import random
import secrets
import socket
import ssl
import time
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from authserver_webhook_policy.signature import sign

MAXIMUM_ANSWER = 65536
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The endpoint, or a proxy in front of it, says that another attempt may help.
PASSING = (502, 503, 504)
# Seconds before the first new attempt, at most; doubled for each one after it.
BACKOFF = 0.1
# As many as calls of plugins can run at once in the server.
CONNECTIONS = 32

# The deadline of the question that this thread is asking, on the monotonic clock.
_DEADLINE: ContextVar[float] = ContextVar("deadline")


class EndpointFailed(Exception):
    """There is no answer; the message says why, and repeats nothing of what was sent or received."""


class Endpoint:
    """An HTTP endpoint that is asked signed questions. Safe for many threads.

    Args:
        url: https, or http to this machine.
        key: the requests are signed with it.
        timeout: seconds for one question with all its attempts; the lookup of the host name does not count.
        retries: how many more attempts after a connection that failed, or 502, 503 and 504.
        ca_file: the certificates to trust instead of the system's; "" for the system's.

    Raises:
        ValueError: url or ca_file cannot be used; with the setting named.
    """

    def __init__(self, url: str, key: bytes, *, timeout: float, retries: int, ca_file: str) -> None:
        self._key = key
        self._timeout = timeout
        self._retries = retries
        self.name, self._target, self._pool = _open(url, ca_file)

    def ask(self, body: bytes) -> bytes:
        """Send this body and return the body of the answer. Raises EndpointFailed."""
        deadline = time.monotonic() + self._timeout
        token = _DEADLINE.set(deadline)
        try:
            for attempt in range(self._retries + 1):
                answer, problem = self._attempt(body)
                if answer is not None:
                    return answer
                # A random pause, so that requests that failed together are not repeated together.
                pause = random.uniform(0.1, 1) * BACKOFF * 2**attempt  # noqa: S311 - no secret
                if attempt == self._retries or time.monotonic() + pause >= deadline:
                    break
                time.sleep(pause)
            raise EndpointFailed(f"{self.name}: {problem}, {attempt + 1} attempts")
        finally:
            _DEADLINE.reset(token)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._pool.close()

    def _attempt(self, body: bytes) -> tuple[bytes | None, str]:
        """The answer; or None and a problem after which another attempt may help. Raises EndpointFailed for others."""
        try:
            answered = self._pool.urlopen(
                "POST",
                self._target,
                body=body,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                    "User-Agent": "authserver-webhook-policy",
                    # A new id and time: an endpoint may refuse every request that it has seen before.
                    **sign(self._key, "msg_" + secrets.token_hex(16), body, time.time()),
                },
                timeout=Timeout(total=_remaining()),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            with answered:
                if answered.status in PASSING:
                    return None, f"status {answered.status}"
                return self._read(answered), ""
        except exceptions.SSLError as error:
            raise EndpointFailed(f"{self.name}: TLS: {error}") from None
        except exceptions.NewConnectionError:
            return None, "cannot be reached"
        except (TimeoutError, exceptions.TimeoutError):
            raise self._late() from None
        except exceptions.ProtocolError as error:
            if any(isinstance(cause, TimeoutError) for cause in error.args):
                raise self._late() from None
            if any(isinstance(cause, OSError) for cause in error.args):
                return None, "the connection broke"
            raise EndpointFailed(f"{self.name}: the answer is not HTTP") from None
        except (exceptions.HTTPError, OSError) as error:
            raise EndpointFailed(f"{self.name}: {type(error).__name__}") from None

    def _late(self) -> EndpointFailed:
        return EndpointFailed(f"{self.name}: no whole answer within {self._timeout} s")

    def _read(self, answered: BaseHTTPResponse) -> bytes:
        if answered.status != 200:
            raise EndpointFailed(f"{self.name}: status {answered.status}; redirects are not followed")
        kind = answered.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise EndpointFailed(f"{self.name}: the answer is not application/json")
        if answered.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise EndpointFailed(f"{self.name}: the answer is encoded, although identity was asked for")
        answer = b""
        # Read to the end: only then an answer shorter than its Content-Length is noticed.
        while piece := answered.read(MAXIMUM_ANSWER + 1):
            answer += piece
            if len(answer) > MAXIMUM_ANSWER:
                raise EndpointFailed(f"{self.name}: the answer is longer than {MAXIMUM_ANSWER} bytes")
        return answer


def _open(url: str, ca_file: str) -> tuple[str, str, HTTPConnectionPool]:
    """The endpoint's name for logs, the target of requests, and a pool of connections; none is made yet."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
        raise ValueError("url: must be such as https://policy.example.com/decide, without user or fragment")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("url: must have visible ASCII characters only; write others as %XX")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ValueError(f"url: must be https; http is for {', '.join(LOOPBACK)} only")
    name = f"{parts.scheme}://{parts.netloc}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "http":
        if ca_file:
            raise ValueError("ca_file: is for https; remove it")
        return name, target, _Pool(host, port, maxsize=CONNECTIONS)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ValueError(f"ca_file: cannot be used: {error}") from None
    context.sslsocket_class = _SecureSocket
    pool = _SecurePool(host, port, maxsize=CONNECTIONS, ssl_context=context, cert_reqs="CERT_REQUIRED")
    return name, target, pool


def _remaining() -> float:
    """Seconds until the deadline of this thread's question. Raises TimeoutError when it has passed."""
    seconds = _DEADLINE.get() - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time for this question is over")
    return seconds


class _Socket(socket.socket):
    """A socket that never waits beyond the deadline of the question."""

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(_remaining())
        return super().recv_into(*arguments)

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(_remaining())
        super().sendall(*arguments)


class _SecureSocket(ssl.SSLSocket):
    """The same, with TLS."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(_remaining())
        super().do_handshake(block)

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(_remaining())
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        self.settimeout(_remaining())
        return super().send(*arguments)


class _Connecting:
    """For both kinds of connection: try each address of the host in turn, within the deadline."""

    def _new_conn(self: Any) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise exceptions.NameResolutionError(self.host, self, error) from error
        problem: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in found:
            connected = _Socket(family, kind, protocol)
            try:
                connected.settimeout(_remaining())
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.connect(address)
            except OSError as error:
                connected.close()
                problem = error
            else:
                return connected
        if isinstance(problem, TimeoutError):
            raise exceptions.ConnectTimeoutError(self, "the time is over") from problem
        raise exceptions.NewConnectionError(self, str(problem)) from problem


class _Connection(_Connecting, HTTPConnection):
    pass


class _SecureConnection(_Connecting, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
