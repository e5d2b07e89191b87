"""Traces by OpenTelemetry: a span for each request, and one for each decision, statement, fetch and password check in it.

The standard environment variables count (OTEL_EXPORTER_OTLP_…, OTEL_TRACES_SAMPLER, OTEL_BSP_…, OTEL_SERVICE_NAME,
OTEL_SDK_DISABLED). The trace id of a request is also in its log lines (`authserver.engine.timeline`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind as OtelKind
from pyramid.config import Configurator

from authserver.api import Span, SpanKind, Timeline, hookimpl

# The most characters of a statement that are sent. Statements of this server are shorter; those of plugins may be longer.
MAXIMUM_STATEMENT = 4_000
# Seconds in which the collector must accept the last spans at the end of the process.
CLOSING_SECONDS = 1.0
# Seconds between two log lines with the same message about the collector.
QUIET_SECONDS = 60.0
EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
log = logging.getLogger(__name__)


@dataclass(eq=False)
class OpenTelemetry:
    """Send traces to a collector, by OTLP over HTTP.

    Spans are sent in the background: while the collector does not answer, no request waits, and spans that do not fit into
    the queue are dropped.

    Attributes:
        endpoint: the address of the collector, such as http://127.0.0.1:4318; empty for the one in the environment.
        service_name: the name of this server in the traces, unless the environment has one (OTEL_SERVICE_NAME).
        ratio: which part of the traces that begin here is recorded, from 0 to 1, unless the environment has a sampler
            (OTEL_TRACES_SAMPLER).
    """

    immediate: ClassVar[bool] = True

    endpoint: str = ""
    service_name: str = "authserver"
    ratio: float = 1.0
    provider: TracerProvider = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError("ratio: must be from 0 to 1")
        if self.endpoint:
            _check_address(self.endpoint)

    def prepare(self) -> None:
        """Start the thread that sends spans."""
        self._made = 0
        self._database = "other_sql"
        self._ids = _TraceIds()
        try:
            exporter = OTLPSpanExporter(
                endpoint=f"{self.endpoint.rstrip('/')}/v1/traces" if self.endpoint else None
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the OTEL_EXPORTER_OTLP_ variables of the environment cannot be used: {error}"
            ) from None
        self._exporter = _Watched(exporter)
        self.provider = TracerProvider(
            sampler=None
            if "OTEL_TRACES_SAMPLER" in os.environ
            else ParentBased(TraceIdRatioBased(self.ratio)),
            resource=_resource(self.service_name),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        try:
            self.provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except ValueError as error:
            raise ValueError(f"the OTEL_BSP_ variables of the environment cannot be used: {error}") from None
        self._tracer: Tracer = self.provider.get_tracer("authserver")
        self._quiet = _Quiet()
        logging.getLogger(EXPORTER_LOG).addFilter(self._quiet)

    def close(self) -> None:
        """Send the last spans, for a second at most, unless the collector does not answer."""
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        # At the end of the interpreter no thread can be started.
        with suppress(RuntimeError):
            if not self._exporter.is_down:
                sending.start()
                sending.join(CLOSING_SECONDS)
        self._exporter.shutdown()
        self.provider.shutdown()
        logging.getLogger(EXPORTER_LOG).removeFilter(self._quiet)

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """See `authserver.plugins.asking`."""
        return {
            "spans": ("Spans that were recorded.", float(self._made)),
            "spans_sent": ("Spans that the collector accepted.", float(self._exporter.sent)),
            "down": ("Whether the collector does not accept spans.", float(self._exporter.is_down)),
        }

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        self._database = config.registry.application.storage.kind

    @hookimpl
    def observe_request(self, timeline: Timeline) -> None:
        trace_id = int(timeline.trace_id, 16)
        context = Context()
        if timeline.parent_id:
            flags = TraceFlags(TraceFlags.SAMPLED if timeline.is_sampled else TraceFlags.DEFAULT)
            caller = SpanContext(trace_id, int(timeline.parent_id, 16), is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(caller), context)
        name = f"{timeline.method} {timeline.path}".rstrip()
        # The sampler is asked first, because to begin a span costs nearly as much if it is not recorded.
        if self.provider.sampler.should_sample(context, trace_id, name).decision is Decision.DROP:
            return
        self._ids.give(trace_id)
        span = self._tracer.start_span(name, context, OtelKind.SERVER, start_time=timeline.began_at)
        span.set_attributes(_of_request(timeline))
        if timeline.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        within = set_span_in_context(span, Context())
        for work in timeline.spans or ():
            self._add(work, within, timeline.began_at - timeline.began)
        span.end(timeline.began_at + timeline.nanoseconds)
        self._made += 1 + len(timeline.spans or ())

    def _add(self, work: Span, within: Context, since: int) -> None:
        """Add the span of some work; `since` is the beginning of `time.perf_counter_ns`."""
        name, kind, attributes = self._described(work)
        span = self._tracer.start_span(name, within, kind, attributes, start_time=since + work.began)
        for plugin, verdict, reason, microseconds in work.facts.get("answers", ()):
            _add_answer(span, plugin, verdict, reason, microseconds, since + work.began)
        span.end(since + work.began + work.nanoseconds)

    def _described(self, work: Span) -> tuple[str, OtelKind, dict[str, Any]]:
        """Name, kind and attributes of the span, by the semantic conventions of OpenTelemetry where there are any."""
        facts = work.facts
        match work.kind:
            case SpanKind.STATEMENT:
                return (
                    work.name,
                    OtelKind.CLIENT,
                    {
                        "db.system.name": self._database,
                        "db.operation.name": work.name,
                        "db.query.text": facts["text"][:MAXIMUM_STATEMENT],
                    },
                )
            case SpanKind.FETCH:
                return (
                    f"fetch {work.name}",
                    OtelKind.CLIENT,
                    {"server.address": facts["host"], "authserver.outcome": facts["outcome"]},
                )
            case SpanKind.DECISION:
                return (
                    work.name,
                    OtelKind.INTERNAL,
                    {f"authserver.{name}": facts[name] for name in ("verdict", "reason", "decided_by")},
                )
            case SpanKind.CONNECTION:
                return "database connection", OtelKind.INTERNAL, {"db.system.name": self._database}
            case SpanKind.PASSWORD_CHECK:
                return "password check", OtelKind.INTERNAL, {"authserver.outcome": facts["outcome"]}


def _of_request(timeline: Timeline) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "http.request.method": "_OTHER" if timeline.method == "other" else timeline.method,
        "http.response.status_code": timeline.status,
        "http.route": timeline.path,
        "error.type": timeline.reason if timeline.status >= 500 else "",
        "authserver.request_id": timeline.request_id,
        "authserver.client_id": timeline.client_id or "",
        "authserver.error": timeline.error,
        "authserver.reason": timeline.reason,
        "authserver.error_id": timeline.error_id,
        "authserver.spans_left_out": timeline.spans_left_out,
    }
    return {name: value for name, value in attributes.items() if value}


def _add_answer(
    span: OtelSpan, plugin: str, verdict: str, reason: str, microseconds: int, timestamp: int
) -> None:
    attributes: dict[str, Any] = {
        "authserver.verdict": verdict,
        "authserver.reason": reason,
        "authserver.microseconds": microseconds,
    }
    span.add_event(plugin, attributes, timestamp)


def _check_address(endpoint: str) -> None:
    """Raise ValueError if this cannot be the address of a collector."""
    try:
        parts = urlsplit(endpoint)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good or "@" in endpoint or parts.query or parts.fragment:
        raise ValueError(
            "endpoint: must be the address of a collector such as http://127.0.0.1:4318; credentials for it are headers "
            "(OTEL_EXPORTER_OTLP_HEADERS)"
        )


def _resource(service_name: str) -> Resource:
    """The resource that the spans describe; the environment takes precedence over the setting."""
    found = Resource.create()
    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return found if is_named else found.merge(Resource({SERVICE_NAME: service_name}))


class _TraceIds(RandomIdGenerator):
    """Gives a span without a parent the trace id of its request."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def give(self, trace_id: int) -> None:
        """Use this trace id for the next trace that this thread begins."""
        self._of_thread.trace_id = trace_id

    def generate_trace_id(self) -> int:
        trace_id: int = self._of_thread.trace_id
        return trace_id


class _Watched(SpanExporter):
    """Sends spans with another exporter, counts them, and logs when the collector fails or works again.

    Attributes:
        sent: how many spans the collector accepted.
        is_down: whether it did not accept the last ones.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_shut = False
        self.sent = 0
        self.is_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._is_shut:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        is_down = result is not SpanExportResult.SUCCESS
        if not is_down:
            self.sent += len(spans)
        if is_down != self.is_down:
            self.is_down = is_down
            if is_down:
                log.warning("the collector accepts no spans; they are dropped until it does")
            else:
                log.info("the collector accepts spans again")
        return result

    def shutdown(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()


class _Quiet(logging.Filter):
    """Drops repeated log lines of the exporter, which writes one for each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next.get(record.msg, 0.0):
            return False
        self._next[record.msg] = now + QUIET_SECONDS
        return True
