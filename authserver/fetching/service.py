"""A service that the operator names, such as an endpoint that decides: inside the operator's network or not."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from urllib.parse import urlsplit

from authserver.engine.documents import Reply
from authserver.engine.timeline import SpanKind, note
from authserver.fetching.connections import (
    SUCCESSES,
    Exchange,
    anywhere,
    ask,
    open_pool,
    system_resolve,
    target_of,
    trusting,
)
from authserver.settings import LOOPBACK_HOSTS


class Service:
    """Requests to one URL of the operator's. Connections are kept; safe for many threads.

    Any address may be reached, no egress proxy is used, and no failure is paced: that is for URLs of strangers. The
    deadline, the limits, the checks of certificate and host name and the refusal of redirects are the same.

    Args:
        url: https, or http to this machine.
        ca_file: path of the certificates that are trusted; "" for the system's.
        connections: how many are kept.

    Raises:
        ValueError: url or ca_file cannot be used; the text begins with its name.
    """

    def __init__(self, url: str, *, ca_file: str = "", connections: int = 32) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
            raise ValueError(
                "url: must be such as https://policy.example.com/decide, without user or fragment"
            )
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("url: must have visible ASCII characters only; write others as %XX")
        if parts.scheme == "http" and not {host, f"[{host}]"} & LOOPBACK_HOSTS:
            raise ValueError("url: must be https; http is for localhost, 127.0.0.1 and [::1] only")
        if parts.scheme == "http" and ca_file:
            raise ValueError("ca_file: is for https; remove it")
        try:
            context = trusting(ca_file) if parts.scheme == "https" else None
        except ValueError as error:
            raise ValueError(f"ca_file: {error}") from None
        self.name = f"{parts.scheme}://{parts.netloc}"
        self._host = host
        self._target = target_of(parts.path, parts.query)
        self._pool = open_pool(parts.scheme, host, port, context=context, connections=connections)

    def post(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        deadline: float,
        maximum: int,
        read: Container[int] = SUCCESSES,
    ) -> Reply:
        """Send this and return the answer, whatever its status is.

        Args:
            deadline: for the whole exchange, on the clock of `time.monotonic`.
            maximum: bytes of the longest body of an answer.
            read: statuses whose body is read.

        Raises:
            FetchFailed: there is no answer within these limits, or it is a redirect.
        """
        exchange = Exchange(deadline, anywhere, system_resolve)
        began, outcome = time.perf_counter_ns(), "failed"
        try:
            reply = ask(self._pool, exchange, "POST", self._target, headers, body, maximum=maximum, read=read)
            outcome = "answered"
            return reply
        finally:
            note(SpanKind.FETCH, "service", began, {"host": self._host, "outcome": outcome})

    def close(self) -> None:
        """Close the connections that are kept."""
        self._pool.close()
