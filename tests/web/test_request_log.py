"""A line of the log for each request, and what plugins that observe requests get: its timeline with the work for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest

from authserver.api import SpanKind, Timeline, hookimpl
from authserver.engine import timeline as timelines
from authserver.engine.documents import DocumentKind, FetchFailed
from authserver.logs import JsonLine
from authserver.testing.server import SETTINGS, VERIFIER, Server, with_plugin
from authserver.testing.stories import Granted
from authserver.web.request_ids import HEADER

MakeServer = Callable[..., Server]


@contextmanager
def lines() -> Iterator[list[str]]:
    """The lines for requests, in JSON, while the logger is at INFO."""
    written: list[str] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(JsonLine().format(record))

    logger, handler = logging.getLogger("authserver.requests"), Keeps()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield written
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def test_each_request_leaves_one_line(server: Server) -> None:
    client, secret = server.add_client(client_id="reports", grant_types=("client_credentials",))
    with lines() as written:
        answer = server.token(client, secret, grant_type="client_credentials")
        refused = server.token(client, secret, grant_type="password")
        server.http.get("/static/style.css")
        server.http.get("/nowhere", status=404)
    issued, wrong, style, nowhere = map(json.loads, written)
    assert issued["message"].startswith("POST token 200 ")
    assert (issued["endpoint"], issued["method"], issued["status"]) == ("token", "POST", 200)
    assert issued["client_id"] == "reports"
    assert issued["request_id"] == answer.headers[HEADER]
    assert 0 < issued["milliseconds"] < 30_000
    assert wrong["error"] == "unsupported_grant_type"
    assert wrong["error_id"] == refused.json["error_id"] in wrong["message"]
    assert (style["endpoint"], nowhere["status"]) == ("style", 404)
    assert "endpoint" not in nowhere
    assert "error_id" not in issued


def test_no_address_is_in_a_line(server: Server) -> None:
    """R-04, T145: a query may hold a code, a path what a stranger wrote, and no client is named that there is not."""
    with lines() as written:
        server.http.get("/oauth/authorize?client_id=canary-1&code=canary-2&state=canary-3", status=400)
        server.http.get("/canary-4%0A2026-01-01%20INFO", status=404)
        server.http.post("/oauth/token", {"client_id": "canary-5", "code": "canary-6"}, status=401)
    assert len(written) == 3
    assert not [line for line in written if "canary" in line]


def test_without_the_logger_nothing_is_written(server: Server, caplog) -> None:
    logging.getLogger("authserver.requests").setLevel(logging.WARNING)
    server.http.get("/")
    assert not [record for record in caplog.records if record.name == "authserver.requests"]


SEEN: list[Timeline] = []


@dataclass(frozen=True)
class Sees:
    """Keeps the timeline of each request."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def observe_request(self, timeline: Timeline) -> None:
        SEEN.append(timeline)


@pytest.fixture
def watched(make_server: MakeServer) -> Server:
    SEEN.clear()
    return make_server(with_plugin(f"{__name__}:Sees", {}))


def test_a_timeline_has_the_answer_and_the_work(watched: Server) -> None:
    """Decisions with who decided, statements with the commit, a connection; in the time of the request."""
    client, secret = watched.add_client(client_id="reports", grant_types=("client_credentials",))
    answer = watched.token(client, secret, grant_type="client_credentials")
    (timeline,) = SEEN
    assert (timeline.endpoint, timeline.path) == ("token", "/oauth/token")
    assert (timeline.method, timeline.status, timeline.client_id) == ("POST", 200, "reports")
    assert timeline.request_id == answer.headers[HEADER]
    assert (timeline.error, timeline.reason, timeline.error_id) == ("", "", "")
    assert timeline.spans
    by_kind = {kind: [span for span in timeline.spans if span.kind is kind] for kind in SpanKind}
    decided = {span.name: span.facts for span in by_kind[SpanKind.DECISION]}
    assert list(decided) == ["client_auth_decision", "resource_decision", "scope_decision"]
    facts = decided["client_auth_decision"]
    assert (facts["verdict"], facts["reason"], facts["decided_by"]) == (
        "allow",
        "secret-matches",
        "client_secret_basic",
    )
    operations = [span.name for span in by_kind[SpanKind.STATEMENT]]
    assert {"SELECT", "BEGIN", "INSERT", "COMMIT"} <= set(operations)
    assert by_kind[SpanKind.CONNECTION]
    ends = timeline.began + timeline.nanoseconds
    for span in timeline.spans:
        assert timeline.began <= span.began <= span.began + span.nanoseconds <= ends


def test_a_timeline_says_why_it_was_refused(watched: Server) -> None:
    client, secret = watched.add_client()
    answer = watched.token(client, secret, grant_type="password")
    (timeline,) = SEEN
    assert (timeline.error, timeline.status) == ("unsupported_grant_type", 400)
    assert timeline.error_id == answer.json["error_id"]
    assert timeline.reason
    watched.http.get("/", headers={"Host": "other.example"}, status=400)
    assert (SEEN[-1].endpoint, SEEN[-1].reason) == ("home", "refused-before-routing")


def test_a_sign_in_and_its_password_check_are_in_it(watched: Server) -> None:
    watched.add_user("ann")
    watched.sign_in(watched.browser())
    (span,) = [
        span for timeline in SEEN for span in timeline.spans or () if span.kind is SpanKind.PASSWORD_CHECK
    ]
    assert span.facts == {"outcome": "checked"}
    assert span.nanoseconds > 10_000


def test_a_fetch_has_its_host_and_outcome() -> None:
    """And neither path nor query, which strangers choose."""
    server_timeline = Timeline(spans=[])
    from authserver.fetching.fetcher import Fetcher, Limits

    with timelines.following(server_timeline), pytest.raises(FetchFailed):
        Fetcher(Limits()).fetch(
            DocumentKind(name="page", read=lambda reply: reply.body), "https://user@127.0.0.1/canary?canary"
        )
    assert server_timeline.spans
    (span,) = server_timeline.spans
    assert (span.kind, span.name) == (SpanKind.FETCH, "page")
    assert span.facts["host"] == "127.0.0.1"
    assert "canary" not in repr(span)


def test_a_timeline_has_no_secret_and_nobody(watched: Server) -> None:
    """R-04, T145: what plugins of others are given of a whole flow."""
    watched.add_user("ann")
    granted = Granted(watched)
    renewed = granted.renew(granted.refresh).json
    watched.introspect(granted.client, granted.secret, renewed["access_token"])
    watched.sign_in(watched.browser(), "ann", "a wrong password")
    assert len(SEEN) > 5
    shown = repr([(timeline, [dict(span.facts) for span in timeline.spans or ()]) for timeline in SEEN])
    (user,) = {row["user_id"] for row in watched.rows("users")}
    for secret in (
        granted.secret,
        granted.code,
        granted.access,
        granted.refresh,
        renewed["access_token"],
        renewed["refresh_token"],
        VERIFIER,
        "a wrong password",
        user,
        "ann",
    ):
        assert f"'{secret}'" not in shown
        assert secret in ("ann",) or secret not in shown


def test_spans_are_bounded() -> None:
    timeline = Timeline(spans=[])
    with timelines.following(timeline):
        for _ in range(timelines.MAXIMUM_SPANS + 7):
            timelines.note(SpanKind.STATEMENT, "SELECT", 0, {})
    assert timeline.spans is not None
    assert (len(timeline.spans), timeline.spans_left_out) == (timelines.MAXIMUM_SPANS, 7)


def test_spans_are_not_collected_for_nobody(make_server: MakeServer, caplog) -> None:
    """They cost nothing then: no statement is timed."""
    server = make_server(SETTINGS)
    seen: list[Timeline | None] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(timelines.current())

    handler = Keeps()
    caplog.set_level(logging.INFO, logger="authserver")
    logging.getLogger("authserver").addHandler(handler)
    try:
        server.http.post("/oauth/token", expect_errors=True)
    finally:
        logging.getLogger("authserver").removeHandler(handler)
    assert seen
    assert all(timeline is not None and timeline.spans is None for timeline in seen)
    assert "do_execute" not in vars(server.application.storage.engine.dialect)


@pytest.mark.postgresql
def test_the_work_of_postgresql_is_in_it_too(postgresql_url: str) -> None:
    SEEN.clear()
    server = Server(postgresql_url, with_plugin(f"{__name__}:Sees", {}))
    try:
        client, secret = server.add_client(grant_types=("client_credentials",))
        server.token(client, secret, grant_type="client_credentials")
    finally:
        server.close()
    (timeline,) = SEEN
    operations = {span.name for span in timeline.spans or () if span.kind is SpanKind.STATEMENT}
    # What it writes goes in one round trip, which is a transaction by itself.
    assert {"SELECT", "INSERT"} <= operations
