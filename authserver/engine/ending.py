"""End everything of a user, client, resource, scope or issuer in one act, and count what ended (L-08).

A large act works in batches, each in a separate transaction. The first one disables or removes the subject, so from its
commit on nothing new is issued. Requests that are issuing at that moment hold the subject (`tokens.issuing`), so the
act waits for them and then finds what they issued. An act can be run again after an interruption.

A JWT is not stored, so it cannot be revoked. Introspection answers that it is not valid any more; an API that verifies
it alone accepts it until it expires.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import monotonic
from typing import Any, TypeVar

from authserver.engine import issuer_registry, uris
from authserver.engine.context import Begin, Engine
from authserver.engine.crypto.digests import new_identifier
from authserver.engine.link_records import end_links
from authserver.engine.ports import Stores
from authserver.engine.records import (
    ENDED_SESSIONS,
    NOTHING,
    THROUGH,
    VOUCHED_BY,
    Client,
    Consent,
    Event,
    EventFilter,
    EventType,
    Grant,
    GrantFilter,
    Resource,
    Session,
    Token,
    TokenKind,
    User,
)
from authserver.engine.resource_registry import TokenForm, described
from authserver.engine.session_handles import session_handle
from authserver.settings import AccessTokenFormat

# At most this many grants, consents or clients are changed in one transaction, so that no transaction takes long.
BATCH = 1000
# Events are read to count the valid JWTs; on a busy server at most this many events are read.
MAXIMUM_EVENTS = 10_000
# The reasons for the end of a grant, as the grant and the event have them.
ENDED = "ended-by-operator"
SIGNED_OUT_EVERYWHERE = "signed-out-everywhere"
# The reason for the end of a session that timed out.
TIMED_OUT = "timed-out"
# Before everything that is stored.
LONG_AGO = datetime.fromtimestamp(0, UTC)

_Narrowed = TypeVar("_Narrowed", Grant, Consent)


class SubjectKind(StrEnum):
    """The kinds of subjects whose access can be ended."""

    USER = "user"
    CLIENT = "client"
    RESOURCE = "resource"
    SCOPE = "scope"
    ISSUER = "issuer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The user, client, resource, scope or issuer that an act is about.

    Attributes:
        identifier: the id of a user or client, the canonical form of a resource, the name of a scope, or what an issuer of
            assertions calls itself in `iss`.
        name: its name for people.
    """

    kind: SubjectKind
    identifier: str
    name: str

    @classmethod
    def user(cls, user: User) -> Subject:
        """The subject that is this user."""
        return cls(kind=SubjectKind.USER, identifier=user.user_id, name=user.username)

    @classmethod
    def client(cls, client_id: str) -> Subject:
        """The subject that is the client of this id; the id is its name, too."""
        return cls(kind=SubjectKind.CLIENT, identifier=client_id, name=client_id)

    @classmethod
    def resource(cls, form: str, uri: str) -> Subject:
        """The subject that is the resource of this canonical form; the name is its URI as it is written."""
        return cls(kind=SubjectKind.RESOURCE, identifier=form, name=uri)

    @classmethod
    def scope(cls, scope: str) -> Subject:
        """The subject that is this scope."""
        return cls(kind=SubjectKind.SCOPE, identifier=scope, name=scope)

    @classmethod
    def issuer(cls, issuer: str) -> Subject:
        """The subject that is an issuer of assertions, by what it calls itself in `iss`."""
        return cls(kind=SubjectKind.ISSUER, identifier=issuer, name=issuer)

    @property
    def owns_grants(self) -> bool:
        """Whether grants belong to it, so that an index finds them; for other subjects all grants are searched."""
        return self.kind in (SubjectKind.USER, SubjectKind.CLIENT)

    def without(self, record: _Narrowed) -> _Narrowed | None:
        """The grant or consent without this subject; unchanged if the subject is not in it, None if nothing is left."""
        match self.kind:
            case SubjectKind.RESOURCE:
                resources = tuple(each for each in record.resources if not self.is_resource(each))
                if len(resources) == len(record.resources):
                    return record
                return replace(record, resources=resources) if resources else None
            case SubjectKind.SCOPE:
                return _without_scope(record, self.identifier)
            case SubjectKind.ISSUER:
                details = record.details if isinstance(record, Grant) else NOTHING
                is_theirs = self.identifier in (details.get(VOUCHED_BY), details.get(THROUGH))
                return None if is_theirs else record
            case _:
                own = record.user_id if self.kind is SubjectKind.USER else record.client_id
                return None if own == self.identifier else record

    def is_resource(self, resource: str) -> bool:
        """Whether the subject is this resource, in any spelling of its URI."""
        return uris.resource_form(resource) == self.identifier

    def is_named_by(self, token: Token) -> bool:
        """Whether an access token of a grant that is narrowed ends, because it is for the resource or has the scope."""
        if self.kind is SubjectKind.SCOPE:
            return self.identifier in token.scopes
        return any(map(self.is_resource, token.resources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How much ended, or would end.

    Attributes:
        sessions: of the browsers in which a user is signed in.
        password_links: the links with which the user could set a password.
        grants: the grants that ended, with all their codes and tokens.
        narrowed_grants: the grants that continue with other resources or scopes.
        codes, refresh_tokens: those of the ended grants that could still be used.
        access_tokens: the opaque ones; they are not valid from now on.
        jwts: the JWTs that were issued so recently that they are still valid under the present settings.
        consents: the consents that are deleted, so that the person is asked again.
        narrowed_consents: the consents that continue for other resources or scopes.
        registrations: the clients that were registered for the scope, and are not any more.
        jwts_until: when the last JWT expires at the latest, by the present settings; None if there is none.
        has_more_jwts: whether there may be more JWTs than were counted.
        session_handles: the names of the sessions outside of this server.
    """

    sessions: int = 0
    password_links: int = 0
    grants: int = 0
    narrowed_grants: int = 0
    codes: int = 0
    refresh_tokens: int = 0
    access_tokens: int = 0
    jwts: int = 0
    consents: int = 0
    narrowed_consents: int = 0
    registrations: int = 0
    jwts_until: datetime | None = None
    has_more_jwts: bool = False
    session_handles: tuple[str, ...] = ()

    def __add__(self, other: Ended) -> Ended:
        return Ended(
            **{name: number + getattr(other, name) for name, number in self.counts.items()},
            jwts_until=max(filter(None, (self.jwts_until, other.jwts_until)), default=None),
            has_more_jwts=self.has_more_jwts or other.has_more_jwts,
            session_handles=self.session_handles + other.session_handles,
        )

    def __bool__(self) -> bool:
        """Whether anything ended; JWTs do not."""
        return any(number for name, number in self.counts.items() if name != "jwts")

    @property
    def counts(self) -> dict[str, int]:
        """The numbers by their names."""
        return {name: getattr(self, name) for name in _NUMBERS}

    @property
    def told(self) -> tuple[tuple[int, str], ...]:
        """What ended, for people: each number that is not zero, with the name of what it counts. JWTs do not end."""
        return tuple(
            (number, _WORDS[name][number != 1])
            for name, number in self.counts.items()
            if number and name in _WORDS
        )


# The names of the numbers, for one and for several.
_WORDS = {
    "sessions": ("session", "sessions"),
    "password_links": ("password link", "password links"),
    "grants": ("grant", "grants"),
    "narrowed_grants": ("narrowed grant", "narrowed grants"),
    "codes": ("code", "codes"),
    "refresh_tokens": ("refresh token", "refresh tokens"),
    "access_tokens": ("access token", "access tokens"),
    "consents": ("remembered consent", "remembered consents"),
    "narrowed_consents": ("narrowed consent", "narrowed consents"),
    "registrations": ("registration", "registrations"),
}
_NUMBERS = tuple(item.name for item in fields(Ended) if item.type == "int")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is to end.

    Attributes:
        for_good: disable the user, client or issuer, or remove the resource, first. Without it, a new grant can be made
            at once.
        registrations: also remove a scope from the clients that are registered for it.
        because: the reason in the grants and the event; empty: the reason that follows from `subject` and `for_good`.
        event: the type of the event; None: the type that follows from `subject` and `for_good`.
        noted: further details of that event.

    Raises:
        ValueError: `for_good` of a scope, or `registrations` of another subject.
    """

    subject: Subject
    for_good: bool = False
    registrations: bool = False
    because: str = ""
    event: EventType | None = None
    noted: Mapping[str, object] = field(default_factory=lambda: NOTHING)

    def __post_init__(self) -> None:
        kind = self.subject.kind
        if self.for_good and kind is SubjectKind.SCOPE:
            raise ValueError("a scope is not disabled")
        if self.registrations and kind is not SubjectKind.SCOPE:
            raise ValueError(f"no client is registered for a {kind}")

    @property
    def reason(self) -> str:
        """The reason that ended grants have: `because`, or else the one that follows from `subject` and `for_good`."""
        kind = self.subject.kind
        if self.because or not self.for_good:
            return self.because or (SIGNED_OUT_EVERYWHERE if kind is SubjectKind.USER else ENDED)
        return reason_for_good(kind)


def reason_for_good(kind: SubjectKind) -> str:
    """The reason of grants that end because their client is disabled, or their resource or scope is removed."""
    return f"{kind}-{'removed' if kind in (SubjectKind.RESOURCE, SubjectKind.SCOPE) else 'disabled'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The progress of an act: the next step, and the place where that step continues. The first stage has neither.

    `after` is None, a text, or several; a time among them is in ISO 8601. So it can be stored as JSON.
    """

    step: int = 0
    after: str | tuple[str, ...] | None = None

    @property
    def is_first(self) -> bool:
        """Whether the act has not begun."""
        return self == Stage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What ended in a part of an act, and the stage where the act continues; None at its end."""

    ended: Ended = Ended()
    next: Stage | None = None


def plan(begin: Begin, act: Act) -> Generator[Ended]:
    """Count what would end, a batch in each transaction; nothing changes."""
    for part in _work(begin, act, Stage(), dry_run=True):
        yield part.ended


def end(begin: Begin, act: Act) -> Generator[Ended]:
    """End it, a batch in each transaction. Yields what ended in each.

    The event of disabling or removing is written at once; for a user it contains what ended in the first batch. The
    rest is in one event at the end, also if the work is interrupted.
    """
    for part in _end(begin, act, Stage()):
        yield part.ended


def plan_part(begin: Begin, act: Act, stage: Stage, *, seconds: float, batches: int = 1) -> Part:
    """Count what would end, for about `seconds` seconds and at least `batches` batches."""
    return _part(_work(begin, act, stage, dry_run=True), seconds, batches)


def end_part(begin: Begin, act: Act, stage: Stage, *, seconds: float, batches: int = 1) -> Part:
    """End it, for about `seconds` seconds and at least `batches` batches.

    Each part writes the events of `end`.
    """
    return _part(_end(begin, act, stage), seconds, batches)


def _part(found: Generator[Part], seconds: float, batches: int) -> Part:
    ended, until = Ended(), monotonic() + seconds
    with closing(found):
        for number, part in enumerate(found, start=1):
            ended += part.ended
            if number >= batches and monotonic() >= until:
                return Part(ended=ended, next=part.next)
    return Part(ended=ended)


def _end(begin: Begin, act: Act, stage: Stage) -> Generator[Part]:
    rest, is_told = Ended(), act.subject.kind is SubjectKind.USER and stage.is_first
    try:
        for part in _work(begin, act, stage, dry_run=False):
            rest += Ended() if is_told else part.ended
            is_told = False
            yield part
    finally:
        if rest:
            with begin() as engine:
                _record(engine, act, rest, None)


def take_away(engine: Engine, subject: Subject) -> bool:
    """Disable the client or remove the resource in the transaction of this engine; False if that was done before.

    For work that disables or removes several of them together. Call `end` for each afterwards: it ends what was
    granted.
    """
    act = Act(subject=subject, for_good=True)
    ended, is_gone, was = _first(engine, act, dry_run=False)
    if is_gone:
        _record(engine, act, ended, _act_event(act), was)
    return is_gone


def end_at_once(engine: Engine, act: Act) -> Ended:
    """End it in the transaction of this engine, and return what ended. For small acts, or atomic ones."""
    return sum(end(lambda: nullcontext(engine), act), Ended())


def told_sessions(engine: Engine, user_id: str) -> Sequence[Session]:
    """The sessions of a user to record as ended: the live ones, and those that timed out if applications are told."""
    if engine.settings.session_timeout_delay:
        return engine.stores.sessions.list(user_id, LONG_AGO, LONG_AGO)
    since = engine.now - timedelta(seconds=engine.settings.session_idle_lifetime)
    return engine.stores.sessions.list(user_id, engine.now, since)


def record_timed_out(stores: Stores, sessions: Iterable[Session], now: datetime) -> None:
    """Record, in the transaction that deletes them, that these sessions timed out, so that applications are told."""
    handles: dict[str, list[str]] = {}
    for session in sessions:
        handles.setdefault(session.user_id, []).append(session_handle(session))
    for user_id, ended in handles.items():
        stores.events.add(
            Event(
                event_id=new_identifier(),
                type=EventType.SESSION_ENDED,
                at=now,
                actor="server",
                user_id=user_id,
                reason=TIMED_OUT,
                details={"sessions": len(ended), ENDED_SESSIONS: ended},
            )
        )


def end_through(
    engine: Engine,
    user_id: str,
    issuer: str,
    because: str,
    *,
    access: bool = True,
    session: str | None = None,
    dry_run: bool = False,
) -> Ended:
    """End the sessions and grants of a person who had signed in through another server.

    Args:
        issuer: that server.
        access: whether the grants that they gave in such sessions end too, however old these are.
        session: the id of one session at that server; only the sessions here that came from it end. None: all.
        dry_run: only count.
    """
    stores = engine.stores
    since = engine.now - timedelta(seconds=engine.settings.session_idle_lifetime)
    sessions = [
        each
        for each in stores.sessions.list(user_id, engine.now, since)
        if (through := each.details.get(THROUGH)) is not None
        and through["issuer"] == issuer
        and session in (None, through.get("session"))
    ]
    # First the sessions: this waits while an answer to a consent page is being stored, so the grant is found below.
    for each in () if dry_run else sessions:
        stores.sessions.end(each.digest)
    grants = list(_grants_through(engine, user_id, issuer)) if access else []
    ended = Ended(
        sessions=len(sessions),
        grants=stores.grants.revoke_some(grants, engine.now, because)
        if grants and not dry_run
        else len(grants),
        session_handles=tuple(map(session_handle, sessions)),
    )
    if ended and not dry_run:
        engine.journal.user_id = user_id
        details: dict[str, object] = {**ended.counts, SubjectKind.ISSUER: issuer}
        if sessions:
            details[ENDED_SESSIONS] = list(ended.session_handles)
        engine.record(_end_event(ended), reason=because, details=details)
    return ended


def _grants_through(engine: Engine, user_id: str, issuer: str) -> Iterator[str]:
    """The ids of the live grants that this person agreed to after they had signed in through this server."""
    place, wanted = None, GrantFilter(user_id=user_id, live_at=engine.now)
    while page := engine.stores.grants.search(wanted, after=place, limit=BATCH):
        yield from (grant.grant_id for grant in page if grant.details.get(THROUGH) == issuer)
        place = (page[-1].created_at, page[-1].grant_id)


def longest_jwt(engine: Engine, subject: Subject, resource: Resource | None = None) -> timedelta | None:
    """How long a JWT of the subject can be valid under the present settings; None if it has none.

    Args:
        resource: the resource, if it is the subject and is known.
    """
    settings = engine.settings
    token_format = (resource and resource.token_format) or settings.access_token_format
    lifetime = (resource and resource.token_lifetime) or settings.access_token_lifetime
    general = [(token_format, lifetime)]
    if subject.kind is not SubjectKind.RESOURCE:
        general += [
            (each.token_format or token_format, each.token_lifetime or lifetime)
            for each in engine.resources.all()
        ]
    usual = TokenForm()
    if subject.kind is SubjectKind.CLIENT:
        forms = [engine.client_forms.get(subject.identifier, usual)]
    else:
        forms = [usual, *engine.client_forms.values()]
    jwts = [
        form.token_lifetime or seconds
        for form in forms
        for kind, seconds in general
        if (form.token_format or kind) is AccessTokenFormat.JWT
    ]
    return timedelta(seconds=max(jwts)) if jwts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What ended in one page, how many records the page has, and where the next one begins; None after the last page."""

    ended: Ended = Ended()
    size: int = 0
    next: str | tuple[str, ...] | None = None


def _work(begin: Begin, act: Act, stage: Stage, *, dry_run: bool) -> Generator[Part]:
    """The first step, and then pages of grants, of consents and of clients."""
    steps = [_grants, _consents, _registrations]
    if act.for_good and act.subject.kind is not SubjectKind.USER:
        # A token request locks its grant before its client. Therefore a transaction that disables a client must not
        # lock grants.
        steps.insert(0, _no_page)
    if act.subject.kind is SubjectKind.ISSUER:
        steps.insert(0, _sessions)
    while stage.step < len(steps):
        is_first = stage.is_first
        with begin() as engine:
            ended, is_gone, was = (
                _first(engine, act, dry_run=dry_run) if is_first else (Ended(), False, NOTHING)
            )
            page = steps[stage.step](engine, act, stage.after, dry_run=dry_run)
            ended += page.ended
            is_theirs = act.subject.kind is SubjectKind.USER and bool(ended or act.event)
            if is_first and not dry_run and (is_gone or is_theirs):
                _record(engine, act, ended, _act_event(act) if is_gone or not act.for_good else None, was)
        stage = Stage(step=stage.step + (page.next is None), after=page.next)
        if is_first or page.size:
            yield Part(ended=ended, next=stage if stage.step < len(steps) else None)


def _sessions(engine: Engine, act: Act, after: Any, *, dry_run: bool) -> _Page:
    """A page of the people of an issuer: their sessions that came through it end."""
    subject = act.subject
    found = engine.stores.identities.page(subject.identifier, after=after or "", limit=BATCH)
    ended = Ended()
    for identity in found:
        # Each person has a separate event, from which applications are told.
        theirs = end_through(
            engine, identity.user_id, subject.identifier, act.reason, access=False, dry_run=dry_run
        )
        ended += Ended(sessions=theirs.sessions)
    engine.journal.user_id = None
    return _Page(ended=ended, size=len(found), next=found[-1].subject if len(found) == BATCH else None)


def _no_page(engine: Engine, act: Act, after: Any, *, dry_run: bool) -> _Page:
    return _Page()


def _first(engine: Engine, act: Act, *, dry_run: bool) -> tuple[Ended, bool, Mapping[str, object]]:
    """The work that is done once, before the first grant. From here on nothing new is issued, or not in these sessions.

    Returns:
        what ended, whether the subject was disabled or removed just now, and the members that it had, for the event.
    """
    subject, stores = act.subject, engine.stores
    # Looked up before it is removed: its JWTs are counted by its format and lifetime.
    resource = engine.resources.find(subject.identifier) if subject.kind is SubjectKind.RESOURCE else None
    sessions: Sequence[Session] = ()
    told: Sequence[Session] = ()
    consents = links = 0
    if subject.kind is SubjectKind.USER and act.event is None:
        # An act with an event of its own is part of other work: a new password, which makes links useless, or enabling.
        links = end_links(engine, subject.identifier, dry_run=dry_run)
    is_gone = act.for_good and not dry_run and _take_away(engine, subject)
    if subject.kind is SubjectKind.USER:
        # First the sessions, and then the consents: this waits while an answer to a consent page is being stored, so
        # that consent is deleted, too.
        since = engine.now - timedelta(seconds=engine.settings.session_idle_lifetime)
        told = told_sessions(engine, subject.identifier)
        sessions = [each for each in told if each.expires_at > engine.now and each.last_seen_at >= since]
        if not dry_run:
            stores.sessions.end_all(subject.identifier)
        consents = (
            stores.consents.count(user_id=subject.identifier)
            if dry_run
            else stores.consents.forget(subject.identifier)
        )
    ended = Ended(
        sessions=len(sessions),
        password_links=links,
        consents=consents,
        session_handles=tuple(map(session_handle, told)),
    ) + _jwts(engine, subject, resource)
    return ended, is_gone, described(resource) if is_gone and resource else NOTHING


def _take_away(engine: Engine, subject: Subject) -> bool:
    stores = engine.stores
    match subject.kind:
        case SubjectKind.USER:
            return stores.users.disable(subject.identifier, engine.now)
        case SubjectKind.CLIENT:
            return stores.clients.disable(subject.identifier, engine.now)
        case SubjectKind.RESOURCE:
            is_gone = stores.resources.remove(subject.identifier)
            engine.resources.look_again()
            return is_gone
        case SubjectKind.ISSUER:
            return _disable_issuer(engine, subject.identifier)
        case _:
            return False


def _disable_issuer(engine: Engine, issuer: str) -> bool:
    """Accept nothing of this issuer any more; False if it was disabled before, or only the INI names it."""
    found = issuer_registry.hold(engine, issuer)
    if found is None or not found.is_stored or not found.is_enabled:
        return False
    disabled = issuer_registry.as_setting(replace(found, is_enabled=False), engine.now)
    engine.stores.stored_settings.keep(disabled)
    return True


def _grants(engine: Engine, act: Act, after: Any, *, dry_run: bool) -> _Page:
    """A page of grants: the subject's own, or the next ones of all grants."""
    subject, stores = act.subject, engine.stores
    found: Sequence[Grant]
    if subject.owns_grants:
        is_user = subject.kind is SubjectKind.USER
        wanted = GrantFilter(
            user_id=subject.identifier if is_user else None,
            client_id=None if is_user else subject.identifier,
            live_at=engine.now,
        )
        place = (datetime.fromisoformat(after[0]), after[1]) if after else None
        found = stores.grants.search(wanted, after=place, limit=BATCH)
        last: Any = (found[-1].created_at.isoformat(), found[-1].grant_id) if found else None
    else:
        found = stores.grants.page(after=after or "", limit=BATCH)
        last = found[-1].grant_id if found else None
    ended = _end_grants(engine, act, [each for each in found if _is_live(engine, each)], dry_run=dry_run)
    return _Page(ended=ended, size=len(found), next=last if len(found) == BATCH else None)


def _end_grants(engine: Engine, act: Act, found: Sequence[Grant], *, dry_run: bool) -> Ended:
    """End or narrow these live grants, as far as they involve the subject."""
    subject, stores = act.subject, engine.stores
    without = {grant.grant_id: subject.without(grant) for grant in found}
    whole = [grant for grant in found if without[grant.grant_id] is None]
    partly = [grant for grant in found if without[grant.grant_id] not in (None, grant)]
    ids = [grant.grant_id for grant in whole]
    # Grants that were derived from them end with them, even if the subject is not in these. All grants that were
    # derived from a user's grants are of the same user.
    derives = bool(ids) and subject.kind is not SubjectKind.USER
    along = [
        each.grant_id
        for each in (stores.grants.derived(ids, engine.now) if derives else ())
        if each.grant_id not in without and subject.without(each) is not None
    ]
    # Counted before they end: afterwards none of their codes and tokens is live.
    live = stores.tokens.count_live([*ids, *along], engine.now) if ids else {}
    grants = len(ids) + len(along)
    if ids and not dry_run:
        grants = stores.grants.revoke_some(ids, engine.now, act.reason) + len(along)
    # Tokens of narrowed grants end if they are for the resource or have the scope.
    kept = stores.tokens.access_tokens([grant.grant_id for grant in partly], engine.now) if partly else ()
    parts = sum(
        (Ended(narrowed_grants=1) if dry_run else _narrow(engine, act, grant) for grant in partly), Ended()
    )
    ended = Ended(
        grants=grants,
        codes=live.get(TokenKind.CODE, 0),
        refresh_tokens=live.get(TokenKind.REFRESH, 0),
        access_tokens=live.get(TokenKind.ACCESS, 0) + sum(map(subject.is_named_by, kept)),
    )
    return ended + parts + (_vouched(engine, whole) if subject.kind is SubjectKind.ISSUER else Ended())


def _narrow(engine: Engine, act: Act, grant: Grant) -> Ended:
    """Remove the subject from a grant that has another resource or scope, too."""
    left = act.subject.without(grant)
    if left is None:
        return Ended(grants=engine.stores.grants.revoke(grant.grant_id, engine.now, act.reason))
    if left == grant:
        return Ended()
    if engine.stores.grants.narrow(grant, left):
        return Ended(narrowed_grants=1)
    # It was changed meanwhile.
    again = engine.stores.grants.find(grant.grant_id)
    if again is None or again == grant or again.revoked_at is not None:
        return Ended()
    return _narrow(engine, act, again)


def _consents(engine: Engine, act: Act, after: Any, *, dry_run: bool) -> _Page:
    """A page of consents: those to the client, or the next ones of all. Those of a user were deleted in the first step."""
    subject, consents = act.subject, engine.stores.consents
    if subject.kind is SubjectKind.CLIENT:
        if dry_run:
            counted = consents.count(client_id=subject.identifier)
            return _Page(ended=Ended(consents=counted), size=counted, next=None)
        forgotten = consents.forget_some(BATCH, client_id=subject.identifier)
        is_last = forgotten < BATCH
        return _Page(ended=Ended(consents=forgotten), size=forgotten, next=None if is_last else "")
    if subject.kind not in (SubjectKind.RESOURCE, SubjectKind.SCOPE):
        return _Page()
    found = consents.page(after=after or ("", ""), limit=BATCH)
    changed = [
        left
        for consent in found
        if (left := subject.without(consent)) != consent
        and (dry_run or _narrow_consent(engine, subject, consent))
    ]
    narrowed = sum(left is not None for left in changed)
    last = (found[-1].user_id, found[-1].client_id) if len(found) == BATCH else None
    return _Page(
        ended=Ended(consents=len(changed) - narrowed, narrowed_consents=narrowed),
        size=len(found),
        next=last,
    )


def _narrow_consent(engine: Engine, subject: Subject, consent: Consent) -> bool:
    """Remove the subject from a consent; False if the consent was changed meanwhile."""
    consents = engine.stores.consents
    if consents.narrow(consent, subject.without(consent)):
        return True
    # The user agreed again meanwhile, perhaps just before the subject was disabled.
    again = consents.find(consent.user_id, consent.client_id)
    return again is not None and (left := subject.without(again)) != again and consents.narrow(again, left)


def _registrations(engine: Engine, act: Act, after: Any, *, dry_run: bool) -> _Page:
    """A page of clients: those that are registered for the scope lose it."""
    subject, clients = act.subject, engine.stores.clients
    if subject.kind is not SubjectKind.SCOPE or not act.registrations:
        return _Page()
    found = clients.page(engine.now, after=after or "", limit=BATCH)
    changed = [
        client
        for client in found
        if subject.identifier in client.scopes and (dry_run or _take_scope(engine, client, subject))
    ]
    last = found[-1].client_id if len(found) == BATCH else None
    return _Page(ended=Ended(registrations=len(changed)), size=len(found), next=last)


def _take_scope(engine: Engine, client: Client, subject: Subject) -> bool:
    """Remove a scope from the registration of a client; False if the client was changed meanwhile."""
    found: Client | None = client
    while found is not None and subject.identifier in found.scopes:
        left = tuple(scope for scope in found.scopes if scope != subject.identifier)
        if engine.stores.clients.change(found, replace(found, scopes=left)):
            engine.journal.client_id = client.client_id
            was, now = " ".join(found.scopes), " ".join(left)
            engine.record(EventType.CLIENT_CHANGED, details={"changed": {"scope": {"from": was, "to": now}}})
            engine.journal.client_id = None
            return True
        # It was changed meanwhile.
        found = engine.stores.clients.find(client.client_id, engine.now)
    return False


def _jwts(engine: Engine, subject: Subject, resource: Resource | None) -> Ended:
    """The number of JWTs of the subject that may be valid, counted from events as old as a JWT can be."""
    longest = longest_jwt(engine, subject, resource)
    if longest is None or subject.kind is SubjectKind.ISSUER:
        return Ended()
    wanted = EventFilter(
        types=frozenset({EventType.TOKEN_ISSUED}),
        since=engine.now - longest,
        client_id=subject.identifier if subject.kind is SubjectKind.CLIENT else None,
        user_id=subject.identifier if subject.kind is SubjectKind.USER else None,
    )
    count, looked_at, place = 0, 0, None
    while looked_at < MAXIMUM_EVENTS:
        page = engine.stores.events.search(wanted, after=place, limit=BATCH)
        for event in page:
            details = event.details
            if subject.kind is SubjectKind.SCOPE and subject.identifier not in details.get("scopes", ()):
                continue
            resources = details.get("resources", ())
            if subject.kind is SubjectKind.RESOURCE and not any(map(subject.is_resource, resources)):
                continue
            token_format, lifetime = engine.token_form_of(event.client_id or "", resources)
            count += token_format is AccessTokenFormat.JWT and event.at + lifetime > engine.now
        looked_at += len(page)
        if len(page) < BATCH:
            break
        place = (page[-1].at, page[-1].event_id)
    has_more = looked_at >= MAXIMUM_EVENTS
    # A grant of a user is stored before its first token is sent. For a client's own JWT none is stored: one may be
    # issued just now.
    none = not count and not has_more and subject.kind is SubjectKind.USER
    return Ended(jwts=count, jwts_until=None if none else engine.now + longest, has_more_jwts=has_more)


def _vouched(engine: Engine, grants: Sequence[Grant]) -> Ended:
    """The number of JWTs that were issued for assertions of an issuer: each such grant has one access token."""
    kept = engine.stores.tokens.access_tokens([grant.grant_id for grant in grants], engine.now)
    opaque = {token.grant_id for token in kept}
    ends = [grant.expires_at for grant in grants if grant.grant_id not in opaque]
    return Ended(jwts=len(ends), jwts_until=max(ends, default=None))


def _record(
    engine: Engine, act: Act, ended: Ended, type: EventType | None, was: Mapping[str, object] = NOTHING
) -> None:
    """Record what ended, and the members that the subject had; without a type, the event is only about what ended."""
    subject = act.subject
    details: dict[str, object] = {**ended.counts, **(act.noted if type else NOTHING)}
    match subject.kind:
        case SubjectKind.USER:
            engine.journal.user_id = subject.identifier
        case SubjectKind.CLIENT:
            engine.journal.client_id = subject.identifier
        case _:
            details[subject.kind] = subject.name
            details |= was
    if ended.jwts_until is not None:
        details["jwts_until"] = ended.jwts_until.isoformat()
    if ended.session_handles:
        details[ENDED_SESSIONS] = list(ended.session_handles)
    engine.record(type or _end_event(ended), reason=act.reason, details=details)


def _act_event(act: Act) -> EventType | None:
    """The event type of the act; None if the event is only about what ended."""
    kind = act.subject.kind
    if act.event or not (act.for_good or kind is SubjectKind.USER):
        return act.event
    if kind is SubjectKind.USER and not act.for_good:
        return EventType.SIGNED_OUT_EVERYWHERE
    return {
        SubjectKind.USER: EventType.USER_DISABLED,
        SubjectKind.CLIENT: EventType.CLIENT_DISABLED,
        SubjectKind.RESOURCE: EventType.RESOURCE_REMOVED,
        SubjectKind.ISSUER: EventType.ISSUER_DISABLED,
    }[kind]


def _end_event(ended: Ended) -> EventType:
    names = {name for name, number in ended.counts.items() if number} - {"jwts"}
    if names <= {"consents", "narrowed_consents"}:
        return EventType.CONSENT_ENDED
    return EventType.SESSION_ENDED if names <= {"sessions", "password_links"} else EventType.GRANTS_REVOKED


def _is_live(engine: Engine, grant: Grant) -> bool:
    return grant.revoked_at is None and grant.expires_at > engine.now


def _without_scope(record: _Narrowed, scope: str) -> _Narrowed | None:
    if scope not in record.scopes:
        return record
    scopes = tuple(each for each in record.scopes if each != scope)
    if not scopes:
        return None
    if isinstance(record, Grant):
        return record.narrower(scopes)
    return replace(record, scopes=scopes)
