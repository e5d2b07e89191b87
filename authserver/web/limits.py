"""The endpoint for `authserver limits` at the management listener, because each process has its counts in memory.

Question and answer are sealed with the key ring. So only a program with the secrets of this server can ask, and only
this server can answer. Other users of the machine, pages in a browser on it and services that fetch URLs cannot.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pyramid.request
from pyramid.response import Response

from authserver.engine.crypto import strict_json
from authserver.engine.crypto.sealing import KeyRing, Unsealable
from authserver.engine.rates import lift_of, limiters, usage_of
from authserver.web.json import json_response

PATH = "/limits"
# The most bytes of a question; the longest part is the id of a client.
MAXIMUM_QUESTION = 16_384
# Strangers can cause any number of counts, so only the fullest are sent.
MAXIMUM_SHOWN = 1_000
MAXIMUM_ANSWER = 16_000_000
_PURPOSE = "authserver limits"
# How many seconds the clocks of two machines may differ; an older question is refused, because it may be a recorded one.
_SECONDS = 60
log = logging.getLogger(__name__)


class _Seen:
    """The recent questions that changed something in this process, so that a recorded question has no effect."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at: dict[str, int] = {}

    def is_first(self, number: str, at: int) -> bool:
        """Whether this question is new. Questions with an older time were refused before."""
        with self._lock:
            now = time.time()
            self._asked_at = {
                known: then for known, then in self._asked_at.items() if abs(now - then) <= _SECONDS
            }
            is_first = number not in self._asked_at
            self._asked_at[number] = at
            return is_first


_seen = _Seen()


class NotAnswered(Exception):
    """The question or answer was not sealed with the keys of this server."""


def ask(ring: KeyRing, send: Callable[[bytes], bytes], **question: Any) -> Mapping[str, Any]:
    """Send a question to a process, and return its answer.

    Args:
        send: sends the question, and returns the answer.
        question: `limit` and `who` to lift a limit; otherwise the counts are asked for, with `all` also those below half.

    Raises:
        NotAnswered: something else answers, or a server with other secret keys.
        ValueError: the process refuses, with a sentence.
    """
    number = secrets.token_hex(16)
    sealed = _sealed(ring, {**question, "number": number, "at": int(time.time())}, "question")
    answer = _opened(ring, send(sealed), number)
    if "problem" in answer:
        raise ValueError(answer["problem"])
    return answer


def answer(application: Any, environ: Mapping[str, Any]) -> Response:
    """The answer of this process (`app.Application`)."""
    request = pyramid.request.Request(environ)
    if request.method != "POST":
        return _refused(405, "Method Not Allowed", Allow="POST")
    ring: KeyRing = application.parts.ring
    try:
        question = _opened(ring, request.body, "question")
    except NotAnswered:
        return _refused(
            403, "Ask with `authserver limits`, and with the INI file and the secret keys of this server."
        )
    if abs(time.time() - question["at"]) > _SECONDS:
        return _refused(403, "The question is too old, or the clocks differ.")
    if question.get("limit") and not _seen.is_first(question["number"], question["at"]):
        return _refused(403, "The question was answered already.")
    try:
        told = _told(application.parts.policies, question)
    except ValueError as error:
        told = {"problem": str(error)}
    return Response(
        body=_sealed(ring, told, question["number"]),
        content_type="application/octet-stream",
        charset=None,
        cache_control="no-store",
    )


def _told(policies: Any, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Carry out the question. Raises ValueError."""
    found = limiters(map(policies.plugin, policies.names))
    if limit := question.get("limit"):
        lifted = lift_of(found, limit, question["who"])
        log.info("limits lift: %s for %s: %d", limit, question["who"] or "everybody", lifted)
        return {"lifted": lifted}
    used = usage_of(found, everything=question["all"])
    return {"used": [asdict(item) for item in used[:MAXIMUM_SHOWN]], "more": len(used[MAXIMUM_SHOWN:])}


def _sealed(ring: KeyRing, value: Mapping[str, Any], context: str) -> bytes:
    return ring.seal(strict_json.dumps(value), purpose=_PURPOSE, context=context)


def _opened(ring: KeyRing, sealed: bytes, context: str) -> Mapping[str, Any]:
    """The content of a sealed question or answer. Raises NotAnswered."""
    try:
        text = ring.open(sealed, purpose=_PURPOSE, context=context)
    except Unsealable:
        raise NotAnswered from None
    opened: Mapping[str, Any] = strict_json.loads(text, limit=MAXIMUM_ANSWER)
    return opened


def _refused(status: int, description: str, **headers: str) -> Response:
    body = {"error": "invalid_request", "error_description": description}
    return json_response(body, status=status, X_Content_Type_Options="nosniff", **headers)
