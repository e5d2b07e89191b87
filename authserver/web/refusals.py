"""What outlives a refusal: its own event, a revocation, a counted failure.

pyramid_tm rolls a refused request back, whatever was written. This tween stands outside of it and writes
what must stay in a short transaction of its own, committed before the answer leaves (T108).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from authserver.engine import digests
from authserver.engine.errors import Refusal
from authserver.engine.grants.authorization_code import MAXIMUM_FAILURES
from authserver.engine.records import EventType
from authserver.web.routes import route_of

log = logging.getLogger(__name__)

REFUSED: Mapping[str, EventType] = {
    "token": EventType.TOKEN_REFUSED,
    "authorize": EventType.AUTHORIZATION_REFUSED,
    "consent": EventType.AUTHORIZATION_REFUSED,
    "login": EventType.SIGN_IN_REFUSED,
    "register": EventType.REGISTRATION_REFUSED,
}


def includeme(config: Configurator) -> None:
    config.add_request_method(lambda request: digests.new_identifier(), "error_id", reify=True)
    config.add_tween("authserver.web.refusals.tween_factory", over="pyramid_tm.tm_tween_factory")


def tween_factory(
    handler: Callable[[Request], Response], registry: Registry
) -> Callable[[Request], Response]:
    def tween(request: Request) -> Response:
        response = handler(request)
        refusal = getattr(request, "exception", None)
        if not isinstance(refusal, Refusal):
            return response
        try:
            record_refusal(request, refusal)
        except Exception as error:
            # What must be kept could not be: say so rather than pretend. No exception view stands outside of here.
            log.error("a refusal could not be recorded: %s", error)
            answer: Response = request.invoke_exception_view((type(error), error, error.__traceback__))
            return answer
        return response

    return tween


def record_refusal(request: Request, refusal: Refusal) -> None:
    """Write the consequences of a refusal, and its event under the error id that the client was told."""
    route = route_of(request)
    kind = REFUSED.get(route.name if route else "")
    engine = request.engine
    with request.registry.application.storage.begin() as stores:
        if refusal.revoke_grant:
            revoked = stores.grants.revoke(refusal.revoke_grant, engine.now, refusal.reason)
            if revoked:
                stores.events.add(engine.event(EventType.GRANT_REVOKED, reason=refusal.reason))
        if refusal.failed_token:
            stores.tokens.note_failure(refusal.failed_token, engine.now, limit=MAXIMUM_FAILURES)
        if kind is not None:
            event = engine.event(kind, reason=refusal.reason, event_id=request.error_id)
            stores.events.add(event)
    log.info("%s %s error_id=%s", kind or "refused", refusal.reason, request.error_id)
