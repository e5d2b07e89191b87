"""One id of a request: in its answer, in every line of the log, and with the rules; and the trace that it continues."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import Medium, Request, Route, hookimpl, json_response
from authserver.engine.timeline import Timeline, current
from authserver.limits import MAXIMUM_REQUEST_ID
from authserver.storage.database import StorageBusy
from authserver.testing.server import Server, with_plugin
from authserver.web.request_ids import HEADER, RequestIds

MakeServer = Callable[..., Server]
METADATA = "/.well-known/oauth-authorization-server"
PROXY, STRANGER = "10.0.0.1", "203.0.113.9"
FRESH = re.compile(r"[0-9a-f]{32}")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def taken_over(value: str, **environ: Any) -> str | None:
    """The request id by this header; None if a new one is made."""
    timeline = Timeline()
    fresh = timeline.request_id
    RequestIds(header="HTTP_X_REQUEST_ID").take_over({"HTTP_X_REQUEST_ID": value, **environ}, timeline)
    assert timeline.trace_id in (fresh, value.replace("-", ""))
    assert re.fullmatch("[0-9a-f]{32}", timeline.trace_id)
    return None if timeline.request_id == fresh else timeline.request_id


@pytest.mark.parametrize(
    "value",
    [
        "4f1c9b2ed0a94c7fbd6f40e0a5d7c1b2",
        "0b5a1c5e-8d3f-4a51-b1b1-2f3a2d8f6f0e",
        "Root=1-67891233-abcdef012345678912345678",
        "aGVsbG8/".replace("/", "_") + "==",
        "7",
    ],
)
def test_an_id_of_other_software_is_taken_over(value: str) -> None:
    """Of nginx, of HAProxy, of Amazon's balancer, in base64, and a number."""
    assert taken_over(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "a b",
        "one,two",
        "a\nb",
        "a\r\nX: y",
        "ann\x1b[2J",
        "ä",
        "a\u202eb",
        '"a"',
        "a\x00",
        "a;b",
        "%0A",
    ],
)
def test_what_cannot_be_an_id_is_replaced(value: str) -> None:
    """T094: a line of a log and a header cannot be cut there. Two headers of the name are joined by a comma."""
    assert taken_over(value) is None


def test_too_long_an_id_is_cut() -> None:
    longest = "a" * MAXIMUM_REQUEST_ID
    assert taken_over(longest) == longest
    assert taken_over(longest + "b" * 5_000) == longest


@pytest.mark.parametrize(
    ("value", "is_continued", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True, True),
        (f"00-{TRACE}-{SPAN}-00", True, False),
        (f"00-{TRACE}-{SPAN}-03", True, True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True, True),
        (f"cc-{TRACE}-{SPAN}-01", True, True),
        (f"00-{TRACE}-{SPAN}-01-more", False, False),
        (f"cc-{TRACE}-{SPAN}-01.more", False, False),
        (f"ff-{TRACE}-{SPAN}-01", False, False),
        (f"00-{'0' * 32}-{SPAN}-01", False, False),
        (f"00-{TRACE}-{'0' * 16}-01", False, False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False, False),
        (f"00-{TRACE}-{SPAN}", False, False),
        (f"00-{TRACE}-{SPAN}-01\n", False, False),
        (f"00-{TRACE}-{SPAN}-0x", False, False),
        (f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01", False, False),
        ("", False, False),
    ],
)
def test_which_traceparent_continues_a_trace(value: str, is_continued: bool, is_sampled: bool) -> None:
    """W3C Trace Context, 3.2.2 and 4.3: of a later version what is known is read."""
    timeline = Timeline()
    RequestIds(continues_traces=True).take_over({"HTTP_TRACEPARENT": value}, timeline)
    if is_continued:
        assert (timeline.trace_id, timeline.parent_id, timeline.is_sampled) == (TRACE, SPAN, is_sampled)
    else:
        assert (timeline.trace_id, timeline.parent_id, timeline.is_sampled) == (
            timeline.request_id,
            "",
            False,
        )


def test_every_answer_has_an_id_of_its_own(server: Server) -> None:
    """Pages, documents, refusals, requests to another host, and what is not there."""
    host = {"Host": "other.example"}
    answers = [
        server.http.get(METADATA),
        server.http.get(METADATA),
        server.http.get("/"),
        server.http.get("/static/style.css"),
        server.http.post("/oauth/token", expect_errors=True),
        server.http.get("/nowhere", expect_errors=True),
        server.http.get("/", headers=host, expect_errors=True),
        server.http.options("/oauth/token", headers={"Origin": "https://a.example"}, expect_errors=True),
    ]
    ids = [answer.headers[HEADER] for answer in answers]
    assert all(FRESH.fullmatch(each) for each in ids)
    assert len(set(ids)) == len(ids)


def test_a_strangers_id_is_not_taken_over(make_server: MakeServer) -> None:
    """Only that of a trusted proxy, and only in the header that the operator names."""
    server = make_server(
        {"authserver.trusted_proxies": PROXY, "authserver.request_id_header": "X-Request-ID"}
    )

    def id_for(peer: str, name: str = "X-Request-ID") -> str:
        headers = {name: "chosen-elsewhere", "X-Forwarded-For": STRANGER, "X-Forwarded-Proto": "https"}
        answer = server.http.get(METADATA, headers=headers, extra_environ={"REMOTE_ADDR": peer})
        return str(answer.headers[HEADER])

    assert id_for(PROXY) == "chosen-elsewhere"
    assert FRESH.fullmatch(id_for(STRANGER))
    assert FRESH.fullmatch(id_for(PROXY, "X-Correlation-ID"))


def test_no_header_is_believed_unless_the_operator_names_one(make_server: MakeServer) -> None:
    server = make_server({"authserver.trusted_proxies": PROXY})
    headers = {"X-Request-ID": "chosen-elsewhere", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = server.http.get(METADATA, headers=headers, extra_environ={"REMOTE_ADDR": PROXY})
    assert FRESH.fullmatch(answer.headers[HEADER])


@dataclass(frozen=True)
class Talkative:
    """Writes a line from its own thread, in which it is called because it may be slow."""

    @hookimpl
    def client_auth_decision(self) -> None:
        timeline = current()
        logging.getLogger("talkative").info("asked during %s", timeline and timeline.request_id)


def test_every_line_of_a_request_has_its_id(make_server: MakeServer, caplog) -> None:
    """Those of plugins in threads of their own, of the refusal, and of the fault that nothing else answers."""
    caplog.set_level(logging.INFO)
    server = make_server(with_plugin(f"{__name__}:Talkative", {}))
    client, secret = server.add_client(grant_types=("client_credentials",))
    seen: list[tuple[str, str]] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            timeline = current()
            seen.append((record.getMessage(), timeline.request_id if timeline else "-"))

    handler = Keeps()
    logging.getLogger().addHandler(handler)
    try:
        answer = server.token(client, secret, grant_type="password")
    finally:
        logging.getLogger().removeHandler(handler)
    expected = answer.headers[HEADER]
    assert f"asked during {expected}" in [message for message, _ in seen]
    assert any(message.startswith("token.refused") for message, _ in seen)
    assert {request_id for _, request_id in seen} == {expected}
    assert current() is None


@dataclass(frozen=True)
class Asks:
    """An endpoint that the database makes repeat its first request."""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(Route("asks", "/asks", ("GET",), Medium.JSON), self.page)

    def page(self, request: Request) -> Response:
        """GET /asks."""
        attempts = request.environ.setdefault("attempts", [])
        attempts.append((request.caller.request_id, request.engine.caller.request_id))
        if len(attempts) < 2:
            raise StorageBusy
        return json_response({"attempts": attempts})


def test_the_rules_know_it(make_server: MakeServer) -> None:
    """The same in the answer, and in each attempt of a request that is repeated."""
    answer = make_server(with_plugin(f"{__name__}:Asks", {})).http.get("/asks")
    expected = answer.headers[HEADER]
    assert answer.json["attempts"] == [[expected, expected]] * 2
