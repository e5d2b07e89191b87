"""What the engine needs from outside: stores that keep records, policies that decide, keys that sign.

Verbs, not CRUD: a store method says what happens and is one statement where that is possible.
Every method that writes raises `StorageUnavailable` when the storage cannot take it now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

from authserver.engine.count_records import Count, Gauge, Span, Step, Total
from authserver.engine.decisions import Ruling, T
from authserver.engine.documents import Document, DocumentKind, Reply
from authserver.engine.questions import Question
from authserver.engine.records import (
    Client,
    ClientSecret,
    Consent,
    Event,
    EventFilter,
    EventType,
    FoundGrant,
    FoundSession,
    FoundToken,
    Grant,
    GrantFilter,
    InitialAccessToken,
    JoinedIdentity,
    Kept,
    Logo,
    RegisteredBy,
    Resource,
    RingKey,
    Session,
    SigningKey,
    Token,
    TokenKind,
    User,
)
from authserver.engine.seal_records import DeletionMark, EventSeal
from authserver.engine.setting_records import Declaration, DeclaredKind, StoredSetting
from authserver.engine.timeline import Timeline
from authserver.engine.upkeep_records import Batch, Disposable, Place
from authserver.limits import MAXIMUM_DOCUMENT

F = TypeVar("F")


class StorageUnavailable(Exception):
    """The storage is locked, not reachable or too slow: nothing was stored; trying again may help.

    Attributes:
        has_passed: whether the obstacle has gone already, so that the caller should try again at once.
    """

    has_passed: ClassVar[bool] = False


class AlreadyExists(Exception):
    """A record with this identifier is already stored."""


class ContributionFailed(Exception):
    """A plugin failed at a contributing hook, or added what it may not; the message names plugin and hook."""


class Clients(Protocol):
    """The registered clients, and their secrets and logos."""

    def find(self, client_id: str, now: datetime) -> Client | None:
        """The client with the secrets that are live now, disabled or not; one statement."""

    def find_all(self, client_ids: Sequence[str], now: datetime) -> Sequence[Client]:
        """Those of these clients that are stored here, oldest first; one statement."""

    def add(self, client: Client) -> None:
        """Store a new client and its secrets. Raises AlreadyExists."""

    def list(self, now: datetime) -> Sequence[Client]:
        """All clients, oldest first."""

    def page(self, now: datetime, *, after: str = "", limit: int) -> Sequence[Client]:
        """The next `limit` clients by id, beginning after the id `after`, disabled or not; one statement."""

    def count(self, *, limit: int) -> int:
        """How many there are, disabled or not, counted up to `limit`."""

    def with_ending_secret(self, now: datetime, before: datetime, *, limit: int) -> Sequence[Client]:
        """At most `limit` enabled clients with a live secret that ends by that time, the earliest end first."""

    def search(
        self,
        now: datetime,
        text: str,
        *,
        registered_by: RegisteredBy | None = None,
        enabled: bool | None = None,
        never_used: bool = False,
        after: str = "",
        limit: int,
    ) -> Sequence[Client]:
        """As `page`, those that have this text in their id or name: ASCII letters in either case.

        One statement, which may read all ids and names.

        Args:
            registered_by: only the clients that an operator registered, or only those that registered themselves.
            enabled: only enabled clients, or only disabled ones.
            never_used: only clients that never got a code or token, and whose live secrets were never used
                (`Client.last_use`).
        """

    def change(self, before: Client, after: Client) -> bool:
        """Replace a client as it was read, but not its secrets; False when it was changed meanwhile, or is not stored here.

        `client_id` and `last_used_at` stay as they are.
        """

    def keep_logo(self, client_id: str, logo: Logo | None) -> None:
        """Store the logo of a client in place of the one before; with None it has none."""

    def find_logo(self, client_id: str, digest: str) -> Logo | None:
        """The logo of a client if it has this digest; one statement."""

    def disable(self, client_id: str, now: datetime) -> bool:
        """Disable it; False when it is unknown or was disabled before. Waits for those who `hold` it."""

    def hold(self, client_id: str) -> bool:
        """Protect it from being disabled until this transaction has ended; False when it is stored here and disabled."""

    def add_secret(self, client_id: str, secret: ClientSecret) -> None:
        """Store one more secret for a client, in place of itself if it was stored before."""

    def change_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> bool:
        """Replace a secret as it was read; False when somebody changed it meanwhile, or it is not stored here."""

    def note_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> None:
        """Like change_secret, but written at the end of the transaction; does nothing if the secret was changed."""

    def count_secrets(self, now: datetime) -> Mapping[str, int]:
        """How many live secrets of enabled clients each key of the key ring made, by its id."""

    def knows_origin(self, origin: str) -> bool:
        """Whether an enabled client registered a redirect URI of this web origin (loopback: any port)."""

    def touch(self, client_id: str, now: datetime) -> None:
        """Note that it was used; written at the end of the transaction. Does nothing if it is not stored here."""

    def note_first_use(self, client_id: str, now: datetime) -> bool:
        """Note at once that it was used, so that `remove_never_used` spares it; False when it is not stored any more."""

    def hold_registrations(self) -> None:
        """Make other transactions wait here until the present one ends, so that counts of clients stay true until then."""

    def never_used(self, before: datetime, *, network: str | None = None, limit: int) -> Sequence[Client]:
        """At most `limit` clients that registered themselves by that time and were never used, oldest first.

        Clients that registered with an initial access token of the database are left out. No client comes with its
        secrets.

        Args:
            network: only clients that registered from this network (`Client.registered_from`).
        """

    def count_never_used(self, *, network: str | None = None, limit: int) -> int:
        """How many `never_used` would give, of any age, including those that were registered while this request waited."""

    def remove_never_used(self, client_id: str) -> bool:
        """Delete a client that registered itself, with all its rows; False if it does not exist or was used."""

    def count_of_policy(self, policy: str) -> int:
        """How many enabled clients were registered with initial access tokens of this policy."""


class InitialTokens(Protocol):
    """The initial access tokens of registration (RFC 7591, 3)."""

    def add(self, token: InitialAccessToken) -> None:
        """Raises AlreadyExists."""

    def find(self, digest: bytes) -> InitialAccessToken | None:
        """The token of this digest, whatever its state; `clients` is not counted."""

    def find_by_id(self, token_id: str) -> InitialAccessToken | None:
        """The token of this id, whatever its state; None when there is none."""

    def page(self, *, after: Place | None = None, limit: int) -> Sequence[InitialAccessToken]:
        """The newest, beginning after this place: its time and id."""

    def list(self) -> Sequence[InitialAccessToken]:
        """All of them, newest first."""

    def claim(self, token_id: str, now: datetime) -> bool:
        """Count one use: one conditional write whose row count decides (R-07).

        False when it is used up, expired, revoked or unknown.
        """

    def change(self, before: InitialAccessToken, after: InitialAccessToken) -> bool:
        """Replace policy, note, uses and end of a token as it was read; False when those were changed meanwhile."""

    def revoke(self, token_id: str, now: datetime) -> bool:
        """Revoke it; False when it is unknown or was revoked before."""


class Declarations(Protocol):
    """The marks of records that files declare (`engine.declarations`)."""

    def list(self) -> Sequence[Declaration]:
        """All of them, by kind and name."""

    def keep(self, declaration: Declaration) -> None:
        """Store it in place of the one of its kind and name, if there is one."""

    def forget(self, kind: DeclaredKind, name: str) -> bool:
        """Delete it; False when it is unknown."""


class StoredSettings(Protocol):
    """Scopes, limits and trusted issuers that are in the store, beside those of the INI; there are few."""

    def find(self, kind: DeclaredKind, name: str) -> StoredSetting | None:
        """The one of this kind and name; one statement."""

    def hold(self, kind: DeclaredKind, name: str) -> StoredSetting | None:
        """The same, locked until this transaction has ended."""

    def list(self) -> Sequence[StoredSetting]:
        """All of them, by kind and name."""

    def keep(self, setting: StoredSetting) -> None:
        """Store it in place of the one of its kind and name, if there is one."""

    def remove(self, kind: DeclaredKind, name: str) -> bool:
        """Delete it; False when it is unknown."""


class Resources(Protocol):
    """The resources that operators registered (RFC 8707); there are few."""

    def find(self, form: str) -> Resource | None:
        """The resource of this canonical form; one statement."""

    def default(self) -> Resource | None:
        """The one that counts when a request names none; one statement."""

    def list(self) -> Sequence[Resource]:
        """All of them, by their canonical form."""

    def page(self, *, after: str = "", limit: int) -> Sequence[Resource]:
        """The next ones by their canonical form, beginning after this one."""

    def add(self, resource: Resource) -> None:
        """Raises AlreadyExists when its form is taken, or another is the default and it is to be."""

    def change(self, before: Resource, after: Resource) -> bool:
        """Replace a resource as it was read; False when it was changed meanwhile, or another is the default.

        `form` and `created_at` stay as they are.
        """

    def hold(self, form: str) -> bool:
        """Protect it from being removed until this transaction has ended; False when it is unknown."""

    def remove(self, form: str) -> bool:
        """Delete it; False when it is unknown."""


class Users(Protocol):
    """The people who have an account here."""

    def find(self, user_id: str) -> User | None:
        """The user of this id, disabled or not."""

    def find_by_name(self, username: str) -> User | None:
        """The user of this normalised name (see `engine.people.usernames.normalise_username`)."""

    def add(self, user: User) -> None:
        """Raises AlreadyExists when the id or the name is taken."""

    def find_all(self, user_ids: Sequence[str]) -> Sequence[User]:
        """Those of these users that are stored here; one statement."""

    def list(self) -> Sequence[User]:
        """All users, by name."""

    def page(
        self, *, after: str = "", prefix: str = "", disabled: bool = False, limit: int
    ) -> Sequence[User]:
        """The next `limit` users by name, beginning after the name `after`; one statement.

        Args:
            prefix: only those whose name begins so; it is normalised as names are.
            disabled: only those who are disabled; all are looked at then.
        """

    def count(self, *, limit: int) -> int:
        """How many there are, disabled or not, counted up to `limit`."""

    def disable(self, user_id: str, now: datetime) -> bool:
        """Disable the user; False when unknown or disabled before. Waits for those who `hold_enabled` the user."""

    def hold_enabled(self, user_id: str) -> bool:
        """Protect the user from being disabled until this transaction has ended; False when unknown or disabled."""

    def enable(self, user_id: str) -> bool:
        """Enable the user; False when unknown or not disabled."""

    def change(self, user: User, *, instead_of: User | None = None) -> bool:
        """Store the display name, groups and attributes of this user.

        False when they are no longer those of `instead_of`, where that is given.
        """

    def set_password(self, user_id: str, password_hash: str | None, *, instead_of: str | None = None) -> bool:
        """Replace the password; with None no password lets the user in.

        False when it is no longer the one that hashes to `instead_of`, where that is given.
        """

    def hold(self, user: User) -> bool:
        """Whether the password is still the one that was read; if so, it cannot change until this transaction ends."""


class Identities(Protocol):
    """The identities of people at other servers through which they sign in (`engine.people.joining`)."""

    def find(self, issuer: str, subject: str) -> JoinedIdentity | None:
        """The identity, with the person to whom it is joined; one statement."""

    def of_user(self, user_id: str) -> Sequence[JoinedIdentity]:
        """All identities of this person, by issuer and subject."""

    def page(self, issuer: str, *, after: str = "", limit: int) -> Sequence[JoinedIdentity]:
        """The next `limit` identities of an issuer by subject, beginning after the subject `after`; one statement."""

    def add(self, identity: JoinedIdentity) -> None:
        """Raises AlreadyExists when it is joined to a person."""

    def remove(self, issuer: str, subject: str) -> bool:
        """Delete it; False when it is joined to nobody."""


class Grants(Protocol):
    """What was agreed: every code and token belongs to a grant."""

    def add(self, grant: Grant) -> None:
        """Store a new grant. Raises AlreadyExists."""

    def find(self, grant_id: str) -> Grant | None:
        """The grant of this id, live or not."""

    def find_with_user(self, grant_id: str) -> FoundGrant | None:
        """The grant with its user, live or not; one statement."""

    def foresee_with_user(self, grant_id: str) -> None:
        """Announce that this grant will be read with its user, so that it can be read together with something else.

        A store may do nothing. What is written in between is seen in any case.
        """

    def derived(self, grant_ids: Sequence[str], now: datetime) -> Sequence[Grant]:
        """The live grants that were derived from these, at any distance, in no order; one statement."""

    def hold(self, grant_ids: Sequence[str]) -> bool:
        """Store these from being revoked until this transaction has ended; False when one is unknown or revoked."""

    def revoke(self, grant_id: str, now: datetime, reason: str) -> bool:
        """Revoke it, and with it all its codes and tokens; False when it was not live.

        As with every revocation, grants that were derived from it are revoked with it, and are not counted.
        """

    def list(
        self, now: datetime, *, user_id: str | None = None, client_id: str | None = None
    ) -> Sequence[Grant]:
        """The live grants of this user, of this client, or of this user to this client, newest first.

        Without those whose code was never redeemed.
        """

    def revoke_of_user(
        self, user_id: str, now: datetime, reason: str, *, client_id: str | None = None
    ) -> int:
        """Revoke all live grants of a user, or those to one client, in one statement; how many they were."""

    def revoke_of_client(self, client_id: str, now: datetime, reason: str) -> int:
        """Revoke all live grants to a client, in one statement; how many they were."""

    def touch(self, grant_id: str, now: datetime) -> None:
        """Note that its client got tokens."""

    def widen(self, grant: Grant, scopes: tuple[str, ...]) -> bool:
        """Give a live grant these scopes (`Grant.wider`); False when it has ended, or its scopes were changed meanwhile."""

    def count(self) -> int:
        """How many there are, live or not."""

    def count_live(self, now: datetime, *, limit: int) -> int:
        """How many are live, counted up to `limit`; also those whose code was never redeemed."""

    def revoke_next(
        self, now: datetime, reason: str, *, after: str = "", limit: int
    ) -> tuple[str, int] | None:
        """Revoke those that are not revoked of the next `limit` grants by id, beginning after the id `after`.

        The last id of them, and how many were revoked; None when there is no grant after that id.
        """

    def page(self, *, after: str = "", limit: int) -> Sequence[Grant]:
        """The next `limit` grants by id, beginning after the id `after`, live or not; one statement."""

    def search(self, wanted: GrantFilter, *, after: Place | None = None, limit: int) -> Sequence[Grant]:
        """The next `limit` of these grants, newest first, beginning after a place: when one was made, and its id.

        One statement. The work grows with `limit`, with the grants of the user if one is named, and with the newer
        grants that do not fit.
        """

    def revoke_some(self, grant_ids: Sequence[str], now: datetime, reason: str) -> int:
        """Revoke those of these grants that are not revoked, in one statement; how many they were."""

    def narrow(self, before: Grant, after: Grant) -> bool:
        """Reduce a grant, as it was read, to the resources and scopes of `after`.

        False when it is not live, or these were changed meanwhile.
        """


class Tokens(Protocol):
    """Codes, access tokens and refresh tokens: their digests, and what is known of them."""

    def add(self, token: Token) -> None:
        """Store a new token; it may be stored together with what comes next.

        Raises AlreadyExists: here, at the next use of any store, or at the end of the transaction; nothing of it is stored.
        """

    def find(self, kind: TokenKind, digest: bytes) -> FoundToken | None:
        """The token with its grant and user, live or not; one statement."""

    def foresee(self, kind: TokenKind, digest: bytes) -> None:
        """Announce that this token will be read, so that it can be read together with something else.

        A store may do nothing. What is written in between is seen in any case.
        """

    def claim(
        self,
        token: Token,
        now: datetime,
        *,
        successor_digest: bytes | None = None,
        sealed_successor: bytes | None = None,
    ) -> bool:
        """Use a single-use token: one conditional write whose row count decides (R-07).

        False when it was claimed before or its grant is no longer live.
        """

    def note_failure(self, token: Token, now: datetime, *, limit: int) -> None:
        """Count one wrong proof for an unclaimed token; at `limit` it counts as claimed (T035)."""

    def usable_refresh_tokens(
        self, user_id: str, client_id: str, now: datetime, *, limit: int
    ) -> Sequence[FoundToken]:
        """The refresh tokens of this client for this user that can be used now, of the newest grants first."""

    def extend(self, token: Token, expires_at: datetime) -> bool:
        """Give an unclaimed token a later end; False when it was claimed or its grant is no longer live."""

    def count_live(self, grant_ids: Sequence[str], now: datetime) -> Mapping[TokenKind, int]:
        """How many codes and tokens of these grants have neither been claimed nor expired, by kind; one statement."""

    def access_tokens(self, grant_ids: Sequence[str], now: datetime) -> Sequence[Token]:
        """The access tokens of these grants that are stored and have not expired; one statement."""

    def newest(self, grant_id: str, *, limit: int) -> Sequence[Token]:
        """The codes and tokens of a grant that are stored, usable or not, newest first; one statement."""


class KeptRecords(Protocol):
    """Small records of any kind, each of which expires (`engine.records.Kept`)."""

    def add_once(self, record: Kept) -> bool:
        """Store it unless there is one of its kind and digest; False then. Safe between processes.

        An optimistic transaction learns later that there is one (`Storage.begin`): before its end, tell nobody outside.
        """

    def find(self, kind: str, digest: bytes) -> Kept | None:
        """The record, expired and claimed or not; clean-up deletes it some time after it has expired."""

    def change(self, before: Kept, after: Kept) -> bool:
        """Replace a record as it was read; False when somebody changed or deleted it meanwhile.

        Kind, digest and `created_at` stay as they are.
        """

    def claim(self, record: Kept, now: datetime) -> bool:
        """Use it up: one conditional write whose row count decides (R-07).

        False when it was claimed before, has expired or was deleted.
        """


class Consents(Protocol):
    """What each user last agreed to for each client."""

    def find(self, user_id: str, client_id: str) -> Consent | None:
        """What this user last agreed to for this client; None for nothing."""

    def remember(self, consent: Consent) -> None:
        """Store it in place of what this user agreed to for this client before."""

    def list(self, *, user_id: str | None = None, client_id: str | None = None) -> Sequence[Consent]:
        """The consents, of one user or of all, to one client or to all, newest first."""

    def forget(self, user_id: str, client_id: str | None = None) -> int:
        """Delete the consents of this user, to one client or to all, so that they are asked again.

        Returns how many they were.
        """

    def forget_client(self, client_id: str) -> int:
        """Delete all consents to this client, in one statement; how many they were."""

    def forget_some(self, limit: int, *, client_id: str | None = None) -> int:
        """Delete at most `limit` of all consents, or of those to one client; how many they were."""

    def count(self, *, user_id: str | None = None, client_id: str | None = None) -> int:
        """How many consents there are of one user or of all, to one client or to all."""

    def page(
        self,
        *,
        after: tuple[str, str] = ("", ""),
        limit: int,
        user_id: str | None = None,
        client_id: str | None = None,
    ) -> Sequence[Consent]:
        """The next `limit` consents by user and client, beginning after the ids `after`; one statement.

        Of one user or of all, to one client or to all.
        """

    def narrow(self, before: Consent, after: Consent | None) -> bool:
        """Reduce a consent, as it was read, to the resources and scopes of `after`; with None, delete it.

        False when these were changed meanwhile, or it was deleted.
        """


class Events(Protocol):
    """The audit trail."""

    def add(self, event: Event) -> None:
        """Store it with the transaction. It is written last; a failure to write it fails the commit."""

    def find(self, event_id: str) -> Event | None:
        """The event of this id; a refusal's id is the error id that the client got."""

    def since(self, since: datetime, *, type: EventType | None = None) -> Iterator[Event]:
        """The events from that time on, oldest first, all or of one type; read in batches as they are used."""

    def latest(self) -> Iterator[Event]:
        """All events, newest first; read in batches as they are used."""

    def count(self, since: datetime, *, type: EventType | None = None) -> int:
        """How many `since` would give now."""

    def search(
        self, wanted: EventFilter, *, after: Place | None = None, oldest_first: bool = False, limit: int
    ) -> Sequence[Event]:
        """The next `limit` of these events in the order of time and id, beginning after a place; newest first by default.

        The work grows with `limit` and not with the table where the filter names an event, a client, a user, a grant or
        types; by anything else all events of its time are read until there are enough.
        """

    def following(self, number: int, *, limit: int, decisions: bool = True) -> Sequence[tuple[int, Event]]:
        """The next `limit` events after this number, each with its own, in the order in which they were stored.

        Numbers begin with 1 and are never used again. One of a transaction that is not committed yet is missing, and so is
        one of a transaction that failed (`engine.event_stream`).

        Args:
            decisions: whether the events have their decisions. These are most of what an event is, and dear to read.
        """

    def numbered(
        self, since: datetime, until: datetime, *, after: Place | None = None, limit: int
    ) -> Sequence[tuple[int, Event]]:
        """The next `limit` events of a time (without `until`) in the order of time and id, each with its number."""

    def last_number(self) -> int:
        """The highest number of an event that there is; 0 without any."""


class EventPositions(Protocol):
    """The position of each reader of the events."""

    def of(self, reader: str) -> int | None:
        """The number of the last event that this reader has taken; None before it began."""

    def list(self) -> Sequence[tuple[str, int]]:
        """Every reader that has begun, by name, with that number."""

    def begin(self, reader: str, number: int) -> bool:
        """Set the first position of a reader; False if it has begun already."""

    def move(self, reader: str, before: int, after: int) -> bool:
        """Move a reader from one number to another; False if it is not at the first one any more."""

    def count_set_aside(self, reader: str, count: int) -> None:
        """Count events that the reader never accepted, and that were set aside so that the following ones need not wait."""

    def set_aside(self) -> Mapping[str, int]:
        """How many such events each reader has, by its name; readers without any are left out."""


class Statistics(Protocol):
    """Counts of events and samples of totals, by hour, day and month: a limited number of rows, instead of all events."""

    def add(self, counts: Sequence[Count]) -> None:
        """Add these to what was counted before."""

    def forget(self, span: Span, types: Collection[EventType]) -> None:
        """Forget what was counted of these types in a span."""

    def totals(
        self, spans: Sequence[Span], types: Collection[EventType], *, client_ids: Sequence[str] = ("",)
    ) -> Sequence[Total]:
        """The sums over these spans together, for each client, type, grant type and reason; in no order.

        Args:
            client_ids: each client apart; "" for all clients together.
        """

    def totals_of_clients(self, span: Span, types: Collection[EventType]) -> Sequence[Total]:
        """The same for each client that has counts of its own; "" is not among them."""

    def top_clients(
        self,
        spans: Sequence[Span],
        types: Collection[EventType],
        *,
        grant_type: str | None = None,
        limit: int,
    ) -> Sequence[tuple[str, int]]:
        """The `limit` clients with the highest sums over these types, and the sums; highest first, then by id."""

    def series(
        self, span: Span, types: Collection[EventType], *, client_id: str = ""
    ) -> Sequence[tuple[datetime, EventType, str, int]]:
        """For each hour, day or month of the span that has any: type, grant type and sum; in no order."""

    def strangers(self, step: Step, at: datetime, *, limit: int) -> Sequence[str]:
        """At most `limit` clients with counts of their own in this hour, day or month that no operator registered."""

    def current(self, now: datetime, idle_since: datetime) -> Mapping[Gauge, int]:
        """The present totals, without sessions that were last seen before `idle_since`. It reads whole tables."""

    def note_sample(self, step: Step, at: datetime, values: Mapping[Gauge, int]) -> None:
        """Store the totals of this hour, day or month, unless they are stored already."""

    def samples(self, gauge: Gauge, span: Span) -> Sequence[tuple[datetime, int]]:
        """The stored values of a gauge in a span, one for each hour, day or month that has one, oldest first."""


class EventSeals(Protocol):
    """The seals that make changes of the audit trail evident, numbered from 1 without a gap."""

    def add(self, seal: EventSeal) -> None:
        """Raises AlreadyExists where there is one of its number."""

    def last(self) -> EventSeal | None:
        """The newest seal; None before the first."""

    def following(self, number: int, *, limit: int) -> Sequence[EventSeal]:
        """The next seals after this number, in order."""

    def since(self, since: datetime) -> EventSeal | None:
        """The first of those that were made from that time on."""

    def find(self, sought: bytes) -> EventSeal | None:
        """The seal that has this hash."""

    def change(self, before: EventSeal, after: EventSeal) -> bool:
        """Replace the code of a seal as it was read; False when it was changed meanwhile."""

    def remove_until(self, number: int) -> int:
        """Delete the seals up to this number; how many."""

    def deletions(self) -> Sequence[DeletionMark]:
        """Up to when events were deleted on purpose, by kind."""

    def mark(self, mark: DeletionMark) -> None:
        """Add or replace it, and delete those of its kind that are before it."""


class Sessions(Protocol):
    """The sign-ins of people in browsers, by the digest of the session id."""

    def add(self, session: Session) -> None:
        """Store a new session. Raises AlreadyExists."""

    def find(self, digest: bytes, now: datetime, idle_since: datetime) -> FoundSession | None:
        """The session if it has neither expired nor idled since before `idle_since`, and its user is enabled."""

    def touch(self, digest: bytes, now: datetime) -> None:
        """Note that it was seen; written at the end of the transaction, so that the row is locked briefly."""

    def hold(self, digest: bytes) -> bool:
        """Whether it is still live; if so, it cannot end before the end of this transaction."""

    def end(self, digest: bytes) -> None:
        """Delete it; does nothing when it is unknown."""

    def list(self, user_id: str, now: datetime, idle_since: datetime) -> Sequence[Session]:
        """The live sessions of a user, last seen first."""

    def end_all(self, user_id: str, *, but: bytes | None = None) -> int:
        """Delete all sessions of a user but one; how many they were."""

    def end_some(self, limit: int) -> int:
        """Delete at most `limit` of all sessions; how many they were."""


class SigningKeys(Protocol):
    """The keys that sign tokens; their private parts are sealed."""

    def list(self) -> Sequence[SigningKey]:
        """All keys that ever existed, oldest first."""

    def add(self, key: SigningKey) -> bool:
        """Store a new key unless its algorithm has one without a successor; False then (T113)."""

    def change(self, before: SigningKey, after: SigningKey) -> bool:
        """Replace a key as it was read; False when somebody changed it meanwhile."""


class Generations(Protocol):
    """When the database was last restored from a backup."""

    def began_at(self) -> datetime | None:
        """When the database was last restored from a backup; None when it never was."""

    def begin(self, now: datetime) -> None:
        """Note that it was restored."""


class RingKeys(Protocol):
    """Which keys of the key ring were ever used here: their ids and what recognises them, never the keys."""

    def list(self) -> Sequence[RingKey]:
        """All keys of the key ring that were ever used here."""

    def add(self, key: RingKey) -> bool:
        """Note a key of the ring; False when its id is noted already. Safe between processes."""


class Upkeep(Protocol):
    """Deletes expired rows, and keeps the lease for that work."""

    def remove(self, kind: Disposable, before: datetime, start: Place | None = None, *, limit: int) -> Batch:
        """Delete rows of a kind that had expired at `before`, and their dependent rows, oldest first.

        Args:
            start: where the batch before this one ended; None begins with the oldest.
            limit: the most rows of one table, and of dependent rows, that are deleted at once.
        """

    def count(self, kind: Disposable, before: datetime, *, limit: int) -> int:
        """How many rows of a kind had expired at `before`, counted up to `limit`."""

    def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Give the lease of this work to the holder until then, or extend it; False while another holds it.

        A lease that lasts much longer than any that is asked for was taken before the clock was set back: it
        counts as free.
        """

    def end_lease(self, name: str, holder: str) -> None:
        """Give the lease back."""


class Stores(Protocol):
    """All stores of one transaction."""

    @property
    def clients(self) -> Clients:
        """Registered clients."""

    @property
    def initial_tokens(self) -> InitialTokens:
        """Initial access tokens of registration."""

    @property
    def declarations(self) -> Declarations:
        """The marks of records that files declare."""

    @property
    def stored_settings(self) -> StoredSettings:
        """Scopes and limits that are in the store."""

    @property
    def resources(self) -> Resources:
        """Protected resources."""

    @property
    def users(self) -> Users:
        """People."""

    @property
    def identities(self) -> Identities:
        """The identities of people at other servers."""

    @property
    def grants(self) -> Grants:
        """What was agreed."""

    @property
    def tokens(self) -> Tokens:
        """Codes, access tokens and refresh tokens."""

    @property
    def kept(self) -> KeptRecords:
        """Small records of features, each of which expires."""

    @property
    def consents(self) -> Consents:
        """Consents that are remembered."""

    @property
    def events(self) -> Events:
        """The audit trail."""

    @property
    def event_positions(self) -> EventPositions:
        """The position of each reader of the audit trail."""

    @property
    def statistics(self) -> Statistics:
        """Counts by hour, day and month."""

    @property
    def event_seals(self) -> EventSeals:
        """The seals of the audit trail."""

    @property
    def sessions(self) -> Sessions:
        """Sign-ins in browsers."""

    @property
    def signing_keys(self) -> SigningKeys:
        """The keys that sign tokens."""

    @property
    def ring_keys(self) -> RingKeys:
        """Which keys of the key ring were used."""

    @property
    def generations(self) -> Generations:
        """When the database was last restored."""

    @property
    def upkeep(self) -> Upkeep:
        """Deletion of expired rows."""

    def undo(self) -> None:
        """Undo what this transaction wrote so far, so that no lock is held while plugins are asked again.

        Events stay: they are written last. The transaction can be used further.
        """

    def rest(self) -> None:
        """Give the connection back until the next statement, while this request waits for something else.

        Rows that were read are not locked in any case. After the first write this does nothing.
        """


class Storage(Protocol):
    """Opens transactions outside of a web request's own one."""

    def begin(self, *, optimistic: bool = False) -> AbstractContextManager[Stores]:
        """Stores in a short transaction of their own: committed at the end, rolled back on an exception.

        Args:
            optimistic: whether to assume that no other transaction interferes, which saves round trips. The stores may
                then return what they have read before, report that something is held, added or claimed, and verify all
                of that later, at the end at the latest. If it was wrong they raise a StorageUnavailable, nothing is
                stored, and the caller begins again without this.
        """


class Policies(Protocol):
    """The plugins, as the engine uses them: it asks a question and gets one ruling."""

    def serves(self, hook: str, /) -> bool:
        """Whether any plugin implements this hook."""

    def waits(self, hook: str, /) -> bool:
        """Whether any plugin that implements this hook may wait for something: it is not `immediate`."""

    def decide(self, question: Question[T], /) -> Ruling[T]:
        """Ask every plugin that serves the hook of this question and combine their answers.

        Never raises when a plugin fails: the ruling is then FAILED.
        """

    def contribute(self, hook: str, /, **question: Any) -> Sequence[tuple[str, Any]]:
        """What each plugin adds at this contributing hook, as (plugin name, value).

        Raises ContributionFailed when one of them fails, and the OAuthError of one that refuses where it may.
        """

    def observe_request(self, timeline: Timeline, /) -> None:
        """Notify the plugins that observe requests. Never raises."""

    def all_declared(self, attribute: str, /) -> Mapping[str, Sequence[Any]]:
        """The mappings that plugins have in this attribute: by key, what each has, in the order of the plugins."""

    def names_at(self, hook: str, /) -> frozenset[str]:
        """The names that plugins declare for what they add at this hook."""


def do_nothing() -> None:
    """Do nothing."""


class Fetcher(Protocol):
    """Requests to URLs that somebody else named, such as a client in its metadata (R-13).

    Only https to public addresses, without redirects, bounded in time, size and number. A request may take seconds:
    make it before the first write. Then neither a lock nor a connection of the database is held meanwhile.
    """

    def fetch(
        self,
        kind: DocumentKind[F],
        url: str,
        *,
        again: bool = False,
        ahead: int = 0,
        before: Callable[[], None] = do_nothing,
    ) -> Document[F]:
        """The document at this URL, fetched or from the cache.

        Args:
            again: fetch it even if it is fresh, because something was not found in it; not more often than its kind
                allows.
            ahead: fetch it even if it is fresh, if it will not be fresh after so many seconds. Other callers use the
                cached one meanwhile.
            before: called before this waits. The fetcher of an engine lets the stores rest then, so leave it out there.

        Raises:
            FetchFailed: it could not be fetched, and no earlier copy may be used instead.
        """

    def cached(self, kind: DocumentKind[F], url: str) -> Document[F] | None:
        """The document at this URL, if it is in the cache and fresh; nothing is fetched."""

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        maximum: int = MAXIMUM_DOCUMENT,
        before: Callable[[], None] = do_nothing,
    ) -> Reply:
        """Send this body, with its Content-Type among the headers; the answer, whatever its status is.

        Args:
            maximum: bytes of the longest body of an answer.
            before: as in `fetch`.

        Raises:
            FetchFailed: there is no answer, or it is a redirect.
        """


class Generation(Protocol):
    """When the database was last restored."""

    def began_at(self) -> datetime | None:
        """When the database was last restored from a backup, as far as this process knows; None: never."""


class Offered(Protocol):
    """The scopes that this server offers: those of the INI, of plugins, and of the store, which each process follows."""

    @property
    def listed_scopes(self) -> Mapping[str, str]:
        """Those of the INI and of plugins, with their sentences for the consent page."""

    def scopes(self) -> Mapping[str, str]:
        """All scopes, as far as this process knows; those of the INI first. It may ask the database."""

    def known_scopes(self) -> Mapping[str, str] | None:
        """The same without asking the database; None if it has to be asked first."""

    def take_over(self, stores: Stores) -> None:
        """Use the scopes and limits of these stores from now on; the plugins that limit are told."""


class Signer(Protocol):
    """The signing keys in use."""

    def sign(self, claims: Mapping[str, Any], *, typ: str, algorithm: str | None = None) -> str:
        """A compact JWS of the claims under the active key, with `typ`, `alg` and `kid` in its header."""

    def verify(self, token: str, *, typ: str) -> Mapping[str, Any]:
        """The claims of a token that these keys signed, with this `typ`. Raises ValueError."""

    def jwks(self) -> Mapping[str, Any]:
        """The public keys (RFC 7517, 5). It may ask the database."""

    def known_jwks(self) -> Mapping[str, Any] | None:
        """The same without asking the database; None if it has to be asked first."""
