"""Says in an answer when the client may try again (RFC 9110, 10.2.3; RFC 6585, 4)."""

from __future__ import annotations

from pyramid.response import Response

from authserver.engine.errors import TooManyRequests


def with_retry_after(response: Response, refusal: TooManyRequests) -> Response:
    """The response with the status and the header of this refusal."""
    response.status_int = refusal.status
    response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def minutes(seconds: int) -> int:
    """Seconds as minutes, rounded up."""
    return -(-seconds // 60)
