"""Answers 304 to a caller that has the present answer already (RFC 9110, 13.1.2)."""

from __future__ import annotations

from pyramid.response import Response

from authserver.web.request import Request


def or_not_modified(request: Request, response: Response, etag: str) -> Response:
    """The response with this `ETag`, or 304 without content for a caller that has it.

    Weak validators match, too: a proxy that compresses an answer makes its `ETag` weak.

    Args:
        etag: the ETag without quotes; it must be different for different content.
    """
    response.headers["ETag"] = f'"{etag}"'
    if etag in request.if_none_match:
        response.status_int = 304
        response.body = b""
        # A response without content must have neither header (RFC 9110, 8.3 and 8.6).
        del response.headers["Content-Type"], response.headers["Content-Length"]
    return response
