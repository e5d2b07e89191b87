"""Notes every request: a log line for operators who switch it on, and a timeline for plugins."""

from __future__ import annotations

import logging
import time
from typing import Any

from pyramid.response import Response

from authserver.engine.ports import Policies
from authserver.engine.timeline import Timeline, current
from authserver.logs import MEMBERS
from authserver.web.request import Request
from authserver.web.route import Route

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
log = logging.getLogger("authserver.requests")


def begin(policies: Policies) -> Timeline:
    """The timeline of a new request, with spans if a plugin wants them."""
    return Timeline(spans=[] if policies.serves("observe_request") else None)


def note_answer(request: Request, response: Response) -> None:
    """Note the endpoint, the client and the status of the answer."""
    timeline = current()
    if timeline is None:
        return
    method = request.method if request.method in _METHODS else "other"
    note_route(timeline, request.route, method, response.status_int)
    timeline.client_id = request.journal.client_id


def note_route(timeline: Timeline, route: Route | None, method: str, status: int) -> None:
    """Note the endpoint and the status, for a request whose client is not known."""
    if route:
        timeline.endpoint, timeline.path = route.name, route.path
    timeline.method, timeline.status = method, status


def note_refusal(error: str, reason: str, error_id: str) -> None:
    """Note why the request is refused or failed; see `Timeline`."""
    if timeline := current():
        timeline.error, timeline.reason, timeline.error_id = error, reason, error_id


def end(timeline: Timeline, policies: Policies) -> None:
    """Write the line, if the logger `authserver.requests` is at INFO, and notify the plugins."""
    timeline.nanoseconds = time.perf_counter_ns() - timeline.began
    if log.isEnabledFor(logging.INFO):
        _write(timeline)
    if timeline.spans is not None:
        policies.observe_request(timeline)


def _write(timeline: Timeline) -> None:
    """Write the line, without the address as it was sent, because a query may have a code or a text that a person typed."""
    milliseconds = round(timeline.nanoseconds / 1e6, 1)
    facts: dict[str, Any] = {
        "endpoint": timeline.endpoint or None,
        "method": timeline.method,
        "status": timeline.status,
        "milliseconds": milliseconds,
        "client_id": timeline.client_id,
        "error": timeline.error or None,
        "reason": timeline.reason or None,
        "error_id": timeline.error_id or None,
    }
    log.info(
        "%s %s %d %.1f ms%s%s",
        timeline.method,
        timeline.endpoint or "-",
        timeline.status,
        milliseconds,
        f" client={timeline.client_id}" if timeline.client_id else "",
        f" {timeline.error} {timeline.reason} error_id={timeline.error_id}" if timeline.error_id else "",
        extra={MEMBERS: {name: fact for name, fact in facts.items() if fact is not None}},
    )
