"""Whatever fails inside: an answer with our headers and an id, in the medium of the endpoint; the log has the fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.events import BeforeRender, BeforeTraversal, ContextFound, NewRequest, NewResponse
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestResponse

from authserver.api import Medium, Origins, Route, hookimpl
from authserver.engine.errors import TooManyRequests
from authserver.storage.database import StorageBusy
from authserver.testing.records import an_event
from authserver.testing.server import SETTINGS, Server
from authserver.testing.stories import reference_on

MakeServer = Callable[..., Server]
CANARY = "canary of a fault"
EVENTS = {
    "a-template": BeforeRender,
    "new-request": NewRequest,
    "routing": BeforeTraversal,
    "traversal": ContextFound,
    "new-response": NewResponse,
}


def fail(*arguments: Any) -> None:
    raise RuntimeError(CANARY)


class Torn:
    """What takes part in a transaction, and fails in one step of it."""

    transaction_manager = None

    def __init__(self, step: str) -> None:
        self.step = step

    def __getattr__(self, name: str) -> Any:
        return fail if name == self.step else lambda *arguments: None

    def sortKey(self) -> str:  # noqa: N802 - as the interface calls it
        return "torn"


def view(request: Request) -> Response:
    where = request.environ["QUERY_STRING"]
    match where:
        case "callback":
            request.add_response_callback(fail)
        case "finished":
            request.add_finished_callback(fail)
        case "unwritable":
            # Events are written at the end of the transaction.
            unwritable = type(CANARY, (), {})()
            request.engine.stores.events.add(an_event(details={"fact": unwritable}))
        case "before-commit":
            request.tm.get().addBeforeCommitHook(fail)
        case "after-commit":
            request.tm.get().addAfterCommitHook(fail)
        case "abort":
            request.tm.get().join(Torn("abort"))
            fail()
        case "headers":
            request.content_security_policy = Torn("keys")
        case "exit":
            raise SystemExit(CANARY)
        case "busy":
            raise StorageBusy("chosen as a victim")
        case "many":
            raise TooManyRequests("Wait.", reason="too-many", retry_after=7, leaves_event=False)
        case _:
            request.tm.get().join(Torn(where))
    return Response("fine", content_type="text/plain", charset="utf-8")


def fail_on(path: str) -> Callable[[Any], None]:
    def failing(event: Any) -> None:
        request = event["request"] if isinstance(event, BeforeRender) else event.request
        if request.environ["PATH_INFO"] == path:
            fail()

    return failing


@dataclass(frozen=True)
class Fails:
    """Breaks Pyramid's own machinery at one page, and has a page where the query says what breaks."""

    event: str = ""
    path: str = ""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_route("broken", "/broken")
        config.add_view(view, route_name="broken")
        config.add_endpoint(Route("broken_json", "/broken.json", ("POST",), Medium.JSON, Origins.ALL), view)
        if self.event:
            config.add_subscriber(fail_on(self.path), EVENTS[self.event])


def failing(make_server: MakeServer, event: str = "", path: str = "") -> Server:
    plugins = f"{SETTINGS['authserver.plugins']} log_events {__name__}:Fails"
    fields = {"authserver.plugin.fails.event": event, "authserver.plugin.fails.path": path}
    return make_server({"authserver.plugins": plugins, **fields})


def assert_ours(answer: TestResponse, caplog: pytest.LogCaptureFixture) -> None:
    """Headers, medium, an id that leads to the traceback; and nothing of the fault itself."""
    assert answer.status_int == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Strict-Transport-Security"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert CANARY not in answer.text and "Traceback" not in answer.text
    if answer.content_type == "application/json":
        assert answer.json["error"] == "server_error"
        error_id = answer.json["error_id"]
    else:
        assert answer.content_type == "text/html"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        error_id = reference_on(answer)
    told = [record for record in caplog.records if record.exc_info and error_id in record.getMessage()]
    assert told
    assert CANARY in caplog.text


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("path", ["/login", "/nowhere", "/oauth/token", "/oauth/jwks", "/oauth/authorize"])
def test_a_fault_of_the_machinery_is_answered(
    event: str, path: str, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """T152, F-12, B-19: while a request comes in, is routed, is rendered, and goes out."""
    server = failing(make_server, event, path)
    headers = {"Origin": "https://client.example"}
    server.add_client()
    method = server.http.post if path == "/oauth/token" else server.http.get
    answer = method(path, headers=headers, expect_errors=True)
    if event == "a-template" and path in ("/oauth/token", "/oauth/jwks"):
        assert answer.content_type == "application/json"  # which needs none
        assert answer.status_int != 500
        return
    assert_ours(answer, caplog)
    assert (answer.content_type == "application/json") == (path in ("/oauth/token", "/oauth/jwks"))
    if path == "/oauth/token":
        assert answer.headers["Access-Control-Allow-Origin"] == "https://client.example"


@pytest.mark.parametrize(
    ("path", "step"),
    [
        *product(["/broken", "/broken.json"], ["callback", "finished", "unwritable"]),
        *product(["/broken"], ["before-commit", "tpc_begin", "commit", "tpc_vote", "abort"]),
    ],
)
def test_a_fault_after_the_view_is_answered(
    path: str, step: str, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """T109, F-12: in the transaction's machinery, in callbacks, in the headers; cross-origin as always (Q-04).

    Only a page has a transaction that others can join.
    """
    server = failing(make_server)
    answer = server.http.post(
        f"{path}?{step}", "", headers={"Origin": "https://client.example"}, expect_errors=True
    )
    assert_ours(answer, caplog)
    assert (answer.content_type == "application/json") == (path == "/broken.json")
    assert ("Access-Control-Allow-Origin" in answer.headers) == (path == "/broken.json")


@pytest.mark.parametrize("path", ["/broken", "/broken.json"])
def test_a_page_of_a_plugin_cannot_end_the_server(
    path: str, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """F-12: `sys.exit` in a view is a failed answer with an id, and the next request is served as before."""
    server = failing(make_server)
    answer = server.http.post(f"{path}?exit", "", expect_errors=True)
    assert answer.status_int == 500 and CANARY not in answer.text
    assert "it raised SystemExit" in caplog.text
    (event,) = server.events("request.failed")
    assert event["event_id"] in answer.text
    assert server.http.post("/broken?after-commit", "").text == "fine"


def test_a_fault_after_the_commit_changes_no_answer(make_server: MakeServer) -> None:
    """T112."""
    assert failing(make_server).http.get("/broken?after-commit").text == "fine"


def test_a_repetition_that_never_helps_ends_in_503(make_server: MakeServer) -> None:
    """T111: one event for three attempts."""
    server = failing(make_server)
    answer = server.http.post("/broken.json?busy", "", expect_errors=True)
    assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
    (event,) = server.events("request.failed")
    assert event["event_id"] == answer.json["error_id"]


def test_headers_that_cannot_be_made_are_a_fault_like_any_other(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Q-07: the answer that a page had is not sent without its policy."""
    answer = failing(make_server).http.get("/broken?headers", expect_errors=True)
    assert_ours(answer, caplog)
    assert "fine" not in answer.text


@pytest.mark.parametrize("path", ["/broken", "/broken.json"])
def test_who_asks_too_often_is_told_when_to_come_again(path: str, make_server: MakeServer) -> None:
    """RFC 6585, 4; RFC 9110, 10.2.3: on a page as in JSON, which scripts of other origins may read (Q-04)."""
    server = failing(make_server)
    answer = server.http.post(f"{path}?many", "", headers={"Origin": "https://client.example"}, status=429)
    assert answer.headers["Retry-After"] == "7"
    if path == "/broken.json":
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert [row for row in server.events() if row["reason"] == "too-many"] == []


@dataclass(frozen=True)
class HasTween:
    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_tween(f"{__name__}.fail")


def test_a_tween_of_a_plugin_stops_the_start(make_server: MakeServer) -> None:
    """The order of tweens is one list; what is not in it would silently be unused."""
    with pytest.raises(ConfigurationError, match=r"test_last_resort\.fail"):
        make_server({"authserver.plugins": f"{SETTINGS['authserver.plugins']} {__name__}:HasTween"})
