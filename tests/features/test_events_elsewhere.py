"""Events to other systems: every one arrives, whatever fails between, in the form that the other system expects."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from authserver.api import FetchFailed, Secret
from authserver.engine.records import Event, EventType
from authserver.event_readers import Reading
from authserver.features.otlp_events import OtlpEvents
from authserver.features.syslog_events import MAXIMUM_MESSAGE, SyslogEvents
from authserver.features.webhook_events import NotTaken, WebhookEvents
from authserver.plugins.asking import PluginSet
from authserver.plugins.delivering import deliveries
from authserver.storage.database import Database
from authserver.testing.origins import Authority, Origin, sending, serving
from authserver.testing.records import NOW, an_event

KEY = b"k" * 32
SECRET = Secret("whsec_" + base64.b64encode(KEY).decode())
REFUSED = an_event(
    event_id="refused",
    type=EventType.TOKEN_REFUSED,
    reason="code-claimed",
    details={"grant_type": "authorization_code", "more": 3, "known": True, "scopes": ["read", "write"]},
    decisions=({"slot": "scope_decision", "answers": [{"plugin": "p", "microseconds": 3}]},),
    at=NOW + timedelta(microseconds=7),
)


def webhook(origin: Origin, **settings: Any) -> WebhookEvents:
    plugin = WebhookEvents(url=f"http://127.0.0.1:{origin.port}/events", secret=SECRET, **settings)
    plugin.prepare()
    return plugin


def otlp(origin: Origin, **settings: Any) -> OtlpEvents:
    plugin = OtlpEvents(url=f"http://127.0.0.1:{origin.port}/v1/logs", **settings)
    plugin.prepare()
    return plugin


def test_each_event_is_a_signed_request() -> None:
    """Standard Webhooks: the signature is over id, time and body, and the id is that of the event."""
    with serving() as origin:
        plugin = webhook(origin)
        plugin.deliver([an_event(event_id="first"), REFUSED])
        plugin.close()
    assert [request.headers["webhook-id"] for request in origin.received] == ["first", "refused"]
    for request in origin.received:
        signed = (
            f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
        )
        expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
        assert request.headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    body = json.loads(origin.received[1].body)
    assert (body["type"], body["data"]["reason"]) == ("token.refused", "code-claimed")
    assert body["data"]["details"]["more"] == 3


def test_only_the_types_that_are_wanted_are_sent() -> None:
    with serving() as origin:
        plugin = webhook(origin, types=("token.refused", "grant.*"))
        plugin.deliver([an_event(), REFUSED, an_event(event_id="ended", type=EventType.GRANT_REVOKED)])
        plugin.close()
    assert [request.headers["webhook-id"] for request in origin.received] == ["refused", "ended"]


@pytest.mark.parametrize("status", [301, 400, 404, 410, 429, 500, 503])
def test_an_endpoint_that_does_not_take_an_event_gets_it_again(status: int) -> None:
    with serving() as origin:
        origin.script.append(sending(status=status))
        plugin = webhook(origin)
        with pytest.raises((NotTaken, FetchFailed)) as caught:
            plugin.deliver([REFUSED])
        assert "code-claimed" not in str(caught.value)
        plugin.deliver([REFUSED])
        plugin.close()
    assert [request.headers["webhook-id"] for request in origin.received] == ["refused", "refused"]


def test_events_are_log_records() -> None:
    """OTLP/HTTP in JSON: 64-bit integers are texts, times are nanoseconds, bytes of nothing are left out."""
    with serving() as origin:
        plugin = otlp(origin, authorization=Secret("Bearer of-the-collector"), service_name="sso")
        plugin.deliver([an_event(), REFUSED])
        plugin.close()
    (request,) = origin.received
    assert request.headers["Authorization"] == "Bearer of-the-collector"
    (resource,) = json.loads(request.body)["resourceLogs"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "sso"}}]
    (scope,) = resource["scopeLogs"]
    issued, refused = scope["logRecords"]
    assert (issued["severityText"], refused["severityText"]) == ("INFO", "WARN")
    assert refused["eventName"] == "token.refused"
    assert int(refused["timeUnixNano"]) == int(NOW.timestamp()) * 10**9 + NOW.microsecond * 1000 + 7000
    attributes = {item["key"]: item["value"] for item in refused["attributes"]}
    assert attributes["authserver.reason"] == {"stringValue": "code-claimed"}
    assert attributes["authserver.details.more"] == {"intValue": "3"}
    assert attributes["authserver.details.known"] == {"boolValue": True}
    assert attributes["authserver.details.scopes"] == {
        "arrayValue": {"values": [{"stringValue": "read"}, {"stringValue": "write"}]}
    }
    assert "authserver.grant_id" not in attributes


def test_a_collector_that_rejects_some_for_ever_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as origin:
        origin.reply = sending(b'{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "too long"}}')
        plugin = otlp(origin)
        plugin.deliver([an_event(), REFUSED])
        plugin.close()
    assert "rejected 1 of 2 events for good" in caplog.text
    assert len(origin.received) == 1


def test_a_collector_that_is_busy_is_asked_again() -> None:
    with serving() as origin:
        origin.script.append(sending(status=503))
        plugin = otlp(origin)
        with pytest.raises(Exception, match="answered 503"):
            plugin.deliver([REFUSED])
        plugin.close()


class Receiver:
    """A syslog server that reads messages with their lengths before them."""

    def __init__(self, listening: socket.socket) -> None:
        self.messages: list[bytes] = []
        self.arrived = threading.Semaphore(0)
        self._listening = listening
        self._open: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def wait_for(self, count: int) -> list[bytes]:
        for _ in range(count):
            assert self.arrived.acquire(timeout=10)
        return self.messages

    def hang_up(self) -> None:
        for connection in self._open:
            connection.shutdown(socket.SHUT_RDWR)
        self._open = []

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while length := self._length(stream):
                    self.messages.append(stream.read(length))
                    self.arrived.release()
        except (OSError, ValueError):
            return

    @staticmethod
    def _length(stream: Any) -> int:
        digits = b""
        while (byte := stream.read(1)).isdigit():
            digits += byte
        return int(digits or 0)


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[tuple[Receiver, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    if context:
        listening = context.wrap_socket(listening, server_side=True)
    with listening:
        yield Receiver(listening), listening.getsockname()[1]


def syslog(address: str, **settings: Any) -> SyslogEvents:
    plugin = SyslogEvents(address=address, **settings)
    plugin.prepare()
    return plugin


def test_a_message_of_syslog_has_facility_severity_time_and_json() -> None:
    """RFC 5424, 6; RFC 6587, 3.4.1."""
    with receiving() as (receiver, port):
        plugin = syslog(f"tcp://127.0.0.1:{port}", app_name="sso")
        plugin.deliver([an_event(), REFUSED])
        issued, refused = receiver.wait_for(2)
        plugin.close()
    assert issued.startswith(b"<110>1 ")
    assert refused.startswith(b"<108>1 ")
    head, _, line = refused.partition(b" - {")
    _, time_of, hostname, app_name, process, kind = head.decode().split(" ")
    assert (app_name, process, kind) == ("sso", "-", "token.refused")
    assert hostname == socket.gethostname()
    assert time_of == (NOW + timedelta(microseconds=7)).isoformat().replace("+00:00", "Z")
    assert json.loads(b"{" + line)["reason"] == "code-claimed"


def test_hostile_text_makes_no_second_message() -> None:
    """T145: a line break, a length or an escape of a terminal in a stored text stays in its JSON."""
    hostile = an_event(reason='x"\n<0>1 - fake - - - -\x1b[2J\u202e \u2028', client_id="99 <0>1 fake")
    with receiving() as (receiver, port):
        plugin = syslog(f"tcp://127.0.0.1:{port}")
        plugin.deliver([hostile])
        (message,) = receiver.wait_for(1)
        plugin.close()
    assert message.isascii()
    assert not any(byte < 0x20 for byte in message)
    assert json.loads(message[message.index(b"{") :])["reason"] == hostile.reason


def test_a_message_that_is_too_long_says_that_it_is_cut() -> None:
    long = an_event(details={"scopes": ["read"] * 5000})
    with receiving() as (receiver, port):
        plugin = syslog(f"tcp://127.0.0.1:{port}")
        plugin.deliver([long])
        (message,) = receiver.wait_for(1)
        plugin.close()
    assert len(message) < MAXIMUM_MESSAGE
    assert json.loads(message[message.index(b"{") :])["cut"] is True


def test_a_syslog_server_that_hangs_up_gets_the_event_on_a_new_connection() -> None:
    with receiving() as (receiver, port):
        plugin = syslog(f"tcp://127.0.0.1:{port}")
        plugin.deliver([an_event(event_id="first")])
        receiver.wait_for(1)
        receiver.hang_up()
        time.sleep(0.1)
        plugin.deliver([an_event(event_id="second")])
        assert b'"second"' in receiver.wait_for(1)[-1]
        plugin.close()


def test_a_syslog_server_that_is_away_keeps_the_event_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    plugin = syslog(f"tcp://127.0.0.1:{port}")
    with pytest.raises(OSError, match="refused"):
        plugin.deliver([REFUSED])
    plugin.close()


def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    """RFC 5425, 5: nobody else gets the events."""
    authority = Authority(tmp_path)
    with receiving(authority.context("127.0.0.1")) as (receiver, port):
        plugin = syslog(f"tls://127.0.0.1:{port}", ca_file=str(authority.ca_file))
        plugin.deliver([an_event(event_id="first"), an_event(event_id="second")])
        assert len(receiver.wait_for(2)) == 2
        plugin.close()
    (tmp_path / "other").mkdir()
    with receiving(Authority(tmp_path / "other").context("127.0.0.1")) as (receiver, port):
        plugin = syslog(f"tls://127.0.0.1:{port}", ca_file=str(authority.ca_file))
        with pytest.raises(ssl.SSLCertVerificationError):
            plugin.deliver([REFUSED])
        plugin.close()
        assert receiver.messages == []


def test_a_datagram_has_one_event(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        plugin = syslog(f"udp://127.0.0.1:{receiver.getsockname()[1]}", facility="local0")
        plugin.deliver([REFUSED])
        assert receiver.recv(65536).startswith(b"<132>1 ")
        plugin.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(10)
        plugin = syslog(f"unix:{tmp_path}/log")
        plugin.deliver([REFUSED])
        assert b'"code-claimed"' in receiver.recv(65536)
        plugin.close()


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (
            WebhookEvents,
            {"url": "https://e.example/", "secret": SECRET, "types": ("token.refusd",)},
            "types: token",
        ),
        (WebhookEvents, {"url": "https://e.example/", "secret": SECRET, "timeout": 0}, "timeout"),
        (WebhookEvents, {"url": "https://e.example/", "secret": Secret("whsec_short")}, "secret"),
        (WebhookEvents, {"url": "http://e.example/", "secret": SECRET}, "url"),
        (OtlpEvents, {"url": "http://collector.example/v1/logs"}, "url"),
        (OtlpEvents, {"url": "https://c.example/", "authorization": Secret("a\r\nX: y")}, "authorization"),
        (OtlpEvents, {"url": "https://c.example/", "timeout": 61}, "timeout"),
        (SyslogEvents, {"address": "logs.example:514"}, "address"),
        (SyslogEvents, {"address": "tcp://logs.example:99999"}, "address"),
        (SyslogEvents, {"address": "unix:log"}, "address"),
        (SyslogEvents, {"address": "tls://l.example", "facility": "mail"}, "facility"),
        (SyslogEvents, {"address": "tls://l.example", "app_name": "two words"}, "app_name"),
        (SyslogEvents, {"address": "tls://l.example", "timeout": 0}, "timeout"),
        (SyslogEvents, {"address": "tcp://l.example", "ca_file": "x"}, "ca_file"),
        (SyslogEvents, {"address": "tls://l.example", "ca_file": "/nowhere"}, "ca_file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_name_of_its_setting(
    kind: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        kind(**settings).prepare()


@pytest.mark.parametrize(
    ("address", "is_insecure"),
    [
        ("tls://logs.example", False),
        ("tcp://127.0.0.1:601", False),
        ("udp://[::1]:514", False),
        ("udp://localhost:514", False),
        ("unix:/dev/log", False),
        ("tcp://logs.example", True),
        ("udp://192.0.2.7", True),
    ],
)
def test_events_leave_this_machine_readable_in_development_only(address: str, is_insecure: bool) -> None:
    assert bool(SyslogEvents(address=address).insecure) is is_insecure


def test_a_restart_loses_no_event(database: Database) -> None:
    """At least once, through the background reader: the endpoint fails, the process ends, another one goes on."""

    def store(*event_ids: str) -> None:
        for event_id in event_ids:
            with database.begin() as stores:
                stores.events.add(an_event(event_id=event_id))

    def started(origin: Origin) -> Reading:
        plugin = webhook(origin)
        (delivery,) = deliveries(PluginSet([("webhook_events", plugin)]), nullcontext)
        return Reading(database, delivery)

    store("before")
    with serving() as origin:
        reading = started(origin)
        assert reading.work() == 0  # It begins here.
        store("a", "b", "c")
        origin.script += [sending(), sending(status=503)]
        with pytest.raises(NotTaken):
            reading.work()
        reading.stop()
        store("d")
        again = started(origin)
        while again.work():
            pass
        assert again.backlog() == 0
    assert [request.headers["webhook-id"] for request in origin.received] == ["a", "b", "a", "b", "c", "d"]


def test_a_slow_observer_of_this_kind_delays_nobody(database: Database) -> None:
    """What is delivered is not waited for by the request, so events wait and requests do not."""
    with serving() as origin:
        (delivery,) = deliveries(PluginSet([("webhook_events", webhook(origin))]), nullcontext)
        reading = Reading(database, delivery)
        with database.begin() as stores:
            stores.events.add(an_event(event_id="before"))
        reading.begin()
        begun = time.monotonic()
        event: Event = an_event(event_id="quick")
        with database.begin() as stores:
            stores.events.add(event)
        assert origin.received == []
        assert time.monotonic() - begun < 5
        assert reading.work() == 1
