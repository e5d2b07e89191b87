"""Events to an HTTP endpoint: one signed request for each, until it has taken it (Standard Webhooks, version 1)."""

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

# Bytes of an answer that are read: it says nothing that matters.
MAXIMUM_ANSWER = 16_384
TYPES = tuple(type.value for type in EventType)


class NotTaken(Exception):
    """The endpoint did not take an event; the message says what it answered, and nothing of the event."""


@dataclass(eq=False)
class WebhookEvents:
    """Send each event to an HTTP endpoint, again and again until it answers with a status from 200 to 299.

    `webhook-id` is the id of the event. An event may come twice, also after a restart, so an endpoint that must not do
    something twice remembers the ids of the last hours.

    Attributes:
        url: of the endpoint; https, or http to this machine.
        secret: the requests are signed with it; `whsec_` and base64 of 24 to 64 random bytes.
        types: of the events that are sent, such as `token.refused` or `grant.*`; empty: all.
        timeout: seconds for one request, its answer included.
        ca_file: path of the certificates to trust instead of the system's.
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
        """Raises NotTaken, and FetchFailed if there is no answer."""
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
