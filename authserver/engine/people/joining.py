"""People who sign in through another server: which account here belongs to an account there, and how that ends.

An account is found by the issuer and the subject of the other server (`iss` and `sub`), and by nothing else: user names
and mail addresses pass from one person to another, and a person may be able to choose them (OIDC Core, 5.7).
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

# The longest `sub` that is accepted; a server may make none that is longer (OIDC Core, 2).
MAXIMUM_SUBJECT = 255
# The reasons for which sign-in is refused and the page says more than that.
UNKNOWN, TAKEN, UNUSABLE = "identity-unknown", "identity-name-taken", "identity-unusable"
DISABLED = "user-disabled"
# The reason with which sessions and grants end when an identity is removed from a person.
REMOVED = "identity-removed"


class IdentityTaken(Exception):
    """The identity is joined to another person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchedIdentity:
    """The verified statement of another server about a person.

    Attributes:
        provider: the name of that server in the settings.
        issuer, subject: its `iss` and `sub`, which never change.
        label: the present name of the person there, for people to read.
        session: the id of the person's session there (`sid`); "" if it is not stated.
        claims: all claims about the person.
        authenticated_at: when the person authenticated there; None for just now.
    """

    provider: str
    issuer: str
    subject: str
    label: str = field(default="", repr=False)
    session: str = ""
    claims: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    authenticated_at: datetime | None = None


def joined_user(engine: Engine, vouched: VouchedIdentity) -> User | None:
    """The person to whom this identity is joined."""
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
    """Begin a session of the person whom another server has authenticated, with a new id (E-17).

    Args:
        user: the person to whom the identity is joined (`joined_user`).
        adds_people: whether a person who has no account here gets one.
        administering: the groups with the right to administer this server that the other server may give and take away.

    Raises:
        SignInRefused: no policy recognises the person, or a policy refuses; no account is joined, the user name belongs to
            another person, groups or attributes cannot be stored, or the person is disabled.
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
        # Not an error of this server: the other server may state anything about a person.
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
    """Join an identity to a signed-in person who asks for it; False if it was joined to them before.

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
    """The value that names an identity in forms and addresses, so that the subject of another server is in neither."""
    return to_text(digest("joined-identity", f"{identity.issuer} {identity.subject}"))


def remove(engine: Engine, user: User, issuer: str, subject: str) -> bool:
    """Remove an identity from a person, and end the sessions and grants that came through it; False if it is not theirs."""
    joined = engine.stores.identities.find(issuer, subject)
    if joined is None or joined.user_id != user.user_id:
        return False
    engine.stores.identities.remove(issuer, subject)
    engine.journal.user_id = user.user_id
    engine.record(EventType.IDENTITY_REMOVED, details={"issuer": issuer})
    end_through(engine, user.user_id, issuer, REMOVED)
    return True


def _add(engine: Engine, vouched: VouchedIdentity, identity: Identity) -> User:
    """A new account for a person who has none here. Raises BadUsername, BadAttributes, AlreadyExists."""
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
    """The groups to store; groups that administer this server do not change, unless they are listed."""
    if groups is None:
        return None
    guarded = engine.policies.all_declared("operator_groups").keys() - set(administering)
    kept = [group for group in (user.groups if user else ()) if group in guarded]
    return tuple(dict.fromkeys((*kept, *(group for group in groups if group not in guarded))))
