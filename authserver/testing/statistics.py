"""Statistics in memory, with the same contract as those in the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from authserver.engine.count_records import Count, Gauge, Span, Step, Total
from authserver.engine.records import EventType, RegisteredBy, TokenKind
from authserver.testing.tables import InMemory


class MemoryStatistics(InMemory):
    """`engine.ports.Statistics` in memory."""

    def add(self, counts: Sequence[Count]) -> None:
        with self.lock:
            kept = self.tables.counts
            for count in counts:
                key = (count.step, count.client_id, count.at, count.type, count.grant_type, count.reason)
                kept[key] = kept.get(key, 0) + count.count

    def forget(self, span: Span, types: Collection[EventType]) -> None:
        with self.lock:
            for count in self._of([span], types):
                key = (count.step, count.client_id, count.at, count.type, count.grant_type, count.reason)
                del self.tables.counts[key]

    def totals(
        self, spans: Sequence[Span], types: Collection[EventType], *, client_ids: Sequence[str] = ("",)
    ) -> Sequence[Total]:
        return _totals(count for count in self._of(spans, types) if count.client_id in client_ids)

    def totals_of_clients(self, span: Span, types: Collection[EventType]) -> Sequence[Total]:
        return _totals(count for count in self._of([span], types) if count.client_id)

    def top_clients(
        self,
        spans: Sequence[Span],
        types: Collection[EventType],
        *,
        grant_type: str | None = None,
        limit: int,
    ) -> Sequence[tuple[str, int]]:
        sums: Counter[str] = Counter()
        for count in self._of(spans, types):
            if count.client_id and grant_type in (None, count.grant_type):
                sums[count.client_id] += count.count
        return sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:limit]

    def series(
        self, span: Span, types: Collection[EventType], *, client_id: str = ""
    ) -> Sequence[tuple[datetime, EventType, str, int]]:
        sums: Counter[tuple[datetime, EventType, str]] = Counter()
        for count in self._of([span], types):
            if count.client_id == client_id:
                sums[count.at, count.type, count.grant_type] += count.count
        return [(*key, count) for key, count in sums.items()]

    def strangers(self, step: Step, at: datetime, *, limit: int) -> Sequence[str]:
        operators = {
            client.client_id
            for client in self.tables.clients.values()
            if client.registered_by is RegisteredBy.OPERATOR
        }
        found = {key[1] for key in self.tables.counts if key[0] is step and key[2] == at and key[1]}
        return sorted(found - operators)[:limit]

    def current(self, now: datetime, idle_since: datetime) -> Mapping[Gauge, int]:
        tables = self.tables
        unredeemed = {
            token.grant_id
            for token in tables.tokens.values()
            if token.kind is TokenKind.CODE and token.claimed_at is None
        }
        grants = (
            grant
            for grant in tables.grants.values()
            if grant.revoked_at is None and grant.expires_at > now and grant.grant_id not in unredeemed
        )
        sessions = (
            session
            for session in tables.sessions.values()
            if session.expires_at > now and session.last_seen_at >= idle_since
        )
        return {
            Gauge.ACTIVE_GRANTS: sum(1 for _ in grants),
            Gauge.SESSIONS: sum(1 for _ in sessions),
            Gauge.CLIENTS: sum(client.is_enabled for client in tables.clients.values()),
            Gauge.PEOPLE: sum(user.is_enabled for user in tables.users.values()),
        }

    def note_sample(self, step: Step, at: datetime, values: Mapping[Gauge, int]) -> None:
        with self.lock:
            for gauge, value in values.items():
                self.tables.samples.setdefault((gauge, step, at), value)

    def samples(self, gauge: Gauge, span: Span) -> Sequence[tuple[datetime, int]]:
        return sorted(
            (at, value)
            for (of, step, at), value in self.tables.samples.items()
            if of is gauge and step is span.step and span.since <= at < span.until
        )

    def _of(self, spans: Sequence[Span], types: Collection[EventType]) -> list[Count]:
        return [
            Count(
                step=step,
                client_id=client_id,
                at=at,
                type=type,
                grant_type=grant_type,
                reason=reason,
                count=count,
            )
            for (step, client_id, at, type, grant_type, reason), count in self.tables.counts.items()
            for span in spans
            if type in types and step is span.step and span.since <= at < span.until
        ]


def _totals(counts: Iterable[Count]) -> Sequence[Total]:
    sums: Counter[tuple[str, EventType, str, str]] = Counter()
    for count in counts:
        sums[count.client_id, count.type, count.grant_type, count.reason] += count.count
    return [
        Total(client_id=client_id, type=type, grant_type=grant_type, reason=reason, count=count)
        for (client_id, type, grant_type, reason), count in sums.items()
    ]
