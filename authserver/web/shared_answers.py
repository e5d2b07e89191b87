"""Keeps answers that are the same for everybody: each is made once after a change, and then sent without Pyramid.

The thread that waits for connections sends them itself (`web.connections`). What they are made of is read again every few
seconds in the background (`authserver.background`), and when it has changed, the next request makes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest, NewResponse
from pyramid.response import Response
from zope.interface import implementedBy

from authserver.engine.timeline import Timeline
from authserver.web.connections import Ready
from authserver.web.json import json_response
from authserver.web.request_ids import HEADER as REQUEST_ID_HEADER
from authserver.web.request_log import note_route
from authserver.web.route import Route

# The events of Pyramid for each request, to which plugins may subscribe.
_TOLD = (NewRequest, NewResponse)


def includeme(config: Configurator) -> None:
    """Add the `SharedAnswers` to the registry."""
    config.registry.shared_answers = SharedAnswers(config.registry.refusal_of)


def shared_answer(body: bytes, *, same_while: Callable[[], bool], cache_control: str) -> Response:
    """A JSON answer that is the same for every request that gets the whole answer.

    Args:
        same_while: says whether a new answer is known to be the same. It is called for each request, and waits for nothing:
            neither for the database nor for a lock.
    """
    response = json_response(body, cache_control=cache_control)
    response.same_while = same_while
    return response


@dataclass(frozen=True, slots=True)
class _Kept:
    route: Route
    same_while: Callable[[], bool]
    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class SharedAnswers:
    """The answers that are kept.

    Args:
        refusal_of: why a request is not for this server (`web.headers.refusal_of`).
    """

    def __init__(self, refusal_of: Callable[[Mapping[str, Any]], str]) -> None:
        self._refusal_of = refusal_of
        self._kept: dict[str, _Kept] = {}

    def __contains__(self, path: str) -> bool:
        """Whether there is one for this path."""
        return path in self._kept

    def answer(self, environ: Mapping[str, Any], timeline: Timeline) -> Ready | None:
        """The answer that was kept; None if there is none, or if this request needs another one."""
        kept = self._kept.get(environ.get("PATH_INFO", ""))
        if kept is None or not self._is_plain(environ) or not kept.same_while():
            return None
        note_route(timeline, kept.route, "GET", 200)
        return Ready(kept.status, [*kept.headers, (REQUEST_ID_HEADER, timeline.request_id)], kept.body)

    def keep(self, environ: Mapping[str, Any], registry: Any, response: Response) -> None:
        """Keep a shared answer, unless a plugin subscribes to the events of Pyramid for every request or answer."""
        same_while = getattr(response, "same_while", None)
        route = registry.paths.get(environ.get("PATH_INFO", ""))
        if same_while is None or route is None or response.status_int != 200 or not self._is_plain(environ):
            return
        if any(registry.adapters.subscriptions((implementedBy(event),), None) for event in _TOLD):
            return
        headers = tuple(pair for pair in response.headerlist if pair[0] != REQUEST_ID_HEADER)
        self._kept[route.path] = _Kept(route, same_while, response.status, headers, response.body)

    def _is_plain(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request gets the whole answer."""
        return (
            environ["REQUEST_METHOD"] == "GET"
            and "HTTP_IF_NONE_MATCH" not in environ
            and not self._refusal_of(environ)
        )
