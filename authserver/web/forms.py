"""Reads requests strictly: a GET only from its query, and a POST only from its body (T014)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from functools import partial

from pyramid.httpexceptions import HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType

from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.parameters import Parameters, checked_text
from authserver.limits import MAXIMUM_BODY, MAXIMUM_PARAMETER, MAXIMUM_PARAMETERS, sealed_length
from authserver.web.request import Request

Parse = Callable[[bytes], Parameters]

_FORM = re.compile(r'application/x-www-form-urlencoded(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)
# A boundary may be written as a token or as a quoted string (RFC 2046, 5.1.1).
_MULTIPART = re.compile(
    r"""multipart/form-data\s*;\s*boundary=(?:"([^"\\\x00-\x1f]{1,70})"|([!#$%&'*+.^_`|~0-9A-Za-z-]{1,70}))\s*""",
    re.IGNORECASE,
)
_NAMED_PART = re.compile(
    rb'^content-disposition:\s*form-data;\s*name="([a-z_]{1,40})"(;\s*filename=[^\r\n]*)?\r?$',
    re.IGNORECASE | re.MULTILINE,
)
_JSON = re.compile(r'application/json(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)


def read_query(request: Request, *, parse: Parse = Parameters.parse) -> Parameters:
    """The parameters of the query. Raises InvalidRequest."""
    return parse(request.environ.get("QUERY_STRING", "").encode("latin-1"))


def read_form(request: Request, *, parse: Parse = Parameters.parse) -> Parameters:
    """The parameters of a form body.

    Raises:
        InvalidRequest: it has another media type (F-02, T083), or is not a form.
    """
    if not _FORM.fullmatch(request.environ.get("CONTENT_TYPE", "")):
        raise InvalidRequest("Send application/x-www-form-urlencoded.", reason="content-type")
    return parse(read_body(request))


def read_json(request: Request) -> bytes:
    """A JSON body. Raises InvalidRequest for another media type."""
    if not _JSON.fullmatch(request.environ.get("CONTENT_TYPE", "")):
        raise InvalidRequest("Send application/json.", reason="content-type")
    return read_body(request)


def read_page_query(request: Request) -> Parameters:
    """The parameters in the address of one of our own pages. Raises PageError."""
    try:
        return read_query(request, parse=_parse_own(request))
    except InvalidRequest as error:
        raise PageError(error) from None


def read_page_form(request: Request) -> Parameters:
    """The parameters of a form on one of our own pages. Raises PageError."""
    try:
        return read_form(request, parse=_parse_own(request))
    except InvalidRequest as error:
        raise PageError(error) from None


def read_page_upload(request: Request) -> Parameters:
    """Like `read_page_form`, for a form that may have files (RFC 7578); the value of a file is its content in base64.

    Raises PageError.
    """
    boundary = _MULTIPART.fullmatch(request.environ.get("CONTENT_TYPE", ""))
    if boundary is None:
        return read_page_form(request)
    try:
        return Parameters.of(_parts(read_body(request), (boundary[1] or boundary[2]).encode()))
    except InvalidRequest as error:
        raise PageError(error) from None


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of a multipart body; a part with a file name is a file.

    Raises:
        HTTPUnsupportedMediaType: the body does not have the form in which browsers send it.
        InvalidRequest: as `Parameters.parse` raises it.
    """
    preamble, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if preamble or not parts or parts[-1].rstrip(b"\r\n") != b"--":
        raise HTTPUnsupportedMediaType()
    if len(parts) > MAXIMUM_PARAMETERS:
        raise InvalidRequest("too many parameters")
    for part in parts[:-1]:
        head, separator, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        named = _NAMED_PART.search(head)
        if not separator or named is None:
            raise HTTPUnsupportedMediaType()
        name, is_file = named[1].decode(), named[2] is not None
        yield (
            name,
            base64.b64encode(content).decode() if is_file else checked_text(content, MAXIMUM_PARAMETER),
        )


def _parse_own(request: Request) -> Parse:
    """The parser for our own pages, with room for a sealed request and, on the consent page, a box for each scope."""
    parts = request.application.parts
    return partial(
        Parameters.parse,
        maximum=sealed_length(parts.settings.maximum_request),
        maximum_count=MAXIMUM_PARAMETERS + len(parts.offered.scopes()),
    )


def read_body(request: Request) -> bytes:
    """The body, if it is not too large and not compressed; the WSGI server may not have checked that (T136, T137)."""
    if is_too_large(request):
        raise HTTPRequestEntityTooLarge()
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in ("", "identity"):
        # Decompressed, it could be much longer (RFC 9110, 15.5.16).
        raise HTTPUnsupportedMediaType(headers={"Accept-Encoding": "identity"})
    body: bytes = request.body
    return body


def is_too_large(request: Request) -> bool:
    """Whether the body is longer than the longest that is read."""
    return (request.content_length or 0) > MAXIMUM_BODY
