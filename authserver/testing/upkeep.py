"""Clean-up in memory, with the same contract as that in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from authserver.engine.count_records import Step
from authserver.engine.records import ISSUANCES, REFUSALS, Client, TokenKind
from authserver.engine.upkeep_records import Batch, Disposable, Place
from authserver.testing.tables import InMemory

Over = tuple[datetime, str, Callable[[], int]]


class MemoryUpkeep(InMemory):
    """`engine.ports.Upkeep` in memory; each batch deletes the oldest records."""

    def remove(self, kind: Disposable, before: datetime, start: Place | None = None, *, limit: int) -> Batch:
        with self.lock:
            over = sorted(self._over(kind, before), key=lambda each: each[:2])
            sessions = dict(self.tables.sessions)
            dependents = sum(remove() for _, _, remove in over[:limit])
            last = over[:limit][-1][:2] if len(over) >= limit else None
            ended = [session for digest, session in sessions.items() if digest not in self.tables.sessions]
            return Batch(removed=len(over[:limit]), dependents=dependents, next=last, sessions=ended)

    def count(self, kind: Disposable, before: datetime, *, limit: int) -> int:
        return min(limit, sum(1 for _ in self._over(kind, before)))

    def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        with self.lock:
            other, ends = self.tables.leases.get(name, (holder, now))
            if other != holder and now < ends <= until + (until - now):
                return False
            self.tables.leases[name] = (holder, until)
            return True

    def end_lease(self, name: str, holder: str) -> None:
        with self.lock:
            if self.tables.leases.get(name, ("", None))[0] == holder:
                del self.tables.leases[name]

    def _over(self, kind: Disposable, before: datetime) -> Iterator[Over]:
        """For each expired record: its end, its id, and a function that deletes it and returns the number of dependents."""
        tables = self.tables
        match kind:
            case Disposable.TOKENS:
                for key, token in tables.tokens.items():
                    if token.kind is TokenKind.ACCESS and token.expires_at <= before:
                        yield token.expires_at, repr(key), _dropping(tables.tokens, key)
            case Disposable.KEPT_RECORDS:
                for kept, record in tables.kept.items():
                    if record.expires_at <= before:
                        yield record.expires_at, repr(kept), _dropping(tables.kept, kept)
            case Disposable.GRANTS:
                for grant_id, grant in tables.grants.items():
                    if grant.expires_at <= before:
                        yield grant.expires_at, grant_id, self._dropping_grant(grant_id)
            case Disposable.SESSIONS | Disposable.IDLE_SESSIONS:
                for digest, session in tables.sessions.items():
                    over = session.expires_at if kind is Disposable.SESSIONS else session.last_seen_at
                    if over <= before:
                        yield over, repr(digest), _dropping(tables.sessions, digest)
            case Disposable.REFUSALS | Disposable.ISSUANCES | Disposable.EVENTS:
                types = {Disposable.REFUSALS: REFUSALS, Disposable.ISSUANCES: ISSUANCES}.get(kind)
                for event_id, event in tables.events.items():
                    if event.at <= before and (types is None or event.type in types):
                        yield event.at, event_id, _dropping(tables.events, event_id)
            case Disposable.HOURLY_COUNTS | Disposable.COUNTS:
                is_hourly = kind is Disposable.HOURLY_COUNTS
                for counted in tables.counts:
                    if counted[2] <= before and (counted[0] is Step.HOUR) is is_hourly:
                        yield counted[2], repr(counted), _dropping(tables.counts, counted)
            case Disposable.SAMPLES:
                for sample in tables.samples:
                    if sample[2] <= before:
                        yield sample[2], repr(sample), _dropping(tables.samples, sample)
            case Disposable.CLIENT_SECRETS:
                for client in tables.clients.values():
                    for secret in client.secrets:
                        if secret.expires_at is not None and secret.expires_at <= before:
                            name = client.client_id
                            yield secret.expires_at, repr(secret), self._dropping_secret(name, secret.digest)
            case Disposable.CLIENTS | Disposable.UNUSED_CLIENTS:
                for client in tables.clients.values():
                    if kind is Disposable.UNUSED_CLIENTS and client.last_used_at is not None:
                        continue
                    if client.created_at <= before and self._is_idle(client, before):
                        yield client.created_at, client.client_id, self._dropping_client(client.client_id)

    def _is_idle(self, client: Client, before: datetime) -> bool:
        return (
            client.is_self_registered
            and (client.last_used_at is None or client.last_used_at <= before)
            and all(grant.client_id != client.client_id for grant in self.tables.grants.values())
            and all(secret.last_used_at is None or secret.last_used_at <= before for secret in client.secrets)
        )

    def _dropping_grant(self, grant_id: str) -> Callable[[], int]:
        def drop() -> int:
            tokens = self.tables.tokens
            of_grant = [key for key, token in tokens.items() if token.grant_id == grant_id]
            for key in of_grant:
                del tokens[key]
            kept = self.tables.kept
            for name in [name for name, record in kept.items() if record.grant_id == grant_id]:
                del kept[name]
            del self.tables.grants[grant_id]
            return len(of_grant)

        return drop

    def _dropping_secret(self, client_id: str, digest: bytes) -> Callable[[], int]:
        def drop() -> int:
            client = self.tables.clients[client_id]
            secrets = tuple(secret for secret in client.secrets if secret.digest != digest)
            self.tables.clients[client_id] = replace(client, secrets=secrets)
            return 0

        return drop

    def _dropping_client(self, client_id: str) -> Callable[[], int]:
        def drop() -> int:
            consents = [key for key in self.tables.consents if key[1] == client_id]
            for key in consents:
                del self.tables.consents[key]
            self.tables.logos.pop(client_id, None)
            del self.tables.clients[client_id]
            return len(consents)

        return drop


def _dropping(table: dict[Any, Any], key: object) -> Callable[[], int]:
    def drop() -> int:
        del table[key]
        return 0

    return drop
