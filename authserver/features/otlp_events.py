"""Sends events to a collector as log records of OpenTelemetry (OTLP/HTTP in JSON, 1.0)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from authserver.api import Event, Secret, Service, event_as_json, hookimpl

log = logging.getLogger(__name__)

# The most bytes of an answer that are read.
MAXIMUM_ANSWER = 65_536
# Severities of the log data model of OpenTelemetry.
_INFO, _WARN = (9, "INFO"), (13, "WARN")
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


class NotTaken(Exception):
    """The collector did not accept the records; the message has the status of its answer."""


@dataclass(eq=False)
class OtlpEvents:
    """Send events to a collector of OpenTelemetry as log records, and repeat that until it has accepted them.

    Attributes:
        url: the address for logs, such as https://collector.example.com/v1/logs; https, or http to this machine.
        authorization: the Authorization header that the collector needs, such as `Bearer …`; empty for none.
        service_name: the name of this server in the attribute `service.name`.
        timeout: seconds for one request, its answer included.
        ca_file: the path of the certificates to trust instead of those of the system.
    """

    url: str
    authorization: Secret = field(default=Secret(""), repr=False)
    service_name: str = "authserver"
    timeout: float = 10.0
    ca_file: str = ""
    _service: Service = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.1 <= self.timeout <= 60:
            raise ValueError("timeout: must be 0.1 to 60")
        if not self.authorization.value.isprintable() or not self.authorization.value.isascii():
            raise ValueError("authorization: must have visible ASCII characters only")

    def prepare(self) -> None:
        """Prepare the connections; nothing is sent yet. Raises ValueError."""
        self._service = Service(self.url, ca_file=self.ca_file, connections=1)

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    @hookimpl
    def deliver(self, events: Sequence[Event]) -> None:
        """Send the events. Raises NotTaken, and FetchFailed if there is no answer."""
        scope = {"scope": {"name": "authserver.events"}, "logRecords": list(map(_record, events))}
        resource = {"attributes": _attributes({"service.name": self.service_name})}
        body = json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "authserver-events"}
        if self.authorization.value:
            headers["Authorization"] = self.authorization.value
        deadline = time.monotonic() + self.timeout
        answer = self._service.post(body, headers, deadline=deadline, maximum=MAXIMUM_ANSWER, read=(200,))
        if answer.status != 200:
            raise NotTaken(f"{self._service.name} answered {answer.status}")
        if rejected := _rejected(answer.body):
            # The records must not be sent again (OTLP, "Partial Success").
            log.warning("%s rejected %d of %d events for good", self._service.name, rejected, len(events))


def _record(event: Event) -> dict[str, Any]:
    severity, text = _WARN if event.type.is_refusal else _INFO
    described = event_as_json(event)
    details = {f"details.{name}": value for name, value in described.pop("details").items()}
    return {
        # Whole numbers, because a float would not be exact.
        "timeUnixNano": str((event.at - _EPOCH) // _MICROSECOND * 1000),
        "severityNumber": severity,
        "severityText": text,
        "eventName": event.type.value,
        "body": {"stringValue": event.type.value},
        "attributes": _attributes(
            {f"authserver.{name}": value for name, value in (described | details).items()}
        ),
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The attributes that are not empty, in the form of OTLP."""
    return [
        {"key": name, "value": _value(value)}
        for name, value in values.items()
        if value not in (None, "", [], {})
    ]


def _value(value: Any) -> dict[str, Any]:
    """A value of JSON as an `AnyValue`."""
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list() | tuple():
            return {"arrayValue": {"values": list(map(_value, value))}}
        case Mapping():
            return {
                "kvlistValue": {
                    "values": [{"key": name, "value": _value(item)} for name, item in value.items()]
                }
            }
    return {}


def _rejected(body: bytes) -> int:
    """How many records the collector rejected, as its answer says; 0 if the answer cannot be read."""
    try:
        return int(json.loads(body)["partialSuccess"]["rejectedLogRecords"])
    except (ValueError, LookupError, TypeError):
        return 0
