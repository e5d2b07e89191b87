"""Which request the running thread works on: its ids, for the lines of the log, the events and the traces.

One is made for each request, before anything else looks at it, and ends with its answer. A thread that works for a
request, such as one that a plugin is called in, has that of the request (`contextvars.copy_context`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


def new_request_id() -> str:
    """128 random bits in 32 hexadecimal digits: a trace id, too (W3C Trace Context, 3.2.2.3)."""
    return secrets.token_hex(16)


@dataclass(slots=True)
class Timeline:
    """What is known of a request from its beginning.

    Attributes:
        request_id: in its answer, its lines of the log and its events.
        trace_id: of the trace that it is part of: 32 hexadecimal digits. That of the caller, if its trace is continued.
        parent_id: the span of the caller in that trace, 16 hexadecimal digits; "" if no trace is continued.
        is_sampled: whether the caller records that trace; False if no trace is continued.
    """

    request_id: str = field(default_factory=new_request_id)
    trace_id: str = ""
    parent_id: str = ""
    is_sampled: bool = False

    def __post_init__(self) -> None:
        self.trace_id = self.trace_id or self.request_id


_current: ContextVar[Timeline | None] = ContextVar("timeline", default=None)


def current() -> Timeline | None:
    """That of the request which this thread works on; None outside of requests."""
    return _current.get()


def request_id() -> str:
    """The id of that request; "" outside of requests."""
    timeline = _current.get()
    return timeline.request_id if timeline else ""


@contextmanager
def following(timeline: Timeline) -> Iterator[None]:
    """Within this, the thread works on this request."""
    token = _current.set(timeline)
    try:
        yield
    finally:
        _current.reset(token)
