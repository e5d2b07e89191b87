"""JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pyramid.response import Response


def json_response(
    value: Mapping[str, Any] | bytes, *, status: int = 200, cache_control: str = "no-store", **headers: str
) -> Response:
    """A JSON answer; not cached unless `cache_control` says otherwise. Header names are given with underscores."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    named = [(name.replace("_", "-"), text) for name, text in headers.items()]
    return Response(
        body=body,
        status=status,
        headerlist=[("Content-Type", "application/json"), ("Cache-Control", cache_control), *named],
    )


def put_headers(response: Response, headers: Mapping[str, str]) -> None:
    """Set these headers, and replace those of the same names. WebOb would search all headers for each one."""
    names = {name.lower() for name in headers}
    kept = [pair for pair in response.headerlist if pair[0].lower() not in names]
    response.headerlist = [*kept, *headers.items()]
