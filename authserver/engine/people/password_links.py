"""Links with which people set a password: an operator makes one, or a person who forgot the password asks for one.

A person has at most one link of an operator and one that was asked for; thus a stranger who asks for a link does not
replace that of the operator. A link works once, for a limited time, and only while the password is the one that it was
made to replace. Another password, a newer link, disabling the person, signing them out everywhere or a new group of the
person ends it; thus the holder of a link cannot get rights that the person was given later.

The secret is in the fragment of the address, which browsers do not send. Therefore no log of a server or proxy and no
Referer header has it, and a program that opens links before people do, such as a mail scanner, does not use it up.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from authserver.engine import rates
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.ending import Ended
from authserver.engine.errors import PasswordLinkRefused
from authserver.engine.letters import LetterKind, NoMail
from authserver.engine.link_records import LINK_KIND, place_of_link
from authserver.engine.people import mail
from authserver.engine.people.account import (
    end_with_password,
    new_hash,
    same_password,
)
from authserver.engine.people.login import hidden_name, password_turn
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.questions import Counted
from authserver.engine.records import EventFilter, EventType, Kept, User
from authserver.settings import MAXIMUM_LINK_LIFETIME, Secret

# The path, below the issuer, of the page that a link opens.
PAGE = "/set-password"
# The path of the page where people ask for a link by mail.
ASK_PAGE = "/forgot-password"
MINIMUM_LIFETIME = timedelta(seconds=60)
MAXIMUM_LIFETIME = timedelta(seconds=MAXIMUM_LINK_LIFETIME)
_PASSWORD_KIND = "password-of-link"


class NoLink(ValueError):
    """No link can be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordLink:
    """A link that was just made. Its address is a credential that sets the password of this user; it is not stored."""

    user: User
    address: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SentLink:
    """A link that was sent to this person by mail."""

    user: User
    sent_to: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLink:
    """A link that works now, and the person whose password it sets."""

    user: User
    expires_at: datetime


def make_link(
    engine: Engine, user: User, lifetime: timedelta | None = None, *, asked_for: bool = False
) -> PasswordLink:
    """Make a link with which this person sets a password. It replaces the previous link of the same kind.

    The present password works until the link is used.

    Args:
        lifetime: MINIMUM_LIFETIME to MAXIMUM_LIFETIME; None for the lifetime of the settings, which is longer for a first
            password.
        asked_for: whether a person (or a stranger) asked for it; else an operator makes it.

    Raises:
        NoLink: the person is disabled, the lifetime is too short or too long, or another link was made at the same time.
    """
    is_first = user.password_hash is None
    if not user.is_enabled:
        raise NoLink(f"{user.username} is disabled, so a link would not work: enable them first")
    if lifetime is None:
        settings = engine.settings
        lifetime = timedelta(
            seconds=settings.invitation_lifetime if is_first else settings.password_link_lifetime
        )
    if not MINIMUM_LIFETIME <= lifetime <= MAXIMUM_LIFETIME:
        raise NoLink(f"a link works for 60s to {MAXIMUM_LIFETIME.days}d")
    secret = digests.new_credential(digests.LINK)
    link = Kept(
        kind=LINK_KIND,
        digest=place_of_link(user.user_id, asked_for=asked_for),
        created_at=engine.now,
        expires_at=engine.now + lifetime,
        details={
            "link": digests.digest(LINK_KIND, secret).hex(),
            "password": _password_of(user),
            "groups": list(user.groups),
            "made_at": engine.now.timestamp(),
        },
    )
    _keep(engine, user, link)
    engine.journal.user_id = user.user_id
    engine.record(
        EventType.PASSWORD_LINK_MADE,
        details={"seconds": int(lifetime.total_seconds()), "first_password": is_first},
    )
    return PasswordLink(
        user=user,
        address=f"{engine.settings.issuer}{PAGE}#{user.user_id}.{secret}",
        expires_at=link.expires_at,
    )


def signs_in_elsewhere(engine: Engine, user: User) -> bool:
    """Whether, according to the events, a user without a password here has signed in by other means, such as a directory.

    The directory may name other groups at the next sign-in, so a first password here may lead to a higher role.
    """
    if user.password_hash is not None:
        return False
    wanted = EventFilter(user_id=user.user_id, types=frozenset({EventType.SIGNED_IN}))
    return bool(engine.stores.events.search(wanted, limit=1))


def send_link(
    engine: Engine, user: User, lifetime: timedelta | None = None, *, asked_for: bool = False
) -> SentLink:
    """Make a link as `make_link` does, and send it to the mail address of the person; no operator sees it.

    Raises:
        NoLink: as `make_link`.
        NoMail: no plugin sends mail, or the person has no address.
    """
    mail.check_address(engine, user)
    link = make_link(engine, user, lifetime, asked_for=asked_for)
    kind = LetterKind.FIRST_PASSWORD if user.password_hash is None else LetterKind.NEW_PASSWORD
    address = mail.write(engine, user, kind, link=link.address, until=link.expires_at)
    return SentLink(user=user, sent_to=address, expires_at=link.expires_at)


def ask_for_link(engine: Engine, username: str) -> str:
    """Count a request of a person who forgot a password. No user is looked up, so every name takes the same time.

    Returns:
        the name for `answer_forgotten`, which is called later; "" for a text that cannot be a user name.

    Raises:
        TooManyRequests: too many for this name, or from this network, whether or not the name exists.
    """
    try:
        name = normalise_username(username)
    except BadUsername:
        name = ""
    rates.claim(engine, Counted.FORGOTTEN_PASSWORD, account=hidden_name(engine, name))
    return name


def answer_forgotten(engine: Engine, username: str) -> None:
    """Send a link to the user of this name, if that user exists and has a password here and a mail address.

    A user without a password here signs in by other means, which a password must not bypass.
    """
    user = engine.stores.users.find_by_name(username)
    if user is None:
        return
    if not user.is_enabled:
        reason = "user-disabled"
    elif user.password_hash is None:
        reason = "no-password-here"
    else:
        try:
            send_link(engine, user, asked_for=True)
        except NoMail:
            reason = "no-mail-address"
        except NoLink:
            # Another link was sent at the same moment.
            return
        else:
            return
    engine.journal.user_id = user.user_id
    engine.record(EventType.PASSWORD_REFUSED, reason=reason)


def open_link(engine: Engine, presented: str) -> OpenedLink:
    """The user whose password a link sets; the link is not used up.

    Args:
        presented: the address of the link, or the fragment of the address.

    Raises:
        PasswordLinkRefused: the link does not work, or is unknown.
        TooManyRequests: too many links that did not work were tried.
    """
    _link, user, expires_at = _found(engine, presented)
    return OpenedLink(user=user, expires_at=expires_at)


def use_link(engine: Engine, presented: str, *, new: Secret, repeated: Secret) -> Ended:
    """Set the password of the person of a link. All their sessions, grants and remembered consents end (I-14).

    It signs nobody in: the sign-in that follows asks the policies, as every sign-in does.

    Raises:
        PasswordRefused: the password cannot be used; the link still works.
        PasswordLinkRefused, TooManyRequests: as `open_link`.
        TooBusy: too many passwords are hashed at this moment.
    """
    link, user, _expires_at = _found(engine, presented)
    engine.journal.actor = f"user:{user.user_id}"
    if user.password_hash is not None:
        with password_turn(engine):
            if digests.verify_password(new.value, user.password_hash):
                raise same_password()
    password_hash = new_hash(engine, new, repeated)
    users = engine.stores.users
    # The link is locked first: of two uses at the same time one waits here, and not for the row of the user.
    if not engine.stores.kept.claim(link, engine.now):
        raise PasswordLinkRefused(reason="link-used")
    is_same = user.password_hash is not None or users.hold(user)
    if not is_same or not users.set_password(user.user_id, password_hash, instead_of=user.password_hash):
        raise PasswordLinkRefused(reason="link-password-changed")
    # A transaction that changes the user's groups or disables the user either came first or waits for this write.
    if reason := _problem_of_person(link, users.find(user.user_id)):
        raise PasswordLinkRefused(reason=reason)
    engine.record(EventType.PASSWORD_LINK_USED)
    return end_with_password(engine, user)


def _keep(engine: Engine, user: User, link: Kept) -> None:
    """Store a link in place of the previous one. Raises NoLink."""
    kept = engine.stores.kept
    if kept.add_once(link):
        return
    before = kept.find(link.kind, link.digest)
    if before is None or not kept.change(before, replace(link, created_at=before.created_at)):
        raise NoLink(f"another link was made for {user.username} at this moment; try again")


def _found(engine: Engine, presented: str) -> tuple[Kept, User, datetime]:
    """The presented link, its user and its end. Raises PasswordLinkRefused, TooManyRequests."""
    claimed = rates.claim(engine, Counted.PASSWORD_LINK)
    user_id, _, secret = presented.rpartition("#")[2].strip().rpartition(".")
    if not digests.well_formed(digests.LINK, secret):
        raise PasswordLinkRefused(reason="link-malformed")
    digest = digests.digest(LINK_KIND, secret).hex()
    places = (place_of_link(user_id, asked_for=asked_for) for asked_for in (False, True))
    kept = (engine.stores.kept.find(LINK_KIND, place) for place in places)
    link = next((each for each in kept if each and digests.equal(each.details["link"], digest)), None)
    if link is None:
        # It never existed, or a newer link has replaced it.
        raise PasswordLinkRefused(reason="link-unknown")
    engine.journal.user_id = user_id
    user = engine.stores.users.find(user_id)
    if reason := _problem(engine, link, user):
        raise PasswordLinkRefused(reason=reason)
    assert user is not None
    rates.give_back(engine, claimed)
    return link, user, link.expires_at


def _problem(engine: Engine, link: Kept, user: User | None) -> str:
    """Why a link does not work; "" if it does."""
    made_at = datetime.fromtimestamp(link.details["made_at"], UTC)
    if link.claimed_at is not None:
        return "link-used"
    if engine.restored_at is not None and made_at < engine.restored_at:
        # It may have been used after the backup was made (T149).
        return "link-before-restore"
    if reason := _problem_of_person(link, user):
        return reason
    if link.expires_at <= engine.now:
        return "link-expired"
    assert user is not None
    return "" if digests.equal(link.details["password"], _password_of(user)) else "link-password-changed"


def _problem_of_person(link: Kept, user: User | None) -> str:
    """Why a link does not work for this person in their present state, apart from the password; "" if it does."""
    if user is None or not user.is_enabled:
        return "user-disabled"
    gained = set(user.groups) - set(link.details.get("groups", ()))
    return "link-groups-changed" if gained else ""


def _password_of(user: User) -> str:
    """A digest of the password's hash: it changes with the password, and the password cannot be computed from it."""
    return digests.digest(_PASSWORD_KIND, user.password_hash or "").hex()
