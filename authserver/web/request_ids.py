"""Which ids a request brings: its own, and that of the trace it is part of. Only a trusted proxy is asked for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.config import Configurator

from authserver.engine.timeline import Timeline
from authserver.limits import MAXIMUM_REQUEST_ID
from authserver.settings import Settings

# In the header of every answer.
HEADER = "X-Request-ID"
# What other software makes: hexadecimal digits, UUIDs, base64 and the like. Nothing that a line of a log or a header
# could be cut at; so not the comma that joins two headers of the same name, either.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:+/=@-]+")
# A UUID without its hyphens is one, too.
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
# W3C Trace Context, 3.2.2; a later version may add more after a hyphen (4).
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


def includeme(config: Configurator) -> None:
    """Read from the settings which ids are taken over."""
    config.registry.request_ids = RequestIds.of(config.registry.application.parts.settings)


@dataclass(frozen=True, slots=True)
class RequestIds:
    """What is taken over from the headers of a trusted proxy.

    Attributes:
        header: the name of the one with the request id, as WSGI has it; "" for none.
        continues_traces: whether the trace in `traceparent` is continued.
    """

    header: str = ""
    continues_traces: bool = False

    @classmethod
    def of(cls, settings: Settings) -> RequestIds:
        """What the settings say."""
        name = settings.request_id_header
        return cls(
            header=f"HTTP_{name.upper().replace('-', '_')}" if name else "",
            continues_traces=settings.continue_traces,
        )

    def take_over(self, environ: Mapping[str, Any], timeline: Timeline) -> None:
        """Note the ids that the request brings; what cannot be one is left out, and too long a request id is cut."""
        if self.header and (match := _REQUEST_ID.fullmatch(environ.get(self.header, ""))):
            timeline.request_id = match[0][:MAXIMUM_REQUEST_ID]
            digits = timeline.request_id.replace("-", "").lower()
            if _TRACE_ID.fullmatch(digits) and int(digits, 16):
                timeline.trace_id = digits
        if self.continues_traces and (match := _TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))):
            version, trace_id, parent_id, flags, more = match.groups()
            if (
                version == "ff"
                or (version == "00" and more)
                or not int(trace_id, 16)
                or not int(parent_id, 16)
            ):
                return
            timeline.trace_id, timeline.parent_id = trace_id, parent_id
            timeline.is_sampled = bool(int(flags, 16) & _SAMPLED)
