"""The management listener: liveness, readiness, figures and limits, with threads of its own.

It answers during a flood at the public listener, because they share neither threads nor connections.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pyramid.router import Router
from waitress.adjustments import Adjustments

from authserver.web import limits
from authserver.web.connections import Bounds, listen
from authserver.web.headers import FOR_OPERATORS
from authserver.web.json import json_response

_ADJUSTMENTS: Mapping[str, Any] = {
    "threads": 4,
    "connection_limit": 64,
    "channel_timeout": 10,
    "cleanup_interval": 2,
    "max_request_header_size": 16384,
    "max_request_body_size": limits.MAXIMUM_QUESTION,
    "asyncore_use_poll": True,
    "clear_untrusted_proxy_headers": False,
    "ident": "",
}
# Few programs connect here; a connection that hangs is closed soon.
_BOUNDS = Bounds(connections_per_address=0, request_time_limit=10, trusts=lambda peer: False)


def start(router: Router, sockets: Sequence[socket.socket]) -> None:
    """Answer on these sockets in a thread of its own, as long as the process lives."""
    running = listen(for_operators(router), Adjustments(**_ADJUSTMENTS), sockets, _BOUNDS)
    threading.Thread(target=running.run, name="management", daemon=True).start()


def for_operators(router: Router) -> Callable[..., Iterable[bytes]]:
    """The application with only the endpoints for operators, under any host name and without TLS.

    The path of the issuer may be left out. The endpoint of `web.limits` exists only here.
    """
    own = router.registry.application
    issuer_path: str = own.parts.settings.issuer_path

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if path in (limits.PATH, issuer_path + limits.PATH):
            asked: Iterable[bytes] = limits.answer(own, environ)(environ, start_response)
            return asked
        for candidate in (path, issuer_path + path):
            route = router.registry.paths.get(candidate)
            if route is not None and route.for_operators:
                environ |= {"PATH_INFO": candidate, FOR_OPERATORS: True}
                answer: Iterable[bytes] = router(environ, start_response)
                return answer
        body = {"error": "invalid_request", "error_description": "Not Found"}
        refused: Iterable[bytes] = json_response(body, status=404, X_Content_Type_Options="nosniff")(
            environ, start_response
        )
        return refused

    return application
