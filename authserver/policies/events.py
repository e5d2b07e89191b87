"""Sending events to other systems: `observe`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Event, event_as_json, hookimpl

log = logging.getLogger("authserver.events")


@dataclass(frozen=True)
class LogEvents:
    """Write each event as one line of JSON to the logger `authserver.events`."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def observe(self, event: Event) -> None:
        line = event_as_json(event)
        # The decisions are long, and the event table has them.
        del line["decisions"]
        log.info("%s", json.dumps({name: value for name, value in line.items() if value}))
