"""Figures for Prometheus: requests, refusals, events, keys, the database, and the state of clean-up.

Labels have only names that this server knows, never a text from a request (R-16): endpoints of the route table, and the
declared error codes and reasons.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from authserver.api import Event, OAuthError, Route, Secret, SpanKind, Timeline, equal, hookimpl
from authserver.explaining.remedies import REMEDIES, WITHOUT_REMEDY

# The limits of the buckets in seconds. A request waits about ten seconds at most for the database, and as long for a fetch.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STATEMENT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# Operations of the database that have figures of their own.
OPERATIONS = ("SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")
# The labels for a name that is not known here, and for no name: a refused sign-in has no error code.
OTHER, NONE = "other", "none"


@dataclass(eq=False)
class Metrics:
    """Serve `/metrics` in the text format of Prometheus, to callers with one of the operator's tokens.

    Each process has its own counters, so collect from the management listener of each process. Figures from the database,
    such as the backlog, are the same in all processes.

    Attributes:
        tokens: bearer tokens for the collectors, each with at least 32 random characters. Without a token, anybody
            can read the figures: a development server logs a warning, and a production server does not start.
    """

    immediate: ClassVar[bool] = True

    tokens: tuple[Secret, ...] = field(default=(), repr=False)
    registry: CollectorRegistry = field(init=False, repr=False)
    events: Counter = field(init=False, repr=False)
    # The counters by event type, because finding a label costs more than counting.
    _events_of: dict[str, Counter] = field(init=False, repr=False)
    requests: Requests = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if any(len(token.value) < 32 for token in self.tokens):
            raise ValueError("tokens: a token must have at least 32 random characters")

    def prepare(self) -> None:
        """Set all counters to zero."""
        self.registry = CollectorRegistry()
        self.events = Counter(
            "authserver_events", "What happened, by type.", ["type"], registry=self.registry
        )
        self._events_of = {}
        self.requests = Requests(self.registry)

    @property
    def insecure(self) -> tuple[str, ...]:
        """The setting that a production server refuses: no token, so that anybody can read the metrics."""
        return () if self.tokens else ("tokens: there are none, so anybody can read /metrics; set one",)

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        application = config.registry.application
        self.requests.know(application.parts.policies)
        build = Gauge(
            "authserver_build", "The versions that run.", ["version", "python"], registry=self.registry
        )
        build.labels(version("authserver"), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        for collector in (
            Upkeep(application.caretaker),
            EventsWaiting(application.events_waiting),
            EventsSetAside(application.events_set_aside),
            EventChain(application.event_chain),
            Floods(application.floods),
            Fetches(application.parts.fetcher.outcomes),
            SigningKeys(application.parts.signer.living),
            Connections(application.storage.connections),
            PasswordChecks(application.parts.password_checks),
            Figures(application.parts.policies.figures),
        ):
            self.registry.register(collector)
        config.add_endpoint(
            Route("metrics", "/metrics", ("GET",), stored=False, for_operators=True), self.page
        )

    @hookimpl
    def observe(self, event: Event) -> None:
        counter = self._events_of.get(event.type)
        if counter is None:
            counter = self._events_of[event.type] = self.events.labels(event.type)
        counter.inc()

    @hookimpl
    def observe_request(self, timeline: Timeline) -> None:
        self.requests.count(timeline)

    def page(self, request: Request) -> Response:
        """GET /metrics."""
        if self.tokens and not self._knows(request.caller.authorization or ""):
            return Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
        encode, content_type = choose_encoder(request.environ.get("HTTP_ACCEPT", ""))
        response = Response(body=encode(self.registry))
        response.headers["Content-Type"] = content_type
        response.headers["Cache-Control"] = "no-store"
        return response

    def _knows(self, authorization: str) -> bool:
        scheme, _, credential = authorization.partition(" ")
        known = any([equal(token.value, credential.strip()) for token in self.tokens])
        return known and scheme.lower() == "bearer"


class Requests:
    """The counters of requests.

    Args:
        registry: the registry of the figures.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._took = Histogram(
            "authserver_request_duration_seconds",
            "Time from the beginning of a request to its answer, by endpoint and class of status.",
            ["endpoint", "status"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._refused = Counter(
            "authserver_refusals",
            "Requests that were refused or failed, by endpoint, error code and reason.",
            ["endpoint", "error", "reason"],
            registry=registry,
        )
        statements = Histogram(
            "authserver_database_statement_duration_seconds",
            "Time of the statements of requests and of their commits, by operation.",
            ["operation"],
            buckets=STATEMENT_BUCKETS,
            registry=registry,
        )
        self._statements = {name: statements.labels(name) for name in OPERATIONS}
        self._other = statements.labels(OTHER)
        self._waits = Histogram(
            "authserver_database_connection_wait_seconds",
            "How long requests waited for a connection to the database.",
            buckets=STATEMENT_BUCKETS,
            registry=registry,
        )
        self._checks = Histogram(
            "authserver_password_check_duration_seconds",
            "Time to check or set a password, with the wait for its turn.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        # The histograms by their labels, because finding a label costs more than counting.
        self._of: dict[tuple[str, int], Histogram] = {}
        self._codes = self._reasons = frozenset[str]()
        self._plugins: tuple[object, ...] = ()

    def know(self, policies: Any) -> None:
        """Allow the declared names as labels: error codes, and the reasons of the server and its plugins."""
        self._codes = frozenset({"", *_codes(OAuthError)})
        self._plugins = tuple(map(policies.plugin, policies.names))
        self._reasons = self._declared()

    def _declared(self) -> frozenset[str]:
        return frozenset({*REMEDIES, *WITHOUT_REMEDY}).union(
            *(getattr(plugin, "reasons", ()) for plugin in self._plugins)
        )

    def count(self, timeline: Timeline) -> None:
        """Count this request, and the work for it."""
        status = timeline.status // 100
        endpoint = timeline.endpoint or OTHER
        took = self._of.get((endpoint, status))
        if took is None:
            took = self._of[endpoint, status] = self._took.labels(endpoint, f"{status}xx")
        took.observe(timeline.nanoseconds / 1e9)
        if timeline.error_id:
            error = (timeline.error or NONE) if timeline.error in self._codes else OTHER
            if timeline.reason not in self._reasons:
                # It may have been declared after the start of this process, such as the reason of a new limit.
                self._reasons = self._declared()
            reason = timeline.reason if timeline.reason in self._reasons else OTHER
            self._refused.labels(endpoint, error, reason).inc()
        for span in timeline.spans or ():
            if span.kind is SpanKind.STATEMENT:
                self._statements.get(span.name, self._other).observe(span.nanoseconds / 1e9)
            elif span.kind is SpanKind.CONNECTION:
                self._waits.observe(span.nanoseconds / 1e9)
            elif span.kind is SpanKind.PASSWORD_CHECK:
                self._checks.observe(span.nanoseconds / 1e9)


def _codes(kind: type[OAuthError]) -> Iterator[str]:
    """The error codes of these errors and of their subclasses."""
    if code := getattr(kind, "code", ""):
        yield code
    for other in kind.__subclasses__():
        yield from _codes(other)


class ReadLater(Collector):
    """Figures that are read when /metrics is requested."""

    def describe(self) -> list[Metric]:
        """Empty, because otherwise the registry would call `collect`, and so the database, at start."""
        return []


class Upkeep(ReadLater):
    """The state of clean-up.

    Args:
        caretaker: the `authserver.upkeep.Caretaker` of this process.
    """

    def __init__(self, caretaker: Any) -> None:
        self._caretaker = caretaker

    def collect(self) -> Iterator[Metric]:
        backlog = GaugeMetricFamily(
            "authserver_upkeep_backlog_rows",
            "Rows that could be removed now, by kind, counted up to 10000.",
            labels=["kind"],
        )
        removed = CounterMetricFamily(
            "authserver_upkeep_removed_rows", "Rows that this process removed, by kind.", labels=["kind"]
        )
        for kind, count in self._caretaker.backlog().items():
            backlog.add_metric([kind], count)
            removed.add_metric([kind], self._caretaker.removed[kind])
        yield from (backlog, removed)
        yield _moment(
            "authserver_upkeep_last_run_timestamp_seconds",
            "When this process last cleaned up; 0: never.",
            self._caretaker.last_run,
        )
        yield _moment(
            "authserver_upkeep_last_finished_timestamp_seconds",
            "When this process last cleaned up everything; 0: never.",
            self._caretaker.last_finished,
        )


def _moment(name: str, meaning: str, moment: datetime | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=moment.timestamp() if moment else 0)


class EventsWaiting(ReadLater):
    """How many events each reader of the events has not taken yet.

    Args:
        read: returns the number for each reader, by its name.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "authserver_events_waiting",
            "Events that a reader has not taken yet, such as a plugin that delivers them.",
            labels=["reader"],
        )
        for reader, count in self._read().items():
            waiting.add_metric([reader], count)
        yield waiting


class EventsSetAside(ReadLater):
    """How many events were set aside, because a reader of the events never accepted them.

    Args:
        read: returns the number for each reader, by its name.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "authserver_events_set_aside",
            "Events that a reader never accepted, and that were set aside so that other events do not wait.",
            labels=["reader"],
        )
        for reader, count in self._read().items():
            counted.add_metric([reader], count)
        yield counted


class EventChain(ReadLater):
    """How far the chain of seals goes, which proves the events.

    Args:
        read: returns the `authserver.engine.event_seals.Chain`; None if the database does not answer.
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        chain = self._read()
        if chain is None:
            return
        yield GaugeMetricFamily(
            "authserver_event_chain_head", "The number of the last seal of events; 0: none.", value=chain.head
        )
        yield _moment(
            "authserver_event_chain_head_timestamp_seconds",
            "When the last seal of events was made; 0: never.",
            chain.sealed_at,
        )
        yield GaugeMetricFamily(
            "authserver_event_chain_unsealed",
            "Events that are not sealed yet, deleted ones included.",
            value=chain.unsealed,
        )


class Floods(ReadLater):
    """How many refusals were only counted, and not stored one by one.

    Args:
        floods: the `authserver.engine.floods.Floods` of this process.
    """

    def __init__(self, floods: Any) -> None:
        self._floods = floods

    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "authserver_refusals_counted",
            "Refusals of strangers that were only counted, and not stored one by one, by type.",
            labels=["type"],
        )
        for kind, count in dict(self._floods.counted).items():
            counted.add_metric([kind], count)
        yield counted


class Fetches(ReadLater):
    """The outcomes of requests for documents of other servers.

    Args:
        read: returns the number of requests for each outcome.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        fetches = CounterMetricFamily(
            "authserver_fetches", "Requests for documents of other servers, by outcome.", labels=["outcome"]
        )
        for outcome, count in self._read().items():
            fetches.add_metric([outcome], count)
        yield fetches


class SigningKeys(ReadLater):
    """The ages of the signing keys.

    Args:
        read: returns the keys that are not removed.
    """

    def __init__(self, read: Callable[[], Sequence[Any]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "authserver_signing_key_age_seconds",
            "How long the present signing key has been signing, by algorithm.",
            labels=["algorithm"],
        )
        step = GaugeMetricFamily(
            "authserver_signing_key_next_step_seconds",
            "Time until the next step of a signing key, by algorithm and state; the soonest step of several keys.",
            labels=["algorithm", "state"],
        )
        now = datetime.now(UTC)
        soonest: dict[tuple[str, str], float] = {}
        for key in self._read():
            state = str(key.state(now))
            begins, ends = {
                "staged": (None, key.activates_at),
                "active": (key.activates_at, key.retires_at),
                "retiring": (None, key.ends_at),
            }.get(state, (None, None))
            if begins:
                age.add_metric([key.algorithm], (now - begins).total_seconds())
            if ends:
                seconds = (ends - now).total_seconds()
                soonest[key.algorithm, state] = min(seconds, soonest.get((key.algorithm, state), seconds))
        for labels, seconds in soonest.items():
            step.add_metric(labels, seconds)
        yield from (age, step)


class Connections(ReadLater):
    """The connections of this process to the database.

    Args:
        read: returns how many are `in_use` and `idle`, and how many there may be (`limit`).
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        found = dict(self._read())
        limit = found.pop("limit", 0)
        connections = GaugeMetricFamily(
            "authserver_database_connections", "Connections to the database, by state.", labels=["state"]
        )
        for state, count in found.items():
            connections.add_metric([state], count)
        yield connections
        yield GaugeMetricFamily(
            "authserver_database_connections_limit", "How many connections there may be.", value=limit
        )


class PasswordChecks(ReadLater):
    """The queue of requests that wait until a password can be hashed.

    Args:
        turnstile: limits how many are hashed at once.
    """

    def __init__(self, turnstile: Any) -> None:
        self._turnstile = turnstile

    def collect(self) -> Iterator[Metric]:
        checks = GaugeMetricFamily(
            "authserver_password_checks", "Password checks at this moment, by state.", labels=["state"]
        )
        checks.add_metric(["running"], self._turnstile.running)
        checks.add_metric(["waiting"], self._turnstile.waiting)
        yield checks
        yield CounterMetricFamily(
            "authserver_password_checks_turned_away",
            "Password checks that were refused because too many waited.",
            value=self._turnstile.turned_away,
        )


class Figures(ReadLater):
    """The figures that plugins report.

    Args:
        read: returns the meaning and the value of each figure, by its name.
    """

    def __init__(self, read: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, (meaning, value) in self._read().items():
            yield GaugeMetricFamily(f"authserver_{name}", meaning, value=value)
