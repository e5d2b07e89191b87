"""The record of the request on which the present thread works: its ids, the work for it, and the time that it took.

A timeline is made for each request, before anything else, and ends with its answer. Log lines and events take their ids
from it, and plugins that observe requests get it when it is complete (hook `observe_request`). Another thread that
works for a request, such as the thread of a plugin, has the timeline of the request (`contextvars.copy_context`).
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

# The most spans of one request; further ones are only counted.
MAXIMUM_SPANS = 500


def new_request_id() -> str:
    """128 random bits in 32 hexadecimal digits, which are also a trace id (W3C Trace Context, 3.2.2.3)."""
    return secrets.token_hex(16)


class SpanKind(StrEnum):
    """What kind of work a span is."""

    DECISION = "decision"
    STATEMENT = "statement"
    CONNECTION = "connection"
    FETCH = "fetch"
    PASSWORD_CHECK = "password_check"


class FactsLater(Mapping[str, Any]):
    """Facts that are computed when an observer reads them: most observers read few.

    Args:
        make: computes them.
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
        kind: the kind of work.
        name: the hook of a decision, the operation of a statement, the kind of a fetched document.
        began: nanoseconds of `time.perf_counter_ns`.
        nanoseconds: how long it took.
        facts: more about it, by name: texts and numbers, or tuples of them; no secrets and no personal data. A decision
            has `verdict`, `reason`, `decided_by` and `answers`, with the name, verdict, reason and microseconds of each
            plugin that answered. A statement has its `text`, without values; a fetch has `host` and `outcome`; a
            password check has `outcome`.
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
        trace_id: the id of its trace, 32 hexadecimal digits; that of the caller, if its trace is continued.
        parent_id: the span of the caller in that trace, 16 hexadecimal digits; "" if no trace is continued.
        is_sampled: whether the caller records that trace; False if no trace is continued.
        began: nanoseconds of `time.perf_counter_ns`.
        began_at: the same moment, in nanoseconds since 1970.
        spans: the finished work for it, in the order in which it ended; None if no plugin wants it.
        spans_left_out: how many more there were than `MAXIMUM_SPANS`.
        endpoint: the name of its route; "" for a path that is not in the route table.
        path: the path of that route.
        method: the HTTP method; "other" if no endpoint has it.
        status: the status of its answer; 0 until there is one.
        nanoseconds: from its beginning to its answer.
        client_id: the client that it names, if that client exists.
        error: the error code of its refusal; "" for none.
        reason: why it was refused or failed; "" for none.
        error_id: the error id of its refusal or failure; "" for none.
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
        """Add a span, unless spans are not wanted, or there are too many."""
        if self.spans is None:
            return
        if len(self.spans) < MAXIMUM_SPANS:
            self.spans.append(span)
        else:
            self.spans_left_out += 1


_current: ContextVar[Timeline | None] = ContextVar("timeline", default=None)


def current() -> Timeline | None:
    """The timeline of the request on which this thread works; None outside of requests."""
    return _current.get()


def request_id() -> str:
    """The id of the request on which this thread works; "" outside of requests."""
    timeline = _current.get()
    return timeline.request_id if timeline else ""


def wants_spans() -> bool:
    """Whether a plugin wants the spans of the request on which this thread works."""
    timeline = _current.get()
    return timeline is not None and timeline.spans is not None


def note(kind: SpanKind, name: str, began: int, facts: Mapping[str, Any]) -> None:
    """Add a span that ends now to the request on which this thread works; see `Span`. Does nothing outside of requests."""
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
