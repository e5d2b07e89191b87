"""Figures for Prometheus: what happened, and the state of clean-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from authserver.api import Event, Route, Secret, equal, hookimpl


@dataclass(eq=False)
class Metrics:
    """Serve `/metrics` in the text format of Prometheus, to callers with one of the operator's tokens.

    Each process has its own counters; only the backlog is the same in all of them.

    Attributes:
        tokens: bearer tokens for the collectors, each of at least 32 random characters. Without one, anybody
            can read the figures: a development server logs a warning, and a production server does not start.
    """

    immediate: ClassVar[bool] = True

    tokens: tuple[Secret, ...] = field(default=(), repr=False)
    registry: CollectorRegistry = field(init=False, repr=False)
    events: Counter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if any(len(token.value) < 32 for token in self.tokens):
            raise ValueError("tokens: a token has at least 32 random characters")

    def prepare(self) -> None:
        """Set all counters to zero."""
        self.registry = CollectorRegistry()
        self.events = Counter(
            "authserver_events", "What happened, by type.", ["type"], registry=self.registry
        )

    @property
    def insecure(self) -> tuple[str, ...]:
        return () if self.tokens else ("tokens: there are none, so anybody can read /metrics; set one",)

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        self.registry.register(Upkeep(config.registry.application.caretaker))
        self.registry.register(Floods(config.registry.application.floods))
        self.registry.register(Fetches(config.registry.application.parts.fetcher.outcomes))
        self.registry.register(Figures(config.registry.application.parts.policies.figures))
        config.add_endpoint(
            Route("metrics", "/metrics", ("GET",), stored=False, for_operators=True), self.page
        )

    @hookimpl
    def observe(self, event: Event) -> None:
        self.events.labels(event.type).inc()

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


class Upkeep(Collector):
    """The state of clean-up, read when the figures are requested.

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
        last_run = GaugeMetricFamily(
            "authserver_upkeep_last_run_timestamp_seconds", "When this process last cleaned up; 0: never."
        )
        last = self._caretaker.last_run
        last_run.add_metric([], last.timestamp() if last else 0)
        yield from (backlog, removed, last_run)

    def describe(self) -> list[Metric]:
        """Empty, because otherwise the registry would call `collect`, and so the database, at start."""
        return []


class Floods(Collector):
    """How many refusals were counted instead of being stored, read when the figures are requested.

    Args:
        floods: the `authserver.engine.floods.Floods` of this process.
    """

    def __init__(self, floods: Any) -> None:
        self._floods = floods

    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "authserver_refusals_counted",
            "Refusals of strangers that were counted and not stored each, by type.",
            labels=["type"],
        )
        for kind, count in dict(self._floods.counted).items():
            counted.add_metric([kind], count)
        yield counted

    def describe(self) -> list[Metric]:
        """Empty, as for `Upkeep`."""
        return []


class Fetches(Collector):
    """What came of requests for documents of other servers, read when the figures are requested.

    Args:
        read: gives how often each outcome came about.
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

    def describe(self) -> list[Metric]:
        """Empty, as for `Upkeep`."""
        return []


class Figures(Collector):
    """What the plugins say of themselves, read when the figures are requested.

    Args:
        read: gives the meaning and the value of each, by its name.
    """

    def __init__(self, read: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, (meaning, value) in self._read().items():
            yield GaugeMetricFamily(f"authserver_{name}", meaning, value=value)

    def describe(self) -> list[Metric]:
        """Empty, as for `Upkeep`."""
        return []
