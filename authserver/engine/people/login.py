"""Signs people in and out, and adds and disables them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from authserver.engine import rates
from authserver.engine.context import Caller, Engine
from authserver.engine.crypto import digests
from authserver.engine.decisions import Verdict
from authserver.engine.ending import LONG_AGO, Act, Subject, end_at_once, record_timed_out
from authserver.engine.errors import ServerError, SignInRefused, TooBusy
from authserver.engine.people.attributes import (
    BadAttributes,
    as_identified,
    checked_attributes,
    checked_groups,
    record_change,
    shortened,
)
from authserver.engine.people.known_devices import device_id_of
from authserver.engine.people.usernames import BadUsername, check_username, normalise_username
from authserver.engine.questions import Counted, Identity, LoginQuestion, RateQuestion
from authserver.engine.records import ENDED_SESSIONS, NOTHING, THROUGH, EventType, FoundSession, Session, User
from authserver.engine.session_handles import HANDLE, session_handle
from authserver.engine.sources import network_of
from authserver.engine.timeline import SpanKind, note
from authserver.limits import (
    MAXIMUM_METHOD,
    MAXIMUM_METHODS,
    MAXIMUM_PASSWORD,
    MAXIMUM_USER_AGENT,
    MAXIMUM_USERNAME,
)
from authserver.settings import Secret

MINIMUM_PASSWORD = 8  # bytes, as MAXIMUM_PASSWORD
SESSION_KIND = "session"
# Lone surrogates stand for bytes that are no UTF-8, such as those of Latin-1 on stdin.
_NEVER_SENT = re.compile("[\x00\ud800-\udfff]")


class BadPassword(ValueError):
    """The text cannot be a password; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A new session: its id goes to the browser, its digest is stored."""

    session_id: str
    user: User


def sign_in_unasked(engine: Engine, *, previous_session_id: str | None = None) -> SignedIn | None:
    """Sign in without a form, if a policy recognises the request; else None."""
    try:
        return sign_in(engine, "", Secret(""), previous_session_id=previous_session_id)
    except (SignInRefused, ServerError) as refused:
        # The failure of a policy is in the log; the sign-in page can still be shown.
        if engine.journal.decisions[-1].verdict in (Verdict.ALLOW, Verdict.DENY):
            engine.record(EventType.SIGN_IN_REFUSED, reason=refused.reason)
        return None


def sign_in(
    engine: Engine,
    username: str,
    password: Secret,
    *,
    previous_session_id: str | None = None,
    device_cookie: str = "",
) -> SignedIn:
    """Ask the policies about a user name and password, and begin a new session with a new id (E-17, T098).

    An attempt is counted before its password is checked, so that simultaneous attempts do not exceed the limit (T101).

    Args:
        device_cookie: the cookie of a browser in which a person signed in before (`people.known_devices`).

    Raises:
        SignInRefused: with one message for every cause (T100).
        TooManyRequests: too many attempts; the same for names that exist and names that do not.
        TooBusy: too many passwords are checked at this moment.
        ServerError: a policy failed, or named a user with a name, groups or attributes that cannot be stored.
    """
    refused = SignInRefused("The user name or password is not right.", reason="nobody-answered")
    is_too_long = password_size(password.value) > MAXIMUM_PASSWORD
    name, user = ("", None) if is_too_long else _typed(engine, username)
    engine.journal.user_id = user.user_id if user else None
    is_typed = bool(username or password.value)
    claimed = claim_attempt(engine, name, user, device_cookie) if is_typed else None
    if is_too_long:
        raise SignInRefused(refused.description, reason="password-too-long")
    question = LoginQuestion(
        username=name,
        password=password,
        user=user,
        headers=_headers(engine.caller),
        source=engine.caller.source,
    )
    with password_turn(engine, claimed) if is_typed else nullcontext():
        ruling = engine.ask(question)
    if not ruling.allowed:
        nameless = ruling.verdict is Verdict.SILENT and username and not name
        refused.reason = "username-unusable" if nameless else ruling.reason
        raise refused
    identity = ruling.allowed_value
    if problem := methods_problem(identity):
        raise engine.wrong_value(ruling, problem)
    try:
        if user is None or identity.username != user.username:
            user = _known(engine, identity)
        present = as_identified(user, identity)
    except (BadUsername, BadAttributes) as bad:
        raise engine.wrong_value(ruling, f"{identity.username[:MAXIMUM_USERNAME]!r}: {bad}") from None
    if not user.is_enabled:
        refused.reason = "user-disabled"
        raise refused
    # Asked before the first write, as every policy is: a shared store may be slow.
    rates.give_back(engine, claimed)
    return enter(
        engine,
        user,
        identity,
        present,
        reason=ruling.reason,
        previous_session_id=previous_session_id,
    )


def methods_problem(identity: Identity) -> str:
    """Why these authentication methods cannot be stored; "" if they can."""
    if len(identity.methods) > MAXIMUM_METHODS or max(map(len, identity.methods), default=0) > MAXIMUM_METHOD:
        return f"more than {MAXIMUM_METHODS} methods, or a long one"
    return ""


def enter(
    engine: Engine,
    user: User,
    identity: Identity,
    present: User,
    *,
    reason: str,
    previous_session_id: str | None,
    authenticated_at: datetime | None = None,
    details: Mapping[str, Any] = NOTHING,
) -> SignedIn:
    """Begin a session of a recognised person, with a new id (E-17), and store the groups and attributes that changed.

    Args:
        user: the person as stored.
        present: the person with the groups and attributes of this sign-in (`as_identified`).
        reason: the reason of the policy that let the person in.
        authenticated_at: when the person authenticated, if that was not just now.
        details: the details of the session.

    Raises:
        SignInRefused: the person's password was replaced, or the person was removed, meanwhile.
    """
    refused = SignInRefused("The user name or password is not right.", reason="password-changed")
    # First, because this needs the stronger lock: else two sign-ins of one person would wait for each other.
    before = user
    while present != before and not engine.stores.users.change(present, instead_of=before):
        # A change that was stored while the policies were asked stays, unless the plugin gives another value.
        found = engine.stores.users.find(user.user_id)
        if found is None:
            break  # and `hold` refuses
        before, present = found, as_identified(found, identity)
    # Checking a password takes time; a session must not begin with one that was replaced meanwhile (I-14).
    if not engine.stores.users.hold(user):
        engine.stores.undo()
        raise refused
    session_id = _begin_session(
        engine, user, identity, previous_session_id, authenticated_at or engine.now, details
    )
    _acts(engine, user)
    engine.journal.user_id = user.user_id
    if present != before:
        record_change(engine, before, present, reason=reason)
    engine.record(EventType.SIGNED_IN, reason=reason, details=_told(details))
    return SignedIn(session_id=session_id, user=present)


def claim_attempt(
    engine: Engine, username: str, user: User | None, device_cookie: str
) -> RateQuestion | None:
    """Count an attempt to sign in with a password.

    Returns:
        the argument of `rates.give_back`, which is called when the password was right.

    Raises:
        TooManyRequests: there were too many.
    """
    device_id = device_id_of(engine, device_cookie, user)
    # Computed for every name, so that the time does not show which names exist (T100).
    unknown = hidden_name(engine, username)
    account = user.username if user else unknown
    return rates.claim(engine, Counted.SIGN_IN, account=account, device_id=device_id)


@contextmanager
def password_turn(engine: Engine, claimed: RateQuestion | None = None) -> Iterator[None]:
    """Take one of the turns at hashing a password; requests of one network never hold all of them (T104).

    Args:
        claimed: the attempt that needs the turn. If there is no turn, nothing was guessed, so it is not counted.

    Raises:
        TooBusy: too many passwords are hashed at this moment.
    """
    began = time.perf_counter_ns()
    outcome = "turned-away"
    # Others need the connection more than this request, which waits and then works for a while.
    engine.stores.rest()
    try:
        with ExitStack() as turn:
            try:
                turn.enter_context(engine.password_checks.turn(network_of(engine.caller.source) or ""))
            except TooBusy:
                rates.give_back(engine, claimed)
                raise
            outcome = "checked"
            yield
    finally:
        note(SpanKind.PASSWORD_CHECK, "password", began, {"outcome": outcome})


def hidden_name(engine: Engine, username: str) -> str:
    """A keyed digest in place of a typed name: the name may be a password in the wrong field, so it is stored nowhere."""
    if not username:
        return ""
    return f"unknown-{engine.ring.mac(username.encode(), purpose='unknown-name').hex()[:16]}"


def _told(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details of the event of a sign-in: the server through which the person came."""
    return {THROUGH: details[THROUGH]["issuer"]} if THROUGH in details else NOTHING


def _begin_session(
    engine: Engine,
    user: User,
    identity: Identity,
    previous_session_id: str | None,
    authenticated_at: datetime,
    details: Mapping[str, Any],
) -> str:
    """Begin a session that replaces the one that the browser had, and return its id.

    If both are of the same person, the new session keeps the handle of the old one, so that no application loses it.
    """
    before = None
    if previous_session_id is not None:
        previous = digests.digest(SESSION_KIND, previous_session_id)
        before = _end(engine, previous)
    handle = None if before is None else session_handle(before.session)
    if before is not None and before.user.user_id != user.user_id:
        engine.journal.user_id = before.user.user_id
        engine.record(EventType.SESSION_ENDED, details={"sessions": 1, ENDED_SESSIONS: [handle]})
        handle = None
    session_id = digests.new_credential(digests.SESSION)
    engine.stores.sessions.add(
        Session(
            digest=digests.digest(SESSION_KIND, session_id),
            user_id=user.user_id,
            authenticated_at=authenticated_at,
            last_seen_at=engine.now,
            expires_at=engine.now + timedelta(seconds=engine.settings.session_lifetime),
            details={
                **details,
                "amr": list(identity.methods),
                **({HANDLE: handle} if handle else {}),
                "source": engine.caller.source,
                "user_agent": shortened(engine.caller.headers.get("user-agent", ""), MAXIMUM_USER_AGENT),
            },
        )
    )
    return session_id


def current_session(engine: Engine, session_id: str) -> FoundSession | None:
    """Find the live session of this id, and note at most once a minute that it was used.

    Its user is the actor of all following events (see `Event.actor`).
    """
    digest = digests.digest(SESSION_KIND, session_id)
    found = engine.stores.sessions.find(digest, engine.now, idle_since(engine))
    if found:
        _acts(engine, found.user)
    if found and engine.now - found.session.last_seen_at > timedelta(seconds=60):
        engine.stores.sessions.touch(digest, engine.now)
    return found


def idle_since(engine: Engine) -> datetime:
    """The time since which a session must have been used to be live."""
    return engine.now - timedelta(seconds=engine.settings.session_idle_lifetime)


def sign_out(engine: Engine, session_id: str) -> None:
    """End the session of this id; does nothing when there is none."""
    if found := _end(engine, digests.digest(SESSION_KIND, session_id)):
        _acts(engine, found.user)
        engine.journal.user_id = found.user.user_id
        engine.record(EventType.SIGNED_OUT, details={ENDED_SESSIONS: [session_handle(found.session)]})


def _end(engine: Engine, digest: bytes) -> FoundSession | None:
    """End the session of this digest; returns it if it was live. A timeout is recorded if applications are told."""
    sessions = engine.stores.sessions
    live = sessions.find(digest, engine.now, idle_since(engine))
    if live is None and engine.settings.session_timeout_delay:
        over = sessions.find(digest, LONG_AGO, LONG_AGO)
        record_timed_out(engine.stores, [over.session] if over else [], engine.now)
    sessions.end(digest)
    return live


def add_user(
    engine: Engine,
    username: str,
    password: str | None,
    *,
    display_name: str = "",
    groups: Iterable[str] = (),
    attributes: Mapping[str, Iterable[str]] = NOTHING,
) -> User:
    """Add a person; without a password only another login policy can sign them in.

    Raises:
        BadUsername: the name cannot be used.
        BadPassword: the password cannot be used.
        BadAttributes: groups or attributes cannot be stored.
        AlreadyExists: the name is taken.
    """
    user = User(
        user_id=digests.new_identifier("user_"),
        username=_new_name(username),
        display_name=shortened(display_name),
        password_hash=None if password is None else hash_new_password(password),
        groups=checked_groups(groups),
        attributes=checked_attributes(attributes),
        created_at=engine.now,
    )
    engine.stores.users.add(user)
    engine.journal.user_id = user.user_id
    # Values of attributes are personal, so no event has them.
    details = {
        "groups": list(user.groups),
        "attributes": sorted(user.attributes),
        "password": password is not None,
    }
    engine.record(EventType.USER_ADDED, details=details)
    return user


def hash_new_password(password: str) -> str:
    """The hash to store of a chosen password. Raises BadPassword."""
    if not MINIMUM_PASSWORD <= password_size(password) <= MAXIMUM_PASSWORD:
        raise BadPassword(f"a password has {MINIMUM_PASSWORD} to {MAXIMUM_PASSWORD} bytes")
    if _NEVER_SENT.search(password):
        raise BadPassword("a password is valid UTF-8 without NUL: no form could send another")
    return digests.hash_password(password)


def disable_user(engine: Engine, username: str) -> bool:
    """Disable a person from the next request on (R-09), and end their sessions and grants in this transaction (L-08).

    False when unknown or disabled before.
    """
    user = engine.stores.users.find_by_name(normalise_username(username))
    if user is None or not user.is_enabled:
        return False
    end_at_once(engine, Act(subject=Subject.user(user), for_good=True))
    return True


def _typed(engine: Engine, username: str) -> tuple[str, User | None]:
    """A typed name in its normalised form ("" for a text that cannot be a user name), and its user."""
    try:
        name = normalise_username(username)
        user = engine.stores.users.find_by_name(name)
        if user is None:
            check_username(name)
    except BadUsername:
        return "", None
    return name, user


def _acts(engine: Engine, user: User) -> None:
    engine.journal.actor = f"user:{user.user_id}"


def _headers(caller: Caller) -> Mapping[str, str]:
    """The headers by which a policy may recognise a person, including Authorization, which may name the person."""
    if caller.authorization is None:
        return caller.headers
    return {**caller.headers, "authorization": caller.authorization}


def _new_name(username: str) -> str:
    name = normalise_username(username)
    check_username(name)
    return name


def _known(engine: Engine, identity: Identity) -> User:
    """The user that a policy named, created at the first sign-in."""
    name = normalise_username(identity.username)
    user = engine.stores.users.find_by_name(name)
    return user or add_user(
        engine,
        name,
        None,
        display_name=identity.display_name,
        groups=identity.groups or (),
        attributes=identity.attributes or NOTHING,
    )


def password_size(password: str) -> int:
    """The length of a password in bytes of UTF-8; if it has too many characters, their number, without encoding it."""
    characters = len(password)
    return characters if characters > MAXIMUM_PASSWORD else len(password.encode("utf-8", "surrogatepass"))
