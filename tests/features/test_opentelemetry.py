"""Traces, as a collector gets them: by HTTP, from a server that runs with the plugin."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from authserver.features.opentelemetry import OpenTelemetry
from authserver.settings import SettingsError
from authserver.testing.server import PASSWORD, VERIFIER, Server, with_plugin
from authserver.testing.stories import Granted
from authserver.web.request_ids import HEADER

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROXY = "10.0.0.1"
CONTINUES = {"authserver.trusted_proxies": PROXY, "authserver.continue_traces": "true"}


@dataclass
class Collector:
    """Takes traces by OTLP over HTTP, as a collector does."""

    url: str
    status: int = 200
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def resource(self) -> dict[str, str]:
        return attributes_of(self.requests[0].resource_spans[0].resource)

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def text(self) -> str:
        """Everything that it was sent, in JSON."""
        return json.dumps([MessageToDict(request) for request in self.requests])


def attributes_of(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if found.status == 200:
                assert self.path == "/v1/traces"
                found.requests.append(ExportTraceServiceRequest.FromString(body))
                found.headers.append(dict(self.headers))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture
def make(sqlite_url: str, monkeypatch) -> Iterator[Callable[..., Server]]:
    # Spans are sent when a test asks for it, and an attempt that fails ends soon.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    servers: list[Server] = []

    def serve(endpoint: str, changes: dict[str, str] | None = None, /, **settings: str) -> Server:
        given = {"endpoint": endpoint, **settings} if endpoint else settings
        servers.append(Server(sqlite_url, {**with_plugin("opentelemetry", given), **(changes or {})}))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def plugin_of(server: Server) -> OpenTelemetry:
    found = server.application.parts.policies.plugin("opentelemetry")
    assert isinstance(found, OpenTelemetry)
    return found


def flush(server: Server) -> None:
    plugin_of(server).provider.force_flush()


def test_a_request_is_a_trace(make, collector: Collector) -> None:
    """Its id is that of the request; what was done for it is below it, in its time."""
    server = make(collector.url)
    client, secret = server.add_client(client_id="reports", grant_types=("client_credentials",))
    answer = server.token(client, secret, grant_type="client_credentials")
    flush(server)
    (root,) = [span for span in collector.spans if not span.parent_span_id]
    below = [span for span in collector.spans if span.parent_span_id]
    assert root.name == "POST /oauth/token"
    assert root.trace_id.hex() == answer.headers[HEADER]
    assert {span.trace_id for span in below} == {root.trace_id}
    assert {span.parent_span_id for span in below} == {root.span_id}
    assert collector.resource["service.name"] == "authserver"
    assert attributes_of(root) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/oauth/token",
        "authserver.request_id": answer.headers[HEADER],
        "authserver.client_id": "reports",
    }
    for span in below:
        assert root.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano
    assert abs(root.end_time_unix_nano - time.time_ns()) < 60e9


def test_decisions_and_statements_are_spans(make, collector: Collector) -> None:
    """Who decided what and why, and the text of each statement without its values."""
    server = make(collector.url)
    client, secret = server.add_client(client_id="reports", grant_types=("client_credentials",))
    server.token(client, secret, grant_type="client_credentials")
    flush(server)
    by_name: dict[str, Any] = {span.name: span for span in collector.spans}
    decision = by_name["client_auth_decision"]
    assert attributes_of(decision) == {
        "authserver.verdict": "allow",
        "authserver.reason": "secret-matches",
        "authserver.decided_by": "client_secret_basic",
    }
    (event,) = decision.events
    assert event.name == "client_secret_basic"
    assert attributes_of(event)["authserver.reason"] == "secret-matches"
    found = attributes_of(by_name["SELECT"])
    assert found["db.system.name"] == "sqlite"
    assert found["db.query.text"].startswith("SELECT ")
    assert "reports" not in found["db.query.text"]
    assert {"INSERT", "COMMIT", "database connection"} <= by_name.keys()


def test_refusals_and_failures_say_why(make, collector: Collector) -> None:
    server = make(collector.url)
    client, secret = server.add_client()
    refused = server.token(client, secret, grant_type="password").json
    with server.application.storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE clients RENAME TO clients_lost")
    failed = server.token(client, secret, grant_type="client_credentials")
    assert failed.status_int == 500
    flush(server)
    roots = {
        attributes_of(span)["http.response.status_code"]: span
        for span in collector.spans
        if not span.parent_span_id
    }
    found = attributes_of(roots[400])
    assert found["authserver.error"] == refused["error"]
    assert found["authserver.error_id"] == refused["error_id"]
    assert "error.type" not in found
    assert roots[400].status.code == 0
    assert attributes_of(roots[500])["error.type"] == "unexpected-error"
    assert roots[500].status.code == 2
    assert failed.json["error_id"] == attributes_of(roots[500])["authserver.error_id"]


@pytest.mark.parametrize(
    ("flags", "is_recorded"), [("01", True), ("00", False)], ids=["recorded", "not recorded"]
)
def test_the_trace_of_a_proxy_is_continued(make, collector: Collector, flags: str, is_recorded: bool) -> None:
    """W3C Trace Context: below the span of the caller, if the caller records it."""
    server = make(collector.url, CONTINUES)
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}", "X-Forwarded-For": "203.0.113.9"}
    headers |= {"X-Forwarded-Proto": "https"}
    server.http.get("/", headers=headers, extra_environ={"REMOTE_ADDR": PROXY})
    server.http.get("/", headers=headers, extra_environ={"REMOTE_ADDR": "203.0.113.9"})
    flush(server)
    roots = [span for span in collector.spans if span.name == "GET /"]
    continued = [span for span in roots if span.trace_id.hex() == TRACE]
    assert len(roots) - len(continued) == 1
    assert len(continued) == is_recorded
    for span in continued:
        assert span.parent_span_id.hex() == SPAN


def test_no_secret_and_nobody_is_in_a_trace(make, collector: Collector) -> None:
    """R-04, T145: of a whole flow, with what is refused in it."""
    server = make(collector.url)
    server.add_user("ann-the-canary")
    server.add_user("ann")
    granted = Granted(server)
    renewed = granted.renew(granted.refresh).json
    server.introspect(granted.client, granted.secret, renewed["access_token"])
    browser = server.browser()
    server.sign_in(browser, "ann-the-canary")
    cookies = [cookie.value for cookie in browser.cookiejar]
    server.sign_in(server.browser(), "ann-the-canary", "canary wrong password")
    server.token(granted.client, granted.secret, grant_type="refresh_token", refresh_token="canary-token")
    server.http.get("/oauth/authorize?client_id=canary-id&state=canary-state", status=400)
    server.http.get("/canary-path?canary-query", status=404)
    flush(server)
    assert len(collector.spans) > 50
    text = collector.text()
    people = [row["user_id"] for row in server.rows("users")]
    secrets = [granted.secret, granted.code, granted.access, granted.refresh, *cookies, *people]
    secrets += [renewed["access_token"], renewed["refresh_token"], VERIFIER, PASSWORD, "canary"]
    assert [secret for secret in secrets if secret in text] == []


def test_the_environment_counts(make, collector: Collector, monkeypatch) -> None:
    """Where the collector is, what it wants to be sent, and what the server is called."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=for-the-collector")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "sign-in")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    server = make("", ratio="0")
    server.http.get("/")
    flush(server)
    assert collector.requests == []
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    server = make("", ratio="0")
    server.http.get("/")
    flush(server)
    assert collector.resource["service.name"] == "sign-in"
    assert collector.resource["deployment.environment.name"] == "staging"
    assert collector.headers[0]["api-key"] == "for-the-collector"


def test_the_setting_names_the_server(make, collector: Collector) -> None:
    server = make(collector.url, service_name="tenant-one")
    server.http.get("/")
    flush(server)
    assert collector.resource["service.name"] == "tenant-one"


def test_a_part_of_the_traces_is_recorded(make) -> None:
    """Whole traces: never a child without its request."""
    server = make("http://127.0.0.1:9", ratio="0.5")
    memory = InMemorySpanExporter()
    plugin_of(server).provider.add_span_processor(SimpleSpanProcessor(memory))
    for _ in range(60):
        server.http.get("/oauth/jwks")
    roots = [span for span in memory.get_finished_spans() if span.parent is None]
    assert 5 < len(roots) < 55
    known = {span.context.trace_id for span in roots if span.context}
    assert {span.context.trace_id for span in memory.get_finished_spans() if span.context} == known


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_waits_for_a_collector_that_is_down(make, monkeypatch, caplog) -> None:
    """Requests are answered, the queue is bounded, the log says so once, and the server ends soon."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "40")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    server = make(f"http://127.0.0.1:{free_port()}")
    plugin = plugin_of(server)
    slowest = 0.0
    deadline = time.monotonic() + 30
    while not plugin.figures()["down"][1]:
        assert time.monotonic() < deadline
        began = time.monotonic()
        for _ in range(20):
            server.http.get("/")
        slowest = max(slowest, time.monotonic() - began)
    for _ in range(40):
        server.http.get("/")
    assert slowest < 15
    assert plugin.figures()["spans"][1] > 40
    assert plugin.figures()["spans_sent"][1] == 0
    lines = [record for record in caplog.records if "collector" in record.getMessage()]
    assert len(lines) == 1
    assert len([record for record in caplog.records if "Transient error" in record.getMessage()]) <= 1
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("answers", [True, False], ids=["hangs", "is not there"])
def test_the_end_of_the_server_does_not_wait_for_a_collector(
    make, monkeypatch, answers: bool, caplog
) -> None:
    """Not even for one that was never tried; and no failure is logged."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1] if answers else free_port()
        server = make(f"http://127.0.0.1:{port}")
        server.http.get("/")
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 10
    assert "failed to close" not in caplog.text


def test_a_collector_that_comes_back_gets_spans_again(make, collector: Collector) -> None:
    server = make(collector.url)
    collector.status = 400
    server.http.get("/")
    flush(server)
    assert plugin_of(server).figures()["down"][1] == 1
    collector.status = 200
    server.http.get("/")
    flush(server)
    figures = plugin_of(server).figures()
    assert figures["down"][1] == 0
    assert 0 < figures["spans_sent"][1] == len(collector.spans) < figures["spans"][1]


def test_what_is_left_is_sent_at_the_end(make, collector: Collector) -> None:
    server = make(collector.url)
    server.http.get("/")
    server.close()
    assert [span.name for span in collector.spans if not span.parent_span_id] == ["GET /"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoint": "collector:4318"}, "endpoint: must be the address of a collector"),
        ({"endpoint": "http://user:password@collector"}, "endpoint: must be"),
        ({"endpoint": "http://collector:port"}, "endpoint: must be"),
        ({"endpoint": "grpc://collector:4317"}, "endpoint: must be"),
        ({"ratio": "1.5"}, "ratio: must be from 0 to 1"),
        ({"ratio": "nan"}, "ratio: must be from 0 to 1"),
        ({"ratio": "half"}, "ratio"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(make, settings: dict[str, str], words: str) -> None:
    """T142."""
    with pytest.raises(SettingsError, match=words):
        make("", **settings)


def test_a_variable_that_cannot_be_used_stops_the_start(make, monkeypatch) -> None:
    """T142: the line says where to look."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
    with pytest.raises(SettingsError, match="OTEL_BSP_ variables"):
        make("")
