"""The records that the rules read, as frozen values; stores keep them.

Times are aware datetimes in UTC. `details` mappings let a feature keep small facts of its own
(`acr`, `cnf`) without a migration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from authserver.settings import AccessTokenFormat

NOTHING: Mapping[str, Any] = MappingProxyType({})
# A client that got no code or token for this long is idle.
IDLE_AFTER = timedelta(days=30)

# Private details of a client that belong to the core; a feature keeps its own under the name of its plugin.
REGISTRATION_REASONS = "registration_reasons"
EDITED = "edited"
MANAGED = "managed"
# Details of a grant (see `Grant`).
VOUCHED_BY = "vouched_by"
SESSION = "session"
SUBJECT = "subject"
_ADDED_SCOPES = "added_scopes"
_NARROWED = "narrowed"
# A detail of a session, and of a grant that its user gave in it: the server through which the person signed in. In a
# grant it is the issuer of that server; in a session a mapping with the issuer and further facts of that server.
THROUGH = "through"
# A detail of an event: the handles of the sessions that ended.
ENDED_SESSIONS = "ended_sessions"
# The schemes of client ids that are addresses: each leads to a document about its client.
ADDRESSES = ("https:", "http:")


def is_address(client_id: str) -> bool:
    """Whether this client id is the address of a document that describes the client; no other client has such an id."""
    return client_id.startswith(ADDRESSES)


class RegisteredBy(StrEnum):
    """Who registered a client: an operator, or the client itself (RFC 7591)."""

    OPERATOR = "operator"
    SELF = "self"


class ClientState(StrEnum):
    """How much a client is used: never, lately, or long ago (`Client.last_use`); or it is disabled for good."""

    NEW = "new"
    USED = "used"
    IDLE = "idle"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """A client secret as it is stored: a keyed digest and the id of the key that made it.

    `last_used_at` is noted every few minutes, not at each use.
    """

    digest: bytes
    key_id: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An application that may ask for tokens (RFC 7591, 2).

    `resources` are the resources it may ask for; empty means every listed one. A client with a credential
    of its own may keep its refresh token instead of getting a new one each time (`rotates_refresh_tokens`).
    `details` holds display metadata such as `client_uri`, `policy_uri`, `tos_uri` and `software_id`.
    `logo` is the digest of the logo that an operator gave it (`Logo`).

    `last_used_at` is when it last got a code or token, to the day; None: never. Of a client that registered itself,
    `registered_from` is the network that the request came from (`engine.sources`), `initial_token` the id of the
    initial access token with which it registered, and `registration_policy` the policy of that token. `private_details`
    are facts that the server and its features keep for themselves; they are shown to nobody.
    """

    client_id: str
    name: str
    auth_method: str
    redirect_uris: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ("authorization_code",)
    response_types: tuple[str, ...] = ("code",)
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    application_type: str = "web"
    registered_by: RegisteredBy = RegisteredBy.OPERATOR
    first_party: bool = False
    rotates_refresh_tokens: bool = True
    created_at: datetime
    disabled_at: datetime | None = None
    secrets: tuple[ClientSecret, ...] = ()
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    logo: str | None = None
    private_details: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    last_used_at: datetime | None = None
    registered_from: str = ""
    initial_token: str | None = None
    registration_policy: str | None = None

    @property
    def is_public(self) -> bool:
        """Whether it has no credential of its own (OAuth 2.1, 2.1)."""
        return self.auth_method == "none"

    @property
    def is_enabled(self) -> bool:
        """Whether it is not disabled: a disabled client is refused everywhere."""
        return self.disabled_at is None

    @property
    def is_self_registered(self) -> bool:
        """Whether it registered itself (RFC 7591), so that no operator vouches for its name."""
        return self.registered_by is RegisteredBy.SELF

    @property
    def is_known_by_address(self) -> bool:
        """Whether its id is the address of its document; then all its installations share that id."""
        return is_address(self.client_id)

    @property
    def may_lose_its_key(self) -> bool:
        """Whether it has a credential that it can give up without notice to this server (`AUTHENTICATES`)."""
        return self.is_known_by_address and not self.is_public

    @property
    def registration_reasons(self) -> tuple[str, ...]:
        """The reasons of the policies that let it register itself; empty if they are not known."""
        return tuple(self.private_details.get(REGISTRATION_REASONS, ()))

    @property
    def is_edited(self) -> bool:
        """Whether an operator changed it after it had registered itself."""
        return bool(self.private_details.get(EDITED))

    @property
    def is_managed(self) -> bool:
        """Whether it read or changed its own registration: a program knows its id, and will come back."""
        return bool(self.private_details.get(MANAGED))

    @property
    def last_use(self) -> datetime | None:
        """When it last got a code or token, or used its secret, as the client of a resource server does; None: never."""
        uses = (self.last_used_at, *(secret.last_used_at for secret in self.secrets))
        return max((use for use in uses if use), default=None)

    def state(self, now: datetime) -> ClientState:
        """Its state at this time."""
        if not self.is_enabled:
            return ClientState.GONE
        if self.last_use is None:
            return ClientState.NEW
        return ClientState.USED if now - self.last_use < IDLE_AFTER else ClientState.IDLE


class InitialTokenState(StrEnum):
    """Whether an initial access token lets clients register, and if not, why."""

    LIVE = "live"
    USED_UP = "used-up"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialAccessToken:
    """An initial access token, whose holder may register clients (RFC 7591, 1.2); `token_id` is its name.

    `policy` is the name of the registration policy that limits its clients. It registers at most `uses` clients, any
    number with None; `used` is the number so far. `made_by` is who made it, as `Event.actor`.
    `clients` is the number of enabled clients that the tokens of its policy have registered; it is counted when the
    token is presented, and not stored.
    """

    token_id: str
    digest: bytes = field(repr=False)
    policy: str
    note: str = ""
    made_by: str
    created_at: datetime
    expires_at: datetime
    uses: int | None = None
    used: int = 0
    revoked_at: datetime | None = None
    clients: int = 0

    def state(self, now: datetime) -> InitialTokenState:
        """Its state at this time."""
        if self.revoked_at is not None:
            return InitialTokenState.REVOKED
        if self.expires_at <= now:
            return InitialTokenState.EXPIRED
        if self.uses is not None and self.used >= self.uses:
            return InitialTokenState.USED_UP
        return InitialTokenState.LIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Logo:
    """The logo that an operator gave a client, as pages show it: an SVG or PNG file.

    `digest` is the digest of the file in hexadecimal digits; it is part of the address, so another file has another
    address.
    """

    digest: str
    media_type: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource that tokens may be for, such as an API (RFC 8707), from the INI or the store.

    `form` is the canonical form by which it is known (`engine.uris.canonical_resource`), and `uri` the audience of its
    tokens, as it is registered. `name` is its name for people. `scopes` are those that make sense there; None: every
    scope. Its access tokens have `token_format`, and are valid for `token_lifetime` seconds; None: as all others.
    `is_default` says whether it counts when a request names no resource. `introspecting_clients` are the clients that
    may introspect its access tokens. `settings` are the settings of the INI that name it; empty: it is in the store.
    """

    form: str
    uri: str
    name: str = ""
    scopes: tuple[str, ...] | None = None
    token_format: AccessTokenFormat | None = None
    token_lifetime: int | None = None
    is_default: bool = False
    introspecting_clients: tuple[str, ...] = ()
    created_at: datetime | None = None
    settings: tuple[str, ...] = ()

    @property
    def is_stored(self) -> bool:
        """Whether it is kept in the store; False for one that the INI lists."""
        return not self.settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMetadata:
    """The metadata of a client (RFC 7591, 2). `details` holds links, contacts and software ids."""

    client_name: str = ""
    redirect_uris: tuple[str, ...] = ()
    token_endpoint_auth_method: str = "client_secret_basic"
    grant_types: tuple[str, ...] = ("authorization_code",)
    response_types: tuple[str, ...] = ("code",)
    scopes: tuple[str, ...] = ()
    application_type: str = "web"
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person. `user_id` is the `sub` of the tokens: stable, never reassigned, always `user_…`.

    `groups` and `attributes` are facts for policies; an attribute has a name and some values. An operator sets them, or
    the plugin that signs the person in. They are personal data: no client gets them unless a policy adds them to a token.
    """

    user_id: str
    username: str
    display_name: str = ""
    password_hash: str | None = field(default=None, repr=False)
    groups: tuple[str, ...] = field(default=(), repr=False)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NOTHING, repr=False)
    created_at: datetime
    disabled_at: datetime | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether the user may sign in: the tokens of a disabled user are worthless."""
        return self.disabled_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedIdentity:
    """The identity of a person at another server through which they sign in here (OIDC Core, 5.7).

    Attributes:
        issuer: the other server.
        subject: the `sub` of the person there, which never changes; with the issuer it belongs to one person here.
        label: a name of the person there when it was joined, such as a mail address, for people. It may have changed
            since, and decides nothing.
    """

    issuer: str
    subject: str
    user_id: str
    label: str = field(default="", repr=False)
    joined_at: datetime


# A detail of a grant: its user agreed on another device than the one that got the tokens.
ON_ANOTHER_DEVICE = "on_another_device"
# The reason for the end of a client's grants when it gives up its credential: otherwise a stolen refresh token could be
# used without that credential.
MADE_PUBLIC = "client-made-public"
# A detail of a grant: its client had a credential. A client whose id is its address may give that up without notice.
AUTHENTICATES = "authenticates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The access that was agreed to. Every code and token belongs to a grant; when it is revoked, none of them is valid.

    Attributes:
        user_id: None when the client acts on its own behalf.
        expires_at: the end, which no rotation moves (OAuth 2.1, 4.3.3).
        last_used_at: when its client last got tokens, to the minute; None until it got tokens a second time.
        parent_id: the grant from which it was derived, and with which it ends (`grants.deriving`); None: from none.
        details: facts of features, and these of the core:

            - `auth_time`, `amr`, `acr`: when and how the user signed in, and the level of that.
            - `session`: the handle of the session in which the user agreed (`engine.session_handles`).
            - `through`: the issuer of the server through which the user had signed in to that session.
            - `subject`: the `sub` of its tokens, if that is not `user_id`.
            - `grant_type`: the grant type that made it, if its user did not agree to it here.
            - `vouched_by`: who named the user, such as an issuer of assertions.
            - `widens`: whether the user agreed to more than before (`tokens.widening`).
            - `added_scopes`: those of its scopes that were agreed to after it was made.
            - `narrowed`: whether an operator has ended some of its scopes.
            - `authenticates`: whether its client, which is known by its address, had a credential of its own.
            - `on_another_device`: whether the user agreed on another device than the one that got the tokens.
            - `act`: who acts for the subject (RFC 8693, 4.1).
    """

    grant_id: str
    client_id: str
    user_id: str | None
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    parent_id: str | None = None

    @property
    def subject(self) -> str:
        """The `sub` of its tokens: the user, as this client knows them, or the client itself (RFC 9068, 5)."""
        subject: str = self.details.get(SUBJECT) or self.user_id or self.client_id
        return subject

    @property
    def added_scopes(self) -> tuple[str, ...]:
        """Those of its scopes that were agreed to after it was made (`tokens.widening`)."""
        return tuple(self.details.get(_ADDED_SCOPES, ()))

    @property
    def is_narrowed(self) -> bool:
        """Whether an operator has ended some of its scopes (`engine.ending`); it never gets more again."""
        return _NARROWED in self.details

    def narrower(self, scopes: tuple[str, ...]) -> Grant:
        """The grant with only these of its scopes."""
        added = [scope for scope in self.added_scopes if scope in scopes]
        details = {**self.details, _ADDED_SCOPES: added} if self.added_scopes else self.details
        return replace(self, scopes=scopes, details={**details, _NARROWED: True})

    def wider(self, scopes: tuple[str, ...]) -> Grant:
        """The grant with these scopes, of which it had some before."""
        added = (*self.added_scopes, *(scope for scope in scopes if scope not in self.scopes))
        return replace(self, scopes=scopes, details={**self.details, _ADDED_SCOPES: list(added)})


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantFilter:
    """A search for grants: those that match every given member.

    Attributes:
        live_at: only those that are neither revoked nor expired at this time.
        redeemed: without those whose code is not redeemed yet.
    """

    user_id: str | None = None
    client_id: str | None = None
    live_at: datetime | None = None
    redeemed: bool = False


class TokenKind(StrEnum):
    """The kind of a stored credential; it is part of the digest, so that no kind passes for another."""

    CODE = "code"
    ACCESS = "access"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential that clients or browsers present again, known by its digest only.

    `claimed_at` says when a single-use one was used. A rotated refresh token keeps the digest of
    its successor, and the successor itself sealed under a key that only the presented token gives.
    `failures` counts wrong proofs for a code. The `details` of a code have `redirect_uri` and `code_challenge`; in the
    `details` of any token `cnf` is the key that it is bound to (RFC 7800, 3.1).
    """

    kind: TokenKind
    digest: bytes
    grant_id: str
    client_id: str
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    created_at: datetime
    expires_at: datetime
    claimed_at: datetime | None = None
    successor_digest: bytes | None = None
    sealed_successor: bytes | None = None
    failures: int = 0
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A small record that expires, such as a replay mark; a new kind needs no migration.

    `kind` is the name that its feature gives it, and `digest` identifies it among others of its kind. `client_id` and
    `grant_id` are those that it belongs to, if any; it is deleted with its grant. `claimed_at` says when a single-use
    one was used. `details` are stored readable: a value that only the server may read must be sealed, with kind and
    digest as context (`engine.crypto.sealing`).
    """

    kind: str
    digest: bytes
    client_id: str | None = None
    grant_id: str | None = None
    created_at: datetime
    expires_at: datetime
    claimed_at: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundToken:
    """A token with the grant it belongs to and the user who agreed, read in one statement."""

    token: Token
    grant: Grant
    user: User | None

    @property
    def refreshable_scopes(self) -> tuple[str, ...]:
        """The scopes that a refresh token can give: its own, and those that were added to its grant later (I-19).

        A refresh token that lacks an original scope of its grant gets no added ones: a grant type made it narrower on
        purpose.
        """
        added = self.grant.added_scopes
        # Without scopes that an operator has removed from the grant.
        own = tuple(scope for scope in self.token.scopes if scope in self.grant.scopes)
        if any(scope not in own and scope not in added for scope in self.grant.scopes):
            return own
        return tuple(dict.fromkeys((*own, *added)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGrant:
    """A grant with the user who agreed, read in one statement."""

    grant: Grant
    user: User | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a user last agreed to for one client; the user is asked again when a request goes beyond it.

    `client_name` is the name of the client at that time, empty if it is not known. `seen` is for a client that is known
    by its address: by the name of each member of its metadata, a digest of the value at that time.
    """

    user_id: str
    client_id: str
    client_name: str = ""
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    granted_at: datetime
    seen: Mapping[str, str] = field(default_factory=lambda: NOTHING)

    def is_for(self, client: Client) -> bool:
        """Whether the user agreed to this client as it is now: with this name, and with each of its redirect URIs."""
        return self.client_name == client.name and set(client.redirect_uris) <= set(self.redirect_uris)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in browser, known by the digest of its session id."""

    digest: bytes
    user_id: str
    authenticated_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSession:
    """A live session with its user, read in one statement."""

    session: Session
    user: User


class KeyState(StrEnum):
    """The states of a signing key: published, signing, only verifying, removed."""

    STAGED = "staged"
    ACTIVE = "active"
    RETIRING = "retiring"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A signing key at rest: the public part in the clear, the private part sealed until it is deleted.

    It is published from `created_at`, signs from `activates_at` until `retires_at` (None: until another takes
    over), and is published until `ends_at`. Its state follows from these times, so it changes by itself, in
    all processes at once.
    """

    kid: str
    algorithm: str
    public_jwk: Mapping[str, Any]
    sealed_private_jwk: bytes | None = field(repr=False)
    created_at: datetime
    activates_at: datetime
    retires_at: datetime | None = None
    ends_at: datetime | None = None

    def state(self, now: datetime) -> KeyState:
        """Its state at this time. A revoked key stays revoked when the clock is set back (T150)."""
        if self.sealed_private_jwk is None:
            return KeyState.REMOVED
        if self.ends_at is not None and self.ends_at <= now:
            return KeyState.REMOVED
        if self.retires_at is not None and self.retires_at <= now:
            return KeyState.RETIRING
        return KeyState.STAGED if now < self.activates_at else KeyState.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class RingKey:
    """A key of the key ring that was used here: its id, and a fingerprint that reveals another key under the same id."""

    key_id: str
    fingerprint: bytes
    first_used_at: datetime


class EventType(StrEnum):
    """What can happen, as `subject.outcome`."""

    SIGNED_IN = "sign_in.succeeded"
    SIGN_IN_REFUSED = "sign_in.refused"
    SIGNED_OUT = "sign_out.succeeded"
    SIGNED_OUT_EVERYWHERE = "sign_out.everywhere"
    SESSION_ENDED = "session.ended"
    PASSWORD_CHANGED = "password.changed"
    PASSWORD_REFUSED = "password.refused"
    PASSWORD_LINK_MADE = "password_link.made"
    PASSWORD_LINK_USED = "password_link.used"
    MAIL_FAILED = "mail.failed"
    CONSENT_GIVEN = "consent.given"
    CONSENT_REFUSED = "consent.refused"
    CONSENT_ENDED = "consent.ended"
    CODE_ISSUED = "code.issued"
    AUTHORIZATION_REFUSED = "authorization.refused"
    TOKEN_ISSUED = "token.issued"
    TOKEN_REFUSED = "token.refused"
    GRANT_WIDENED = "grant.widened"
    GRANT_REVOKED = "grant.revoked"
    GRANTS_REVOKED = "grants.revoked"
    CLIENT_REGISTERED = "client.registered"
    REGISTRATION_REFUSED = "registration.refused"
    CLIENT_CHANGED = "client.changed"
    CLIENT_DISABLED = "client.disabled"
    CLIENT_SECRET_ADDED = "client_secret.added"
    CLIENT_SECRET_ENDED = "client_secret.ended"
    INITIAL_TOKEN_ADDED = "initial_token.added"
    INITIAL_TOKEN_CHANGED = "initial_token.changed"
    INITIAL_TOKEN_REVOKED = "initial_token.revoked"
    RESOURCE_ADDED = "resource.added"
    RESOURCE_CHANGED = "resource.changed"
    RESOURCE_REMOVED = "resource.removed"
    SCOPE_ADDED = "scope.added"
    SCOPE_CHANGED = "scope.changed"
    SCOPE_REMOVED = "scope.removed"
    USER_ADDED = "user.added"
    USER_CHANGED = "user.changed"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    IDENTITY_JOINED = "identity.joined"
    IDENTITY_REMOVED = "identity.removed"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    KEY_RESEALED = "key.resealed"
    LIMIT_ADDED = "limit.added"
    LIMIT_CHANGED = "limit.changed"
    LIMIT_REMOVED = "limit.removed"
    LIMIT_LIFTED = "limit.lifted"
    ISSUER_ADDED = "issuer.added"
    ISSUER_CHANGED = "issuer.changed"
    ISSUER_DISABLED = "issuer.disabled"
    ISSUER_ENABLED = "issuer.enabled"
    ISSUER_REMOVED = "issuer.removed"
    DATABASE_RESTORED = "database.restored"
    EVENT_SET_ASIDE = "event.set_aside"
    POLICY_DIFFERED = "policy.differed"
    REQUEST_REFUSED = "request.refused"
    REQUEST_FAILED = "request.failed"

    @property
    def is_refusal(self) -> bool:
        """Whether a request was refused or failed. The refusal of a person does not count: it is that person's decision."""
        return self in REFUSALS


REFUSALS = frozenset(
    {
        EventType.SIGN_IN_REFUSED,
        EventType.PASSWORD_REFUSED,
        EventType.AUTHORIZATION_REFUSED,
        EventType.TOKEN_REFUSED,
        EventType.REGISTRATION_REFUSED,
        EventType.REQUEST_REFUSED,
        EventType.REQUEST_FAILED,
    }
)

# The most frequent events of a busy server: one for each code and each token.
ISSUANCES = frozenset({EventType.CODE_ISSUED, EventType.TOKEN_ISSUED})


# The key in an event for a value that cannot be read back.
UNREADABLE = "unreadable"


class UnknownEventType(str):
    """The text of a type that this version does not know: of a newer version, or written by hand."""

    __slots__ = ()
    is_refusal = False

    @property
    def value(self) -> str:
        """The text itself, as `EventType.value` gives it."""
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened, with the decisions behind it. Never a secret in any member.

    `actor` is who did it: `client:` or `user:` with the id, `command:` with the command that an operator ran,
    `server` for what the server did by itself, `stranger` for a caller that had not authenticated, `unknown` for what
    happened before this was kept. A public client counts as authenticated when it shows what was issued to it.
    `source` is the network address that the request came from, empty where there was none; of a person it is
    personal data.
    `request_id` is the request that it happened in, empty where there was none.
    `client_id`, `user_id` and `grant_id` say whom and what it was about. `decisions` are `Ruling.as_record()`
    mappings; `details` are small facts such as the grant type. Both are cut to a limit in events that people outside
    can cause, and `cut` in them says which values are not whole (`engine.evidence`). `more` in the details of a refusal
    says how many of its kind were counted with it instead of being stored (`engine.floods`). A value that cannot be
    read back, because somebody wrote it by hand, is shown as it is stored under `UNREADABLE`, in the details or in a
    decision; a time that cannot be read is `datetime.min`.
    """

    event_id: str
    type: EventType | UnknownEventType
    at: datetime
    actor: str
    source: str = ""
    request_id: str = ""
    client_id: str | None = None
    user_id: str | None = None
    grant_id: str | None = None
    reason: str = ""
    decisions: tuple[Mapping[str, Any], ...] = ()
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are meant: those that fit every member that is given.

    `types` is empty for all types. Events at `since` are meant, those at `until` are not, so that one stretch of time can
    follow another.
    """

    event_id: str | None = None
    request_id: str | None = None
    types: frozenset[EventType] = frozenset()
    client_id: str | None = None
    user_id: str | None = None
    grant_id: str | None = None
    actor: str | None = None
    source: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def texts(self) -> Mapping[str, str]:
        """The required values of an event's members, by their names, except for times and types."""
        names = ("event_id", "request_id", "client_id", "user_id", "grant_id", "actor", "source", "reason")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def fits(self, event: Event) -> bool:
        """Whether this event is meant."""
        return (
            (not self.types or event.type in self.types)
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
            and all(getattr(event, name) == value for name, value in self.texts.items())
        )
