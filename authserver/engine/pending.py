"""Pending authorization requests: sealed in the address from page to page, bound to the browser, answered once.

Each request has a handle of its own, and its browser a mark: a cookie named after the handle, which this server
alone can make. So several requests can wait in one browser, and none depends on who signs in meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.crypto import digests, strict_json
from authserver.engine.crypto.sealing import Unsealable, from_text, open_under, seal_under, to_text
from authserver.engine.errors import InvalidRequest, PageError
from authserver.engine.parameters import Parameters
from authserver.engine.records import NOTHING, Client, Kept, Session, TokenKind, User
from authserver.engine.tokens.once import earlier_use, first_use, of_this_generation
from authserver.limits import MAXIMUM_BODY

PURPOSE = "authorization-request"
MARK_PURPOSE = "request-mark"
FORM_PURPOSE = "request-form"
# The difference that the clocks of our processes may have.
_APART = timedelta(seconds=60)
# How long a repeated answer, as after a double click or on a slow line, leads to the same place.
ANSWERED_AGAIN = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """What a browser sends: its session, with the person who is signed in, and the marks of requests that began in it.

    `session` and `user` are None when nobody is signed in, though an ended session may have left its id.
    `marks` are by handle, as they were sent: `is_marked` says which of them this server has made.
    """

    session_id: str | None = field(default=None, repr=False)
    session: Session | None = field(default=None, repr=False)
    user: User | None = None
    marks: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A pending authorization request.

    Attributes:
        handle: the name of the mark in its browser.
        request_id: the id under which it is answered once; the same however often a plugin expands it.
        asked_at: when it began, to the microsecond; a sign-in counts for it only if it is not older.
        bound: the key that its client proved, as a `cnf`; the code is bound to it.
        as_sent: whether the browser sent these very parameters, and can send them again.
        sign_in_again: whether a sign-in since it began is required; `why`, if a policy gave one, and the `user_id` of
            the person who was asked to.
        restarted_at: when it started again because another person signed in than the one who was asked; else None.
        reference: the parameters that travel in place of its own, if a plugin stores those (`Expanded`).
    """

    handle: str
    request_id: str
    asked_at: float
    expires_at: int
    parameters: Parameters
    bound: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    refusal: InvalidRequest | None = None
    as_sent: bool = True
    sign_in_again: bool = False
    why: str = ""
    user_id: str | None = None
    restarted_at: float | None = None
    reference: Parameters | None = None

    def began_before(self, session: Session | None, now: datetime) -> bool:
        """Whether a person has signed in to this session since the request began.

        False if the sign-in is in the future: the clock was set back, so its age is unknown (T150).
        """
        if session is None or session.authenticated_at > now + _APART:
            return False
        began_at = self.asked_at if self.restarted_at is None else self.restarted_at
        return session.authenticated_at.timestamp() >= began_at

    def for_user(self, user: User | None, now: datetime) -> Pending:
        """The request for this user: it starts again if another user was asked to sign in again."""
        if user is None or self.user_id in (None, user.user_id):
            return self
        return replace(self, user_id=user.user_id, restarted_at=now.timestamp())


class ForeignRequest(PageError):
    """A pending request that is not this browser's (T091)."""

    status = 403


class RequestExpired(PageError):
    """The pending request has expired; `parameters` start it again, unless they cannot be sent again."""

    def __init__(self, parameters: Parameters | None) -> None:
        super().__init__(InvalidRequest("This request has expired. Start again.", reason="request-expired"))
        self.parameters = parameters


class RequestAnswered(PageError):
    """The pending request was answered before (E-05.a)."""

    def __init__(self, client: Client) -> None:
        super().__init__(InvalidRequest("This request was answered already.", reason="request-answered"))
        self.client = client


def mark_of(engine: Engine, handle: str) -> str:
    """The value of the cookie that shows that the request of this handle began in this browser."""
    return to_text(engine.ring.mac(handle.encode(), purpose=MARK_PURPOSE))


def is_marked(engine: Engine, browser: Browser, handle: str) -> bool:
    """Whether the request of this handle began in this browser."""
    return _is_mac(engine, handle, browser.marks.get(handle, ""), MARK_PURPOSE)


def form_token(engine: Engine, handle: str, user: User | None = None, about: str = "") -> str:
    """The token of a form that was shown for this request to this user, or while nobody was signed in (E-03, E-04).

    Args:
        about: the content of the form that may change before it is answered.
    """
    mac = engine.ring.mac(_shown(handle, user, about).encode(), purpose=FORM_PURPOSE)
    return f"{handle}.{to_text(mac)}"


def form_handle(
    engine: Engine, browser: Browser, token: str, user: User | None = None, about: str = ""
) -> str | None:
    """The handle of the request whose form had this token; None unless this browser and user were shown this form."""
    handle, _, mac = token.partition(".")
    shown = _shown(handle, user, about)
    is_ours = is_marked(engine, browser, handle) and _is_mac(engine, shown, mac, FORM_PURPOSE)
    return handle if is_ours else None


def seal(engine: Engine, pending: Pending) -> str:
    """The request as text for a URL, readable by this server alone."""
    refusal = pending.refusal and (pending.refusal.description, pending.refusal.reason, pending.refusal.code)
    plaintext = strict_json.dumps(
        [
            pending.handle,
            pending.request_id,
            pending.asked_at,
            pending.expires_at,
            (pending.reference or pending.parameters).encoded(),
            dict(pending.bound),
            refusal,
            pending.as_sent,
            pending.sign_in_again,
            pending.why,
            pending.user_id,
            pending.restarted_at,
            pending.reference is not None,
        ]
    )
    return to_text(engine.ring.seal(plaintext, purpose=PURPOSE))


def unseal(engine: Engine, sealed_request: str, browser: Browser) -> Pending:
    """Read a sealed request back; if it travels as a reference, the reference is its only parameters.

    Raises:
        ForeignRequest: it was altered, or did not begin in this browser (T091).
        RequestExpired: also if it began before the database was restored (T149).
    """
    pending = _opened(engine, sealed_request)
    if pending is None or not is_marked(engine, browser, pending.handle):
        raise ForeignRequest(
            InvalidRequest(
                "This request cannot be continued in this browser. Start again.", reason="request-unsealable"
            ),
            advises=True,
        )
    is_known = of_this_generation(engine, datetime.fromtimestamp(pending.asked_at, UTC))
    if pending.expires_at <= engine.now.timestamp() or not is_known:
        raise RequestExpired(pending.parameters if pending.as_sent else None)
    return pending


def answer_once(
    engine: Engine,
    pending: Pending,
    client: Client,
    browser: Browser,
    *,
    given: str,
    location: str,
    code: str | None = None,
) -> bool:
    """Mark the request as answered, before anything else is written; False when it was answered before (E-05).

    Args:
        given: the answer; `earlier_answer` needs the same one to lead to the same place.
        location: the address to which it leads. It is stored sealed under the id of the session, which is stored nowhere.
        code: the code in that address.
    """
    assert browser.session_id is not None  # somebody is signed in
    return first_use(
        engine,
        client,
        "request",
        pending.request_id,
        since=datetime.fromtimestamp(pending.asked_at, UTC),
        until=datetime.fromtimestamp(pending.expires_at, UTC),
        details={
            "answer": to_text(seal_under(browser.session_id, strict_json.dumps([given, location]))),
            "code": to_text(digests.digest(TokenKind.CODE, code)) if code else None,
        },
    )


def earlier_answer(
    engine: Engine, pending: Pending, client: Client, browser: Browser, given: str | None = None
) -> str | None:
    """Where this session was sent a moment ago by this answer, or by any if `given` is None; None without an answer.

    Raises:
        RequestAnswered: with another answer, in another session, or too long ago.
    """
    mark = earlier_use(engine, "request", pending.request_id)
    if mark is None:
        return None
    location = _answer_again(engine, mark, browser, given)
    if location is None:
        raise RequestAnswered(client)
    return location


def _answer_again(engine: Engine, mark: Kept, browser: Browser, given: str | None) -> str | None:
    # In both directions, because the real age is unknown if the clock was set back (T150).
    if browser.user is None or abs(engine.now - mark.created_at) > ANSWERED_AGAIN:
        return None
    try:
        opened = open_under(browser.session_id or "", from_text(mark.details.get("answer", "")))
    except Unsealable:
        return None
    before, location = strict_json.loads(opened, limit=len(opened))
    if given not in (None, before):
        return None
    if mark.details["code"] is not None:
        code = engine.stores.tokens.find(TokenKind.CODE, from_text(mark.details["code"]))
        # A used code is not sent again, because a second use would revoke its tokens (RFC 9700, 2.1.1).
        if code is None or code.token.claimed_at is not None:
            return None
    return str(location)


def _opened(engine: Engine, sealed_request: str) -> Pending | None:
    try:
        plaintext = engine.ring.open(from_text(sealed_request), purpose=PURPOSE)
    except Unsealable:
        return None
    (
        handle,
        request_id,
        asked_at,
        expires_at,
        encoded,
        bound,
        refusal,
        as_sent,
        sign_in_again,
        why,
        user_id,
        restarted_at,
        is_reference,
    ) = strict_json.loads(plaintext, limit=MAXIMUM_BODY)
    parameters = Parameters.parse(encoded, maximum=MAXIMUM_BODY)
    engine.journal.note_languages(parameters)
    return Pending(
        handle=handle,
        request_id=request_id,
        asked_at=asked_at,
        expires_at=expires_at,
        parameters=parameters,
        bound=bound,
        refusal=_refusal(*refusal) if refusal else None,
        as_sent=as_sent,
        sign_in_again=sign_in_again,
        why=why,
        user_id=user_id,
        restarted_at=restarted_at,
        reference=parameters if is_reference else None,
    )


def _refusal(description: str, reason: str, code: str) -> InvalidRequest:
    refusal = InvalidRequest(description, reason=reason)
    # A plugin may have refused with a code of its own.
    refusal.code = code
    return refusal


def _shown(handle: str, user: User | None, about: str) -> str:
    return f"{handle} {user.user_id if user else ''} {about}"


def _is_mac(engine: Engine, text: str, mac: str, purpose: str) -> bool:
    try:
        data = text.encode()
        return engine.ring.mac_matches(data, from_text(mac), purpose=purpose)
    except (Unsealable, UnicodeEncodeError):
        return False
