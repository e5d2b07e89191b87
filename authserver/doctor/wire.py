"""Sends all requests of the doctor, with limits of time, size and destination; the result is an answer or a sentence
that says why there is none.

The connections are those with which the server fetches documents (`authserver.fetching`), but other addresses are
allowed. There a stranger names the URL, so only public addresses are allowed. Here the operator names it, and may want
to examine servers on this machine and in the operator's own network. A URL in a document of such a server is still named
by a stranger: it is allowed if its address is public, or if the server itself has an equally private address.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from authserver.doctor.reading import Json
from authserver.engine.crypto import strict_json
from authserver.engine.documents import FetchFailed, FetchProblem, Reply
from authserver.fetching.addresses import Address, Reach, is_loopback
from authserver.fetching.connections import (
    Exchange,
    Resolve,
    ask,
    open_pool,
    system_resolve,
    target_of,
    trusting,
)
from authserver.limits import MAXIMUM_DOCUMENT, MAXIMUM_URI

USER_AGENT = "authserver-doctor"
_ALL_STATUSES = range(100, 600)
# Messages of OpenSSL, and their meaning in plain words.
_TLS_PROBLEMS = (
    ("certificate has expired", "its certificate has expired"),
    (
        "certificate is not yet valid",
        "its certificate is not valid yet, or the clock of this computer is wrong",
    ),
    (
        "self-signed certificate in certificate chain",
        "its certificate comes from an authority that is not trusted here",
    ),
    ("self-signed certificate", "its certificate is self-signed"),
    (
        "unable to get local issuer certificate",
        "its certificate comes from an authority that is not trusted here, or it leaves out the certificates in between",
    ),
    ("Hostname mismatch", "its certificate is for another host name"),
    ("IP address mismatch", "its certificate is not for this address"),
    ("certificate verify failed", "its certificate is not trusted"),
    ("WRONG_VERSION_NUMBER", "it does not answer TLS there; is this a port for http?"),
    ("HTTP_REQUEST", "it does not answer TLS there; is this a port for http?"),
    ("UNSUPPORTED_PROTOCOL", "it speaks only versions of TLS that are no longer used"),
    ("HANDSHAKE_FAILURE", "it has no cipher or certificate in common with this program"),
    ("EOF occurred", "it ends the connection instead of answering TLS"),
)
_PROBLEMS: Mapping[FetchProblem, str] = {
    FetchProblem.NAME_UNKNOWN: "the host name is not known",
    FetchProblem.TOO_SLOW: "there is no whole answer within {seconds:g} s",
    FetchProblem.TOO_LARGE: "the answer is too large",
    FetchProblem.ENCODED: "the answer is compressed, although that was not asked for",
    FetchProblem.NOT_HTTP: "the answer is not HTTP",
}


class Unanswered(Exception):
    """There is no answer; the text says why, for people.

    Attributes:
        status: the HTTP status, if it arrived.
    """

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class NotADocument(Exception):
    """An answer is not the expected JSON; the text says why, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, of any status.

    Attributes:
        headers: by lower-case name; several of one name are joined by a comma.
        seconds: the time that it took.
    """

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    seconds: float

    @property
    def media_type(self) -> str:
        """The media type in lower case, without parameters; "" when the answer names none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def location(self) -> str:
        """The header Location of a redirect; "" for an answer that is no redirect."""
        return self.headers.get("location", "") if 300 <= self.status < 400 else ""

    @property
    def kind(self) -> str:
        """Status and media type, for people."""
        return f"{self.status} {self.media_type}".strip()

    def document(self) -> Json:
        """The JSON object that it is. Raises NotADocument."""
        try:
            value = strict_json.loads(self.body, limit=MAXIMUM_DOCUMENT)
        except ValueError as error:
            raise NotADocument(str(error)) from None
        if not isinstance(value, dict):
            raise NotADocument("the JSON is not an object")
        return value

    def error(self) -> str:
        """The `error` of a refusal in JSON (RFC 6749, 5.2); "" when there is none."""
        try:
            value: Any = self.document().get("error")
        except NotADocument:
            return ""
        return value if isinstance(value, str) else ""

    def skew(self) -> float | None:
        """By how many seconds the clock of its server is ahead of ours; None when it has no Date header."""
        try:
            at = parsedate_to_datetime(self.headers["date"])
            return at.timestamp() - time.time()
        except (KeyError, ValueError, TypeError, OverflowError, OSError):
            return None


class Wire:
    """Sends requests.

    Args:
        named: the URLs that the operator named; their hosts may be anywhere.
        seconds: for each request, everything included.
        ca_file: path of the certificates that are trusted; "" for the system's.
        resolve: looks host names up.

    Raises:
        ValueError: ca_file cannot be used; the text says why.
    """

    def __init__(
        self,
        named: Iterable[str],
        *,
        seconds: float = 10.0,
        ca_file: str = "",
        resolve: Resolve = system_resolve,
    ) -> None:
        self._hosts = {urlsplit(url).hostname for url in named}
        self._seconds = seconds
        self._context = trusting(ca_file)
        self._resolve = resolve
        # Whether the servers that the operator named have such addresses.
        self._loopback = False
        self._private = False

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        page: bool = False,
    ) -> Answer:
        """Send one request. No redirect is followed.

        Args:
            page: whether the answer is a page for people, which may be longer than the limit: then its body is empty.

        Raises:
            Unanswered: there is no answer within the limits, or this URL is not allowed.
        """
        scheme, host, port, target = _parts(url)
        began = time.monotonic()
        exchange = Exchange(began + self._seconds, partial(self._check, host), self._resolve)
        pool = open_pool(scheme, host, port, context=self._context if scheme == "https" else None)
        try:
            reply = ask(
                pool,
                exchange,
                method,
                target,
                {"User-Agent": USER_AGENT, **(headers or {}), "Connection": "close"},
                body,
                maximum=MAXIMUM_DOCUMENT,
                read=_ALL_STATUSES,
                refused=(),
            )
        except FetchFailed as error:
            if not page or error.status is None:
                raise Unanswered(self._words(error), error.status) from None
            reply = Reply(status=error.status, headers={}, body=b"")
        finally:
            pool.close()
        return Answer(
            url=url,
            status=reply.status,
            headers=reply.headers,
            body=reply.body,
            seconds=time.monotonic() - began,
        )

    def _check(self, host: str, address: Address) -> None:
        """Raises FetchFailed unless this address may be reached for this host."""
        private = address.is_private and not address.is_link_local
        if host.strip("[]") in self._hosts:
            self._loopback = self._loopback or is_loopback(address)
            self._private = self._private or (private and not is_loopback(address))
            return
        problem = Reach(loopback=self._loopback).problem(address)
        if problem is not None and not (self._private and private and not is_loopback(address)):
            raise FetchFailed(FetchProblem.ADDRESS_REFUSED, f"{address}: {problem}")

    def _words(self, error: FetchFailed) -> str:
        match error.problem:
            case FetchProblem.TLS_FAILED:
                return next((words for part, words in _TLS_PROBLEMS if part in error.detail), error.detail)
            case FetchProblem.ADDRESS_REFUSED:
                return f"it leads to another network ({error.detail}), where a document may not send this program"
            case problem if problem in _PROBLEMS:
                return _PROBLEMS[problem].format(seconds=self._seconds)
        return error.detail or error.problem.value


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and target. Raises Unanswered for a text that is no URL for HTTP."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Unanswered("it is not a URL") from None
    if parts.scheme not in ("https", "http") or not host:
        raise Unanswered("it is not an http or https URL")
    if not url.isascii() or not url.isprintable() or " " in url or "@" in parts.netloc or "\\" in url:
        raise Unanswered("it is a URL with characters that none may have")
    if len(url) > 4 * MAXIMUM_URI:
        raise Unanswered("it is a URL that is too long")
    return parts.scheme, f"[{host}]" if ":" in host else host, port, target_of(parts.path, parts.query)
