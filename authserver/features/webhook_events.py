"""Sends events to an HTTP endpoint: one signed request for each event, repeated until the endpoint accepts it.

The form is that of Standard Webhooks, version 1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from authserver.api import Event, EventType, Secret, Service, event_as_json, hookimpl

# The most bytes of an answer. Only its status counts.
MAXIMUM_ANSWER = 16_384
TYPES = tuple(type.value for type in EventType)


class NotTaken(Exception):
    """The endpoint did not accept an event; the message has the status of its answer, and nothing from the event."""


@dataclass(eq=False)
class WebhookEvents:
    """Send each event to an HTTP endpoint, and repeat that until it answers with a status from 200 to 299.

    `webhook-id` is the id of the event. An event may come twice, also after a restart. An endpoint that must not do
    something twice must remember the ids of the last hours.

    Attributes:
        url: the URL of the endpoint; https, or http to this machine.
        secret: the secret with which the requests are signed; `whsec_` and base64 of 24 to 64 random bytes.
        types: the types of the events that are sent, such as `token.refused` or `grant.*`; empty for all.
        timeout: seconds for one request, its answer included.
        ca_file: the path of the certificates to trust instead of those of the system.
    """

    url: str
    secret: Secret = field(repr=False)
    types: tuple[str, ...] = ()
    timeout: float = 10.0
    ca_file: str = ""
    _service: Service = field(init=False, repr=False)
    _key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.1 <= self.timeout <= 60:
            raise ValueError("timeout: must be 0.1 to 60")
        for pattern in self.types:
            if not any(fnmatchcase(type, pattern) for type in TYPES):
                raise ValueError(f"types: {pattern}: no event has such a type; there are {', '.join(TYPES)}")

    def prepare(self) -> None:
        """Prepare the connections; nothing is sent yet. Raises ValueError."""
        self._key = _key_of(self.secret.value)
        self._service = Service(self.url, ca_file=self.ca_file, connections=1)

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    @hookimpl
    def deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            if not self.types or any(fnmatchcase(event.type, pattern) for pattern in self.types):
                self._send(event)

    def _send(self, event: Event) -> None:
        """Send one event. Raises NotTaken, and FetchFailed if there is no answer."""
        described = event_as_json(event)
        body = json.dumps({"type": event.type, "timestamp": described["at"], "data": described}).encode()
        timestamp = str(int(time.time()))
        signed = f"{event.event_id}.{timestamp}.".encode() + body
        signature = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "authserver-events",
            "webhook-id": event.event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{signature}",
        }
        deadline = time.monotonic() + self.timeout
        answer = self._service.post(body, headers, deadline=deadline, maximum=MAXIMUM_ANSWER, read=())
        if not 200 <= answer.status < 300:
            raise NotTaken(f"{self._service.name} answered {answer.status}")


def _key_of(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError(
            'secret: must be base64 of 24 to 64 random bytes; make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return key
