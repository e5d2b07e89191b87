"""Takes the id of a request and the id of its trace from its headers, if a trusted proxy sent them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.config import Configurator

from authserver.engine.timeline import Timeline
from authserver.limits import MAXIMUM_REQUEST_ID
from authserver.settings import Settings

# The header of every answer with the request id.
HEADER = "X-Request-ID"
# The ids of other software: hexadecimal digits, UUIDs, base64 and similar. Characters that could split a log line or a
# header are not allowed, and neither is the comma, which joins two headers of the same name.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:+/=@-]+")
# A trace id; a UUID without its hyphens has this form, too.
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
# W3C Trace Context, 3.2.2; a later version may add more after a hyphen (4).
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


def includeme(config: Configurator) -> None:
    """Add the `RequestIds` of the settings to the registry."""
    config.registry.request_ids = RequestIds.of(config.registry.application.parts.settings)


@dataclass(frozen=True, slots=True)
class RequestIds:
    """The headers of a trusted proxy from which ids are taken.

    Attributes:
        header: the name of the header with the request id, in the form of WSGI; "" for none.
        continues_traces: whether the trace in `traceparent` is continued.
    """

    header: str = ""
    continues_traces: bool = False

    @classmethod
    def of(cls, settings: Settings) -> RequestIds:
        """Make it from the settings."""
        name = settings.request_id_header
        return cls(
            header=f"HTTP_{name.upper().replace('-', '_')}" if name else "",
            continues_traces=settings.continue_traces,
        )

    def take_over(self, environ: Mapping[str, Any], timeline: Timeline) -> None:
        """Note the ids in the headers; malformed ids are ignored, and a request id that is too long is cut."""
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
