"""Decides which web origins may read the answers of endpoints that clients call (CORS)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from authserver.engine import rates, uris
from authserver.engine.context import Engine
from authserver.engine.decisions import Ruling
from authserver.engine.errors import AccessDenied, TooManyRequests
from authserver.engine.questions import Counted, OriginQuestion, RateStep
from authserver.limits import MAXIMUM_ORIGINS

# Seconds: as long as browsers cache the answer to a preflight.
REMEMBERED = timedelta(hours=1)
# For operators alone, so it is not translated.
_HIDDEN = "No script of this origin can read the answer."


class KnownOrigins:
    """Origins of clients that were looked up recently; safe between threads.

    They are only used for a source whose origins are not looked up any more, because it sent too many unknown ones. So
    a flood from an address does not stop the pages of other people at the same address.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, datetime] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, origin: str, now: datetime, *, known: bool) -> None:
        """Remember the result of a look-up."""
        with self._lock:
            self._known.pop(origin, None)
            if known:
                self._known[origin] = now
                if len(self._known) > MAXIMUM_ORIGINS:
                    self._known.popitem(last=False)

    def lately(self, origin: str, now: datetime) -> bool:
        """Whether it was known within the last hour."""
        found = self._known.get(origin)
        return found is not None and now - found < REMEMBERED


def may_read(engine: Engine, origin: str, known: KnownOrigins) -> bool:
    """Whether programs of this origin may read the answer to the request of this engine.

    Strangers may send any origin, so each source has a limit on refused origins; beyond it, none of its origins is
    looked up.

    Raises:
        ServerError: a policy failed.
        StorageUnavailable: the origin could not be looked up.
    """
    if uris.origin_problem(origin):
        return False
    look_up = _is_of_the_web(origin) and _counted(engine, RateStep.CHECK)
    registered = engine.stores.clients.knows_origin(origin) if look_up else known.lately(origin, engine.now)
    if look_up:
        known.note(origin, engine.now, known=registered)
    allowed = _asked(engine, origin, registered).allowed
    if look_up and not allowed:
        _counted(engine, RateStep.CLAIM)
    return allowed


def require_readable(engine: Engine, origin: str) -> None:
    """As `may_read`, for operators, who want to know the reason and are not limited.

    Raises:
        AccessDenied: they may not.
        ServerError: a policy failed.
    """
    if problem := uris.origin_problem(origin):
        raise AccessDenied(problem, reason="origin-malformed")
    registered = _is_of_the_web(origin) and engine.stores.clients.knows_origin(origin)
    ruling = _asked(engine, origin, registered)
    if not ruling.allowed:
        raise AccessDenied(_HIDDEN, reason=ruling.reason)


def _asked(engine: Engine, origin: str, registered: bool) -> Ruling[None]:
    return engine.ask(OriginQuestion(origin=origin, endpoint=engine.caller.endpoint, registered=registered))


def _is_of_the_web(origin: str) -> bool:
    """Whether it is http or https: no registered redirect URI has an origin of another scheme."""
    return uris.origin(origin) is not None


def _counted(engine: Engine, step: RateStep) -> bool:
    """Whether no limit on unknown origins is reached. Raises ServerError."""
    try:
        rates.claim(engine, Counted.UNKNOWN_ORIGIN, step=step)
    except TooManyRequests:
        return False
    return True
