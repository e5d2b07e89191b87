"""Counts of events by hour, day and month, and samples of totals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from authserver.engine.count_records import Count, Gauge, Span, Step, Total
from authserver.engine.records import EventType, RegisteredBy, TokenKind
from authserver.storage.prepared import PerDialect, Row
from authserver.storage.rows import Rows
from authserver.storage.tables import clients, event_counts, gauge_samples, grants, sessions, tokens, users
from authserver.storage.work import Work, insert_new

_COUNT = Rows(Count, event_counts)
_IS_CLIENT = event_counts.c.client_id != ""


def _adding() -> PerDialect:
    """An INSERT of a count, which is added to the existing one."""
    statements: dict[str, sa.Executable] = {}
    for dialect, module in (("sqlite", sqlite), ("postgresql", postgresql)):
        insert = module.insert(event_counts)
        statements[dialect] = insert.on_conflict_do_update(
            index_elements=[column.name for column in event_counts.primary_key],
            set_={"count": event_counts.c.count + insert.excluded.count},
        )
    return statements


def _in_span(number: int = 0) -> tuple[ColumnElement[bool], ...]:
    return (
        event_counts.c.step == bindparam(f"step_{number}"),
        event_counts.c.at >= bindparam(f"since_{number}"),
        event_counts.c.at < bindparam(f"until_{number}"),
        event_counts.c.type.in_(bindparam("types", expanding=True)),
    )


def _sums(spans: int, condition: ColumnElement[bool], *by: str) -> tuple[sa.Select[Any], ColumnElement[int]]:
    """The sums over this number of spans, grouped by these columns. Each span is read by its own range of the index."""
    names = [*by, "count"]
    parts = [
        select(*(event_counts.c[name] for name in names)).where(*_in_span(number), condition)
        for number in range(spans)
    ]
    rows = sa.union_all(*parts).subquery()
    total = func.sum(rows.c["count"])
    columns = [rows.c[name] for name in by]
    return select(*columns, total).group_by(*columns), total


_ADD = _adding()
_FORGET = sa.delete(event_counts).where(*_in_span())
_OF_CLIENTS = event_counts.c.client_id.in_(bindparam("client_ids", expanding=True))
_SERIES = (
    select(
        event_counts.c.at, event_counts.c.type, event_counts.c.grant_type, func.sum(event_counts.c["count"])
    )
    .where(*_in_span(), event_counts.c.client_id == bindparam("client_id"))
    .group_by(event_counts.c.at, event_counts.c.type, event_counts.c.grant_type)
)
_STRANGERS = (
    select(event_counts.c.client_id)
    .where(
        event_counts.c.step == bindparam("step"),
        event_counts.c.at == bindparam("at"),
        _IS_CLIENT,
        ~sa.exists().where(
            clients.c.client_id == event_counts.c.client_id,
            clients.c.registered_by == RegisteredBy.OPERATOR,
        ),
    )
    .distinct()
    .limit(bindparam("limit", type_=sa.Integer))
)

_NOW: sa.BindParameter[datetime] = bindparam("now")
_UNREDEEMED = sa.exists().where(
    tokens.c.grant_id == grants.c.grant_id, tokens.c.kind == TokenKind.CODE, tokens.c.claimed_at.is_(None)
)


def _how_many(table: sa.Table, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.count()).select_from(table).where(*conditions).scalar_subquery()


_CURRENT = {
    Gauge.ACTIVE_GRANTS: _how_many(
        grants, grants.c.revoked_at.is_(None), grants.c.expires_at > _NOW, ~_UNREDEEMED
    ),
    Gauge.SESSIONS: _how_many(
        sessions, sessions.c.expires_at > _NOW, sessions.c.last_seen_at >= bindparam("idle_since")
    ),
    Gauge.CLIENTS: _how_many(clients, clients.c.disabled_at.is_(None)),
    Gauge.PEOPLE: _how_many(users, users.c.disabled_at.is_(None)),
}
_READ_CURRENT = select(*_CURRENT.values())
_NOTE = insert_new(gauge_samples)
_SAMPLES = (
    select(gauge_samples.c.at, gauge_samples.c.value)
    .where(
        gauge_samples.c.gauge == bindparam("gauge"),
        gauge_samples.c.step == bindparam("step"),
        gauge_samples.c.at >= bindparam("since"),
        gauge_samples.c.at < bindparam("until"),
    )
    .order_by(gauge_samples.c.at)
)


class SqlStatistics:
    """`engine.ports.Statistics` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, counts: Sequence[Count]) -> None:
        if counts:
            self._work.write(_ADD[self._work.dialect], [_COUNT.row(count) for count in counts])

    def forget(self, span: Span, types: Collection[EventType]) -> None:
        self._work.write(_FORGET, _parameters([span], types))

    def totals(
        self, spans: Sequence[Span], types: Collection[EventType], *, client_ids: Sequence[str] = ("",)
    ) -> Sequence[Total]:
        return self._totals(spans, types, _OF_CLIENTS, client_ids=list(client_ids))

    def totals_of_clients(self, span: Span, types: Collection[EventType]) -> Sequence[Total]:
        return self._totals([span], types, _IS_CLIENT)

    def top_clients(
        self,
        spans: Sequence[Span],
        types: Collection[EventType],
        *,
        grant_type: str | None = None,
        limit: int,
    ) -> Sequence[tuple[str, int]]:
        of_grant_type = event_counts.c.grant_type == bindparam("grant_type")
        condition = _IS_CLIENT if grant_type is None else _IS_CLIENT & of_grant_type
        sums, total = _sums(len(spans), condition, "client_id")
        highest = sums.order_by(total.desc(), "client_id").limit(bindparam("limit", type_=sa.Integer))
        parameters = {**_parameters(spans, types), "limit": limit}
        if grant_type is not None:
            parameters["grant_type"] = grant_type
        found = self._rows(highest, parameters)
        return [(client_id, int(count)) for client_id, count in found]

    def series(
        self, span: Span, types: Collection[EventType], *, client_id: str = ""
    ) -> Sequence[tuple[datetime, EventType, str, int]]:
        found = self._rows(_SERIES, {**_parameters([span], types), "client_id": client_id})
        return [(at, type, grant_type, int(count)) for at, type, grant_type, count in found]

    def strangers(self, step: Step, at: datetime, *, limit: int) -> Sequence[str]:
        return list(self._work.read(_STRANGERS, {"step": step, "at": at, "limit": limit}).scalars())

    def current(self, now: datetime, idle_since: datetime) -> Mapping[Gauge, int]:
        found = self._work.read(_READ_CURRENT, {"now": now, "idle_since": idle_since}).one()
        return dict(zip(_CURRENT, found, strict=True))

    def note_sample(self, step: Step, at: datetime, values: Mapping[Gauge, int]) -> None:
        for gauge, value in values.items():
            self._work.insert(_NOTE, {"gauge": gauge, "step": step, "at": at, "value": value})

    def samples(self, gauge: Gauge, span: Span) -> Sequence[tuple[datetime, int]]:
        parameters = {"gauge": gauge, "step": span.step, "since": span.since, "until": span.until}
        return [(at, value) for at, value in self._rows(_SAMPLES, parameters)]

    def _rows(self, statement: sa.Executable, parameters: Row) -> Sequence[Sequence[Any]]:
        return self._work.read(statement, parameters).all()

    def _totals(
        self,
        spans: Sequence[Span],
        types: Collection[EventType],
        condition: ColumnElement[bool],
        **parameters: Any,
    ) -> Sequence[Total]:
        sums, _ = _sums(len(spans), condition, "client_id", "type", "grant_type", "reason")
        found = self._rows(sums, {**_parameters(spans, types), **parameters})
        return [
            Total(client_id=client_id, type=type, grant_type=grant_type, reason=reason, count=int(count))
            for client_id, type, grant_type, reason, count in found
        ]


def _parameters(spans: Sequence[Span], types: Collection[EventType]) -> Row:
    return {"types": sorted(types)} | {
        f"{name}_{number}": getattr(span, name)
        for number, span in enumerate(spans)
        for name in ("step", "since", "until")
    }
