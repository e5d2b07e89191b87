"""Errors as problem details (RFC 9457), for endpoints whose medium is `Medium.PROBLEM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.engine.errors import Refusal
from authserver.engine.records import NOTHING
from authserver.web.json import json_response

MEDIA_TYPE = "application/problem+json"
# The beginning of the `type` of each problem, before its slug, which never changes.
TYPE = "urn:authserver:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: the same `type`, `status` and `title` whenever it occurs (RFC 9457, 3.1).

    Attributes:
        slug: the end of its `type`, which is different for each kind.
        status: the HTTP status.
        title: the kind in words for people.
    """

    slug: str
    status: int
    title: str


class NothingThere(HTTPNotFound):
    """The requested object does not exist. Nothing was decided, so no event is written. Its text may be shown."""


class Problem(Refusal):
    """A refusal with problem details of its own.

    Args:
        kind: the kind of the problem.
        detail: the problem of this request, and what to do.
        reason: the reason for operators; the slug unless given.
        headers: more headers of the response.
        members: more members of the body, such as `errors`.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        reason: str = "",
        headers: Mapping[str, str] = NOTHING,
        **members: Any,
    ) -> None:
        super().__init__(detail, reason=reason or kind.slug)
        self.kind = kind
        self.headers = headers
        self.members = members


def kind_of(code: str, status: int) -> Kind:
    """The kind for an OAuth error with this code, or for another error with this title."""
    return Kind(code.lower().replace("_", "-").replace(" ", "-"), status, HTTPStatus(status).phrase)


def problem_response(
    kind: Kind,
    detail: str,
    *,
    error_id: str = "",
    headers: Mapping[str, str] = NOTHING,
    members: Mapping[str, Any] = NOTHING,
) -> Response:
    """The answer with problem details; `error_id` is the id of the event, for the operator."""
    body = {
        "type": TYPE + kind.slug,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        **members,
        **({"error_id": error_id} if error_id else {}),
    }
    response = json_response(body, status=kind.status)
    response.content_type = MEDIA_TYPE
    response.headers.update(headers)
    return response
