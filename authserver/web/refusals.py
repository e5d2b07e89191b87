"""What outlives an error: its own event; after a refusal also a revocation, or a counted failure.

pyramid_tm rolls a refused request back, whatever was written. This tween stands outside of it and writes
what must stay in a short transaction of its own, committed before the answer leaves (T108).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPException
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import is_error_retryable
from transaction.interfaces import TransientError

from authserver.engine import digests
from authserver.engine.errors import Refusal, TooManyRequests
from authserver.engine.grants.authorization_code import MAXIMUM_FAILURES
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import EventType
from authserver.web.routes import route_of

log = logging.getLogger(__name__)

REFUSED: Mapping[str, EventType] = {
    "token": EventType.TOKEN_REFUSED,
    "authorize": EventType.AUTHORIZATION_REFUSED,
    "consent": EventType.AUTHORIZATION_REFUSED,
    "login": EventType.SIGN_IN_REFUSED,
    "register": EventType.REGISTRATION_REFUSED,
    "account_password": EventType.PASSWORD_REFUSED,
}


def includeme(config: Configurator) -> None:
    config.add_request_method(lambda request: digests.new_identifier(), "error_id", reify=True)
    config.add_tween("authserver.web.refusals.tween_factory", over="pyramid_tm.tm_tween_factory")


def tween_factory(
    handler: Callable[[Request], Response], registry: Registry
) -> Callable[[Request], Response]:
    def tween(request: Request) -> Response:
        response = handler(request)
        error = getattr(request, "exception", None)
        if isinstance(error, Refusal):
            try:
                record_refusal(request, error)
            except Exception as problem:
                # What must be kept could not be: say so rather than pretend. No exception view stands outside of here.
                log.error("a refusal could not be recorded: %s", problem)
                answer: Response = request.invoke_exception_view(
                    (type(problem), problem, problem.__traceback__)
                )
                return answer
        elif error is not None and not is_error_retryable(request, error):
            record_failure(request, error)
        return response

    return tween


def record_refusal(request: Request, refusal: Refusal) -> None:
    """Write the consequences of a refusal, and its event under the error id that the client was told."""
    route = route_of(request)
    kind = REFUSED.get(route.name if route else "", EventType.REQUEST_REFUSED)
    if isinstance(refusal, TooManyRequests) and not refusal.leaves_event:
        log.info("%s %s error_id=%s", kind, refusal.reason, request.error_id)
        return
    engine = request.engine
    events = []
    with request.registry.application.storage.begin() as stores:
        if refusal.revoke_grant and stores.grants.revoke(refusal.revoke_grant, engine.now, refusal.reason):
            events.append(engine.event(EventType.GRANT_REVOKED, reason=refusal.reason))
        if refusal.failed_token:
            stores.tokens.note_failure(refusal.failed_token, engine.now, limit=MAXIMUM_FAILURES)
        details = {"error": getattr(refusal, "code", ""), "description": refusal.description}
        events.append(
            engine.event(
                kind, reason=refusal.reason, event_id=request.error_id, details=_at(request) | details
            )
        )
        for event in events:
            stores.events.add(event)
    # What the request itself wrote was rolled back; observers hear of what stays.
    engine.journal.events[:] = events
    request.registry.application.tell(True, engine)
    log.info("%s %s error_id=%s", kind, refusal.reason, request.error_id)


def record_failure(request: Request, error: Exception) -> None:
    """Keep the event of an error that is no refusal, where the database can: nothing depends on it.

    Whoever waited for the database as long as a request may does not wait again (T114). A page that is not
    there has no event: nothing was decided, and strangers ask for many.
    """
    if isinstance(error, HTTPException):
        if error.status_int < 400 or error.status_int == 404:
            return
        kind = EventType.REQUEST_REFUSED if error.status_int < 500 else EventType.REQUEST_FAILED
        reason = error.title.lower().replace(" ", "-")
    elif isinstance(error, UnicodeDecodeError):
        return
    else:
        kind = EventType.REQUEST_FAILED
        reason = "storage-unavailable" if isinstance(error, StorageUnavailable) else "unexpected-error"
    log.info("%s %s error_id=%s", kind, reason, request.error_id)
    if isinstance(error, StorageUnavailable) and not isinstance(error, TransientError):
        return
    try:
        # Of the error only its class: its text may hold anything.
        details = _at(request) | {"exception": type(error).__name__}
        event = request.engine.event(kind, reason=reason, event_id=request.error_id, details=details)
        with request.registry.application.storage.begin() as stores:
            stores.events.add(event)
    except Exception as problem:
        log.warning("error_id=%s is in this log only: %s", request.error_id, problem)


def _at(request: Request) -> dict[str, Any]:
    route = route_of(request)
    return {"endpoint": route.name if route else None, "method": request.method}
