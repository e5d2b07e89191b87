"""Deletes expired rows in batches, oldest first; and the lease that says which process does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Executable, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from authserver.engine.count_records import Step
from authserver.engine.records import RegisteredBy, Session
from authserver.engine.upkeep_records import Batch, Disposable, Place
from authserver.storage.columns import UtcDateTime
from authserver.storage.prepared import PerDialect
from authserver.storage.rows import Rows
from authserver.storage.tables import (
    DISPOSABLE,
    ISSUED,
    LONG,
    NEVER_USED,
    REFUSED,
    client_secrets,
    clients,
    consents,
    event_counts,
    events,
    gauge_samples,
    grants,
    kept,
    leases,
    sessions,
    tokens,
)
from authserver.storage.work import Work, spelt_out

# How many grants or clients are read at once; their dependent rows are found by a list of their ids.
PARENTS = 250

# For a long time after many rows have expired, the statistics of the planner still say that there are few. For few
# rows, the planner prefers to read a whole table, or to sort a whole index. Neither may happen here, because requests
# need the disk, too.
_BY_INDEX_ALONE = sa.text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
)

Condition = ColumnElement[bool] | sa.TextClause

_START: Place = (datetime.fromtimestamp(0, UTC), "")
# How the rest of a statement refers to a row, with any key.
_IDENTITY: Mapping[str, ColumnElement[Any]] = {
    "sqlite": sa.literal_column("rowid"),
    "postgresql": sa.literal_column("ctid"),
}
_WAS_OVER = bindparam("before", type_=UtcDateTime)
_GOES_ON = bindparam("start", type_=UtcDateTime)
_LIMIT = bindparam("limit", type_=sa.Integer)
_IDS: sa.BindParameter[Sequence[str]] = bindparam("ids", expanding=True)


def _has(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is such a row; looked up row by row, because an EXISTS may be planned as a scan of the table."""
    return select(sa.literal_column("1")).where(*conditions).limit(1).scalar_subquery().is_not(None)


def _removal(
    table: Table, *conditions: Condition, told: Sequence[Column[Any]], order: Sequence[Column[Any]] = ()
) -> PerDialect:
    """A DELETE of at most `limit` rows that returns `told` of each, and skips rows that are locked."""
    statements: dict[str, Executable] = {}
    for dialect, identity in _IDENTITY.items():
        chosen = (
            select(identity)
            .select_from(table)
            .where(*conditions)
            .order_by(*order)
            .limit(_LIMIT)
            .with_for_update(skip_locked=True)
            .correlate(None)
        )
        # PostgreSQL plans an IN here as a join, which may read the whole table; SQLite has no arrays.
        among = (
            identity.in_(chosen)
            if dialect == "sqlite"
            else identity == sa.any_(sa.func.array(chosen.scalar_subquery()))
        )
        statements[dialect] = sa.delete(table).where(among).returning(*told)
    return statements


def _counted(rows: sa.Select[Any]) -> Executable:
    return select(sa.func.count()).select_from(rows.limit(_LIMIT).subquery())


# Rows that are deleted by a time of their own: the column, and the condition of the index over it.
_AGING: Mapping[Disposable, tuple[Column[Any], tuple[Condition, ...]]] = {
    Disposable.TOKENS: (tokens.c.expires_at, (spelt_out(DISPOSABLE),)),
    Disposable.KEPT_RECORDS: (kept.c.expires_at, ()),
    Disposable.SESSIONS: (sessions.c.expires_at, ()),
    Disposable.IDLE_SESSIONS: (sessions.c.last_seen_at, ()),
    Disposable.CLIENT_SECRETS: (client_secrets.c.expires_at, (client_secrets.c.expires_at.is_not(None),)),
    Disposable.REFUSALS: (events.c.at, (spelt_out(REFUSED),)),
    Disposable.ISSUANCES: (events.c.at, (spelt_out(ISSUED),)),
    Disposable.EVENTS: (events.c.at, ()),
    Disposable.HOURLY_COUNTS: (event_counts.c.at, (spelt_out(event_counts.c.step == Step.HOUR),)),
    Disposable.COUNTS: (event_counts.c.at, (spelt_out(LONG),)),
    Disposable.SAMPLES: (gauge_samples.c.at, ()),
}
# Applications are told of their end, so the user of each session is needed.
_SESSION = Rows(Session, sessions)
_OF_SESSIONS = (Disposable.SESSIONS, Disposable.IDLE_SESSIONS)
_REMOVE_AGED = {
    kind: _removal(
        column.table,
        *conditions,
        column >= _GOES_ON,
        column <= _WAS_OVER,
        told=(column, *(_SESSION.columns if kind in _OF_SESSIONS else ())),
        order=(column,),
    )
    for kind, (column, conditions) in _AGING.items()
}

_THESE_GRANTS = grants.c.grant_id.in_(_IDS)
_ENDED_GRANTS = (
    select(grants.c.expires_at, grants.c.grant_id)
    .where(grants.c.expires_at >= _GOES_ON, grants.c.expires_at <= _WAS_OVER)
    .order_by(grants.c.expires_at)
    .limit(_LIMIT)
)
_REMOVE_TOKENS_OF_GRANTS = _removal(tokens, tokens.c.grant_id.in_(_IDS), told=(tokens.c.grant_id,))
# Without tokens: the foreign key would delete any number of them along with a grant.
_REMOVE_GRANTS = _removal(
    grants,
    _THESE_GRANTS,
    grants.c.expires_at <= _WAS_OVER,
    sa.not_(_has(tokens.c.grant_id == grants.c.grant_id)),
    told=(grants.c.grant_id,),
)

# By a grant that is still kept, or by `last_used_at`: client credentials leave no grant.
_IS_USED = (
    _has(grants.c.client_id == clients.c.client_id)
    | (clients.c.last_used_at.is_not(None) & (clients.c.last_used_at > _WAS_OVER))
    | _has(client_secrets.c.client_id == clients.c.client_id, client_secrets.c.last_used_at > _WAS_OVER)
)
_OLD_CLIENTS = {
    kind: select(clients.c.created_at, clients.c.client_id, _IS_USED.label("is_used")).where(
        spelt_out(condition), clients.c.created_at <= _WAS_OVER
    )
    for kind, condition in (
        (Disposable.UNUSED_CLIENTS, NEVER_USED),
        (Disposable.CLIENTS, clients.c.registered_by == RegisteredBy.SELF),
    )
}
_NEXT_OLD_CLIENTS = {
    kind: old.where(
        sa.tuple_(clients.c.created_at, clients.c.client_id)
        > sa.tuple_(_GOES_ON, bindparam("start_id", type_=clients.c.client_id.type))
    )
    .order_by(clients.c.created_at, clients.c.client_id)
    .limit(_LIMIT)
    for kind, old in _OLD_CLIENTS.items()
}
_REMOVE_CONSENTS_TO_CLIENTS = _removal(consents, consents.c.client_id.in_(_IDS), told=(consents.c.client_id,))
_REMOVE_CLIENTS = _removal(
    clients, clients.c.client_id.in_(_IDS), sa.not_(_IS_USED), told=(clients.c.client_id,)
)


def _idle(old: sa.Select[Any]) -> Executable:
    """How many of the oldest `limit` clients are unused; used ones are read too, and there may be many."""
    oldest = old.order_by(clients.c.created_at).limit(_LIMIT).subquery()
    return select(sa.func.count()).select_from(oldest).where(sa.not_(oldest.c.is_used))


_COUNTS: Mapping[Disposable, Executable] = {
    **{
        kind: _counted(
            select(sa.literal(1)).select_from(column.table).where(*conditions, column <= _WAS_OVER)
        )
        for kind, (column, conditions) in _AGING.items()
    },
    Disposable.GRANTS: _counted(
        select(sa.literal(1)).select_from(grants).where(grants.c.expires_at <= _WAS_OVER)
    ),
    **{kind: _idle(old) for kind, old in _OLD_CLIENTS.items()},
}


def _taking() -> PerDialect:
    """An INSERT of a lease that replaces the present one, if that has expired or is of the same holder."""
    statements: dict[str, Executable] = {}
    for dialect, module in (("sqlite", sqlite), ("postgresql", postgresql)):
        insert = module.insert(leases).values(
            name=bindparam("name"), holder=bindparam("holder"), expires_at=bindparam("until")
        )
        statements[dialect] = insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": insert.excluded.holder, "expires_at": insert.excluded.expires_at},
            where=(leases.c.holder == insert.excluded.holder)
            | (leases.c.expires_at <= bindparam("now", type_=UtcDateTime))
            | (leases.c.expires_at > bindparam("too_late", type_=UtcDateTime)),
        ).execution_options(preserve_rowcount=True)
    return statements


_TAKE_LEASE = _taking()
_END_LEASE = sa.delete(leases).where(
    leases.c.name == bindparam("of_name"), leases.c.holder == bindparam("of_holder")
)


class SqlUpkeep:
    """`engine.ports.Upkeep` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def remove(self, kind: Disposable, before: datetime, start: Place | None = None, *, limit: int) -> Batch:
        self._plan_by_index()
        since = start or _START
        if kind is Disposable.GRANTS:
            return self._remove_grants(before, since, limit)
        if kind in _NEXT_OLD_CLIENTS:
            return self._remove_clients(kind, before, since, limit)
        parameters = {"before": before, "start": since[0], "limit": limit}
        rows = self._work.take(_REMOVE_AGED[kind], parameters)
        return Batch(
            removed=len(rows),
            next=(max(row[0] for row in rows), "") if len(rows) == limit else None,
            sessions=[_SESSION.record(row[1:]) for row in rows] if kind in _OF_SESSIONS else (),
        )

    def count(self, kind: Disposable, before: datetime, *, limit: int) -> int:
        self._plan_by_index()
        return int(self._work.read(_COUNTS[kind], {"before": before, "limit": limit}).scalar_one())

    def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        row = {"name": name, "holder": holder, "now": now, "until": until, "too_late": until + (until - now)}
        return self._work.insert(_TAKE_LEASE, row)

    def end_lease(self, name: str, holder: str) -> None:
        self._work.write(_END_LEASE, {"of_name": name, "of_holder": holder})

    def _remove_grants(self, before: datetime, start: Place, limit: int) -> Batch:
        parameters = {"before": before, "start": start[0], "limit": PARENTS}
        found = self._work.read(_ENDED_GRANTS, parameters).all()
        ids = [row.grant_id for row in found]
        removed, dependents = self._remove_with(_REMOVE_TOKENS_OF_GRANTS, _REMOVE_GRANTS, ids, before, limit)
        if dependents == limit:
            return Batch(removed=0, dependents=dependents, next=start)
        # If none could be deleted, all are locked, and another attempt would find the same rows.
        goes_on = len(found) == PARENTS and (removed or dependents)
        return Batch(
            removed=removed, dependents=dependents, next=(found[-1].expires_at, "") if goes_on else None
        )

    def _remove_clients(self, kind: Disposable, before: datetime, start: Place, limit: int) -> Batch:
        parameters = {"before": before, "start": start[0], "start_id": start[1], "limit": PARENTS}
        found = self._work.read(_NEXT_OLD_CLIENTS[kind], parameters).all()
        ids = [row.client_id for row in found if not row.is_used]
        removed, dependents = self._remove_with(
            _REMOVE_CONSENTS_TO_CLIENTS, _REMOVE_CLIENTS, ids, before, limit
        )
        if dependents == limit:
            return Batch(removed=0, dependents=dependents, next=start)
        last = (found[-1].created_at, found[-1].client_id) if len(found) == PARENTS else None
        return Batch(removed=removed, dependents=dependents, next=last)

    def _remove_with(
        self,
        removal_of_dependents: PerDialect,
        parents: PerDialect,
        ids: Sequence[str],
        before: datetime,
        limit: int,
    ) -> tuple[int, int]:
        """Delete at most `limit` dependent rows of these rows; when none is left, the rows too."""
        if not ids:
            return 0, 0
        dependents = len(self._work.take(removal_of_dependents, {"ids": ids, "limit": limit}))
        if dependents == limit:
            return 0, dependents
        return len(self._work.take(parents, {"ids": ids, "before": before, "limit": limit})), dependents

    def _plan_by_index(self) -> None:
        if self._work.dialect == "postgresql":
            self._work.write(_BY_INDEX_ALONE, {})
