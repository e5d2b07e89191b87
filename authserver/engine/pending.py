"""An authorization request on its way from page to page: sealed in the address, bound to the browser, answered once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from authserver.engine import strict_json
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.once import first_use, of_this_generation
from authserver.engine.parameters import Parameters
from authserver.engine.records import Client, User
from authserver.engine.sealing import Unsealable, from_text, to_text
from authserver.limits import MAXIMUM_BODY

PURPOSE = "authorization-request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """Who is at the other end: the session a request is bound to, and who is signed in to it."""

    session_id: str = field(repr=False)
    user: User | None = None
    authenticated_at: datetime | None = None
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An authorization request on its way: its parameters, and the id under which it is answered once."""

    request_id: str
    asked_at: int
    expires_at: int
    parameters: Parameters
    refusal: InvalidRequest | None = None


class ForeignRequest(PageError):
    """A pending request that is not this browser's (T091)."""

    status = 403


def seal(engine: Engine, pending: Pending, browser: Browser) -> str:
    """The request as text for a URL, readable by this server for this session only."""
    refusal = pending.refusal and (pending.refusal.description, pending.refusal.reason)
    plaintext = strict_json.dumps(
        [pending.request_id, pending.asked_at, pending.expires_at, pending.parameters.encoded(), refusal]
    )
    return to_text(engine.keys.seal(plaintext, purpose=PURPOSE, context=browser.session_id))


def unseal(engine: Engine, sealed_request: str, browser: Browser) -> Pending:
    """Read a sealed request back.

    Raises:
        ForeignRequest: it was altered, or made for another session (T091).
        PageError: it has expired, or was asked before the database was restored (T149).
    """
    try:
        plaintext = engine.keys.open(from_text(sealed_request), purpose=PURPOSE, context=browser.session_id)
    except Unsealable:
        raise ForeignRequest(
            InvalidRequest(
                "This request cannot be continued in this browser. Start again.", reason="request-unsealable"
            )
        ) from None
    request_id, asked_at, expires_at, encoded, refusal = strict_json.loads(plaintext, limit=MAXIMUM_BODY)
    is_known = of_this_generation(engine, datetime.fromtimestamp(asked_at, UTC))
    if expires_at <= engine.now.timestamp() or not is_known:
        raise PageError(InvalidRequest("This request has expired. Start again.", reason="request-expired"))
    return Pending(
        request_id=request_id,
        asked_at=asked_at,
        expires_at=expires_at,
        parameters=Parameters.parse(encoded, maximum=MAXIMUM_BODY),
        refusal=InvalidRequest(refusal[0], reason=refusal[1]) if refusal else None,
    )


def rebind(engine: Engine, sealed_request: str, old: Browser, new: Browser) -> str:
    """The same pending request for the session that sign-in just made.

    Raises:
        PageError: it has expired or belonged to another session.
    """
    return seal(engine, unseal(engine, sealed_request, old), new)


def answer_once(engine: Engine, pending: Pending, client: Client) -> None:
    """Mark the request as answered; the second time there is a page instead (E-05)."""
    since, until = (datetime.fromtimestamp(time, UTC) for time in (pending.asked_at, pending.expires_at))
    if not first_use(engine, client, "request", pending.request_id, since=since, until=until):
        engine.journal.target = None
        raise PageError(InvalidRequest("This request was answered already.", reason="request-answered"))
