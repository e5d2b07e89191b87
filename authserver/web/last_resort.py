"""The outermost layer: repeats a request after a conflict of transactions, and answers when everything else failed."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.router import Router
from pyramid_retry import BeforeRetry, RetryableExecutionPolicy

from authserver.containment import contained
from authserver.engine.errors import ServerError
from authserver.engine.ports import Policies, StorageUnavailable
from authserver.engine.rates import begin_again
from authserver.engine.timeline import Timeline, following
from authserver.web import request_log
from authserver.web.connections import Ready
from authserver.web.forms import is_too_large
from authserver.web.headers import add_headers
from authserver.web.json import json_response
from authserver.web.problems import kind_of, problem_response
from authserver.web.refusals import UNEXPECTED
from authserver.web.request import Request
from authserver.web.route import Medium
from authserver.web.routes import medium_of, needs_transaction
from authserver.web.shared_answers import SharedAnswers

# A WSGI application; every response is one.
Answer = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]
MAXIMUM_ATTEMPTS = 3
# This page needs no template, no language, no database and no state of the request, because any of them may have failed.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Something went wrong</title>
<h1>Something went wrong</h1>
<p>{description}</p>
<p>It is not your fault. Wait a moment, then load the page again.</p>
<p>If you ask for help, give this reference: <code class="whole" dir="ltr">{error_id}</code></p>
</html>
"""
log = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Contain what views raise, and repeat requests after conflicts of transactions."""
    config.set_execution_policy(execution_policy)
    config.add_subscriber(wait_before_retry, BeforeRetry)
    config.add_view_deriver(contained_view)


def contained_view(view: Callable[..., Response], info: object) -> Callable[..., Response]:
    """A view that is called through `contained`, because the transaction around it handles only `Exception`."""
    return lambda context, request: contained(view, context, request)


def retry_attempts(request: Request) -> int | None:
    """Hook of pyramid_retry: one attempt for a request without transaction, otherwise the configured number.

    For more than one attempt pyramid_retry copies the body, so a request whose body is too large gets one attempt.
    """
    return None if needs_transaction(request) and not is_too_large(request) else 1


def wait_before_retry(event: BeforeRetry) -> None:
    """Wait a random time, so that the other request can finish and both do not retry at the same moment (T111).

    Where the other one has finished, there is nothing to wait for.

    Limits that the attempt counted against are given back: a request counts once, however often it is repeated (R-20).
    """
    engine = event.request.__dict__.get("engine")
    if engine is not None:
        begin_again(engine)
    if not (isinstance(event.exception, StorageUnavailable) and event.exception.has_passed):
        time.sleep((10 + secrets.randbelow(90)) / 1000)


_repeat = RetryableExecutionPolicy(MAXIMUM_ATTEMPTS, activate_hook=retry_attempts)


def execution_policy(environ: MutableMapping[str, Any], router: Router) -> Answer:
    """Pyramid calls this for each request; every failure gets a response of this server (F-12)."""
    policies: Policies = router.registry.application.parts.policies
    timeline = request_log.begin(policies)
    with following(timeline):
        response = _answer(environ, router, timeline)
        request_log.end(timeline, policies)
        return response


def answer_at_once(environ: MutableMapping[str, Any], router: Router) -> Ready | None:
    """The answer to a request for which nothing has to be waited for; None if it is better left to a thread."""
    policies: Policies = router.registry.application.parts.policies
    shared: SharedAnswers = router.registry.shared_answers
    if environ["PATH_INFO"] not in shared or policies.waits("observe_request"):
        return None
    timeline = request_log.begin(policies)
    with following(timeline):
        _find_sender(environ, router, timeline)
        if found := shared.answer(environ, timeline):
            request_log.end(timeline, policies)
        return found


def _find_sender(environ: MutableMapping[str, Any], router: Router, timeline: Timeline) -> None:
    """This comes before everything else, and only once for all attempts of a request."""
    if router.registry.forwarding.resolve(environ):
        router.registry.request_ids.take_over(environ, timeline)


def _answer(environ: MutableMapping[str, Any], router: Router, timeline: Timeline) -> Answer:
    answer: Answer
    try:
        _find_sender(environ, router, timeline)
        shared: SharedAnswers = router.registry.shared_answers
        if found := shared.answer(environ, timeline):
            return found
        answer = contained(_repeat, environ, router)
        shared.keep(environ, router.registry, answer)
        return answer
    except Exception as error:
        # The request that failed may not exist any more or be in an unknown state; its id is in the environ.
        with router.request_context(environ) as request:
            log.error("no other answer was possible, error_id=%s", request.error_id, exc_info=error)
            request_log.note_refusal(ServerError.code, UNEXPECTED, request.error_id)
            answer = add_headers(request, _plain(request))
            return answer


def _plain(request: Request) -> Response:
    error = ServerError("The server failed to answer this request.")
    medium = medium_of(request)
    if medium is Medium.PROBLEM:
        return problem_response(
            kind_of(error.code, error.status), error.description, error_id=request.error_id
        )
    if medium is Medium.JSON:
        body = {"error": error.code, "error_description": error.description, "error_id": request.error_id}
        return json_response(body, status=error.status)
    page = _PAGE.format(description=error.description, error_id=request.error_id)
    return Response(page, status=error.status, content_type="text/html", charset="utf-8")
