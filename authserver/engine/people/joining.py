"""People for whom another server vouches: who that is here, and what ends with it.

An account here belongs to a name there, that of the server with that of the person (`iss` and `sub`), and to nothing
else: names and mail addresses change hands, and anybody can have one written into an account (OIDC Core, 5.7).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.crypto.digests import digest
from authserver.engine.crypto.sealing import to_text
from authserver.engine.ending import end_through
from authserver.engine.errors import SignInRefused
from authserver.engine.people.attributes import BadAttributes, as_identified, shortened
from authserver.engine.people.login import SignedIn, add_user, enter, methods_problem
from authserver.engine.people.usernames import BadUsername, check_username, normalise_username
from authserver.engine.ports import AlreadyExists
from authserver.engine.questions import Identity, IdentityQuestion
from authserver.engine.records import NOTHING, THROUGH, EventType, JoinedIdentity, User

# What an identity is not joined with: longer than any server may make it (OIDC Core, 2).
MAXIMUM_SUBJECT = 255
# Why somebody is not let in, and what the page can say about it.
UNKNOWN, TAKEN, UNUSABLE = "identity-unknown", "identity-name-taken", "identity-unusable"
DISABLED = "user-disabled"
# What ends with an identity that is taken from a person.
REMOVED = "identity-removed"


class IdentityTaken(Exception):
    """It is joined to another person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchedIdentity:
    """What another server says of a person, verified.

    Attributes:
        provider: what the settings call that server.
        issuer, subject: what it calls itself and the person, for good.
        label: what it calls the person now, for people to read.
        session: what it calls the person's session there (`sid`); "" if it does not say.
        claims: all that it says of the person.
        authenticated_at: when the person proved there who they are; None for just now.
    """

    provider: str
    issuer: str
    subject: str
    label: str = field(default="", repr=False)
    session: str = ""
    claims: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    authenticated_at: datetime | None = None


def joined_user(engine: Engine, vouched: VouchedIdentity) -> User | None:
    """Whom this identity is joined to."""
    joined = engine.stores.identities.find(vouched.issuer, vouched.subject)
    return None if joined is None else engine.stores.users.find(joined.user_id)


def sign_in_vouched(
    engine: Engine,
    vouched: VouchedIdentity,
    user: User | None,
    *,
    adds_people: bool,
    administering: Collection[str] = (),
    previous_session_id: str | None = None,
) -> SignedIn:
    """Begin a session of the person for whom another server vouches, with a new id (E-17).

    Args:
        user: whom it is joined to (`joined_user`).
        adds_people: whether somebody who was never here gets an account.
        administering: the groups whose members administer this server that may be given and taken away so.

    Raises:
        SignInRefused: no policy says who it is, or one refuses; nobody is joined, the name is somebody else's, or what is
            said of the person cannot be kept; or the person is disabled.
        ServerError: a policy failed.
    """
    refused = SignInRefused("You cannot sign in here in this way.")
    engine.journal.user_id = user.user_id if user else None
    question = IdentityQuestion(
        provider=vouched.provider, issuer=vouched.issuer, claims=vouched.claims, user=user
    )
    ruling = engine.ask(question)
    if not ruling.allowed:
        refused.reason = ruling.reason
        raise refused
    if user is None and not adds_people:
        refused.reason = UNKNOWN
        raise refused
    if user is not None and not user.is_enabled:
        refused.reason = DISABLED
        raise refused
    said = ruling.allowed_value
    identity = replace(said, groups=_groups(engine, user, said.groups, administering))
    try:
        if problem := methods_problem(identity):
            raise BadAttributes(problem)
        if user is None:
            user = _add(engine, vouched, identity)
        present = as_identified(user, identity)
    except (BadUsername, BadAttributes) as bad:
        # No mistake of ours: the other server may say anything of a person.
        refused.reason = UNUSABLE
        refused.facts = {"problem": str(bad)}
        raise refused from None
    except AlreadyExists:
        engine.stores.undo()
        refused.reason = TAKEN
        raise refused from None
    through = {"issuer": vouched.issuer, "subject": vouched.subject}
    return enter(
        engine,
        user,
        identity,
        present,
        reason=ruling.reason,
        previous_session_id=previous_session_id,
        authenticated_at=vouched.authenticated_at,
        details={THROUGH: through | ({"session": vouched.session} if vouched.session else {})},
    )


def join(engine: Engine, user: User, vouched: VouchedIdentity) -> bool:
    """Join an identity to a signed-in person who wants that; False if it was joined to them before.

    Raises:
        IdentityTaken: it is joined to another person.
    """
    joined = engine.stores.identities.find(vouched.issuer, vouched.subject)
    if joined is not None:
        if joined.user_id != user.user_id:
            raise IdentityTaken
        return False
    _join(engine, user, vouched)
    return True


def identity_handle(identity: JoinedIdentity) -> str:
    """What names it in forms and addresses, where what another server calls people does not belong."""
    return to_text(digest("joined-identity", f"{identity.issuer} {identity.subject}"))


def remove(engine: Engine, user: User, issuer: str, subject: str) -> bool:
    """Take an identity from a person, and end the sessions and access that came through it; False if it is not theirs."""
    joined = engine.stores.identities.find(issuer, subject)
    if joined is None or joined.user_id != user.user_id:
        return False
    engine.stores.identities.remove(issuer, subject)
    engine.journal.user_id = user.user_id
    engine.record(EventType.IDENTITY_REMOVED, details={"issuer": issuer})
    end_through(engine, user.user_id, issuer, REMOVED)
    return True


def _add(engine: Engine, vouched: VouchedIdentity, identity: Identity) -> User:
    """An account for somebody who was never here. Raises BadUsername, BadAttributes, AlreadyExists."""
    name = normalise_username(identity.username)
    check_username(name)
    if engine.stores.users.find_by_name(name) is not None:
        raise AlreadyExists
    user = add_user(
        engine,
        name,
        None,
        display_name=identity.display_name,
        groups=identity.groups or (),
        attributes=identity.attributes or NOTHING,
    )
    _join(engine, user, vouched)
    return user


def _join(engine: Engine, user: User, vouched: VouchedIdentity) -> None:
    engine.stores.identities.add(
        JoinedIdentity(
            issuer=vouched.issuer,
            subject=vouched.subject,
            user_id=user.user_id,
            label=shortened(vouched.label),
            joined_at=engine.now,
        )
    )
    engine.journal.user_id = user.user_id
    engine.record(EventType.IDENTITY_JOINED, details={"issuer": vouched.issuer})


def _groups(
    engine: Engine, user: User | None, groups: tuple[str, ...] | None, administering: Collection[str]
) -> tuple[str, ...] | None:
    """The groups that are kept: those that administer this server are as they were, unless they are named."""
    if groups is None:
        return None
    guarded = engine.policies.all_declared("operator_groups").keys() - set(administering)
    kept = [group for group in (user.groups if user else ()) if group in guarded]
    return tuple(dict.fromkeys((*kept, *(group for group in groups if group not in guarded))))
