"""Reading requests strictly: a GET from its query alone, a POST from its form body alone (T014)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from pyramid.httpexceptions import HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType

from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.parameters import Parameters
from authserver.limits import MAXIMUM_BODY, MAXIMUM_PARAMETERS, sealed_length
from authserver.web.request import Request

Parse = Callable[[bytes], Parameters]

_FORM = re.compile(r'application/x-www-form-urlencoded(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)
_JSON = re.compile(r'application/json(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)


def read_query(request: Request, *, parse: Parse = Parameters.parse) -> Parameters:
    """The parameters of the query. Raises InvalidRequest."""
    return parse(request.environ.get("QUERY_STRING", "").encode("latin-1"))


def read_form(request: Request, *, parse: Parse = Parameters.parse) -> Parameters:
    """The parameters of a form body.

    Raises:
        InvalidRequest: another media type (F-02, T083), or a body that is not a form.
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
    """The parameters of one of our own pages' forms. Raises PageError."""
    try:
        return read_form(request, parse=_parse_own(request))
    except InvalidRequest as error:
        raise PageError(error) from None


def _parse_own(request: Request) -> Parse:
    """Read what our own pages send: a sealed request, and on the consent page a box for each scope."""
    parts = request.application.parts
    return partial(
        Parameters.parse,
        maximum=sealed_length(parts.settings.maximum_request),
        maximum_count=MAXIMUM_PARAMETERS + len(parts.scopes),
    )


def read_body(request: Request) -> bytes:
    """The body, if it is not too large or compressed; a server in front may not have looked (T136, T137)."""
    if is_too_large(request):
        raise HTTPRequestEntityTooLarge()
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in ("", "identity"):
        # It could become much longer (RFC 9110, 15.5.16).
        raise HTTPUnsupportedMediaType(headers={"Accept-Encoding": "identity"})
    body: bytes = request.body
    return body


def is_too_large(request: Request) -> bool:
    """Whether the body is longer than any that we read."""
    return (request.content_length or 0) > MAXIMUM_BODY
