"""Requests to an authorization server: https, no redirect, one deadline, one limit on the size."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

# Seconds for one exchange: the lookup of the name aside, everything from the connection to the last byte.
DEADLINE = 5.0
MAXIMUM_BODY = 262_144  # bytes
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
    """The URL, if it is https, or http to this very machine in development. Raises ValueError."""
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
        """Send a request. A kept connection that has died meanwhile is replaced once. Raises FetchFailed."""
        try:
            checked_url(url, development=self._development)
        except ValueError as error:
            raise FetchFailed(str(error)) from None
        _DEADLINE.at = time.monotonic() + DEADLINE
        host = urlsplit(url).hostname
        try:
            try:
                return self._exchange(method, url, headers, body)
            except urllib3.exceptions.ProtocolError:
                return self._exchange(method, url, headers, body)
        except (HTTPError, OSError) as error:
            # Without its text, which can hold the URL.
            raise FetchFailed(f"{host}: no answer: {type(error).__name__}") from None

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        host = urlsplit(url).hostname
        answer = self._pools.urlopen(
            method,
            url,
            body=body,
            # What is compressed could be much longer than what is received.
            headers={**headers, "Accept-Encoding": "identity", "User-Agent": "authserver-resource"},
            timeout=urllib3.Timeout(total=_remaining()),
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        whole = False
        try:
            text = answer.read(MAXIMUM_BODY + 1)
            if len(text) > MAXIMUM_BODY:
                raise FetchFailed(f"{host}: the answer is longer than {MAXIMUM_BODY} bytes")
            whole = True
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()
        return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, text)


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


def json_object(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 in which no name is repeated and every number is finite.

    Raises ValueError, also for one that is nested too deeply.
    """
    return _object(_STRICT, text)


def signed_object(text: bytes) -> dict[str, Any]:
    """As `json_object`, in half the time: of a repeated name the last value counts. For what a trusted issuer signed."""
    return _object(_QUICK, text)


def _object(decoder: json.JSONDecoder, text: bytes) -> dict[str, Any]:
    try:
        value = decoder.decode(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number; true and false are none."""
    return type(value) in (int, float)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)
_QUICK = json.JSONDecoder(parse_constant=_refuse)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class _Deadline(threading.local):
    """When the exchange of this thread must be over, on the monotonic clock."""

    at = 0.0


_DEADLINE = _Deadline()


def _remaining() -> float:
    seconds = _DEADLINE.at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


# urllib3's timeouts apply to each piece that arrives, so a server that sends a byte a second would never exceed one.
class _TlsSocket(ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_remaining())
        return super().recv_into(*args, **kwargs)


class _PlainSocket(socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_remaining())
        return super().recv_into(*args, **kwargs)


class _PlainConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        timeout = connected.gettimeout()
        counted = _PlainSocket(fileno=connected.detach())
        counted.settimeout(timeout)
        return counted


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection
