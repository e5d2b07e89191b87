"""Stores in memory, with the same contract as those in the database."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import RLock
from typing import Any

from authserver.engine import uris
from authserver.engine.ports import AlreadyExists, Stores
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
    InitialTokenState,
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
from authserver.engine.upkeep_records import Place
from authserver.testing.statistics import MemoryStatistics
from authserver.testing.tables import InMemory, Tables
from authserver.testing.upkeep import MemoryUpkeep


class MemoryStores:
    """All stores (`engine.ports.Stores`), and where they come from (`engine.ports.Storage`).

    Writes are stored at once; an exception inside `begin()` undoes all of them. Other threads wait until the block ends.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self._lock = RLock()
        self.clients = MemoryClients(self.tables, self._lock)
        self.initial_tokens = MemoryInitialTokens(self.tables, self._lock)
        self.declarations = MemoryDeclarations(self.tables, self._lock)
        self.stored_settings = MemoryStoredSettings(self.tables, self._lock)
        self.resources = MemoryResources(self.tables, self._lock)
        self.users = MemoryUsers(self.tables, self._lock)
        self.identities = MemoryIdentities(self.tables, self._lock)
        self.grants = MemoryGrants(self.tables, self._lock)
        self.tokens = MemoryTokens(self.tables, self._lock)
        self.kept = MemoryKeptRecords(self.tables, self._lock)
        self.consents = MemoryConsents(self.tables, self._lock)
        self.events = MemoryEvents(self.tables, self._lock)
        self.event_positions = MemoryEventPositions(self.tables, self._lock)
        self.statistics = MemoryStatistics(self.tables, self._lock)
        self.event_seals = MemoryEventSeals(self.tables, self._lock)
        self.sessions = MemorySessions(self.tables, self._lock)
        self.signing_keys = MemorySigningKeys(self.tables, self._lock)
        self.ring_keys = MemoryRingKeys(self.tables, self._lock)
        self.generations = MemoryGenerations(self.tables, self._lock)
        self.upkeep = MemoryUpkeep(self.tables, self._lock)
        self._before: Tables | None = None

    @contextmanager
    def begin(self, *, optimistic: bool = False) -> Iterator[Stores]:
        """The same stores; if the block raises, its writes are undone."""
        with self._lock:
            outer, self._before = self._before, self.tables.copy()
            try:
                yield self
            except BaseException:
                self.tables.put_back(self._before)
                raise
            finally:
                self._before = outer

    def undo(self) -> None:
        """Undo what was written since `begin()`, except events; outside of `begin()` do nothing."""
        if self._before is not None:
            events, numbers = self.tables.events, self.tables.event_numbers
            self.tables.put_back(self._before.copy())
            self.tables.events, self.tables.event_numbers = events, numbers

    def rest(self) -> None:
        """Do nothing: memory has no connections."""


class MemoryClients(InMemory):
    """`engine.ports.Clients` in memory."""

    def find(self, client_id: str, now: datetime) -> Client | None:
        client = self.tables.clients.get(client_id)
        return _with_live_secrets(client, now) if client else None

    def find_all(self, client_ids: Sequence[str], now: datetime) -> Sequence[Client]:
        return [client for client in self.list(now) if client.client_id in client_ids]

    def add(self, client: Client) -> None:
        with self.lock:
            if client.client_id in self.tables.clients:
                raise AlreadyExists
            self.tables.clients[client.client_id] = client

    def list(self, now: datetime) -> Sequence[Client]:
        clients = sorted(
            self.tables.clients.values(), key=lambda client: (client.created_at, client.client_id)
        )
        return [_with_live_secrets(client, now) for client in clients]

    def page(self, now: datetime, *, after: str = "", limit: int) -> Sequence[Client]:
        client_ids = sorted(client_id for client_id in self.tables.clients if client_id > after)
        return [_with_live_secrets(self.tables.clients[client_id], now) for client_id in client_ids[:limit]]

    def count(self, *, limit: int) -> int:
        return min(len(self.tables.clients), limit)

    def with_ending_secret(self, now: datetime, before: datetime, *, limit: int) -> Sequence[Client]:
        def ends(client: Client) -> datetime | None:
            times = [secret.expires_at for secret in client.secrets if secret.expires_at]
            return min((at for at in times if at <= before), default=None)

        found = [(ends(client), client) for client in self.list(now) if client.is_enabled]
        ending = [(at, client.client_id, client) for at, client in found if at]
        return [client for _at, _id, client in sorted(ending, key=lambda each: each[:2])[:limit]]

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
        wanted = _lower(text)
        found = sorted(self.list(now), key=lambda client: client.client_id)
        fitting = [
            client
            for client in found
            if wanted in _lower(f"{client.client_id}\n{client.name}")
            and registered_by in (None, client.registered_by)
            and enabled in (None, client.is_enabled)
            and not (never_used and client.last_use)
        ]
        return [client for client in fitting if client.client_id > after][:limit]

    def change(self, before: Client, after: Client) -> bool:
        with self.lock:
            kept = self.tables.clients.get(before.client_id)
            if kept is None:
                return False
            own: dict[str, Any] = {"secrets": kept.secrets, "last_used_at": kept.last_used_at}
            if kept != replace(before, **own):
                return False
            self.tables.clients[before.client_id] = replace(after, **own)
            return True

    def keep_logo(self, client_id: str, logo: Logo | None) -> None:
        with self.lock:
            self.tables.logos.pop(client_id, None)
            if logo is not None:
                self.tables.logos[client_id] = logo

    def find_logo(self, client_id: str, digest: str) -> Logo | None:
        logo = self.tables.logos.get(client_id)
        return logo if logo is not None and logo.digest == digest else None

    def disable(self, client_id: str, now: datetime) -> bool:
        with self.lock:
            client = self.tables.clients.get(client_id)
            if client is None or not client.is_enabled:
                return False
            self.tables.clients[client_id] = replace(client, disabled_at=now)
            return True

    def hold(self, client_id: str) -> bool:
        client = self.tables.clients.get(client_id)
        return client is None or client.is_enabled

    def add_secret(self, client_id: str, secret: ClientSecret) -> None:
        with self.lock:
            client = self.tables.clients[client_id]
            others = (known for known in client.secrets if known.digest != secret.digest)
            secrets = sorted((*others, secret), key=lambda each: each.created_at)
            self.tables.clients[client_id] = replace(client, secrets=tuple(secrets))

    def change_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> bool:
        with self.lock:
            client = self.tables.clients.get(client_id)
            if client is None or before not in client.secrets:
                return False
            secrets = tuple(after if secret == before else secret for secret in client.secrets)
            self.tables.clients[client_id] = replace(client, secrets=secrets)
            return True

    def note_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> None:
        self.change_secret(client_id, before, after)

    def count_secrets(self, now: datetime) -> Mapping[str, int]:
        return Counter(
            secret.key_id for client in self.list(now) if client.is_enabled for secret in client.secrets
        )

    def knows_origin(self, origin: str) -> bool:
        normal = uris.origin(origin)
        enabled = [client for client in self.tables.clients.values() if client.is_enabled]
        known = {uris.origin(uri) for client in enabled for uri in client.redirect_uris}
        return normal is not None and normal in known

    def touch(self, client_id: str, now: datetime) -> None:
        with self.lock:
            if client := self.tables.clients.get(client_id):
                self.tables.clients[client_id] = replace(client, last_used_at=now)

    def note_first_use(self, client_id: str, now: datetime) -> bool:
        self.touch(client_id, now)
        return client_id in self.tables.clients

    def hold_registrations(self) -> None:
        """Do nothing: only one thread is inside `begin()`."""

    def never_used(self, before: datetime, *, network: str | None = None, limit: int) -> Sequence[Client]:
        found = [
            replace(client, secrets=())
            for client in self.tables.clients.values()
            if _is_never_used(client)
            and client.initial_token is None
            and client.created_at <= before
            and network in (None, client.registered_from)
        ]
        return sorted(found, key=lambda client: client.created_at)[:limit]

    def count_never_used(self, *, network: str | None = None, limit: int) -> int:
        return len(self.never_used(datetime.max.replace(tzinfo=UTC), network=network, limit=limit))

    def remove_never_used(self, client_id: str) -> bool:
        with self.lock:
            client = self.tables.clients.get(client_id)
            if client is None or not _is_never_used(client):
                return False
            self.tables.logos.pop(client_id, None)
            del self.tables.clients[client_id]
            return True

    def count_of_policy(self, policy: str) -> int:
        clients = self.tables.clients.values()
        return sum(client.registration_policy == policy and client.is_enabled for client in clients)


def _lower(text: str) -> str:
    """The text with the capital letters of ASCII made small."""
    return text.encode().lower().decode()


def _is_never_used(client: Client) -> bool:
    return client.is_self_registered and client.last_used_at is None


class MemoryInitialTokens(InMemory):
    """`engine.ports.InitialTokens` in memory."""

    def add(self, token: InitialAccessToken) -> None:
        with self.lock:
            if token.token_id in self.tables.initial_tokens or self.find(token.digest):
                raise AlreadyExists
            self.tables.initial_tokens[token.token_id] = token

    def find(self, digest: bytes) -> InitialAccessToken | None:
        found = self.tables.initial_tokens.values()
        return next((token for token in found if token.digest == digest), None)

    def list(self) -> Sequence[InitialAccessToken]:
        found = sorted(self.tables.initial_tokens.values(), key=lambda token: token.token_id)
        return sorted(found, key=lambda token: token.created_at, reverse=True)

    def find_by_id(self, token_id: str) -> InitialAccessToken | None:
        return self.tables.initial_tokens.get(token_id)

    def page(self, *, after: Place | None = None, limit: int) -> Sequence[InitialAccessToken]:
        return [
            token
            for token in self.list()
            if after is None
            or token.created_at < after[0]
            or (token.created_at == after[0] and token.token_id > after[1])
        ][:limit]

    def claim(self, token_id: str, now: datetime) -> bool:
        with self.lock:
            token = self.tables.initial_tokens.get(token_id)
            if token is None or token.state(now) is not InitialTokenState.LIVE:
                return False
            self.tables.initial_tokens[token_id] = replace(token, used=token.used + 1)
            return True

    def change(self, before: InitialAccessToken, after: InitialAccessToken) -> bool:
        with self.lock:
            token = self.tables.initial_tokens.get(before.token_id)
            if token is None or _changeable(token) != _changeable(before):
                return False
            self.tables.initial_tokens[before.token_id] = replace(token, **_changeable(after))
            return True

    def revoke(self, token_id: str, now: datetime) -> bool:
        with self.lock:
            token = self.tables.initial_tokens.get(token_id)
            if token is None or token.revoked_at is not None:
                return False
            self.tables.initial_tokens[token_id] = replace(token, revoked_at=now)
            return True


def _changeable(token: InitialAccessToken) -> dict[str, Any]:
    return {name: getattr(token, name) for name in ("policy", "note", "uses", "expires_at")}


class MemoryDeclarations(InMemory):
    """`engine.ports.Declarations` in memory."""

    def list(self) -> Sequence[Declaration]:
        return [declaration for _, declaration in sorted(self.tables.declarations.items())]

    def keep(self, declaration: Declaration) -> None:
        with self.lock:
            self.tables.declarations[declaration.kind, declaration.name] = declaration

    def forget(self, kind: DeclaredKind, name: str) -> bool:
        with self.lock:
            return self.tables.declarations.pop((kind, name), None) is not None


class MemoryStoredSettings(InMemory):
    """`engine.ports.StoredSettings` in memory."""

    def find(self, kind: DeclaredKind, name: str) -> StoredSetting | None:
        return self.tables.stored_settings.get((kind, name))

    def hold(self, kind: DeclaredKind, name: str) -> StoredSetting | None:
        return self.find(kind, name)

    def list(self) -> Sequence[StoredSetting]:
        return [setting for _, setting in sorted(self.tables.stored_settings.items())]

    def keep(self, setting: StoredSetting) -> None:
        with self.lock:
            self.tables.stored_settings[setting.kind, setting.name] = setting

    def remove(self, kind: DeclaredKind, name: str) -> bool:
        with self.lock:
            return self.tables.stored_settings.pop((kind, name), None) is not None


class MemoryResources(InMemory):
    """`engine.ports.Resources` in memory."""

    def find(self, form: str) -> Resource | None:
        return self.tables.resources.get(form)

    def default(self) -> Resource | None:
        return next((each for each in self.tables.resources.values() if each.is_default), None)

    def list(self) -> Sequence[Resource]:
        return sorted(self.tables.resources.values(), key=lambda resource: resource.form)

    def page(self, *, after: str = "", limit: int) -> Sequence[Resource]:
        return [each for each in self.list() if each.form > after][:limit]

    def add(self, resource: Resource) -> None:
        with self.lock:
            if resource.form in self.tables.resources or (resource.is_default and self.default()):
                raise AlreadyExists
            self.tables.resources[resource.form] = resource

    def change(self, before: Resource, after: Resource) -> bool:
        with self.lock:
            if self.find(before.form) != before:
                return False
            if after.is_default and self.default() not in (None, before):
                return False
            own: dict[str, Any] = {"form": before.form, "created_at": before.created_at}
            self.tables.resources[before.form] = replace(after, **own)
            return True

    def hold(self, form: str) -> bool:
        return form in self.tables.resources

    def remove(self, form: str) -> bool:
        with self.lock:
            return self.tables.resources.pop(form, None) is not None


class MemoryUsers(InMemory):
    """`engine.ports.Users` in memory."""

    def find(self, user_id: str) -> User | None:
        return self.tables.users.get(user_id)

    def find_by_name(self, username: str) -> User | None:
        return next((user for user in self.tables.users.values() if user.username == username), None)

    def add(self, user: User) -> None:
        with self.lock:
            if user.user_id in self.tables.users or self.find_by_name(user.username):
                raise AlreadyExists
            self.tables.users[user.user_id] = user

    def find_all(self, user_ids: Sequence[str]) -> Sequence[User]:
        return [user for user in self.tables.users.values() if user.user_id in user_ids]

    def list(self) -> Sequence[User]:
        return sorted(self.tables.users.values(), key=lambda user: user.username)

    def page(
        self, *, after: str = "", prefix: str = "", disabled: bool = False, limit: int
    ) -> Sequence[User]:
        found = [user for user in self.list() if user.username.startswith(prefix)]
        found = [user for user in found if not (disabled and user.is_enabled)]
        return [user for user in found if user.username > after][:limit]

    def count(self, *, limit: int) -> int:
        return min(len(self.tables.users), limit)

    def disable(self, user_id: str, now: datetime) -> bool:
        with self.lock:
            user = self.tables.users.get(user_id)
            if user is None or not user.is_enabled:
                return False
            self.tables.users[user_id] = replace(user, disabled_at=now)
            return True

    def hold_enabled(self, user_id: str) -> bool:
        user = self.tables.users.get(user_id)
        return user is not None and user.is_enabled

    def enable(self, user_id: str) -> bool:
        with self.lock:
            user = self.tables.users.get(user_id)
            if user is None or user.is_enabled:
                return False
            self.tables.users[user_id] = replace(user, disabled_at=None)
            return True

    def change(self, user: User, *, instead_of: User | None = None) -> bool:
        with self.lock:
            stored = self.tables.users.get(user.user_id)
            if stored is None or (instead_of and _kept(stored) != _kept(instead_of)):
                return False
            self.tables.users[user.user_id] = replace(stored, **_kept(user))
            return True

    def set_password(self, user_id: str, password_hash: str | None, *, instead_of: str | None = None) -> bool:
        with self.lock:
            user = self.tables.users.get(user_id)
            if user is None or instead_of not in (None, user.password_hash):
                return False
            self.tables.users[user_id] = replace(user, password_hash=password_hash)
            return True

    def hold(self, user: User) -> bool:
        now = self.tables.users.get(user.user_id)
        return now is not None and now.password_hash == user.password_hash


def _kept(user: User) -> dict[str, Any]:
    return {name: getattr(user, name) for name in ("display_name", "groups", "attributes")}


class MemoryIdentities(InMemory):
    """`engine.ports.Identities` in memory."""

    def find(self, issuer: str, subject: str) -> JoinedIdentity | None:
        return self.tables.identities.get((issuer, subject))

    def of_user(self, user_id: str) -> Sequence[JoinedIdentity]:
        found = sorted(self.tables.identities.items())
        return [identity for _, identity in found if identity.user_id == user_id]

    def page(self, issuer: str, *, after: str = "", limit: int) -> Sequence[JoinedIdentity]:
        found = sorted(self.tables.identities.items())
        return [identity for (of, subject), identity in found if of == issuer and subject > after][:limit]

    def add(self, identity: JoinedIdentity) -> None:
        with self.lock:
            key = (identity.issuer, identity.subject)
            if key in self.tables.identities:
                raise AlreadyExists
            self.tables.identities[key] = identity

    def remove(self, issuer: str, subject: str) -> bool:
        with self.lock:
            return self.tables.identities.pop((issuer, subject), None) is not None


class MemoryGrants(InMemory):
    """`engine.ports.Grants` in memory."""

    def add(self, grant: Grant) -> None:
        with self.lock:
            if grant.grant_id in self.tables.grants:
                raise AlreadyExists
            self.tables.grants[grant.grant_id] = grant

    def find(self, grant_id: str) -> Grant | None:
        return self.tables.grants.get(grant_id)

    def find_with_user(self, grant_id: str) -> FoundGrant | None:
        grant = self.tables.grants.get(grant_id)
        if grant is None:
            return None
        user = self.tables.users.get(grant.user_id) if grant.user_id else None
        return FoundGrant(grant=grant, user=user)

    def foresee_with_user(self, grant_id: str) -> None:
        pass

    def derived(self, grant_ids: Sequence[str], now: datetime) -> Sequence[Grant]:
        return [
            grant for grant in self._below(grant_ids) if grant.revoked_at is None and grant.expires_at > now
        ]

    def _below(self, grant_ids: Sequence[str]) -> builtins.list[Grant]:
        children = [grant for grant in self.tables.grants.values() if grant.parent_id in grant_ids]
        return children + (self._below([grant.grant_id for grant in children]) if children else [])

    def hold(self, grant_ids: Sequence[str]) -> bool:
        found = map(self.tables.grants.get, grant_ids)
        return all(grant is not None and grant.revoked_at is None for grant in found)

    def revoke(self, grant_id: str, now: datetime, reason: str) -> bool:
        with self.lock:
            grant = self.tables.grants.get(grant_id)
            if grant is None or grant.revoked_at is not None:
                return False
            for each in (grant, *self._below([grant_id])):
                if each.revoked_at is None:
                    self.tables.grants[each.grant_id] = replace(each, revoked_at=now, revoked_reason=reason)
            return True

    def _revoke_all(self, found: Sequence[Grant], now: datetime, reason: str) -> int:
        live = [grant.grant_id for grant in found if grant.revoked_at is None]
        for grant_id in live:
            self.revoke(grant_id, now, reason)
        return len(live)

    def list(
        self, now: datetime, *, user_id: str | None = None, client_id: str | None = None
    ) -> Sequence[Grant]:
        found = self._all(GrantFilter(user_id=user_id, client_id=client_id, live_at=now, redeemed=True))
        found.sort(key=lambda grant: grant.grant_id)
        return sorted(found, key=lambda grant: grant.created_at, reverse=True)

    def search(self, wanted: GrantFilter, *, after: Place | None = None, limit: int) -> Sequence[Grant]:
        found = sorted(self._all(wanted), key=_place_of_grant, reverse=True)
        return [grant for grant in found if after is None or _place_of_grant(grant) < after][:limit]

    def _all(self, wanted: GrantFilter) -> builtins.list[Grant]:
        unredeemed = {
            token.grant_id
            for token in self.tables.tokens.values()
            if token.kind is TokenKind.CODE and token.claimed_at is None
        }
        return [
            grant
            for grant in self.tables.grants.values()
            if wanted.user_id in (None, grant.user_id)
            and wanted.client_id in (None, grant.client_id)
            and (wanted.live_at is None or (grant.revoked_at is None and grant.expires_at > wanted.live_at))
            and not (wanted.redeemed and grant.grant_id in unredeemed)
        ]

    def revoke_some(self, grant_ids: Sequence[str], now: datetime, reason: str) -> int:
        with self.lock:
            found = [self.tables.grants[each] for each in grant_ids if each in self.tables.grants]
            return self._revoke_all(found, now, reason)

    def revoke_of_user(
        self, user_id: str, now: datetime, reason: str, *, client_id: str | None = None
    ) -> int:
        with self.lock:
            found = [
                grant
                for grant in self.tables.grants.values()
                if grant.user_id == user_id and client_id in (None, grant.client_id)
            ]
            return self._revoke_all(found, now, reason)

    def revoke_of_client(self, client_id: str, now: datetime, reason: str) -> int:
        with self.lock:
            found = [grant for grant in self.tables.grants.values() if grant.client_id == client_id]
            return self._revoke_all(found, now, reason)

    def touch(self, grant_id: str, now: datetime) -> None:
        with self.lock:
            if grant := self.tables.grants.get(grant_id):
                self.tables.grants[grant_id] = replace(grant, last_used_at=now)

    def widen(self, grant: Grant, scopes: tuple[str, ...]) -> bool:
        with self.lock:
            found = self.tables.grants.get(grant.grant_id)
            if found is None or found.revoked_at is not None or found.scopes != grant.scopes:
                return False
            self.tables.grants[grant.grant_id] = found.wider(scopes)
            return True

    def count(self) -> int:
        return len(self.tables.grants)

    def count_live(self, now: datetime, *, limit: int) -> int:
        live = [
            grant
            for grant in self.tables.grants.values()
            if grant.revoked_at is None and grant.expires_at > now
        ]
        return min(len(live), limit)

    def revoke_next(
        self, now: datetime, reason: str, *, after: str = "", limit: int
    ) -> tuple[str, int] | None:
        with self.lock:
            ids = sorted(grant_id for grant_id in self.tables.grants if grant_id > after)[:limit]
            found = [self.tables.grants[each] for each in ids]
            return (ids[-1], self._revoke_all(found, now, reason)) if ids else None

    def page(self, *, after: str = "", limit: int) -> Sequence[Grant]:
        ids = sorted(grant_id for grant_id in self.tables.grants if grant_id > after)[:limit]
        return [self.tables.grants[grant_id] for grant_id in ids]

    def narrow(self, before: Grant, after: Grant) -> bool:
        with self.lock:
            kept = self.find(before.grant_id)
            if kept is None or kept.revoked_at is not None:
                return False
            if (kept.resources, kept.scopes) != (before.resources, before.scopes):
                return False
            self.tables.grants[before.grant_id] = replace(
                kept, resources=after.resources, scopes=after.scopes, details=after.details
            )
            return True


def _place_of_grant(grant: Grant) -> Place:
    return grant.created_at, grant.grant_id


class MemoryTokens(InMemory):
    """`engine.ports.Tokens` in memory."""

    def add(self, token: Token) -> None:
        with self.lock:
            if (token.kind, token.digest) in self.tables.tokens:
                raise AlreadyExists
            self.tables.tokens[token.kind, token.digest] = token

    def find(self, kind: TokenKind, digest: bytes) -> FoundToken | None:
        token = self.tables.tokens.get((kind, digest))
        grant = self.tables.grants.get(token.grant_id) if token else None
        if token is None or grant is None:
            return None
        user = self.tables.users.get(grant.user_id) if grant.user_id else None
        return FoundToken(token=token, grant=grant, user=user)

    def foresee(self, kind: TokenKind, digest: bytes) -> None:
        pass

    def claim(
        self,
        token: Token,
        now: datetime,
        *,
        successor_digest: bytes | None = None,
        sealed_successor: bytes | None = None,
        along: bool = False,
    ) -> bool:
        with self.lock:
            found = self.find(token.kind, token.digest)
            if found is None or found.token.claimed_at is not None or found.grant.revoked_at is not None:
                return False
            self.tables.tokens[token.kind, token.digest] = replace(
                found.token,
                claimed_at=now,
                successor_digest=successor_digest,
                sealed_successor=sealed_successor,
            )
            return True

    def note_failure(self, token: Token, now: datetime, *, limit: int) -> None:
        with self.lock:
            kept = self.tables.tokens.get((token.kind, token.digest))
            if kept is None or kept.claimed_at is not None:
                return
            failures = kept.failures + 1
            claimed_at = now if failures >= limit else None
            self.tables.tokens[token.kind, token.digest] = replace(
                kept, failures=failures, claimed_at=claimed_at
            )

    def usable_refresh_tokens(
        self, user_id: str, client_id: str, now: datetime, *, limit: int
    ) -> Sequence[FoundToken]:
        found = [self.find(token.kind, token.digest) for token in tuple(self.tables.tokens.values())]
        usable = [
            each
            for each in found
            if each is not None
            and each.token.kind is TokenKind.REFRESH
            and each.token.claimed_at is None
            and each.token.expires_at > now
            and (each.grant.user_id, each.grant.client_id) == (user_id, client_id)
            and each.grant.revoked_at is None
            and each.grant.expires_at > now
            and each.user is not None
        ]
        usable.sort(key=lambda each: each.grant.grant_id)
        return sorted(usable, key=lambda each: each.grant.created_at, reverse=True)[:limit]

    def extend(self, token: Token, expires_at: datetime) -> bool:
        with self.lock:
            found = self.find(token.kind, token.digest)
            if found is None or found.token.claimed_at is not None or found.grant.revoked_at is not None:
                return False
            self.tables.tokens[token.kind, token.digest] = replace(found.token, expires_at=expires_at)
            return True

    def count_live(self, grant_ids: Sequence[str], now: datetime) -> Mapping[TokenKind, int]:
        return Counter(
            token.kind
            for token in self.tables.tokens.values()
            if token.grant_id in grant_ids and token.claimed_at is None and token.expires_at > now
        )

    def access_tokens(self, grant_ids: Sequence[str], now: datetime) -> Sequence[Token]:
        return [
            token
            for token in self.tables.tokens.values()
            if token.kind is TokenKind.ACCESS and token.grant_id in grant_ids and token.expires_at > now
        ]

    def newest(self, grant_id: str, *, limit: int) -> Sequence[Token]:
        found = [token for token in self.tables.tokens.values() if token.grant_id == grant_id]
        found.sort(key=lambda token: (token.kind, token.digest))
        return sorted(found, key=lambda token: token.created_at, reverse=True)[:limit]


class MemoryKeptRecords(InMemory):
    """`engine.ports.KeptRecords` in memory."""

    def add_once(self, record: Kept) -> bool:
        with self.lock:
            return self.tables.kept.setdefault((record.kind, record.digest), record) is record

    def find(self, kind: str, digest: bytes) -> Kept | None:
        return self.tables.kept.get((kind, digest))

    def change(self, before: Kept, after: Kept) -> bool:
        with self.lock:
            if self.find(before.kind, before.digest) != before:
                return False
            self.tables.kept[before.kind, before.digest] = after
            return True

    def claim(self, record: Kept, now: datetime) -> bool:
        with self.lock:
            found = self.find(record.kind, record.digest)
            if found is None or found.claimed_at is not None or found.expires_at <= now:
                return False
            self.tables.kept[record.kind, record.digest] = replace(found, claimed_at=now)
            return True


class MemoryConsents(InMemory):
    """`engine.ports.Consents` in memory."""

    def find(self, user_id: str, client_id: str) -> Consent | None:
        return self.tables.consents.get((user_id, client_id))

    def remember(self, consent: Consent) -> None:
        self.tables.consents[consent.user_id, consent.client_id] = consent

    def list(self, *, user_id: str | None = None, client_id: str | None = None) -> Sequence[Consent]:
        found = [
            consent
            for consent in tuple(self.tables.consents.values())
            if user_id in (None, consent.user_id) and client_id in (None, consent.client_id)
        ]
        found.sort(key=lambda consent: (consent.user_id, consent.client_id))
        return sorted(found, key=lambda consent: consent.granted_at, reverse=True)

    def forget(self, user_id: str, client_id: str | None = None) -> int:
        with self.lock:
            found = self.list(user_id=user_id, client_id=client_id)
            for consent in found:
                del self.tables.consents[user_id, consent.client_id]
            return len(found)

    def forget_client(self, client_id: str) -> int:
        with self.lock:
            found = self.list(client_id=client_id)
            for consent in found:
                del self.tables.consents[consent.user_id, client_id]
            return len(found)

    def forget_some(self, limit: int, *, client_id: str | None = None) -> int:
        with self.lock:
            found = self.page(limit=limit, client_id=client_id)
            for consent in found:
                del self.tables.consents[consent.user_id, consent.client_id]
            return len(found)

    def count(self, *, user_id: str | None = None, client_id: str | None = None) -> int:
        return len(self.list(user_id=user_id, client_id=client_id))

    def page(
        self,
        *,
        after: tuple[str, str] = ("", ""),
        limit: int,
        user_id: str | None = None,
        client_id: str | None = None,
    ) -> Sequence[Consent]:
        found = {
            (each.user_id, each.client_id): each for each in self.list(user_id=user_id, client_id=client_id)
        }
        return [found[key] for key in sorted(found) if key > after][:limit]

    def narrow(self, before: Consent, after: Consent | None) -> bool:
        with self.lock:
            key = before.user_id, before.client_id
            kept = self.tables.consents.get(key)
            if kept is None or (kept.resources, kept.scopes) != (before.resources, before.scopes):
                return False
            if after is not None:
                self.tables.consents[key] = replace(kept, resources=after.resources, scopes=after.scopes)
            else:
                del self.tables.consents[key]
            return True


class MemoryEvents(InMemory):
    """`engine.ports.Events` in memory."""

    def add(self, event: Event) -> None:
        with self.lock:
            self.tables.events[event.event_id] = event
            # The numbers of deleted events are kept, too: no number is used again.
            self.tables.event_numbers[event.event_id] = len(self.tables.event_numbers) + 1

    def find(self, event_id: str) -> Event | None:
        return self.tables.events.get(event_id)

    def since(self, since: datetime, *, type: EventType | None = None) -> Iterator[Event]:
        found = [event for event in self.tables.events.values() if event.at >= since]
        found = [event for event in found if type in (None, event.type)]
        return iter(sorted(found, key=place_of))

    def latest(self) -> Iterator[Event]:
        return iter(sorted(self.tables.events.values(), key=place_of, reverse=True))

    def count(self, since: datetime, *, type: EventType | None = None) -> int:
        return sum(1 for _ in self.since(since, type=type))

    def search(
        self, wanted: EventFilter, *, after: Place | None = None, oldest_first: bool = False, limit: int
    ) -> Sequence[Event]:
        def is_next(event: Event) -> bool:
            if after is None:
                return True
            return (place_of(event) > after) if oldest_first else (place_of(event) < after)

        found = [event for event in self.tables.events.values() if wanted.fits(event) and is_next(event)]
        return sorted(found, key=place_of, reverse=not oldest_first)[:limit]

    def following(self, number: int, *, limit: int, decisions: bool = True) -> Sequence[tuple[int, Event]]:
        found = [item for item in self._numbered() if item[0] > number][:limit]
        return found if decisions else [(number, replace(event, decisions=())) for number, event in found]

    def numbered(
        self, since: datetime, until: datetime, *, after: Place | None = None, limit: int
    ) -> Sequence[tuple[int, Event]]:
        found = [
            item
            for item in self._numbered()
            if since <= item[1].at < until and (after is None or place_of(item[1]) > after)
        ]
        return sorted(found, key=lambda item: place_of(item[1]))[:limit]

    def last_number(self) -> int:
        return max((number for number, _ in self._numbered()), default=0)

    def _numbered(self) -> Sequence[tuple[int, Event]]:
        numbers = self.tables.event_numbers
        return sorted(
            ((numbers[event_id], event) for event_id, event in self.tables.events.items()),
            key=lambda item: item[0],
        )


class MemoryEventPositions(InMemory):
    """`engine.ports.EventPositions` in memory."""

    def of(self, reader: str) -> int | None:
        return self.tables.event_positions.get(reader)

    def list(self) -> Sequence[tuple[str, int]]:
        return sorted(self.tables.event_positions.items())

    def begin(self, reader: str, number: int) -> bool:
        with self.lock:
            begins = reader not in self.tables.event_positions
            self.tables.event_positions.setdefault(reader, number)
            return begins

    def move(self, reader: str, before: int, after: int) -> bool:
        with self.lock:
            if self.of(reader) != before:
                return False
            self.tables.event_positions[reader] = after
            return True

    def count_set_aside(self, reader: str, count: int) -> None:
        with self.lock:
            self.tables.set_aside[reader] = self.tables.set_aside.get(reader, 0) + count

    def set_aside(self) -> Mapping[str, int]:
        return dict(sorted(self.tables.set_aside.items()))


class MemoryEventSeals(InMemory):
    """`engine.ports.EventSeals` in memory."""

    def add(self, seal: EventSeal) -> None:
        with self.lock:
            if seal.number in self.tables.event_seals:
                raise AlreadyExists
            self.tables.event_seals[seal.number] = seal

    def last(self) -> EventSeal | None:
        return max(self.tables.event_seals.values(), key=lambda seal: seal.number, default=None)

    def following(self, number: int, *, limit: int) -> Sequence[EventSeal]:
        return [seal for _, seal in sorted(self.tables.event_seals.items()) if seal.number > number][:limit]

    def since(self, since: datetime) -> EventSeal | None:
        found = [seal for seal in self.tables.event_seals.values() if seal.sealed_at >= since]
        return min(found, key=lambda seal: (seal.sealed_at, seal.number), default=None)

    def find(self, sought: bytes) -> EventSeal | None:
        return next((seal for seal in self.tables.event_seals.values() if seal.hash == sought), None)

    def change(self, before: EventSeal, after: EventSeal) -> bool:
        with self.lock:
            if self.tables.event_seals.get(before.number) != before:
                return False
            self.tables.event_seals[before.number] = after
            return True

    def remove_until(self, number: int) -> int:
        with self.lock:
            found = [each for each in self.tables.event_seals if each <= number]
            for each in found:
                del self.tables.event_seals[each]
            return len(found)

    def deletions(self) -> Sequence[DeletionMark]:
        return [mark for _, mark in sorted(self.tables.event_deletions.items())]

    def mark(self, mark: DeletionMark) -> None:
        with self.lock:
            marks = self.tables.event_deletions
            for kind, until in list(marks):
                if kind == mark.kind and until < mark.until:
                    del marks[kind, until]
            marks[mark.kind, mark.until] = mark


def place_of(event: Event) -> Place:
    """The place of an event in the order of time and id."""
    return event.at, event.event_id


class MemorySessions(InMemory):
    """`engine.ports.Sessions` in memory."""

    def add(self, session: Session) -> None:
        with self.lock:
            if session.digest in self.tables.sessions:
                raise AlreadyExists
            self.tables.sessions[session.digest] = session

    def find(self, digest: bytes, now: datetime, idle_since: datetime) -> FoundSession | None:
        session = self.tables.sessions.get(digest)
        if session is None or session.expires_at <= now or session.last_seen_at < idle_since:
            return None
        user = self.tables.users.get(session.user_id)
        return FoundSession(session=session, user=user) if user and user.is_enabled else None

    def touch(self, digest: bytes, now: datetime) -> None:
        with self.lock:
            session = self.tables.sessions.get(digest)
            if session is not None and session.last_seen_at < now:
                self.tables.sessions[digest] = replace(session, last_seen_at=now)

    def hold(self, digest: bytes) -> bool:
        return digest in self.tables.sessions

    def end(self, digest: bytes) -> None:
        self.tables.sessions.pop(digest, None)

    def list(self, user_id: str, now: datetime, idle_since: datetime) -> Sequence[Session]:
        found = [
            session
            for session in self.tables.sessions.values()
            if session.user_id == user_id and session.expires_at > now and session.last_seen_at >= idle_since
        ]
        found.sort(key=lambda session: session.digest)
        return sorted(found, key=lambda session: session.last_seen_at, reverse=True)

    def end_all(self, user_id: str, *, but: bytes | None = None) -> int:
        with self.lock:
            ended = [
                session.digest
                for session in self.tables.sessions.values()
                if session.user_id == user_id and session.digest != but
            ]
            for digest in ended:
                del self.tables.sessions[digest]
            return len(ended)

    def end_some(self, limit: int) -> int:
        with self.lock:
            return _drop_some(self.tables.sessions, limit)


class MemorySigningKeys(InMemory):
    """`engine.ports.SigningKeys` in memory."""

    def list(self) -> Sequence[SigningKey]:
        return sorted(self.tables.signing_keys.values(), key=lambda key: (key.created_at, key.kid))

    def add(self, key: SigningKey) -> bool:
        with self.lock:
            staying = {
                known.algorithm for known in self.tables.signing_keys.values() if known.retires_at is None
            }
            if key.kid in self.tables.signing_keys or (key.retires_at is None and key.algorithm in staying):
                return False
            self.tables.signing_keys[key.kid] = key
            return True

    def change(self, before: SigningKey, after: SigningKey) -> bool:
        with self.lock:
            if self.tables.signing_keys.get(before.kid) != before:
                return False
            self.tables.signing_keys[before.kid] = after
            return True


class MemoryRingKeys(InMemory):
    """`engine.ports.RingKeys` in memory."""

    def list(self) -> Sequence[RingKey]:
        return sorted(self.tables.ring_keys.values(), key=lambda key: key.key_id)

    def add(self, key: RingKey) -> bool:
        with self.lock:
            return self.tables.ring_keys.setdefault(key.key_id, key) is key


class MemoryGenerations(InMemory):
    """`engine.ports.Generations` in memory."""

    def began_at(self) -> datetime | None:
        return max(self.tables.generations, default=None)

    def begin(self, now: datetime) -> None:
        self.tables.generations[now] = now


def _drop_some(table: dict[Any, Any], limit: int) -> int:
    dropped = list(table)[:limit]
    for key in dropped:
        del table[key]
    return len(dropped)


def _with_live_secrets(client: Client, now: datetime) -> Client:
    live = [secret for secret in client.secrets if secret.expires_at is None or secret.expires_at > now]
    return replace(client, secrets=tuple(live))
