"""What is known of the request that the running thread works on: its ids, what was done for it, and how long that took.

One is made for each request, before anything else looks at it, and ends with its answer. The lines of the log and the
events take their ids from it, and plugins that observe requests get it when it is complete (hook `observe_request`). A
thread that works for a request, such as one that a plugin is called in, has that of the request
(`contextvars.copy_context`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Of one request: a request that does more is still answered, and only counts what is left out.
MAXIMUM_SPANS = 500


def new_request_id() -> str:
    """128 random bits in 32 hexadecimal digits: a trace id, too (W3C Trace Context, 3.2.2.3)."""
    return secrets.token_hex(16)


class SpanKind(StrEnum):
    """What kind of work a span is."""

    DECISION = "decision"
    STATEMENT = "statement"
    CONNECTION = "connection"
    FETCH = "fetch"
    PASSWORD_CHECK = "password_check"


class FactsLater(Mapping[str, Any]):
    """Facts that are made when somebody reads them: most observers read few.

    Args:
        make: makes them.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make
        self._made: Mapping[str, Any] | None = None

    def _facts(self) -> Mapping[str, Any]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> Any:
        return self._facts()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts())

    def __len__(self) -> int:
        return len(self._facts())

    def __repr__(self) -> str:
        return repr(self._facts())


@dataclass(slots=True)
class Span:
    """A piece of work for a request.

    Attributes:
        kind: what it is.
        name: of the hook of a decision, of the operation of a statement, of the kind of a fetched document.
        began: nanoseconds of `time.perf_counter_ns`.
        nanoseconds: how long it took.
        facts: more about it, by name: texts and numbers, or tuples of them; never a secret and nothing of a person.
            Of a decision `verdict`, `reason`, `decided_by` and, of each plugin that answered, `answers` with its name,
            verdict, reason and microseconds; of a statement its `text`, without values; of a fetch `host` and `outcome`; of
            a password check `outcome`.
    """

    kind: SpanKind
    name: str
    began: int
    nanoseconds: int
    facts: Mapping[str, Any]


@dataclass(slots=True)
class Timeline:
    """A request, from its beginning to its answer.

    Attributes:
        request_id: in its answer, its lines of the log and its events.
        trace_id: of the trace that it is part of: 32 hexadecimal digits. That of the caller, if its trace is continued.
        parent_id: the span of the caller in that trace, 16 hexadecimal digits; "" if no trace is continued.
        is_sampled: whether the caller records that trace; False if no trace is continued.
        began: nanoseconds of `time.perf_counter_ns`.
        began_at: the same moment, in nanoseconds since 1970.
        spans: the work for it that is over, if a plugin wants to know it, in the order in which it ended; else None.
        spans_left_out: how many more there were than `MAXIMUM_SPANS`.
        endpoint: the name of its route; "" for a path that is not in the route table.
        path: of that route.
        method: "other" for one that no endpoint has.
        status: of its answer; 0 until there is one.
        nanoseconds: from its beginning to its answer.
        client_id: of the client that it names, if there is such a client.
        error: the error code of the protocol that it was refused with; "" for none.
        reason: why it was refused or failed; "" for none.
        error_id: of its refusal or failure; "" for none.
    """

    request_id: str = field(default_factory=new_request_id)
    trace_id: str = ""
    parent_id: str = ""
    is_sampled: bool = False
    began: int = field(default_factory=time.perf_counter_ns)
    began_at: int = field(default_factory=time.time_ns)
    spans: list[Span] | None = None
    spans_left_out: int = 0
    endpoint: str = ""
    path: str = ""
    method: str = ""
    status: int = 0
    nanoseconds: int = 0
    client_id: str | None = None
    error: str = ""
    reason: str = ""
    error_id: str = ""

    def __post_init__(self) -> None:
        self.trace_id = self.trace_id or self.request_id

    def add(self, span: Span) -> None:
        """Keep it, unless spans are not wanted, or there are too many."""
        if self.spans is None:
            return
        if len(self.spans) < MAXIMUM_SPANS:
            self.spans.append(span)
        else:
            self.spans_left_out += 1


_current: ContextVar[Timeline | None] = ContextVar("timeline", default=None)


def current() -> Timeline | None:
    """That of the request which this thread works on; None outside of requests."""
    return _current.get()


def request_id() -> str:
    """The id of that request; "" outside of requests."""
    timeline = _current.get()
    return timeline.request_id if timeline else ""


def wants_spans() -> bool:
    """Whether a plugin wants to know what is done for the request which this thread works on."""
    timeline = _current.get()
    return timeline is not None and timeline.spans is not None


def note(kind: SpanKind, name: str, began: int, facts: Mapping[str, Any]) -> None:
    """Add a span that ends now to the request which this thread works on; see `Span`. Outside of requests: nothing."""
    timeline = _current.get()
    if timeline is not None and timeline.spans is not None:
        timeline.add(Span(kind, name, began, time.perf_counter_ns() - began, facts))


@contextmanager
def following(timeline: Timeline) -> Iterator[None]:
    """Within this, the thread works on this request."""
    token = _current.set(timeline)
    try:
        yield
    finally:
        _current.reset(token)
