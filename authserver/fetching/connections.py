"""Connections on which one exchange has one deadline and a limit on what it receives.

urllib3 speaks HTTP, checks certificates and host names, and keeps connections. Its timeouts apply to each piece that
arrives, so a server that sends a byte a second would never exceed one. So the sockets here ask the exchange of their
thread before they wait, and count what they received.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.client import HTTPException
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager, Timeout, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers

from authserver.engine.documents import FetchFailed, FetchProblem, Reply
from authserver.fetching.addresses import Address
from authserver.limits import MAXIMUM_ADDRESSES, MAXIMUM_FETCHED_HEAD, MAXIMUM_LOOKUPS

REDIRECTS = (301, 302, 303, 307, 308)
SUCCESSES = range(200, 300)
# A body comes in chunks, or in the same piece as the head: so much more may arrive than what is kept.
_SLACK = 16_384

# The same number may be there more than once; urllib3 refuses different ones.
_LENGTH = re.compile(r"[0-9]{1,19}(\s*,\s*[0-9]{1,19})*")

# The addresses of a host, as text. Raises OSError.
Resolve = Callable[[str, int], Sequence[str]]
# Raises FetchFailed unless this address may be reached.
Check = Callable[[Address], None]

# It warns of each malformed answer, with the URL and a traceback; the caller reports it once.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
# At DEBUG it writes each path and query, which may hold a secret.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


def system_resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host by the system's resolver, in its order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def anywhere(address: Address) -> None:
    """The check of what the operator names: any address will do."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An egress proxy: tunnels are opened through it with CONNECT (RFC 9110, 9.3.6).

    Attributes:
        url: `http://host:port`.
        credentials: `user:password`, or "".
    """

    url: str
    credentials: str = field(default="", repr=False)


@dataclass(slots=True)
class Exchange:
    """One request and its answer: what they may still use.

    Attributes:
        deadline: on the monotonic clock.
        check: of the addresses that are connected to.
        resolve: looks host names up.
        allowance: bytes that may still be received.
    """

    deadline: float
    check: Check
    resolve: Resolve
    allowance: int = MAXIMUM_FETCHED_HEAD + _SLACK

    def remaining(self) -> float:
        """Seconds until the deadline. Raises FetchFailed when it has passed."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise too_slow()
        return seconds

    def receive(self, count: int) -> None:
        """Count these bytes. Raises FetchFailed when they are too many."""
        self.allowance -= count
        if self.allowance < 0:
            raise FetchFailed(FetchProblem.TOO_LARGE, "more was received than headers and body may have")

    def connect(self, host: str, port: int, check: Check) -> socket.socket:
        """A connection to an address of this host, looked up once; all of them are checked. Raises FetchFailed."""
        addresses = self._addresses(host, port)
        for address in addresses:
            check(address)
        tried = addresses[:MAXIMUM_ADDRESSES]
        problem = "it has no address"
        for number, address in enumerate(tried):
            # An address that swallows everything leaves time for the others.
            patience = self.remaining() / (len(tried) - number)
            try:
                return _connected(address, port, patience)
            except TimeoutError:
                problem = "no connection in time"
            except OSError as error:
                problem = f"no connection: {error.strerror or type(error).__name__}"
        self.remaining()
        raise FetchFailed(FetchProblem.UNREACHABLE, f"{host}: {problem}")

    def _addresses(self, host: str, port: int) -> Sequence[Address]:
        """Each address of the host once. Raises FetchFailed."""
        literal = literal_address(host)
        if literal is not None:
            return [literal]
        try:
            found = _LOOKUPS.look_up(self.resolve, host, port, self.remaining())
            addresses = list(dict.fromkeys(map(ip_address, found)))
        except socket.gaierror as error:
            unknown = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
            problem = FetchProblem.NAME_UNKNOWN if unknown else FetchProblem.UNREACHABLE
            raise FetchFailed(problem, f"{host}: the name cannot be looked up: {error.strerror}") from None
        except (OSError, UnicodeError, ValueError) as error:
            detail = f"{host}: the name cannot be looked up: {type(error).__name__}"
            raise FetchFailed(FetchProblem.UNREACHABLE, detail) from None
        if not addresses:
            raise FetchFailed(FetchProblem.NAME_UNKNOWN, f"{host}: the name has no address")
        return addresses


def too_slow() -> FetchFailed:
    """The failure of an exchange that has used up its time."""
    return FetchFailed(FetchProblem.TOO_SLOW, "no whole answer in time")


def ask(
    pool: HTTPConnectionPool,
    exchange: Exchange,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    maximum: int,
    read: Container[int] = SUCCESSES,
    refused: Container[int] = REDIRECTS,
) -> Reply:
    """Send a request and return the answer. No redirect is followed, and nothing is decompressed.

    Args:
        target: path and query.
        maximum: bytes of the longest body.
        read: statuses whose body is read; that of others is left where it is.
        refused: statuses that are failures; who gives others gets a redirect as it is.

    Raises:
        FetchFailed: there is no answer within these limits, or it is a redirect.
    """
    token = _EXCHANGE.set(exchange)
    try:
        with closing(
            pool.urlopen(
                method,
                target,
                body=body,
                # Nothing else is accepted: what is compressed could be much longer than what is received.
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=Timeout(total=exchange.remaining()),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        ) as answered:
            _check_framing(answered)
            if answered.status in refused:
                detail = f"status {answered.status}; redirects are not followed"
                raise FetchFailed(FetchProblem.REDIRECTED, detail, status=answered.status)
            if (
                sum(len(name) + len(text) + 4 for name, text in answered.headers.iteritems())
                > MAXIMUM_FETCHED_HEAD
            ):
                raise FetchFailed(
                    FetchProblem.TOO_LARGE, f"the headers are longer than {MAXIMUM_FETCHED_HEAD} bytes"
                )
            return Reply(
                status=answered.status,
                headers=MappingProxyType(
                    {name.lower(): text for name, text in answered.headers.itermerged()}
                ),
                body=_body(answered, exchange, maximum) if answered.status in read else b"",
            )
    except exceptions.HTTPError as error:
        raise _failure(error, exchange) from None
    except TimeoutError:
        raise too_slow() from None
    except OSError as error:
        raise FetchFailed(FetchProblem.UNREACHABLE, f"the connection broke: {type(error).__name__}") from None
    except ValueError as error:
        # A chunk of negative length, for example, which urllib3 does not expect.
        raise FetchFailed(FetchProblem.NOT_HTTP, f"the answer is not HTTP: {type(error).__name__}") from None
    finally:
        _EXCHANGE.reset(token)


def open_pool(
    scheme: str,
    host: str,
    port: int | None,
    *,
    context: ssl.SSLContext | None,
    proxy: Proxy | None = None,
    connections: int = 1,
) -> HTTPConnectionPool:
    """Connections to one host; none is made yet. No proxy of the environment is used.

    Args:
        host: as in a URL, brackets included.
        context: for https, made by `trusting`.
        connections: how many are kept.
    """
    settings: dict[str, Any] = {"maxsize": connections}
    if scheme == "https":
        settings |= {"ssl_context": context, "cert_reqs": "CERT_REQUIRED"}
    if proxy is None:
        kind = _SecurePool if scheme == "https" else _Pool
        return kind(host, port, **settings)
    headers = make_headers(proxy_basic_auth=proxy.credentials) if proxy.credentials else {}
    manager = ProxyManager(proxy.url, num_pools=1, proxy_headers=headers, **settings)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager.connection_from_host(host, port, scheme)


def trusting(ca_file: str = "") -> ssl.SSLContext:
    """A context that checks certificates and host names against this file, or against the system's for "".

    Raises:
        ValueError: the file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ValueError(f"cannot be used: {error}") from None
    context.sslsocket_class = _SecureSocket
    return context


def target_of(path: str, query: str) -> str:
    """The target of a request (RFC 9112, 3.2.1)."""
    return (path or "/") + (f"?{query}" if query else "")


def _check_framing(answered: Any) -> None:
    """Refuse an answer whose end two readers could see at different places (RFC 9112, 6.3). Raises FetchFailed."""
    coding, length = answered.headers.get("Transfer-Encoding"), answered.headers.get("Content-Length")
    if coding is not None and (coding.strip().lower() != "chunked" or length is not None):
        raise FetchFailed(FetchProblem.NOT_HTTP, "Transfer-Encoding is not chunked, or beside Content-Length")
    if length is not None and not _LENGTH.fullmatch(length):
        raise FetchFailed(FetchProblem.NOT_HTTP, "Content-Length is not a number")


def _body(answered: Any, exchange: Exchange, maximum: int) -> bytes:
    if answered.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchFailed(
            FetchProblem.ENCODED,
            "the body is encoded, although identity was asked for",
            status=answered.status,
        )
    exchange.allowance = 2 * maximum + _SLACK
    body = b""
    # Read to the end: only then a body shorter than its Content-Length is noticed.
    while piece := answered.read(maximum + 1):
        body += piece
        if len(body) > maximum:
            raise FetchFailed(
                FetchProblem.TOO_LARGE, f"the body is longer than {maximum} bytes", status=answered.status
            )
    return body


def _failure(error: exceptions.HTTPError, exchange: Exchange) -> FetchFailed:
    """What an error of urllib3 means."""
    if isinstance(error, exceptions.ProxyError):
        return FetchFailed(FetchProblem.PROXY_FAILED, f"the egress proxy: {error.original_error}")
    if isinstance(error, exceptions.SSLError):
        return FetchFailed(FetchProblem.TLS_FAILED, f"TLS: {error}")
    causes = (error, *error.args)
    if any(isinstance(cause, TimeoutError | exceptions.TimeoutError) for cause in causes):
        return too_slow()
    if any(isinstance(cause, OSError) for cause in causes):
        return FetchFailed(FetchProblem.UNREACHABLE, "the connection broke")
    # Python has no class of its own for more than a hundred headers: it raises the base class of its errors of HTTP.
    if any(type(cause) is HTTPException for cause in causes):
        return FetchFailed(FetchProblem.TOO_LARGE, "there are too many headers")
    return FetchFailed(FetchProblem.NOT_HTTP, f"the answer is not HTTP: {type(error).__name__}")


def literal_address(host: str) -> Address | None:
    """The address that this host is, brackets or not; None for a name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def _connected(address: Address, port: int, seconds: float) -> socket.socket:
    """A connection to this address and no other. Raises OSError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connected = _Socket(family, socket.SOCK_STREAM)
    try:
        connected.settimeout(seconds)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.connect((str(address), port))
    except BaseException:
        connected.close()
        raise
    return connected


class _Lookups:
    """Looks host names up in threads, since the system's resolver knows no deadline."""

    def __init__(self, threads: int) -> None:
        self._free = threading.BoundedSemaphore(threads)

    def look_up(self, resolve: Resolve, host: str, port: int, seconds: float) -> Sequence[str]:
        """Raises FetchFailed when it takes longer, and what `resolve` raises."""
        if not self._free.acquire(blocking=False):
            raise FetchFailed(FetchProblem.BUSY, "too many host names are being looked up")
        found: Future[Sequence[str]] = Future()

        def run() -> None:
            try:
                found.set_result(resolve(host, port))
            except BaseException as error:
                found.set_exception(error)
            finally:
                self._free.release()

        try:
            threading.Thread(target=run, name="lookup", daemon=True).start()
        except BaseException as error:
            self._free.release()
            if isinstance(error, RuntimeError):
                raise FetchFailed(FetchProblem.BUSY, "no thread can be started to look a name up") from None
            raise
        try:
            return found.result(seconds)
        except TimeoutError:
            if found.done():  # the resolver itself raised it
                raise
            raise FetchFailed(FetchProblem.TOO_SLOW, f"{host}: the name was not looked up in time") from None


_LOOKUPS = _Lookups(MAXIMUM_LOOKUPS)
# What this thread is doing: pools and connections of urllib3 hand nothing of ours through.
_EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


class _Socket(socket.socket):
    """A socket that waits and receives no more than its exchange may."""

    def recv_into(self, *arguments: Any) -> int:
        exchange = _EXCHANGE.get()
        self.settimeout(exchange.remaining())
        count = super().recv_into(*arguments)
        exchange.receive(count)
        return count

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(_EXCHANGE.get().remaining())
        super().sendall(*arguments)


class _SecureSocket(ssl.SSLSocket):
    """The same, with TLS."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(_EXCHANGE.get().remaining())
        super().do_handshake(block)

    def recv_into(self, *arguments: Any) -> int:
        exchange = _EXCHANGE.get()
        self.settimeout(exchange.remaining())
        count = super().recv_into(*arguments)
        exchange.receive(count)
        return count

    def send(self, *arguments: Any) -> int:
        self.settimeout(_EXCHANGE.get().remaining())
        return super().send(*arguments)


class _Connection(HTTPConnection):
    """Connects to a checked address; its host stays the name, for Host, SNI and the certificate."""

    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _SecureConnection(HTTPSConnection):
    """The same, with TLS, and through a proxy if there is one."""

    def _new_conn(self) -> socket.socket:
        return _connect(self)

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except TimeoutError:
            raise
        except OSError as error:
            raise FetchFailed(FetchProblem.PROXY_FAILED, f"the egress proxy: {error}") from None


def _connect(connection: HTTPConnection) -> socket.socket:
    exchange = _EXCHANGE.get()
    host, port = connection._dns_host, connection.port
    if connection.proxy is None:
        return exchange.connect(host, port, exchange.check)
    # The proxy is the operator's, and it checks where it connects to.
    try:
        return exchange.connect(host, port, anywhere)
    except FetchFailed as error:
        if error.problem in (FetchProblem.UNREACHABLE, FetchProblem.NAME_UNKNOWN):
            raise FetchFailed(FetchProblem.PROXY_FAILED, f"the egress proxy: {error.detail}") from None
        raise


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
