"""Sending events to other systems: `observe`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Event, hookimpl

log = logging.getLogger("authserver.events")


@dataclass(frozen=True)
class LogEvents:
    """Write each event as one line of JSON to the logger `authserver.events`."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def observe(self, event: Event) -> None:
        line = {
            "event_id": event.event_id,
            "type": event.type,
            "at": event.at.isoformat(),
            "actor": event.actor,
            "source": event.source,
            "client_id": event.client_id,
            "user_id": event.user_id,
            "grant_id": event.grant_id,
            "reason": event.reason,
            "details": dict(event.details),
        }
        log.info("%s", json.dumps({name: value for name, value in line.items() if value}))
