"""The account pages of a person: applications with access, sessions, the password; the person sees and ends them here.

Operators end them for a person, too. A grant or session that ended is refused from the next request on, because
every rule reads grants and sessions again (R-09).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from authserver.engine import rates
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.ending import BATCH, Act, Ended, Subject, end_at_once, told_sessions
from authserver.engine.errors import OAuthError, PasswordRefused
from authserver.engine.letters import LetterKind
from authserver.engine.link_records import end_links
from authserver.engine.people import mail
from authserver.engine.people.login import (
    SESSION_KIND,
    BadPassword,
    claim_attempt,
    hash_new_password,
    idle_since,
    password_size,
    password_turn,
)
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.records import (
    ENDED_SESSIONS,
    ON_ANOTHER_DEVICE,
    Client,
    Consent,
    EventType,
    Grant,
    GrantFilter,
    RegisteredBy,
    Session,
    TokenKind,
    User,
    is_address,
)
from authserver.engine.session_handles import session_handle
from authserver.limits import MAXIMUM_PASSWORD
from authserver.settings import Secret

# The reasons for which a grant ended, as the grant and the event keep them.
DISCONNECTED = "disconnected"
ENABLED_AGAIN = "enabled-again"
PASSWORD_CHANGED = "password-changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedApp:
    """A client with live grants of one user, newest first, or with a remembered consent, or with both.

    `client` is None when it was deleted.
    """

    client_id: str
    client: Client | None
    grants: tuple[Grant, ...]
    consent: Consent | None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of its live grants."""
        return tuple(dict.fromkeys(scope for grant in self.grants for scope in grant.scopes))

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources of its live grants."""
        return tuple(dict.fromkeys(resource for grant in self.grants for resource in grant.resources))

    @property
    def remembered_scopes(self) -> tuple[str, ...]:
        """The scopes of the remembered consent that no live grant has."""
        return (
            tuple(scope for scope in self.consent.scopes if scope not in self.scopes) if self.consent else ()
        )

    @property
    def let_in_by(self) -> tuple[str, ...]:
        """The issuers and grant types that gave it access without asking the user here; derived grants are left out."""
        asked_here = (let_in_by(grant) for grant in self.grants if grant.parent_id is None)
        return tuple(dict.fromkeys(filter(None, asked_here)))

    @property
    def since(self) -> datetime:
        """When the oldest live grant was made; without one, when the user last agreed."""
        return min((grant.created_at for grant in self.grants), default=self._agreed_at)

    @property
    def last_used_at(self) -> datetime:
        """When it last got tokens for a live grant; without one, when the user last agreed."""
        return max(map(last_use, self.grants), default=self._agreed_at)

    @property
    def _agreed_at(self) -> datetime:
        # Without grants there is a consent.
        return self.consent.granted_at if self.consent else datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSession:
    """A session as its user sees it: `handle` names it without revealing the stored digest."""

    handle: str
    session: Session
    is_this: bool


def user_id_of(engine: Engine, name: str) -> str | None:
    """The id of the user with this id or name, or None. A text that looks like an id is returned even if no user has it.

    An existing id comes first, so that a user whose name is the id of another one is not found instead.
    """
    if name.startswith("user_") and engine.stores.users.find(name):
        return name
    try:
        user = engine.stores.users.find_by_name(normalise_username(name))
    except BadUsername:
        user = None
    if user is not None:
        return user.user_id
    return name if name.startswith("user_") else None


def last_use(grant: Grant) -> datetime:
    """The time at which its client last got tokens for it."""
    return grant.last_used_at or grant.created_at


def let_in_by(grant: Grant) -> str | None:
    """The issuer or grant type that made a grant without asking its user here; None for a grant of the consent page."""
    if ON_ANOTHER_DEVICE in grant.details:
        return None
    name: str | None = grant.details.get("vouched_by") or grant.details.get("grant_type")
    return name


def connected_apps(engine: Engine, user: User, *, limit: int | None = None) -> Sequence[ConnectedApp]:
    """The clients that may act for a user now, last used first, then those with a remembered consent alone (E-16).

    It runs three statements, however many clients there are.

    Args:
        limit: how many grants (the newest) and how many consents are read; None for all.
    """
    stores, grants = engine.stores, dict[str, list[Grant]]()
    if limit is None:
        found = stores.grants.list(engine.now, user_id=user.user_id)
        remembered = stores.consents.list(user_id=user.user_id)
    else:
        wanted = GrantFilter(user_id=user.user_id, live_at=engine.now, redeemed=True)
        found = stores.grants.search(wanted, limit=limit)
        remembered = stores.consents.page(user_id=user.user_id, limit=limit)
    for grant in found:
        grants.setdefault(grant.client_id, []).append(grant)
    consents = {consent.client_id: consent for consent in remembered}
    client_ids = list(dict.fromkeys([*grants, *consents]))
    clients = _clients(engine, client_ids)
    apps = [
        ConnectedApp(
            client_id=client_id,
            client=clients.get(client_id) or _as_agreed(consents.get(client_id)),
            grants=tuple(grants.get(client_id, ())),
            consent=consents.get(client_id),
        )
        for client_id in client_ids
    ]
    return sorted(apps, key=lambda app: (bool(app.grants), app.last_used_at), reverse=True)


def disconnect(engine: Engine, user: User, client_id: str) -> Ended:
    """End all grants of a user to a client, and the remembered consent (E-16, T076)."""
    # The consent is ended first: this waits for an answer to the consent page that is being stored, and ends it, too.
    consents = engine.stores.consents.forget(user.user_id, client_id)
    live = engine.stores.grants.search(
        GrantFilter(user_id=user.user_id, client_id=client_id, live_at=engine.now), limit=BATCH
    )
    along = len(_and_derived(engine, [grant.grant_id for grant in live])) - len(live)
    grants = engine.stores.grants.revoke_of_user(user.user_id, engine.now, DISCONNECTED, client_id=client_id)
    grants += along if grants else 0
    engine.journal.user_id = user.user_id
    if grants or consents:
        engine.journal.client_id = client_id
    return _record_disconnected(engine, Ended(grants=grants, consents=consents))


def disconnect_all(engine: Engine, user: User) -> Ended:
    """End all grants of a user and all remembered consents."""
    ended = _end_agreements(engine, user, DISCONNECTED)
    engine.journal.user_id = user.user_id
    return _record_disconnected(engine, ended)


def revoke_grant(engine: Engine, grant_id: str, *, of: User | None = None) -> Ended:
    """End one grant; with the last grant of a user to a client the remembered consent ends, too (E-16).

    Otherwise the client would get the access that was just ended again, without a question.

    Args:
        of: the user whose grant it must be; None for an operator, who may end every grant.

    Returns:
        the number of grants and consents that ended; 0 when the grant is unknown, not live, or another user's.
    """
    grant = engine.stores.grants.find(grant_id)
    if grant is None or grant.revoked_at is not None or (of is not None and grant.user_id != of.user_id):
        return Ended()
    journal = engine.journal
    journal.grant_id, journal.client_id, journal.user_id = grant_id, grant.client_id, grant.user_id
    # First the consent, as in `disconnect`: with another order there could be a deadlock.
    consents = 0
    if grant.user_id is not None and not _others_of(engine, grant):
        consents = engine.stores.consents.forget(grant.user_id, grant.client_id)
    along = len(_and_derived(engine, [grant_id])) - 1
    grants = int(engine.stores.grants.revoke(grant_id, engine.now, DISCONNECTED))
    if grants:
        grants += along
        details = {
            "scopes": list(grant.scopes),
            "resources": list(grant.resources),
            # Their number is not bounded: a service may exchange a token for each call.
            **({"derived": along} if along else {}),
        }
        engine.record(EventType.GRANT_REVOKED, reason=DISCONNECTED, details=details)
    if consents:
        engine.record(EventType.CONSENT_ENDED, reason=DISCONNECTED, details={"consents": consents})
    return Ended(grants=grants, consents=consents)


def grant_plan(engine: Engine, grant: Grant) -> Ended:
    """How much `revoke_grant` would end; 0 when the grant is not live."""
    if grant.revoked_at is not None or grant.expires_at <= engine.now:
        return Ended()
    ended = _with_grants(engine, [grant.grant_id])
    if grant.user_id is None or _others_of(engine, grant):
        return ended
    consent = engine.stores.consents.find(grant.user_id, grant.client_id)
    return ended + Ended(consents=int(consent is not None))


def disconnect_plan(engine: Engine, user: User, client_id: str) -> Ended:
    """How much `disconnect` would end."""
    stores, place = engine.stores, None
    wanted = GrantFilter(user_id=user.user_id, client_id=client_id, live_at=engine.now)
    ended = Ended(consents=stores.consents.count(user_id=user.user_id, client_id=client_id))
    while found := stores.grants.search(wanted, after=place, limit=BATCH):
        ended += _with_grants(engine, [grant.grant_id for grant in found])
        place = (found[-1].created_at, found[-1].grant_id)
    return ended


def own_sessions(engine: Engine, user: User, session_id: str) -> Sequence[OwnSession]:
    """The live sessions of a user: the one with this id first, then the others, last seen first."""
    this = digests.digest(SESSION_KIND, session_id)
    sessions = [
        OwnSession(handle=session_handle(session), session=session, is_this=session.digest == this)
        for session in engine.stores.sessions.list(user.user_id, engine.now, idle_since(engine))
    ]
    return sorted(sessions, key=lambda own: not own.is_this)


def end_session(engine: Engine, user: User, handle: str) -> bool:
    """End one session of a user; False when no live session of theirs has this handle."""
    sessions = engine.stores.sessions
    for session in sessions.list(user.user_id, engine.now, idle_since(engine)):
        if digests.equal(session_handle(session), handle):
            sessions.end(session.digest)
            _record_ended(engine, user, 1, [session])
            return True
    return False


def end_other_sessions(engine: Engine, user: User, session_id: str) -> int:
    """End all sessions of a user but the one with this id. Returns their number."""
    this = digests.digest(SESSION_KIND, session_id)
    sessions = engine.stores.sessions
    others = [each for each in told_sessions(engine, user.user_id) if each.digest != this]
    ended = sessions.end_all(user.user_id, but=this)
    if ended:
        _record_ended(engine, user, ended, others)
    return ended


def change_password(
    engine: Engine,
    user: User,
    session_id: str,
    *,
    current: Secret,
    new: Secret,
    repeated: Secret,
    device_cookie: str = "",
) -> str:
    """Let a signed-in user choose another password, and end all their other sessions and all their grants (I-14).

    Returns:
        the new id of this session, which is the only one left (E-17, T098).

    Raises:
        PasswordRefused: the current password is wrong, or the new one cannot be used.
        TooManyRequests, TooBusy: as for `login.sign_in`; the limits of sign-in hold here, too.
    """
    engine.journal.user_id = user.user_id
    password_hash = _checked_password(engine, user, current, new, repeated, device_cookie)
    if not engine.stores.users.set_password(user.user_id, password_hash, instead_of=user.password_hash):
        # Of two changes at the same time, the second one sends a password that is no longer the current one.
        raise _wrong_password()
    # Read after that write: another change of the password has waited for it, so an ended session stays
    # ended.
    digest = digests.digest(SESSION_KIND, session_id)
    found = engine.stores.sessions.find(digest, engine.now, idle_since(engine))
    end_with_password(engine, user)
    renewed = digests.new_credential(digests.SESSION)
    if found is not None:
        engine.stores.sessions.add(
            replace(found.session, digest=digests.digest(SESSION_KIND, renewed), last_seen_at=engine.now)
        )
    return renewed


def _checked_password(
    engine: Engine, user: User, current: Secret, new: Secret, repeated: Secret, device_cookie: str
) -> str:
    """The hash of the new password. Raises PasswordRefused, TooManyRequests, TooBusy."""
    if user.password_hash is None:
        raise PasswordRefused(
            "You have no password here.", reason="no-password-here", field="current_password"
        )
    claimed = claim_attempt(engine, user.username, user, device_cookie)
    with password_turn(engine, claimed):
        too_long = password_size(current.value) > MAXIMUM_PASSWORD
        if too_long or not digests.verify_password(current.value, user.password_hash):
            raise _wrong_password()
    rates.give_back(engine, claimed)
    if digests.equal(new.value, current.value):
        raise same_password()
    return new_hash(engine, new, repeated)


def new_hash(engine: Engine, new: Secret, repeated: Secret) -> str:
    """The hash of a password that a person chose. Raises PasswordRefused, TooBusy."""
    if not digests.equal(new.value, repeated.value):
        raise PasswordRefused(
            "This is not the same as the new password.", reason="new-password-differs", field="repeated"
        )
    try:
        with password_turn(engine):
            return hash_new_password(new.value)
    except BadPassword:
        raise PasswordRefused(
            "Choose a password of 8 characters or more, and of no more than 1024.",
            reason="new-password-length",
            field="new_password",
        ) from None


def same_password() -> PasswordRefused:
    """The refusal of a new password that is the current one."""
    return PasswordRefused(
        "Choose another password than the current one.", reason="new-password-same", field="new_password"
    )


def _wrong_password() -> PasswordRefused:
    return PasswordRefused(
        "This is not your current password.", reason="current-password-wrong", field="current_password"
    )


def set_password(engine: Engine, user: User, password: str) -> Ended:
    """Give a user another password, and end all their sessions and grants (I-14, T073).

    Raises:
        BadPassword: it cannot be used; nothing was changed.
    """
    engine.stores.users.set_password(user.user_id, hash_new_password(password))
    return end_with_password(engine, user)


def end_with_password(engine: Engine, user: User) -> Ended:
    """End sessions, grants, consents and links of a user whose password was replaced, and record the change (I-14)."""
    ended = _end_everything(engine, user, PASSWORD_CHANGED, EventType.PASSWORD_CHANGED)
    if user.password_hash is not None:
        mail.write(engine, user, LetterKind.PASSWORD_CHANGED)
    return ended


def enable_user(engine: Engine, user: User) -> Ended | None:
    """Enable a disabled user. Sessions and grants from before the disabling end.

    Returns:
        the numbers of what ended; None if the person was not disabled.
    """
    end_links(engine, user.user_id)
    if not engine.stores.users.enable(user.user_id):
        return None
    disabled_at = user.disabled_at.isoformat() if user.disabled_at else None
    return _end_everything(engine, user, ENABLED_AGAIN, EventType.USER_ENABLED, disabled_at=disabled_at)


def sign_out_everywhere(engine: Engine, user: User) -> Ended:
    """End all sessions, all grants and the links to set a password of a user (I-14)."""
    return end_at_once(engine, Act(subject=Subject.user(user)))


def _clients(engine: Engine, client_ids: Sequence[str]) -> dict[str, Client]:
    """The clients of these ids that exist. The document of a client whose id is its address is not fetched."""
    known = {client.client_id: client for client in engine.stores.clients.find_all(client_ids, engine.now)}
    try:
        for client_id in client_ids:
            if client_id in known or is_address(client_id):
                continue
            if client := engine.find_client_elsewhere(client_id):
                known[client_id] = client
    except OAuthError:
        # The log names a plugin that failed. To end a grant, the name of its client is not needed.
        pass
    return known


def _as_agreed(consent: Consent | None) -> Client | None:
    """A client whose id is its address, as it was when the user agreed."""
    if consent is None or not is_address(consent.client_id):
        return None
    return Client(
        client_id=consent.client_id,
        name=consent.client_name,
        auth_method="none",
        redirect_uris=consent.redirect_uris,
        registered_by=RegisteredBy.SELF,
        created_at=consent.granted_at,
    )


def _with_grants(engine: Engine, grant_ids: Sequence[str]) -> Ended:
    """The number of these live grants with the grants derived from them, and of their tokens that can still be used."""
    grant_ids = _and_derived(engine, grant_ids)
    live = engine.stores.tokens.count_live(grant_ids, engine.now)
    return Ended(
        grants=len(grant_ids),
        codes=live.get(TokenKind.CODE, 0),
        refresh_tokens=live.get(TokenKind.REFRESH, 0),
        access_tokens=live.get(TokenKind.ACCESS, 0),
    )


def _and_derived(engine: Engine, grant_ids: Sequence[str]) -> Sequence[str]:
    """The ids of these grants and of the grants that end with them."""
    derived = engine.stores.grants.derived(grant_ids, engine.now) if grant_ids else ()
    return list(dict.fromkeys((*grant_ids, *(grant.grant_id for grant in derived))))


def _others_of(engine: Engine, grant: Grant) -> bool:
    """Whether the user has another live grant to the same client."""
    found = engine.stores.grants.list(engine.now, user_id=grant.user_id, client_id=grant.client_id)
    return any(other.grant_id != grant.grant_id for other in found)


def _end_everything(engine: Engine, user: User, reason: str, event: EventType, **noted: object) -> Ended:
    return end_at_once(engine, Act(subject=Subject.user(user), because=reason, event=event, noted=noted))


def _end_agreements(engine: Engine, user: User, reason: str) -> Ended:
    """End all grants of a user.

    Another person who knew the password may have given consents, so they are deleted, too.
    """
    consents = engine.stores.consents.forget(user.user_id)
    grants = engine.stores.grants.revoke_of_user(user.user_id, engine.now, reason)
    return Ended(grants=grants, consents=consents)


def _record_disconnected(engine: Engine, ended: Ended) -> Ended:
    if ended.grants:
        engine.record(EventType.GRANTS_REVOKED, reason=DISCONNECTED, details={"grants": ended.grants})
    if ended.consents:
        engine.record(EventType.CONSENT_ENDED, reason=DISCONNECTED, details={"consents": ended.consents})
    return ended


def _record_ended(engine: Engine, user: User, number: int, live: Sequence[Session]) -> None:
    engine.journal.user_id = user.user_id
    handles = [session_handle(session) for session in live]
    engine.record(EventType.SESSION_ENDED, details={"sessions": number, ENDED_SESSIONS: handles})
