"""What people see and end by themselves: applications with access, sessions, their password.

Operators do it for them, too. What ends here is refused from the next request on, because every rule reads
grants and sessions again (R-09).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.errors import PasswordRefused, ServerError
from authserver.engine.people.login import (
    SESSION_KIND,
    BadPassword,
    hash_new_password,
    idle_since,
    password_size,
)
from authserver.engine.records import Client, EventType, Grant, Session, User
from authserver.limits import MAXIMUM_PASSWORD
from authserver.settings import Secret

_HANDLE_KIND = "session-handle"

# Why a grant ended, as the grant and the event keep it.
DISCONNECTED = "disconnected"
PASSWORD_CHANGED = "password-changed"
SIGNED_OUT_EVERYWHERE = "signed-out-everywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedApp:
    """A client with live grants of one user, newest first; `client` is None when it does not exist any more."""

    client_id: str
    client: Client | None
    grants: tuple[Grant, ...]

    @property
    def scopes(self) -> tuple[str, ...]:
        """All that it may do."""
        return tuple(dict.fromkeys(scope for grant in self.grants for scope in grant.scopes))

    @property
    def resources(self) -> tuple[str, ...]:
        """Everywhere that it may do something."""
        return tuple(dict.fromkeys(resource for grant in self.grants for resource in grant.resources))

    @property
    def let_in_by(self) -> tuple[str, ...]:
        """Who or what gave it access without asking the user here."""
        return tuple(dict.fromkeys(filter(None, map(let_in_by, self.grants))))

    @property
    def since(self) -> datetime:
        return min(grant.created_at for grant in self.grants)

    @property
    def last_used_at(self) -> datetime:
        return max(map(last_use, self.grants))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSession:
    """A session as its user sees it: `handle` names it without revealing the stored digest."""

    handle: str
    session: Session
    is_this: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How many sessions and grants ended."""

    sessions: int
    grants: int


def last_use(grant: Grant) -> datetime:
    """When its client last got tokens for it."""
    return grant.last_used_at or grant.created_at


def let_in_by(grant: Grant) -> str | None:
    """Who or what made a grant that its user did not agree to here; None for what the consent page made."""
    name: str | None = grant.details.get("vouched_by") or grant.details.get("grant_type")
    return name


def connected_apps(engine: Engine, user: User) -> Sequence[ConnectedApp]:
    """The clients that may act for a user now, last used first; two statements however many they are (E-16)."""
    grants: dict[str, list[Grant]] = {}
    for grant in engine.stores.grants.list(engine.now, user_id=user.user_id):
        grants.setdefault(grant.client_id, []).append(grant)
    clients = _clients(engine, list(grants))
    apps = [
        ConnectedApp(client_id=client_id, client=clients.get(client_id), grants=tuple(granted))
        for client_id, granted in grants.items()
    ]
    return sorted(apps, key=lambda app: app.last_used_at, reverse=True)


def disconnect(engine: Engine, user: User, client_id: str) -> int:
    """End all grants of a user to a client, and delete the consent (E-16, T076); how many grants ended."""
    # In this order: it waits for an answer to the consent page that is being stored, and then ends that, too.
    engine.stores.consents.forget(user.user_id, client_id)
    ended = engine.stores.grants.revoke_of_user(user.user_id, engine.now, DISCONNECTED, client_id=client_id)
    engine.journal.user_id = user.user_id
    if ended:
        engine.journal.client_id = client_id
        engine.record(EventType.GRANTS_REVOKED, reason=DISCONNECTED, details={"grants": ended})
    return ended


def disconnect_all(engine: Engine, user: User) -> int:
    """End all that a user granted to anybody; how many grants ended."""
    ended = _end_grants(engine, user, DISCONNECTED)
    engine.journal.user_id = user.user_id
    if ended:
        engine.record(EventType.GRANTS_REVOKED, reason=DISCONNECTED, details={"grants": ended})
    return ended


def revoke_grant(engine: Engine, grant_id: str, *, of: User | None = None) -> bool:
    """End one grant (E-16).

    Args:
        of: whose it must be; None for an operator, who may end anybody's.

    Returns:
        False when it is unknown, not live, or somebody else's.
    """
    grant = engine.stores.grants.find(grant_id)
    if grant is None or (of is not None and grant.user_id != of.user_id):
        return False
    if not engine.stores.grants.revoke(grant_id, engine.now, DISCONNECTED):
        return False
    journal = engine.journal
    journal.grant_id, journal.client_id, journal.user_id = grant_id, grant.client_id, grant.user_id
    engine.record(EventType.GRANT_REVOKED, reason=DISCONNECTED)
    return True


def own_sessions(engine: Engine, user: User, session_id: str) -> Sequence[OwnSession]:
    """The live sessions of a user: the one with this id first, then the others, last seen first."""
    this = digests.digest(SESSION_KIND, session_id)
    sessions = [
        OwnSession(handle=_handle(session), session=session, is_this=session.digest == this)
        for session in engine.stores.sessions.list(user.user_id, engine.now, idle_since(engine))
    ]
    return sorted(sessions, key=lambda own: not own.is_this)


def end_session(engine: Engine, user: User, handle: str) -> bool:
    """End one session of a user; False when no live session of theirs has this handle."""
    sessions = engine.stores.sessions
    for session in sessions.list(user.user_id, engine.now, idle_since(engine)):
        if digests.equal(_handle(session), handle):
            sessions.end(session.digest)
            _record_ended(engine, user, 1)
            return True
    return False


def end_other_sessions(engine: Engine, user: User, session_id: str) -> int:
    """End all sessions of a user but the one with this id; how many they were."""
    this = digests.digest(SESSION_KIND, session_id)
    ended = engine.stores.sessions.end_all(user.user_id, but=this)
    if ended:
        _record_ended(engine, user, ended)
    return ended


def change_password(
    engine: Engine, user: User, session_id: str, *, current: Secret, new: Secret, repeated: Secret
) -> str:
    """Let a signed-in user choose another password, and end all their other sessions and all their grants (I-14).

    Returns:
        the new id of this session, which is the only one left (E-17, T098).

    Raises:
        PasswordRefused: the current password is not right, or the new one cannot be used.
    """
    engine.journal.user_id = user.user_id
    password_hash = _checked_password(user, current, new, repeated)
    if not engine.stores.users.set_password(user.user_id, password_hash, instead_of=user.password_hash):
        # When two change it at the same time, the second one no longer sends the current password.
        raise _wrong_password()
    # Read after that write: another change of the password has waited for it, so an ended session stays
    # ended.
    digest = digests.digest(SESSION_KIND, session_id)
    found = engine.stores.sessions.find(digest, engine.now, idle_since(engine))
    ended = _end_everything(engine, user, PASSWORD_CHANGED)
    renewed = digests.new_credential(digests.SESSION)
    if found is not None:
        engine.stores.sessions.add(
            replace(found.session, digest=digests.digest(SESSION_KIND, renewed), last_seen_at=engine.now)
        )
    _record_everything(engine, user, EventType.PASSWORD_CHANGED, ended)
    return renewed


def _checked_password(user: User, current: Secret, new: Secret, repeated: Secret) -> str:
    """What is stored of the new password. Raises PasswordRefused."""
    if user.password_hash is None:
        raise PasswordRefused(
            "You have no password here.", reason="no-password-here", field="current_password"
        )
    too_long = password_size(current.value) > MAXIMUM_PASSWORD
    if too_long or not digests.verify_password(current.value, user.password_hash):
        raise _wrong_password()
    if digests.equal(new.value, current.value):
        raise PasswordRefused(
            "Choose another password than the current one.", reason="new-password-same", field="new_password"
        )
    if not digests.equal(new.value, repeated.value):
        raise PasswordRefused(
            "This is not the same as the new password.", reason="new-password-differs", field="repeated"
        )
    try:
        return hash_new_password(new.value)
    except BadPassword:
        raise PasswordRefused(
            "Choose a password of 8 characters or more, and of no more than 1024.",
            reason="new-password-length",
            field="new_password",
        ) from None


def _wrong_password() -> PasswordRefused:
    return PasswordRefused(
        "This is not your current password.", reason="current-password-wrong", field="current_password"
    )


def set_password(engine: Engine, user: User, password: str) -> Ended:
    """Give a user another password, and end all their sessions and grants (I-14, T073).

    Raises:
        BadPassword: it cannot be used; nothing has changed.
    """
    engine.stores.users.set_password(user.user_id, hash_new_password(password))
    ended = _end_everything(engine, user, PASSWORD_CHANGED)
    _record_everything(engine, user, EventType.PASSWORD_CHANGED, ended)
    return ended


def sign_out_everywhere(engine: Engine, user: User) -> Ended:
    """End all sessions and all grants of a user (I-14)."""
    ended = _end_everything(engine, user, SIGNED_OUT_EVERYWHERE)
    _record_everything(engine, user, EventType.SIGNED_OUT_EVERYWHERE, ended)
    return ended


def _clients(engine: Engine, client_ids: Sequence[str]) -> dict[str, Client]:
    """The clients of these ids, as far as they exist."""
    known = {client.client_id: client for client in engine.stores.clients.find_all(client_ids, engine.now)}
    try:
        for client_id in client_ids:
            if client_id not in known and (client := engine.find_client_elsewhere(client_id)):
                known[client_id] = client
    except ServerError:
        # The log names the plugin. To end a grant, the name of its client is not needed.
        pass
    return known


def _handle(session: Session) -> str:
    return digests.digest(_HANDLE_KIND, session.digest.hex()).hex()[:32]


def _end_everything(engine: Engine, user: User, reason: str) -> Ended:
    sessions = engine.stores.sessions.end_all(user.user_id)
    return Ended(sessions=sessions, grants=_end_grants(engine, user, reason))


def _end_grants(engine: Engine, user: User, reason: str) -> int:
    """End all grants of a user.

    Somebody else who knew the password may have agreed to anything, so the consents are deleted, too.
    """
    engine.stores.consents.forget(user.user_id)
    return engine.stores.grants.revoke_of_user(user.user_id, engine.now, reason)


def _record_ended(engine: Engine, user: User, sessions: int) -> None:
    engine.journal.user_id = user.user_id
    engine.record(EventType.SESSION_ENDED, details={"sessions": sessions})


def _record_everything(engine: Engine, user: User, type: EventType, ended: Ended) -> None:
    engine.journal.user_id = user.user_id
    engine.record(type, details={"sessions": ended.sessions, "grants": ended.grants})
