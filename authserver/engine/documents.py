"""Documents of other servers: their kinds, the result of a fetch, and the causes of failures.

A stranger may choose the URL of a key set, of a client's own document, or of a sector's redirect URIs. Therefore the
engine sees only values; `authserver.fetching` has the connections and their protection.
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
    """Why there is no answer, for operators, in events and logs; a stranger never learns it."""

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


# Says nothing about the document, which may be unchanged (draft-ietf-oauth-client-id-metadata-document, 5.2).
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
        seconds_to_wait: seconds until another attempt may be made, if known.
        was_permanent: whether the earlier failure, because of which there was no attempt now, was permanent.
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

        That is so after a timeout, a failed connection, 404, 408, 429 and 5xx.
        """
        passing = self.status is not None and (self.status in (404, 408, 429) or 500 <= self.status < 600)
        return self.problem in _NOTHING_SAID or (self.problem is FetchProblem.STATUS_REFUSED and passing)

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a little later, so that 503 is a fitting answer.

        A name that does not exist and an address that is not allowed are both permanent, so that nobody can distinguish
        them (T127).
        """
        permanent = self.was_permanent or self.problem is FetchProblem.NAME_UNKNOWN or self.status == 404
        return self.says_nothing and not permanent

    def facts(self) -> Mapping[str, Any]:
        """The cause as details of an event."""
        known = {"problem": self.problem.value, "detail": self.detail, "status": self.status}
        return {name: value for name, value in known.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer of another server.

    Attributes:
        url: the requested URL.
        status: the HTTP status.
        headers: by lower-case name; several of one name are joined by a comma.
        body: at most as long as the caller allows; empty unless the status is 2xx.
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
    """A kind of document: how it is read, and how long the result may be used. A constant of its module.

    Documents of two kinds are two documents, even with the same URL.

    Attributes:
        name: its name in log lines, such as "key set".
        read: makes an immutable value from a reply with status 200. Raises ValueError for a bad document.
        accept: the Accept header.
        maximum: bytes of the longest document.
        minimum_age: seconds for which it is used even if its server says less, except with `no-store` or `private`.
        default_age: seconds for which it is used if its server says nothing.
        maximum_age: seconds after which it is fetched again even if its server says more.
        last_good_for: seconds after its end for which it is used when the next fetch fails in a way that says nothing
            about it (`FetchFailed.says_nothing`); 0 for never. With `no-store` or `private` it ends at once, so it is
            fetched each time and remembered for such a failure only.
        gone: the HTTP statuses that say that the document does not exist any more, so that the last good one ends.
        refetch_pause: seconds before it is fetched again even if it is fresh (`Fetcher.fetch`, `again`).
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
    """A document that was read.

    Attributes:
        value: the value that `DocumentKind.read` made.
        age: seconds since its server said that it is current.
        is_last_good: whether it has expired, and is used because a newer one could not be fetched.
    """

    value: T_co
    age: float
    is_last_good: bool = False
