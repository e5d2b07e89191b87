"""JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pyramid.response import Response


def json_response(
    value: Mapping[str, Any] | bytes, *, status: int = 200, cache_control: str = "no-store", **headers: str
) -> Response:
    """A JSON answer; not cached unless it says otherwise. Header names are given with underscores."""
    response = Response(
        body=value if isinstance(value, bytes) else msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        charset=None,
    )
    response.headers["Cache-Control"] = cache_control
    for name, text in headers.items():
        response.headers[name.replace("_", "-")] = text
    return response
