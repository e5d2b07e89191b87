"""Writes what must stay after an error: its event, and after a refusal also a revocation or a counted failure.

This tween is around the transaction. When a view raises an error, pyramid_tm first rolls back everything that the request
wrote. Then this tween writes what must stay, in a short transaction of its own (T108). Then the exception view of the
error renders the answer. So no view and no template can lose the event.

A view that shows the form again after a refusal raises the refusal with the values that the page needs, and its exception
view renders them. The request is not parsed again there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPException
from pyramid.registry import Registry
from pyramid.response import Response
from pyramid_retry import is_error_retryable
from pyramid_tm import explicit_manager
from transaction.interfaces import TransientError

from authserver.engine import evidence
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.errors import PageError, Refusal
from authserver.engine.floods import Kind
from authserver.engine.grants.authorization_code import MAXIMUM_FAILURES
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import Event, EventType
from authserver.web.request import Request
from authserver.web.request_log import note_refusal

# The methods that are written into the event table, because strangers can send any text.
_METHOD = re.compile(r"[A-Z]{1,16}")
UNEXPECTED = "unexpected-error"
log = logging.getLogger(__name__)


class Unanswerable(Exception):
    """An error was recorded, but its exception view failed. The request must not be repeated, or it would count twice."""


def includeme(config: Configurator) -> None:
    """Add `request.error_id`."""
    config.add_request_method(error_id, reify=True)


def error_id(request: Request) -> str:
    """The id of the error that ends this request; it stays the same when the request is repeated."""
    identifier: str = request.environ.setdefault("authserver.error_id", digests.new_identifier())
    return identifier


def tween_factory(
    handler: Callable[[Request], Response], registry: Registry
) -> Callable[[Request], Response]:
    """A tween that records every error as an event, and answers it (`end`)."""

    def tween(request: Request) -> Response:
        floods = request.application.floods
        if floods.is_due():
            floods.store()
        try:
            response = handler(request)
        except Exception as error:
            return end(request, error)
        # If the commit failed, pyramid_tm has made the answer itself, and the error is not recorded yet.
        return response if request.exception is None else end(request, request.exception)

    return tween


def end(request: Request, error: Exception) -> Response:
    """Record the error and answer it; or raise it, if the request must be repeated."""
    if is_error_retryable(request, error):
        raise error
    if isinstance(error, PageError):
        # Neither this error nor a failure to record it may be redirected to the client.
        request.journal.target = None
    try:
        record(request, error)
    except Exception as problem:
        if isinstance(error, Refusal):
            # What must stay could not be stored, so the answer is that failure.
            log.error(
                "a refusal could not be recorded, error_id=%s: %s",
                request.error_id,
                problem,
                exc_info=None if isinstance(problem, StorageUnavailable) else problem,
            )
            if is_error_retryable(request, problem):
                raise
            return render(request, problem)
        log.warning(
            "error_id=%s is only in this log, and not among the events: %s", request.error_id, problem
        )
    return render(request, error)


def verdict(request: Request, error: Exception) -> tuple[EventType, str] | None:
    """The type of the event of an error, and its reason; None if it is neither a refusal nor a failure.

    A missing page is neither: nothing was decided, and strangers ask for very many.
    """
    match error:
        case Refusal():
            return request.route.refused if request.route else EventType.REQUEST_REFUSED, error.reason
        case URLDecodeError() | HTTPException(status_int=404):
            return None
        case HTTPException() if error.status_int < 400:
            return None
        case HTTPException():
            failed = error.status_int >= 500
            kind = EventType.REQUEST_FAILED if failed else EventType.REQUEST_REFUSED
            return kind, error.title.lower().replace(" ", "-")
        case StorageUnavailable():
            return EventType.REQUEST_FAILED, "storage-unavailable"
        case _:
            return EventType.REQUEST_FAILED, UNEXPECTED


def leaves_event(error: Exception) -> bool:
    """Whether the error is stored as an event; the log always has it.

    If there are too many requests, only the first refusal in a time is stored; if the server is too busy, none is. An error
    after a wait for the database is not stored either, because storing would wait again (T114).
    """
    if isinstance(error, Refusal):
        return error.leaves_event
    return not isinstance(error, StorageUnavailable) or isinstance(error, TransientError)


def is_of_stranger(request: Request, error: Exception) -> bool:
    """Whether anybody could cause this error, and only its event must stay: only such refusals may be counted together.

    A client that registered itself counts as a stranger, because strangers can make any number of such clients. The
    repeated use of a code or token never counts, because it is about a grant.
    """
    journal = request.journal
    is_known = request.caller.actor != evidence.STRANGER or journal.actor is not None
    if journal.grant_id is not None or (is_known and not journal.is_anybody):
        return False
    outlives = isinstance(error, Refusal) and (error.revoke_grant or error.failed_token or error.kept_change)
    return not outlives


def record(request: Request, error: Exception) -> None:
    """Write the consequences of an error, and its event with the error id that the client gets."""
    counted = verdict(request, error)
    if counted is None:
        return
    kind, reason = counted
    is_counted = hold(request, error, kind, reason)
    note_refusal(getattr(error, "code", ""), reason, request.error_id)
    log.log(
        logging.ERROR if kind is EventType.REQUEST_FAILED else logging.INFO,
        "%s %s error_id=%s%s",
        kind,
        reason,
        request.error_id,
        f": {error}" if isinstance(error, StorageUnavailable) else "",
        # The log has the whole traceback of a failure; the event has only its class.
        exc_info=error if reason == UNEXPECTED else None,
    )
    outlives = isinstance(error, Refusal) and error.kept_change is not None
    if is_counted or not (leaves_event(error) or outlives):
        return
    # The events and letters of the request itself were rolled back; observers get only those that stay.
    journal = replace(request.journal, events=[], letters=[])
    with request.application.begin(caller=request.caller, journal=journal) as engine:
        details = details_of(request, error)
        if isinstance(error, Refusal):
            keep(engine, error, kind, details=details, event_id=request.error_id)
        else:
            engine.record(kind, reason=reason, details=details, event_id=request.error_id)


def hold(request: Request, error: Exception, kind: EventType, reason: str) -> bool:
    """Whether this refusal is counted together with others of its kind; then the request gets their shared id."""
    if isinstance(error, StorageUnavailable) or not is_of_stranger(request, error):
        return False
    caller, journal = request.caller, request.journal

    def event() -> Event:
        details = details_of(request, error) | (told(error) if isinstance(error, Refusal) else {})
        with request.application.begin(
            caller=caller, journal=replace(journal, events=[], letters=[])
        ) as engine:
            return engine.event(kind, reason=reason, details=details, event_id=request.error_id)

    shared_id = request.application.floods.hold(
        Kind(kind, reason, caller.endpoint, journal.client_id, journal.user_id, journal.grant_type),
        caller.source,
        datetime.now(UTC),
        event,
        stores_first=leaves_event(error),
    )
    if shared_id is None:
        return False
    request.environ["authserver.error_id"] = request.error_id = shared_id
    return True


def details_of(request: Request, error: Exception) -> dict[str, Any]:
    """The details of an event about the request; for a failure, with the class of the exception."""
    method = request.method if _METHOD.fullmatch(request.method) else "other"
    details: dict[str, Any] = {"endpoint": request.caller.endpoint or None, "method": method}
    if request.journal.grant_type:
        details["grant_type"] = request.journal.grant_type
    if not isinstance(error, Refusal | HTTPException):
        details["exception"] = type(error).__name__
    return details


def told(refusal: Refusal) -> dict[str, Any]:
    """The details of an event about a refusal."""
    facts = {"facts": dict(refusal.facts)} if refusal.facts else {}
    return {"error": getattr(refusal, "code", ""), "description": refusal.description, **facts}


def keep(
    engine: Engine,
    refusal: Refusal,
    kind: EventType,
    *,
    details: Mapping[str, Any],
    event_id: str | None = None,
) -> None:
    """Write what must stay after a refusal: the changes that it names, and its event of this kind."""
    if refusal.revoke_grant and engine.stores.grants.revoke(refusal.revoke_grant, engine.now, refusal.reason):
        engine.record(EventType.GRANT_REVOKED, reason=refusal.reason)
    if refusal.failed_token:
        engine.stores.tokens.note_failure(refusal.failed_token, engine.now, limit=MAXIMUM_FAILURES)
    if refusal.kept_change:
        engine.stores.kept.change(*refusal.kept_change)
    if refusal.leaves_event:
        engine.record(kind, reason=refusal.reason, details={**details, **told(refusal)}, event_id=event_id)


def render(request: Request, error: Exception) -> Response:
    """The answer of the exception view, which may read the database; nothing that it writes is kept."""
    # The transaction of the earlier engine has ended.
    request.__dict__.pop("engine", None)
    request.tm = explicit_manager(request)
    request.tm.begin()
    try:
        try:
            answer: Response = request.invoke_exception_view((type(error), error, error.__traceback__))
        finally:
            request.tm.abort()
    except Exception as problem:
        raise Unanswerable from problem
    return answer
