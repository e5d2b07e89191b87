"""Signing people in and out, and keeping who they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from authserver.engine import digests
from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict
from authserver.engine.errors import ServerError, SignInRefused
from authserver.engine.records import EventType, FoundSession, Session, User
from authserver.settings import Secret

MINIMUM_PASSWORD_BYTES = 8
MAXIMUM_PASSWORD_BYTES = 1024
SESSION_KIND = "session"
LONGEST_USER_AGENT = 256

_USERNAME = re.compile(r"[^\W_](?:[\w.@+-]*[^\W_])?|[^\W_]")


class BadUsername(ValueError):
    """The name cannot be a user name; the message says why."""


class BadPassword(ValueError):
    """The text cannot be a password; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a login policy says is signing in.

    Attributes:
        username: the name by which the person is known here.
        display_name: for the pages; may be empty.
        methods: how it was proven, as `amr` values (RFC 8176), such as `pwd`.
    """

    username: str
    display_name: str = ""
    methods: tuple[str, ...] = ("pwd",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A new session: its id goes to the browser, its digest is stored."""

    session_id: str
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt to sign in: what was typed, and the request that brought it.

    `headers` are by lower-case name; `source` is the network address that the request came from.
    """

    username: str = ""
    password: Secret = field(default=Secret(""))
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: str = ""


def sign_in_unasked(
    engine: Engine, attempt: Attempt, *, previous_session_id: str | None = None
) -> SignedIn | None:
    """Sign in whom a policy recognises by the request alone, before anybody types anything; None for nobody."""
    try:
        return sign_in(engine, attempt, previous_session_id=previous_session_id)
    except (SignInRefused, ServerError) as refused:
        # A policy that failed is in the log; the sign-in page may be shown all the same.
        if engine.journal.decisions[-1].verdict is Verdict.DENY:
            engine.record(EventType.SIGN_IN_REFUSED, reason=refused.reason)
        return None


def sign_in(engine: Engine, attempt: Attempt, *, previous_session_id: str | None = None) -> SignedIn:
    """Check an attempt with the policies and begin a new session with a new id (E-17, T098).

    Raises:
        SignInRefused: with one message for every cause (T100).
        ServerError: a policy failed, or vouched for a name that nobody can have.
    """
    refused = SignInRefused("The user name or password is not right.", reason="nobody-answered")
    try:
        name = normalise_username(attempt.username)
    except BadUsername:
        name = ""
    if len(attempt.password.value.encode("utf-8", "surrogatepass")) > MAXIMUM_PASSWORD_BYTES:
        raise SignInRefused(refused.description, reason="password-too-long")
    user = engine.stores.users.find_by_name(name) if name else None
    engine.journal.user_id = user.user_id if user else None
    ruling = engine.ask(
        "login_decision",
        username=name,
        password=attempt.password,
        user=user,
        headers=attempt.headers,
        source=attempt.source,
    )
    if not ruling.allowed:
        refused.reason = ruling.reason
        raise refused
    identity: Identity = ruling.value
    if user is None or identity.username != user.username:
        try:
            user = _known(engine, identity)
        except BadUsername:
            raise engine.wrong_value(ruling) from None
    if not user.is_enabled:
        refused.reason = "user-disabled"
        raise refused
    # Checking a password takes its time: a session may not begin with one that was replaced meanwhile (I-14).
    if not engine.stores.users.hold(user):
        engine.stores.undo()
        refused.reason = "password-changed"
        raise refused
    if previous_session_id is not None:
        engine.stores.sessions.end(digests.digest(SESSION_KIND, previous_session_id))
    session_id = digests.new_credential(digests.SESSION)
    engine.stores.sessions.add(
        Session(
            digest=digests.digest(SESSION_KIND, session_id),
            user_id=user.user_id,
            authenticated_at=engine.now,
            last_seen_at=engine.now,
            expires_at=engine.now + timedelta(seconds=engine.settings.session_lifetime),
            details={
                "amr": list(identity.methods),
                "source": attempt.source,
                "user_agent": _printable(attempt.headers.get("user-agent", "")),
            },
        )
    )
    engine.journal.user_id = user.user_id
    engine.record(EventType.SIGNED_IN, reason=ruling.reason)
    return SignedIn(session_id=session_id, user=user)


def current_session(engine: Engine, session_id: str) -> FoundSession | None:
    """The live session of this id, and note at most once a minute that it was seen."""
    digest = digests.digest(SESSION_KIND, session_id)
    found = engine.stores.sessions.find(digest, engine.now, idle_since(engine))
    if found and engine.now - found.session.last_seen_at > timedelta(seconds=60):
        engine.stores.sessions.touch(digest, engine.now)
    return found


def idle_since(engine: Engine) -> datetime:
    """A session that was last seen before this has ended by itself."""
    return engine.now - timedelta(seconds=engine.settings.session_idle_lifetime)


def sign_out(engine: Engine, session_id: str) -> None:
    """End the session of this id; harmless when there is none."""
    found = current_session(engine, session_id)
    engine.stores.sessions.end(digests.digest(SESSION_KIND, session_id))
    if found:
        engine.journal.user_id = found.user.user_id
        engine.record(EventType.SIGNED_OUT)


def add_user(
    engine: Engine, username: str, password: str | None, *, display_name: str = "", is_admin: bool = False
) -> User:
    """Add a person; without a password only another login policy can let them in.

    Raises:
        BadUsername: the name cannot be used.
        BadPassword: the password cannot be used.
        AlreadyExists: the name is taken.
    """
    user = User(
        user_id=digests.new_identifier("user_"),
        username=normalise_username(username),
        display_name=display_name,
        password_hash=None if password is None else hash_new_password(password),
        is_admin=is_admin,
        created_at=engine.now,
    )
    engine.stores.users.add(user)
    engine.journal.user_id = user.user_id
    engine.record(EventType.USER_ADDED)
    return user


def hash_new_password(password: str) -> str:
    """What is stored of a password that somebody chose. Raises BadPassword."""
    if not MINIMUM_PASSWORD_BYTES <= len(password.encode("utf-8", "surrogatepass")) <= MAXIMUM_PASSWORD_BYTES:
        raise BadPassword(f"a password has {MINIMUM_PASSWORD_BYTES} to {MAXIMUM_PASSWORD_BYTES} bytes")
    return digests.hash_password(password)


def disable_user(engine: Engine, username: str) -> bool:
    """Disable a person from the next request on (R-09); False when unknown or disabled before."""
    user = engine.stores.users.find_by_name(normalise_username(username))
    if user is None or not engine.stores.users.disable(user.user_id, engine.now):
        return False
    engine.journal.user_id = user.user_id
    engine.record(EventType.USER_DISABLED)
    return True


def normalise_username(username: str) -> str:
    """The one form of a user name that is stored and looked up: NFKC and case-folded (T105).

    Raises:
        BadUsername: empty, over 100 characters, with characters a name has no use for, or in mixed scripts.
    """
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username.strip()).casefold())
    if not 1 <= len(name) <= 100 or not _USERNAME.fullmatch(name):
        raise BadUsername("a user name has 1 to 100 letters, digits and . _ @ + - between them")
    scripts = {unicodedata.name(character, "").partition(" ")[0] for character in name if character.isalpha()}
    # Japanese is written in three scripts at once; every other mixture imitates a name.
    if len(scripts) > 1 and not scripts <= {"CJK", "HIRAGANA", "KATAKANA"}:
        raise BadUsername("a user name is written in one script")
    return name


def _known(engine: Engine, identity: Identity) -> User:
    """The user of an identity that a policy vouched for, made at its first sight."""
    name = normalise_username(identity.username)
    user = engine.stores.users.find_by_name(name)
    return user or add_user(engine, name, None, display_name=identity.display_name)


def _printable(user_agent: str) -> str:
    """What is kept of a User-Agent: a browser may send anything."""
    return "".join(filter(str.isprintable, user_agent))[:LONGEST_USER_AGENT]
