"""The arguments of every rule: the parts built at start, the stores of this request, its caller, and the time."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.decisions import Ruling, T, Verdict
from authserver.engine.documents import Document, DocumentKind, Reply
from authserver.engine.errors import InvalidGrant, OAuthError, ServerError
from authserver.engine.evidence import bounded
from authserver.engine.letters import Letter
from authserver.engine.parameters import Parameters
from authserver.engine.ports import (
    ContributionFailed,
    F,
    Fetcher,
    Generation,
    Offered,
    Policies,
    Signer,
    Stores,
    do_nothing,
)
from authserver.engine.questions import Credentials, Question, RateQuestion
from authserver.engine.records import (
    NOTHING,
    Client,
    ClientMetadata,
    Event,
    EventType,
    Grant,
    JoinedIdentity,
    Resource,
    Token,
    User,
)
from authserver.engine.resource_registry import Registry, TokenForm
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.timeline import FactsLater, SpanKind, note, wants_spans
from authserver.engine.turnstile import Turnstile
from authserver.limits import MAXIMUM_CLIENT_ID, MAXIMUM_DOCUMENT
from authserver.settings import AccessTokenFormat, Settings

# OAuth 2.1, App. A.1.
_CLIENT_ID = re.compile(r"[\x20-\x7e]+")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The origin of a request: everything that a rule can use of a request besides its parameters.

    Attributes:
        endpoint: the name of the route; `command …` for a command, `server` for the server's own work.
        actor: before a client or user is authenticated (see `Event.actor`).
        source: the network address that the request came from; empty where there is no network.
        headers: by lower-case name, without those that carry credentials.
        authorization: the Authorization header, if any.
        url: of the endpoint, made from the issuer and never from the Host header; empty if there is none.
        method: the HTTP method; POST unless another one is given.
        request_id: in its answer, its lines of the log and its events; empty where no request is answered.
    """

    endpoint: str
    actor: str = "stranger"
    source: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)
    authorization: str | None = field(default=None, repr=False)
    url: str = ""
    method: str = "POST"
    request_id: str = ""


# For work without a request, such as making keys at start.
SERVER = Caller(endpoint="server", actor="server")


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleUse:
    """Something that this request uses up, such as an assertion or a proof (see `engine.tokens.once`).

    The check returns this; it is claimed when tokens are issued, after the last question to a plugin.

    Attributes:
        purpose: its use; the same text with two purposes is two different things.
        text: identifies it among others of its purpose.
        since: the earliest time at which it could be used.
        until: the time from which it cannot be used anyway, and need not be remembered.
        refusal: raised when it was used before, or when that cannot be known.
    """

    purpose: str
    text: str = field(repr=False)
    since: datetime
    until: datetime
    refusal: OAuthError


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherToken:
    """A JWT for another server that a client gets in place of an access token; this server does not accept it.

    Attributes:
        typ: the `typ` of its header (RFC 8725, 3.11); never that of an access token.
        claims: all claims but `iss`, `iat`, `exp`, `jti`, and the `cnf` of a key that the client proved.
        lifetime: in seconds; it ends with its grant at the latest.
    """

    typ: str
    claims: Mapping[str, Any]
    lifetime: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """The tokens that a grant type allows to issue; `engine.tokens.issuing` issues them.

    Attributes:
        grant: the grant to which the tokens belong; `is_new` when it is not stored yet.
        user: of the grant; None when the client acts on its own behalf.
        scopes: of the access token.
        resources: its audience, among the resources of the grant.
        refreshable: whether a refresh token is issued with it.
        spends: the code or refresh token that is used up for this, if any.
        presented: the text of the refresh token in `spends`; its successor is sealed under it.
        keeps: a refresh token that its client continues to use; only its idle end changes.
        refresh_token: a successor that was already minted for `spends` and is sent again.
        bound: the key that the presented code or token is bound to, as a `cnf`; the client must prove that key.
        bound_refusal: the exception that is raised if it does not.
        uses: further things of single use that this uses up.
        derived_from: the grants that this one is derived from, the nearest first (`engine.grants.deriving`). None of them
            ends before the token is stored, nor does the grant itself.
        joins: the identity that joins `user` to an issuer that vouched for them for the first time; neither is stored
            yet.
        other: the JWT that the client gets in place of an access token; None: it gets an access token.
        noted: what the event says besides; nothing secret.
    """

    grant: Grant
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    user: User | None = None
    refreshable: bool = False
    is_new: bool = False
    spends: Token | None = None
    presented: str | None = field(default=None, repr=False)
    keeps: Token | None = None
    refresh_token: str | None = field(default=None, repr=False)
    bound: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    bound_refusal: type[OAuthError] = InvalidGrant
    uses: tuple[SingleUse, ...] = ()
    derived_from: tuple[Grant, ...] = ()
    joins: JoinedIdentity | None = None
    other: OtherToken | None = None
    noted: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A key that the client proved to have, and that its tokens are bound to (hook `token_binding`).

    Attributes:
        confirmation: the `cnf` of the access token (RFC 7800, 3.1), such as `{"x5t#S256": thumbprint}`. Its plugin
            declares in `confirmations` which members it makes, each with the type of a token that is bound so.
        binds_refresh: whether refresh tokens are bound to the key as well.
        uses: things of single use that the proof uses up.
    """

    confirmation: Mapping[str, Any]
    binds_refresh: bool
    uses: tuple[SingleUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientProof:
    """How the clients of one method of authentication prove who they are (hook `client_proofs`).

    Attributes:
        prove: takes the engine, a client that is enabled and registered for the method, and its `Credentials`. Returns
            the things of single use that the proof uses up. Raises InvalidClient if nothing is proven, and
            TemporarilyUnavailable if that cannot be known now.
        check: takes the metadata of a client that asks to be registered for the method. Raises InvalidClientMetadata if
            such a client could not prove anything.
        stand_in: details of an invented client that nobody can be. A proof for an unknown client is checked against it,
            so that the time does not reveal which clients exist (J-07). Empty if the method does not need that.
    """

    prove: Callable[[Engine, Client, Credentials], tuple[SingleUse, ...]]
    check: Callable[[ClientMetadata], None]
    stand_in: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """The content of a verified assertion, as its profile reads it (`AssertionProfile.accept`).

    Attributes:
        user: the person it is about; None if that person is unknown here: then it is refused, unless it is `of_client`.
        of_client: whether it is about the client itself, and about no person.
        joins: the identity that joins `user` to the issuer, if neither is stored yet; both are stored with the token.
        scopes, resources: the most that tokens for it may have; None: it sets no limit.
        expires_at: the latest end of tokens for it; None: no limit, because it only says who somebody is.
        needs_resource: whether the request must name a resource.
        details: of the new grant: how and when the person signed in, as `auth_time`, `acr` and `amr`; and `subject`,
            the `sub` of its tokens.
        bound: the key that the client must prove, as a `cnf` (RFC 7800, 3.1); empty: none.
        is_single_use: whether it must have a `jti` and is accepted once.
        noted: further details of the event; nothing secret, and only names from the assertion.
    """

    user: User | None
    of_client: bool = False
    joins: JoinedIdentity | None = None
    scopes: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    needs_resource: bool = False
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    bound: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    is_single_use: bool = True
    noted: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionProfile:
    """The meaning of assertions: of those trusted issuers whose entries name this profile (hook `assertion_profiles`).

    A plugin of one module adds a profile by serving the hook; no other module knows the profile. The server finds the
    entry of the `iss`, and enforces the entry's rules on keys, algorithms, times, audience, clients, scopes and
    resources. It asks the profile for everything else.

    Attributes:
        typ: the `typ` of the header of such an assertion, without `application/` (RFC 8725, 3.11).
        untyped: whether `JWT` or no `typ` is accepted, too.
        accept: takes the engine, an enabled client, the entry, and the claims of an assertion of its issuer that was
            verified and is for this server. Returns its content. Raises InvalidGrant, or another OAuth error.
        check: takes an entry before it is stored. Raises ValueError, with a sentence, for `options` that it does not
            know, and for an entry that would accept nobody or too many.
        lets_in: takes the entry and a client that does not authenticate: whether it may present its assertions.
        names_client: takes the entry, such claims, and the `client_id` of a request that authenticates no client, if it has
            one. Returns the id of the client whose request it is, or raises an OAuth error. None: clients authenticate.
        audience: takes the entry, and returns the required `aud`; empty: the issuer of this server.
        exchanges: takes the entry, and returns whether a client may also exchange its assertions (RFC 8693, 2.1).
        warnings: takes the entry, and returns sentences for operators, for the start of the server and `authserver
            lint`.
        listed: issuers that the INI names in settings of the plugin, by their `iss`.
    """

    typ: str
    untyped: bool = False
    accept: Callable[[Engine, Client, TrustedIssuer, Mapping[str, Any]], Vouched]
    check: Callable[[TrustedIssuer], None]
    lets_in: Callable[[TrustedIssuer, Client], bool] = lambda issuer, client: False
    names_client: Callable[[TrustedIssuer, Mapping[str, Any], str | None], str] | None = None
    audience: Callable[[TrustedIssuer], str] = lambda issuer: ""
    exchanges: Callable[[TrustedIssuer], bool] = lambda issuer: False
    warnings: Callable[[TrustedIssuer], Sequence[str]] = lambda issuer: ()
    listed: Mapping[str, TrustedIssuer] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeableToken:
    """A type of token that clients can exchange, or get by an exchange (hook `exchangeable_tokens`; RFC 8693, 3).

    Attributes:
        read: takes the engine, the client that authenticated, and the text of a token. Returns a `Presented`, writes
            nothing, and raises InvalidRequest for a text that is no such token, for one that this client may not
            exchange, and for one that has ended. None: tokens of this type cannot be exchanged.
        make: takes the engine, the client, the parameters and the `Presented` that the client may exchange. Returns an
            `Issue`, writes nothing, and raises an OAuth error. None: an exchange does not give tokens of this type.
    """

    read: Callable[[Engine, Client, str], Any] | None = None
    make: Callable[[Engine, Client, Parameters, Any], Issue] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What a plugin adds for a client that registers itself (hook `registration_response`).

    Attributes:
        members: members of the response. Its plugin declares their names in `registration_members`.
        private_details: JSON that is stored with the client and shown to nobody, under a name of the plugin's own.
    """

    members: Mapping[str, Any] = field(repr=False)
    private_details: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)


Redeem = Callable[["Engine", Client, Parameters], Issue]
# Makes the answer to a browser in a response mode: takes the web's request, the redirect URI and the parameters.
Respond = Callable[[Any, str, Mapping[str, str]], Any]
# Takes the name of a member of client metadata and the value that was sent; returns what is stored, None for nothing.
ReadMember = Callable[[str, Any], Any]


@dataclass(slots=True)
class Journal:
    """Facts of a request that become known while it is processed, for its events and its error responses.

    `actor` is the authenticated caller (see `Event.actor`). `target` is set once errors may be redirected:
    the accepted redirect URI, the state, whether the user is asked first because the client registered that URI
    itself, and the response mode. `is_anybody` is set when the actor is a client that registered itself, as any
    stranger can.
    `ui_locales` are the languages that the authorization request asks for, separated by spaces
    (OIDC Core, 3.1.2.1). `grant_type` is that of a token request, once it is known that this server offers it;
    the events of what is issued or refused have it. `events` are those written so far; observers get them after the
    commit. `claimed` are the claims on limits that were counted for this request and not given back (`engine.rates`).
    `letters` are sent after the commit.
    """

    decisions: list[Ruling[Any]] = field(default_factory=list)
    actor: str | None = None
    is_anybody: bool = False
    client_id: str | None = None
    user_id: str | None = None
    grant_id: str | None = None
    target: tuple[str, str | None, bool, str] | None = None
    ui_locales: str = ""
    grant_type: str = ""
    events: list[Event] = field(default_factory=list)
    claimed: list[RateQuestion] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def acts(self, client: Client) -> None:
        """The client has proven who it is, or has presented what was issued to it: from now on it is the actor."""
        self.actor = f"client:{client.client_id}"
        self.is_anybody = client.is_self_registered

    def note_languages(self, parameters: Parameters) -> None:
        """Store the languages that these parameters of an authorization request ask for, if any."""
        self.ui_locales = next(iter(parameters.all("ui_locales")), self.ui_locales)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that are built once, at start."""

    settings: Settings
    policies: Policies
    signer: Signer
    ring: KeyRing
    fetcher: Fetcher
    password_checks: Turnstile
    grant_types: Mapping[str, Redeem]
    auth_methods: tuple[str, ...]
    client_proofs: Mapping[str, ClientProof]
    assertion_profiles: Mapping[str, AssertionProfile]
    exchangeable_tokens: Mapping[str, ExchangeableToken]
    listed_issuers: Mapping[str, TrustedIssuer]
    offered: Offered
    listed_resources: Mapping[str, Resource]
    client_forms: Mapping[str, TokenForm]
    client_metadata: Mapping[str, ReadMember]
    private_use_redirect_uris: frozenset[str]
    token_types: Mapping[str, str]
    response_modes: Mapping[str, Respond]
    pkce_replacements: frozenset[str]
    pkce_waivers: frozenset[str]
    further_algorithms: tuple[str, ...]
    generation: Generation


@dataclass(frozen=True, slots=True)
class _RestingFetcher:
    """A fetcher that lets the stores of a request rest while it waits."""

    fetcher: Fetcher
    rest: Callable[[], None]

    def fetch(
        self,
        kind: DocumentKind[F],
        url: str,
        *,
        again: bool = False,
        ahead: int = 0,
        before: Callable[[], None] = do_nothing,
    ) -> Document[F]:
        return self.fetcher.fetch(kind, url, again=again, ahead=ahead, before=self.rest)

    def cached(self, kind: DocumentKind[F], url: str) -> Document[F] | None:
        return self.fetcher.cached(kind, url)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        maximum: int = MAXIMUM_DOCUMENT,
        before: Callable[[], None] = do_nothing,
    ) -> Reply:
        return self.fetcher.post(url, body, headers=headers, maximum=maximum, before=self.rest)


_PARTS = tuple(part.name for part in fields(Parts))
_values_of = attrgetter(*_PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(Parts):
    """The parts, and what belongs to one request. `now` is the only clock of a rule.

    `scopes` are all scopes of this server, with their sentences for the consent page. `restored_at` is when the
    database was restored from a backup, if ever: what was used shortly before that may be missing.
    """

    stores: Stores
    scopes: Mapping[str, str]
    resources: Registry
    now: datetime
    restored_at: datetime | None
    caller: Caller
    journal: Journal

    @classmethod
    def of(
        cls,
        parts: Parts,
        stores: Stores,
        now: datetime,
        *,
        caller: Caller = SERVER,
        journal: Journal | None = None,
    ) -> Engine:
        """The engine of one request; it continues the given journal."""
        return cls(
            **dict(zip(_PARTS, _values_of(parts), strict=True))
            | {"fetcher": _RestingFetcher(parts.fetcher, stores.rest)},
            stores=stores,
            scopes=parts.offered.scopes(),
            resources=Registry(parts.listed_resources, stores.resources),
            now=now,
            restored_at=parts.generation.began_at(),
            caller=caller,
            journal=journal or Journal(),
        )

    def ask(self, question: Question[T], *, note_silence: bool = True) -> Ruling[T]:
        """Ask the policies, and note the ruling for the event table.

        Args:
            note_silence: whether a ruling that nobody answered is noted, too.

        Raises:
            ServerError: a plugin failed, so nothing may be decided (R-14).
        """
        began = time.perf_counter_ns()
        ruling = self.policies.decide(question)
        if wants_spans():
            note(SpanKind.DECISION, ruling.hook, began, FactsLater(ruling.as_facts))
        if note_silence or ruling.verdict is not Verdict.SILENT:
            self.journal.decisions.append(ruling)
        if ruling.failed:
            raise ServerError("The server could not decide about this request.", reason=ruling.reason)
        return ruling

    def gather(self, hook: str, /, **question: Any) -> Mapping[str, Any]:
        """The additions of all plugins at a contributing hook, in one mapping; no names collide, which is checked at start.

        Raises:
            ServerError: a plugin failed, so nothing may be issued (R-14).
        """
        if not self.policies.serves(hook):
            return NOTHING
        return {
            name: value for values in self.contributions(hook, **question) for name, value in values.items()
        }

    def contributions(self, hook: str, /, **question: Any) -> Sequence[Any]:
        """The additions of each plugin at a contributing hook, in order.

        Raises:
            ServerError: a plugin failed (R-14).
            OAuthError: a plugin refuses, at a hook where it may (`hooks.Contributing.refusing`).
        """
        try:
            return [value for _, value in self.policies.contribute(hook, **question)]
        except ContributionFailed as error:
            log.error("%s: refusing; fix or remove it", error)
            raise ServerError("The server could not answer this request.", reason="plugin-raised") from None

    def find_client(self, client_id: str) -> Client | None:
        """The client of this id, from the store or from a plugin. A text that cannot be a client id is not looked up.

        Raises as `find_client_elsewhere` does.
        """
        return self.find_kept_client(client_id) or self.find_client_elsewhere(client_id)

    def find_kept_client(self, client_id: str) -> Client | None:
        """The client of this id, from the store."""
        return self.stores.clients.find(client_id, self.now) if _may_be_client_id(client_id) else None

    def find_client_elsewhere(self, client_id: str) -> Client | None:
        """The client of this id, from a plugin.

        Raises:
            InvalidClient: a plugin knows it, and does not accept it.
            TemporarilyUnavailable, TooManyRequests: that cannot be known now.
            ServerError: a plugin failed.
        """
        if not self.policies.serves("find_client") or not _may_be_client_id(client_id):
            return None
        found = self.contributions("find_client", engine=self, client_id=client_id)
        # Such a client has no row here in which its use could be noted.
        return next(
            (replace(each, last_used_at=self.now) for each in found if each.client_id == client_id), None
        )

    def token_type(self, confirmation: Mapping[str, Any]) -> str | None:
        """The type of an access token with this `cnf` (RFC 6749, 7.1); None if no plugin proves such a key."""
        if not confirmation:
            return "Bearer"
        return next((self.token_types[name] for name in confirmation if name in self.token_types), None)

    def token_form(self, client: Client, resources: Sequence[str]) -> tuple[AccessTokenFormat, timedelta]:
        """Format and lifetime of an access token of this client for these resources.

        The setting of the client takes precedence over those of its resources. Of several resources the shortest
        lifetime counts, and the token is opaque if it must be for one of them.
        """
        return self.token_form_of(client.client_id, resources)

    def token_form_of(self, client_id: str, resources: Sequence[str]) -> tuple[AccessTokenFormat, timedelta]:
        """As `token_form`, of the client with this id."""
        token_format, lifetime = self.settings.access_token_format, self.settings.access_token_lifetime
        known = [self.resources.find(resource) for resource in resources]
        if known:
            formats = {(each and each.token_format) or token_format for each in known}
            token_format = (
                AccessTokenFormat.OPAQUE if AccessTokenFormat.OPAQUE in formats else AccessTokenFormat.JWT
            )
            lifetime = min((each and each.token_lifetime) or lifetime for each in known)
        own = self.client_forms.get(client_id)
        if own is not None:
            token_format, lifetime = own.token_format or token_format, own.token_lifetime or lifetime
        return token_format, timedelta(seconds=lifetime)

    def wrong_value(self, ruling: Ruling[Any], why: str = "wrong-value") -> ServerError:
        """The refusal for an allow with a value that cannot be used: its plugin is at fault (R-14)."""
        log.error("plugin %s answered %s wrongly (%s): refusing", ruling.decided_by, ruling.hook, why)
        return ServerError("The server could not decide about this request.", reason="wrong-value")

    def wrong_addition(self, hook: str, why: str) -> ServerError:
        """The refusal where plugins add something at a contributing hook that cannot be used (R-14)."""
        log.error("a plugin answered %s wrongly (%s): refusing; fix or remove it", hook, why)
        return ServerError("The server could not answer this request.", reason="wrong-value")

    def record(
        self,
        type: EventType,
        *,
        reason: str = "",
        details: Mapping[str, Any] = NOTHING,
        event_id: str | None = None,
    ) -> None:
        """Write an event about this request into its transaction."""
        event = self.event(type, reason=reason, details=details, event_id=event_id)
        self.stores.events.add(event)
        self.journal.events.append(event)

    def event(
        self,
        type: EventType,
        *,
        reason: str = "",
        details: Mapping[str, Any] = NOTHING,
        event_id: str | None = None,
    ) -> Event:
        """An event about this request, with all decisions made so far, within its limit (`engine.evidence`)."""
        journal = self.journal
        event = Event(
            event_id=event_id or digests.new_identifier(),
            type=type,
            at=self.now,
            actor=journal.actor or self.caller.actor,
            source=self.caller.source,
            request_id=self.caller.request_id,
            client_id=journal.client_id,
            user_id=journal.user_id,
            grant_id=journal.grant_id,
            reason=reason,
            decisions=tuple(ruling.as_record() for ruling in journal.decisions),
            details=details,
        )
        return bounded(event, by_anybody=journal.is_anybody)


# Opens a transaction, and gives its engine.
Begin = Callable[[], AbstractContextManager[Engine]]


def _may_be_client_id(text: str) -> bool:
    return len(text) <= MAXIMUM_CLIENT_ID and _CLIENT_ID.fullmatch(text) is not None
