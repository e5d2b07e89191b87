"""What is fetched from other servers: kinds of documents, what is said about one, and why one could not be had.

A stranger may name the URL: that of a key set, of a client's own document, of a sector's redirect URIs. So the engine
sees values only; `authserver.fetching` has the connections and the guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from authserver.limits import MAXIMUM_DOCUMENT

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class FetchProblem(StrEnum):
    """Why there is no answer. These are for operators, in events and logs; what a stranger is told names none."""

    URL_REFUSED = "url-refused"
    ADDRESS_REFUSED = "address-refused"
    NAME_UNKNOWN = "name-unknown"
    UNREACHABLE = "unreachable"
    PROXY_FAILED = "proxy-failed"
    TLS_FAILED = "tls-failed"
    NOT_HTTP = "not-http"
    TOO_SLOW = "too-slow"
    TOO_LARGE = "too-large"
    ENCODED = "encoded"
    REDIRECTED = "redirected"
    STATUS_REFUSED = "status-refused"
    DOCUMENT_REFUSED = "document-refused"
    PACED = "paced"
    BUSY = "busy"


# Says nothing about the document: it may be as it was (draft-ietf-oauth-client-id-metadata-document, 5.2).
_NOTHING_SAID = frozenset(
    {
        FetchProblem.NAME_UNKNOWN,
        FetchProblem.UNREACHABLE,
        FetchProblem.PROXY_FAILED,
        FetchProblem.TLS_FAILED,
        FetchProblem.TOO_SLOW,
        FetchProblem.PACED,
        FetchProblem.BUSY,
    }
)
GONE = 410


class FetchFailed(Exception):
    """There is no answer. The text of this error is the same for every cause, so it may reach a stranger (T127).

    Attributes:
        problem: the cause.
        detail: a sentence for operators, with addresses and host names; never for the caller that named the URL.
        status: the HTTP status, if one came.
        seconds_to_wait: until another attempt may be made, as far as that is known.
        was_permanent: whether the failure after which this attempt waits was permanent.
    """

    def __init__(
        self,
        problem: FetchProblem,
        detail: str = "",
        *,
        status: int | None = None,
        seconds_to_wait: int = 0,
        was_permanent: bool = False,
    ) -> None:
        super().__init__("The document could not be fetched.")
        self.problem = problem
        self.detail = detail
        self.status = status
        self.seconds_to_wait = seconds_to_wait
        self.was_permanent = was_permanent

    @property
    def says_nothing(self) -> bool:
        """Whether the failure says nothing about the document, so that the last good one may serve.

        So after a timeout, a failed connection, 404, 408, 429 and 5xx.
        """
        passing = self.status is not None and (self.status in (404, 408, 429) or 500 <= self.status < 600)
        return self.problem in _NOTHING_SAID or (self.problem is FetchProblem.STATUS_REFUSED and passing)

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a little later, so that 503 is a fitting answer.

        A name that does not exist is told from an address that is refused by nobody: both are permanent (T127).
        """
        permanent = self.was_permanent or self.problem is FetchProblem.NAME_UNKNOWN or self.status == 404
        return self.says_nothing and not permanent

    def facts(self) -> Mapping[str, Any]:
        """The cause as details of an event."""
        known = {"problem": self.problem.value, "detail": self.detail, "status": self.status}
        return {name: value for name, value in known.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What another server answered.

    Attributes:
        url: that was asked for.
        status: of HTTP.
        headers: by lower-case name; several of one name are joined by a comma.
        body: at most as long as was asked for; empty unless the status is 2xx.
    """

    url: str = ""
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        """In lower case, without parameters; "" if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentKind(Generic[T]):
    """A kind of document, how it is read, and how long what was read may be used. A constant of its module.

    Documents of two kinds are two documents, even at one URL.

    Attributes:
        name: what log lines call it, such as "key set".
        read: makes a value that cannot be changed of a reply with status 200. Raises ValueError for a bad document.
        accept: the Accept header.
        maximum: bytes of the longest.
        minimum_age: seconds for which it is used although its server says less; not if that says `no-store` or
            `private`.
        default_age: seconds for which it is used if its server says nothing.
        maximum_age: seconds after which it is fetched again although its server says more.
        last_good_for: seconds after its end for which it is used when the next fetch fails in a way that says nothing
            about it (`FetchFailed.says_nothing`); 0 for never. With `no-store` or `private` it ends at once, so it is
            fetched each time and remembered for such a failure only.
        gone: the HTTP statuses that say that there is no such document any more, so that the last good one ends.
        refetch_pause: seconds before it is fetched again although it is fresh (`Fetcher.fetch`, `again`).
    """

    name: str
    read: Callable[[Reply], T]
    accept: str = "application/json"
    maximum: int = MAXIMUM_DOCUMENT
    minimum_age: int = 60
    default_age: int = 300
    maximum_age: int = 86_400
    last_good_for: int = 0
    gone: frozenset[int] = frozenset({GONE})
    refetch_pause: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Generic[T_co]):
    """What was read.

    Attributes:
        value: what `DocumentKind.read` made of it.
        age: seconds since its server said that it is current.
        is_last_good: whether it has ended, and serves because there is no newer one.
    """

    value: T_co
    age: float
    is_last_good: bool = False
