"""Requests to an authorization server: https, no redirect, one deadline, one limit on the size."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from authserver_resource.strict_json import json_object

# Seconds for one exchange, from the connection to the last byte; without the lookup of the name.
DEADLINE = 5.0
MAXIMUM_BODY = 262_144  # bytes
# Bytes of one exchange, including headers, trailers and the framing of chunks.
MAXIMUM_RECEIVED = MAXIMUM_BODY + 65_536
_JSON = re.compile(r"application/([a-z0-9.+-]+\+)?json", re.IGNORECASE)


class FetchFailed(Exception):
    """There is no usable answer. The text is for operators and repeats nothing of the request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, its headers by small letters, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


# Method, URL, headers and body in, the reply out. Raises FetchFailed.
Fetch = Callable[[str, str, Mapping[str, str], bytes | None], Reply]


def checked_url(url: str, *, development: bool) -> str:
    """The URL, if it is https, or http to this machine in development. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.fragment or not url.isascii():
        raise ValueError(f"{url!r}: must be an absolute URL without user name and fragment")
    if re.search(r"[\s\"\\<>]", url) or parts.port == 0:
        raise ValueError(f"{url!r}: is no URL")
    if parts.scheme == "https" or (parts.scheme == "http" and development and _is_loopback(parts.hostname)):
        return url
    raise ValueError(f"{url!r}: must be https; http is for localhost, with development=True")


class Fetcher:
    """Sends requests, and keeps connections for later ones. Many threads can use it at once.

    Args:
        development: whether http to this machine is allowed.
        ca_file: path of the certificates to trust instead of the system's.
    """

    def __init__(self, *, development: bool = False, ca_file: str = "") -> None:
        context = ssl.create_default_context(cafile=ca_file or None)
        context.sslsocket_class = _TlsSocket
        self._development = development
        self._pools = urllib3.PoolManager(
            num_pools=8, maxsize=8, retries=False, ssl_context=context, cert_reqs="CERT_REQUIRED"
        )
        self._pools.pool_classes_by_scheme = {**self._pools.pool_classes_by_scheme, "http": _PlainPool}

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send a request. A kept connection that was closed meanwhile is replaced once. Raises FetchFailed."""
        try:
            checked_url(url, development=self._development)
        except ValueError as error:
            raise FetchFailed(str(error)) from None
        _EXCHANGE.deadline = time.monotonic() + DEADLINE
        _EXCHANGE.bytes_left = MAXIMUM_RECEIVED
        host = urlsplit(url).hostname
        try:
            try:
                return self._exchange(method, url, headers, body)
            except urllib3.exceptions.ProtocolError:
                return self._exchange(method, url, headers, body)
        # http.client raises ValueError for a chunk with a negative length.
        except (HTTPError, OSError, ValueError) as error:
            if _EXCHANGE.bytes_left < 0:
                raise _too_long(host) from None
            # Without its text, which can hold the URL.
            raise FetchFailed(f"{host}: no answer: {type(error).__name__}") from None

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        host = urlsplit(url).hostname
        answer = self._pools.urlopen(
            method,
            url,
            body=body,
            # A compressed answer could be much longer than the received bytes.
            headers={**headers, "Accept-Encoding": "identity", "User-Agent": "authserver-resource"},
            timeout=urllib3.Timeout(total=_remaining()),
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        whole = False
        try:
            _check_framing(host, answer.headers)
            text = b""
            # Read to the end: only then urllib3 knows whether the answer was cut short.
            while piece := answer.read(MAXIMUM_BODY + 1 - len(text)):
                text += piece
                if len(text) > MAXIMUM_BODY:
                    raise _too_long(host)
            whole = True
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()
        return Reply(
            answer.status, {name.lower(): value for name, value in answer.headers.itermerged()}, text
        )


def _check_framing(host: str | None, headers: Mapping[str, str]) -> None:
    """Check that the end of the body is unambiguous, and the body not compressed (RFC 9112, 6). Raises FetchFailed."""
    length, transfer = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise FetchFailed(f"{host}: the length of the answer is no number")
    if transfer is not None and (length is not None or transfer.lower() != "chunked"):
        raise FetchFailed(f"{host}: where the answer ends cannot be known")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{host}: the answer is compressed")
    if length is not None and int(length[:10]) > MAXIMUM_BODY:
        raise _too_long(host)


def _too_long(host: str | None) -> FetchFailed:
    return FetchFailed(f"{host}: the answer is longer than {MAXIMUM_BODY} bytes")


def read_json(reply: Reply) -> dict[str, Any]:
    """The JSON object of a reply with status 200. Raises FetchFailed."""
    if reply.status != 200:
        raise FetchFailed(f"the answer has status {reply.status}")
    if not _JSON.fullmatch(reply.headers.get("content-type", "").partition(";")[0].strip()):
        raise FetchFailed("the answer is not JSON by its Content-Type")
    try:
        value = json_object(reply.body)
    except ValueError:
        raise FetchFailed("the answer is not a JSON object") from None
    return value


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class _Exchange(threading.local):
    """The remaining limits of the exchange of this thread: its deadline on the monotonic clock, and its bytes."""

    deadline = 0.0
    bytes_left = 0


_EXCHANGE = _Exchange()


def _remaining() -> float:
    seconds = _EXCHANGE.deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _counted(received: int) -> int:
    _EXCHANGE.bytes_left -= received
    if _EXCHANGE.bytes_left < 0:
        raise OSError("too much was sent")
    return received


# urllib3's timeouts apply to each piece that arrives, so a server that sends a byte a second would never exceed one.
class _TlsSocket(ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_remaining())
        return _counted(super().recv_into(*args, **kwargs))


class _PlainSocket(socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_remaining())
        return _counted(super().recv_into(*args, **kwargs))


class _PlainConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        timeout = connected.gettimeout()
        counted = _PlainSocket(fileno=connected.detach())
        counted.settimeout(timeout)
        return counted


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection
