"""People: the list, the page of one person, and pages that add and change people, set passwords and end access."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    AlreadyExists,
    BadAttributes,
    BadUsername,
    ChangedMeanwhile,
    ConnectedApp,
    EventFilter,
    EventType,
    OwnSession,
    add_user,
    address_of,
    change,
    connected_apps,
    disconnect,
    disconnect_plan,
    enable_user,
    end_other_sessions,
    end_session,
    is_mail_on,
    make_link,
    normalise_username,
    overview,
    own_sessions,
    send_link,
)
from authserver.api import Event, JoinedIdentity, User, end_through, identity_handle, remove_identity, to_text
from authserver.features.console.access import Role
from authserver.features.console.finding import this_person
from authserver.features.console.pages import BadInput, Page, Visit

PAGE = 50
# How many grants and consents of a person are read for the list of applications; how many sessions and events are shown.
MAXIMUM_GRANTS = 200
MAXIMUM_SESSIONS = 20
MAXIMUM_EVENTS = 10
# How far back failed sign-ins are looked for, and how many events of them are counted.
FAILURES = timedelta(days=7)
MAXIMUM_FAILURES = 100
# The choices for how long a link works; the first is the value of the settings.
LIFETIMES: Mapping[str, timedelta | None] = {
    "": None,
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
}
_LIFETIME_WORDS = {
    "15m": "15 minutes",
    "1h": "1 hour",
    "1d": "1 day",
    "7d": "7 days",
}
# How a new person gets a password.
_LINK, _MAIL, _TYPED, _NONE = "link", "mail", "password", "none"
_FACTS = ("display_name", "groups", "attributes")
_FAILED = frozenset({EventType.SIGN_IN_REFUSED, EventType.PASSWORD_REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A person of the list; `role` is the name of the role in these pages, empty for none."""

    user: User
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Sign-ins and passwords of a person that were refused recently; one event may stand for several.

    `is_whole` says whether all of that time were counted.
    """

    count: int
    is_whole: bool
    events: Sequence[Event]


# ---- the list ---------------------------------------------------------------------------------------


def show_people(visit: Visit) -> Mapping[str, Any]:
    """A page of the people whose name begins with the typed text, by name."""
    begins, disabled, after = visit.get("name"), visit.get("disabled"), visit.get("after")
    users, problem = visit.engine.stores.users, ""
    found: Sequence[User] = ()
    try:
        prefix = normalise_username(begins) if begins else ""
    except BadUsername as bad:
        problem = str(bad)
    else:
        # One person more than is shown tells whether there is another page.
        found = users.page(after=after, prefix=prefix, disabled=bool(disabled), limit=PAGE + 1)
        if begins.startswith("user_") and not after and (by_id := users.find(begins)):
            found = [by_id, *found]
    sent = {"name": begins, "disabled": disabled}
    return {
        "sent": sent,
        "rows": [Row(user=user, role=_role(visit, user)) for user in found[:PAGE]],
        "next": visit.address("admin_people", **sent, after=found[PAGE - 1].username)
        if len(found) > PAGE
        else "",
        "first": visit.address("admin_people", **sent) if after else "",
        "problem": problem,
        "status": 400 if problem else 200,
    }


# ---- one person -------------------------------------------------------------------------------------


def show_person(visit: Visit) -> Mapping[str, Any]:
    """Everything that is known about a person, with links to the possible acts."""
    user, engine = this_person(visit), visit.engine
    sessions, apps = _sessions(visit, user), connected_apps(engine, user, limit=MAXIMUM_GRANTS)
    return {
        "user": user,
        "role": _role(visit, user),
        "is_self": _is_self(visit, user),
        "mail": address_of(engine.settings, user),
        "sessions": sessions[:MAXIMUM_SESSIONS],
        "session_count": len(sessions),
        "identities": [
            (identity_handle(each), each) for each in engine.stores.identities.of_user(user.user_id)
        ],
        "apps": apps,
        "is_cut": _is_cut(apps),
        "failures": _failures(visit, user),
        "failures_since": FAILURES.days,
        "events": engine.stores.events.search(EventFilter(user_id=user.user_id), limit=MAXIMUM_EVENTS),
    }


def _is_cut(apps: Sequence[ConnectedApp]) -> bool:
    """Whether there may be more applications than were read."""
    grants = sum(len(app.grants) for app in apps)
    return max(grants, sum(app.consent is not None for app in apps)) >= MAXIMUM_GRANTS


def _sessions(visit: Visit, user: User) -> Sequence[OwnSession]:
    """The sessions of a person; if the person is the operator, the session of this browser is marked."""
    return own_sessions(visit.engine, user, visit.request.browser.session_id or "")


def _failures(visit: Visit, user: User) -> Failures:
    wanted = EventFilter(user_id=user.user_id, types=_FAILED, since=visit.engine.now - FAILURES)
    found = visit.engine.stores.events.search(wanted, limit=MAXIMUM_FAILURES)
    return Failures(
        count=sum(1 + overview.others(event.details) for event in found),
        is_whole=len(found) < MAXIMUM_FAILURES,
        events=found[:5],
    )


def _role(visit: Visit, user: User) -> str:
    role = visit.role_of(user)
    return role.name.lower() if role else ""


def _is_self(visit: Visit, user: User) -> bool:
    return user.user_id == visit.person.user_id


# ---- adding and editing -----------------------------------------------------------------------------


def show_new(visit: Visit) -> Mapping[str, Any]:
    """The form for a new person."""
    engine = visit.engine
    return {
        "ways": [
            (_LINK, "Show me a link with which they choose it"),
            *([(_MAIL, "Mail them a link with which they choose it")] if _is_mail_on(visit) else ()),
            (_TYPED, "I type it here"),
            (_NONE, "They get none, and sign in through another sign-in plugin"),
        ],
        "lifetimes": _lifetimes(engine.settings.invitation_lifetime),
        "mail_attribute": engine.settings.mail_attribute,
        "is_mail_on": _is_mail_on(visit),
        **{name: visit.get(name) for name in ("username", "way", "lifetime", *_FACTS)},
    }


def add(visit: Visit) -> Mapping[str, Any] | Response:
    """Add a person, and make the link, send it, or set the password."""
    engine, way = visit.engine, visit.get("way")
    if way not in (_LINK, _MAIL, _TYPED, _NONE):
        raise BadInput("Choose how the person gets a password.")
    password = visit.sent.get("password") if way == _TYPED else None
    if way == _TYPED and password is None:
        raise BadInput("Type a password, or choose another way to give them one.")
    if password != (visit.sent.get("repeated") if way == _TYPED else None):
        raise BadInput("The two passwords are not the same.")
    name = visit.get("username")
    try:
        user = add_user(
            engine,
            name,
            password,
            display_name=visit.get("display_name"),
            groups=_lines(visit.get("groups")),
            attributes=_attributes(visit.get("attributes")),
        )
    except AlreadyExists:
        raise BadUsername(f"There is a person with the name {name} already: choose another name") from None
    if way in (_LINK, _MAIL):
        return _give_link(visit, user, by_mail=way == _MAIL, done=f"{user.username} was added.")
    return visit.see("admin_person", done=f"{user.username} was added.", user_id=user.user_id)


def show_edit(visit: Visit) -> Mapping[str, Any]:
    """The form with the stored values of the person, or with the typed ones if they were refused."""
    user = this_person(visit)
    kept = {
        "display_name": user.display_name,
        "groups": "\n".join(user.groups),
        "attributes": "\n".join(
            f"{name}={value}" for name, values in user.attributes.items() for value in values
        ),
    }
    return {
        "user": user,
        "is_self": _is_self(visit, user),
        "seen": _seen(visit, user),
        **({name: visit.get(name) for name in _FACTS} if visit.problem else kept),
    }


def edit(visit: Visit) -> Response:
    """Replace display name, groups and attributes, unless somebody else changed them after the form was shown."""
    user = this_person(visit)
    if visit.get("seen") != _seen(visit, user):
        raise ChangedMeanwhile(
            f"Somebody else changed {user.username} after this form was shown: look at the person, and then send this again"
        )
    groups = _lines(visit.get("groups"))
    if _is_self(visit, user) and visit.role_of(replace(user, groups=tuple(groups))) != visit.role:
        raise BadInput("This would remove your own role. Ask another administrator to do it.")
    visit.check_acts_on(user)
    change(
        visit.engine,
        user,
        display_name=visit.get("display_name"),
        groups=groups,
        attributes=_attributes(visit.get("attributes")),
    )
    return visit.see("admin_person", done=f"{user.username} was changed.", user_id=user.user_id)


def _seen(visit: Visit, user: User) -> str:
    """A digest of the values of a person in the form; it changes when one of them changes."""
    kept = repr((user.user_id, user.display_name, user.groups, sorted(user.attributes.items())))
    return to_text(visit.engine.ring.mac(kept.encode(), purpose="person-as-seen"))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _attributes(text: str) -> Mapping[str, list[str]]:
    """The attributes of lines `NAME=VALUE`; a name on several lines has several values. Raises BadAttributes."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(text), 1):
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise BadAttributes(
                f"line {number} of the attributes is not NAME=VALUE, such as department=sales"
            )
        found.setdefault(name.strip(), []).append(value.strip())
    return found


# ---- passwords --------------------------------------------------------------------------------------


def show_password(visit: Visit) -> Mapping[str, Any]:
    """The form to make a link with which the person sets a password."""
    user, settings = this_person(visit), visit.engine.settings
    return {
        "user": user,
        "may": visit.may_act_on(user),
        "may_first": user.password_hash is not None or visit.may("administer"),
        "once": visit.new_once(),
        "mail": address_of(settings, user) if _is_mail_on(visit) else "",
        "lifetimes": _lifetimes(
            settings.password_link_lifetime if user.password_hash else settings.invitation_lifetime
        ),
        "lifetime": visit.get("lifetime"),
    }


def reset_password(visit: Visit) -> Mapping[str, Any] | Response:
    """Make the link, and show it to the operator once or send it by mail."""
    user = this_person(visit)
    visit.check_acts_on(user)
    if user.password_hash is None:
        # Such a person signs in by other means, such as a directory, which may give them other groups at the next sign-in.
        visit.check_may("administer")
    visit.once()
    return _give_link(visit, user, by_mail=visit.get("way") == _MAIL)


def _give_link(visit: Visit, user: User, *, by_mail: bool, done: str = "") -> Mapping[str, Any] | Response:
    lifetime = visit.get("lifetime")
    if lifetime not in LIFETIMES:
        raise BadInput("Choose how long the link works.")
    if by_mail:
        sent = send_link(visit.engine, user, LIFETIMES[lifetime])
        told = f"A mail to {sent.sent_to} has the link. It works until {_minute(sent.expires_at)} UTC."
        return visit.see("admin_person", done=f"{done} {told}".strip(), user_id=user.user_id)
    return {"user": user, "link": make_link(visit.engine, user, LIFETIMES[lifetime]), "done": done}


def _lifetimes(usual: int) -> list[tuple[str, str]]:
    """The choices for how long a link works; `usual` is the value of the settings, in seconds."""
    units = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
    length, unit = next(each for each in units if usual % each[0] == 0)
    number = usual // length
    words = f"{number} {unit}{'' if number == 1 else 's'} (the value of the settings)"
    return [("", words), *_LIFETIME_WORDS.items()]


def _is_mail_on(visit: Visit) -> bool:
    return is_mail_on(visit.engine.policies)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


# ---- what ends --------------------------------------------------------------------------------------


def show_sessions(visit: Visit) -> Mapping[str, Any]:
    """The last step before sessions end: one session, or all sessions of a person except that of this browser."""
    user, handle = this_person(visit), visit.get("session")
    theirs = _sessions(visit, user)
    wanted = [each for each in theirs if each.handle == handle] if handle else list(theirs)
    if handle and not wanted:
        raise HTTPNotFound()
    others = [each for each in wanted if handle or not each.is_this]
    return {"user": user, "session": wanted[0] if handle else None, "count": len(others), "handle": handle}


def end_sessions(visit: Visit) -> Response:
    """End one session of a person, or all except that of this browser, and go to the person's page."""
    user, handle = this_person(visit), visit.get("session")
    if handle:
        ended = int(end_session(visit.engine, user, handle))
    else:
        ended = end_other_sessions(visit.engine, user, visit.request.browser.session_id or "")
    what = "1 session" if ended == 1 else f"{ended:,} sessions"
    done = f"{what} of {user.username} ended." if ended else "There was no such session any more."
    return visit.see("admin_person", done=done, user_id=user.user_id)


def show_app(visit: Visit) -> Mapping[str, Any]:
    """The last step before a person's agreements with one application end: what ends with them."""
    user, client_id = this_person(visit), visit.get("client_id")
    client = visit.engine.find_kept_client(client_id)
    return {
        "user": user,
        "client_id": client_id,
        "client_name": client.name if client else "",
        "ends": disconnect_plan(visit.engine, user, client_id).told,
    }


def end_app(visit: Visit) -> Response:
    """End all that a person agreed to for one application, and go to the person's page."""
    user, client_id = this_person(visit), visit.get("client_id")
    told = disconnect(visit.engine, user, client_id).told
    done = f"Ended: {listed(told)}." if told else "There was nothing to end any more."
    return visit.see("admin_person", done=done, user_id=user.user_id)


def show_identity(visit: Visit) -> Mapping[str, Any]:
    """The last step before an identity is removed: what ends with it. Raises HTTPNotFound."""
    user = this_person(visit)
    joined = visit.engine.stores.identities.of_user(user.user_id)
    if (meant := _meant(visit, joined)) is None:
        raise HTTPNotFound()
    ends = end_through(visit.engine, user.user_id, meant.issuer, "", dry_run=True)
    return {
        "user": user,
        "may": visit.may_act_on(user),
        "identity": meant,
        "ends": ends.told,
        "is_last": len(joined) == 1 and user.password_hash is None,
    }


def end_identity(visit: Visit) -> Response:
    """Remove an identity of a person, and go to the person's page."""
    user = this_person(visit)
    visit.check_acts_on(user)
    meant = _meant(visit, visit.engine.stores.identities.of_user(user.user_id))
    if meant is not None and remove_identity(visit.engine, user, meant.issuer, meant.subject):
        done = f"{user.username} cannot sign in with that account at {meant.issuer} any more."
    else:
        done = "There was no such account any more."
    return visit.see("admin_person", done=done, user_id=user.user_id)


def _meant(visit: Visit, joined: Iterable[JoinedIdentity]) -> JoinedIdentity | None:
    return next((each for each in joined if identity_handle(each) == visit.get("identity")), None)


def show_enable(visit: Visit) -> Mapping[str, Any]:
    """The person to be enabled, and whether this operator may do that."""
    user = this_person(visit)
    return {"user": user, "may": visit.may_act_on(user)}


def enable(visit: Visit) -> Response:
    """Let a disabled person sign in again."""
    user = this_person(visit)
    visit.check_acts_on(user)
    ended = enable_user(visit.engine, user)
    done = f"{user.username} was not disabled." if ended is None else f"{user.username} can sign in again."
    return visit.see("admin_person", done=done, user_id=user.user_id)


def listed(told: Iterable[tuple[int, str]]) -> str:
    """The numbers of what ended in one line."""
    return ", ".join(f"{number:,} {what}" for number, what in told)


PAGES = (
    Page(
        name="admin_people", path="/admin/people", show=show_people, template="people.jinja2", entry="People"
    ),
    Page(
        name="admin_person_new",
        path="/admin/people/new",
        show=show_new,
        template="person_new.jinja2",
        role=Role.ADMINISTER,
        act=add,
        act_role=Role.ADMINISTER,
        below="admin_people",
        result="password_link.jinja2",
    ),
    Page(
        name="admin_person",
        path="/admin/people/person",
        show=show_person,
        template="person.jinja2",
        keys=("user_id",),
        below="admin_people",
    ),
    Page(
        name="admin_person_edit",
        path="/admin/people/edit",
        show=show_edit,
        template="person_edit.jinja2",
        role=Role.ADMINISTER,
        act=edit,
        act_role=Role.ADMINISTER,
        keys=("user_id",),
        below="admin_people",
    ),
    Page(
        name="admin_person_password",
        path="/admin/people/password",
        show=show_password,
        template="person_password.jinja2",
        role=Role.OPERATE,
        act=reset_password,
        keys=("user_id",),
        below="admin_people",
        result="password_link.jinja2",
    ),
    Page(
        name="admin_person_sessions",
        path="/admin/people/sessions",
        show=show_sessions,
        template="person_sessions.jinja2",
        role=Role.OPERATE,
        act=end_sessions,
        keys=("user_id", "session"),
        below="admin_people",
    ),
    Page(
        name="admin_person_app",
        path="/admin/people/application",
        show=show_app,
        template="person_app.jinja2",
        role=Role.OPERATE,
        act=end_app,
        keys=("user_id", "client_id"),
        below="admin_people",
    ),
    Page(
        name="admin_person_identity",
        path="/admin/people/identity",
        show=show_identity,
        template="person_identity.jinja2",
        role=Role.OPERATE,
        act=end_identity,
        keys=("user_id", "identity"),
        below="admin_people",
    ),
    Page(
        name="admin_person_enable",
        path="/admin/people/enable",
        show=show_enable,
        template="person_enable.jinja2",
        role=Role.OPERATE,
        act=enable,
        keys=("user_id",),
        below="admin_people",
    ),
)
