"""Clients, their secrets and logos, and the web origins they registered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine import uris
from authserver.engine.records import Client, ClientSecret, Logo, RegisteredBy
from authserver.storage.columns import UtcDateTime
from authserver.storage.prepared import PerDialect, Prepared, Remembered
from authserver.storage.rows import Rows
from authserver.storage.tables import NEVER_USED, client_logos, client_origins, client_secrets, clients
from authserver.storage.work import (
    Work,
    change,
    changed,
    insert_new,
    insert_or_replace,
    spelt_out,
)

_CLIENT = Rows(Client, clients)
_SECRET = Rows(ClientSecret, client_secrets, at=_CLIENT.end)
_DISABLED_AT = _CLIENT.place("disabled_at")
_LOGO = Rows(Logo, client_logos)

_NEXT = clients.alias("next")
_USED_SECRET = client_secrets.alias("used_secret")

_WITH_SECRETS = (
    select(*_CLIENT.columns, *_SECRET.columns)
    .outerjoin_from(
        clients,
        client_secrets,
        (client_secrets.c.client_id == clients.c.client_id)
        & (
            client_secrets.c.expires_at.is_(None)
            | (client_secrets.c.expires_at > bindparam("now", type_=UtcDateTime))
        ),
    )
    .order_by(clients.c.created_at, clients.c.client_id, client_secrets.c.created_at)
)
_FIND = Remembered(
    _WITH_SECRETS.where(clients.c.client_id == bindparam("client_id")),
    key=["client_id"],
    tables=[clients, client_secrets],
    # Requests with its secrets may note their use meanwhile.
    key_share=True,
)
_FIND_ALL = _WITH_SECRETS.where(clients.c.client_id.in_(bindparam("client_ids", expanding=True)))
# The table has another name here, or SQLAlchemy would correlate it with the outer one. The limit is written into the
# statement: PostgreSQL plans for a tenth of the table if it does not know it.
_NEXT_IDS = (
    select(_NEXT.c.client_id)
    .where(_NEXT.c.client_id > bindparam("after"))
    .order_by(_NEXT.c.client_id)
    .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
)
_COUNT = select(sa.func.count()).select_from(
    # In the order of an index, so that the index is used and no more of the table is read.
    select(clients.c.client_id)
    .where(clients.c.client_id > "")
    .order_by(clients.c.client_id)
    .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
    .subquery()
)
_ENDING = (
    select(client_secrets.c.client_id, sa.func.min(client_secrets.c.expires_at).label("ends"))
    .join_from(client_secrets, clients, client_secrets.c.client_id == clients.c.client_id)
    .where(
        client_secrets.c.expires_at > bindparam("now", type_=UtcDateTime),
        client_secrets.c.expires_at <= bindparam("before", type_=UtcDateTime),
        clients.c.disabled_at.is_(None),
    )
    .group_by(client_secrets.c.client_id)
    .order_by("ends", client_secrets.c.client_id)
    .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
)
_IN_ORDER = _WITH_SECRETS.order_by(None).order_by(clients.c.client_id, client_secrets.c.created_at)
_PAGE = _IN_ORDER.where(clients.c.client_id.in_(_NEXT_IDS))
_HAS_TEXT = sa.or_(
    *(column.ilike(bindparam("pattern"), escape="\\") for column in (_NEXT.c.client_id, _NEXT.c.name))
)
# The characters that have a meaning in a pattern of LIKE.
_SPECIAL = re.compile(r"[%_\\]")
_WAS_NEVER_USED = (
    _NEXT.c.last_used_at.is_(None),
    ~sa.exists().where(
        _USED_SECRET.c.client_id == _NEXT.c.client_id,
        _USED_SECRET.c.last_used_at.is_not(None),
        _USED_SECRET.c.expires_at.is_(None)
        | (_USED_SECRET.c.expires_at > bindparam("now", type_=UtcDateTime)),
    ),
)
_ADD = insert_new(clients)
_THIS = clients.c.client_id == bindparam("this")
# Two changes of one client wait for each other; requests with its secrets do not wait.
_HOLD = select(clients.c.client_id).where(_THIS).with_for_update(key_share=True)
_READ = select(*_CLIENT.columns).where(_THIS)
# Requests note these at any time, so a difference does not count as a change.
_KEEPS = ("client_id", "last_used_at")
_CHANGE = (
    sa.update(clients)
    .where(_THIS)
    .values({column.name: bindparam(column.name) for column in _CLIENT.columns if column.name not in _KEEPS})
)
_TOUCH = Prepared(sa.update(clients).where(_THIS).values(last_used_at=bindparam("now")))
# One name for all registrations: they are few, and each is short.
_REGISTRATIONS = 7591
_HOLD_REGISTRATIONS: PerDialect = {
    # On SQLite, holding begins a transaction that writes, and there is only one at a time.
    "sqlite": select(sa.literal(1)),
    "postgresql": select(sa.literal(1)).select_from(sa.func.pg_advisory_xact_lock(_REGISTRATIONS)),
}
_WITHOUT_TOKEN = (spelt_out(NEVER_USED), clients.c.initial_token.is_(None))
_FROM_THERE = (*_WITHOUT_TOKEN, clients.c.registered_from == bindparam("network"))
_LIMIT = bindparam("limit", type_=sa.Integer)
# Without a time, the whole index of all networks would be read instead of searched.
_EVER = datetime.fromtimestamp(0, UTC)
# For all networks, and for one. In the order of an index, even if only their number is needed, so that the index is
# used.
_NEVER_USED, _NEVER_USED_FROM_THERE = (
    select(*_CLIENT.columns)
    .where(*which, clients.c.created_at <= bindparam("before", type_=UtcDateTime))
    .order_by(clients.c.created_at)
    .limit(_LIMIT)
    for which in (_WITHOUT_TOKEN, _FROM_THERE)
)
_COUNT_NEVER_USED, _COUNT_NEVER_USED_FROM_THERE = (
    select(sa.func.count()).select_from(
        select(clients.c.created_at)
        .where(*which, clients.c.created_at >= bindparam("since", type_=UtcDateTime))
        .order_by(clients.c.created_at)
        .limit(_LIMIT)
        .subquery()
    )
    for which in (_WITHOUT_TOKEN, _FROM_THERE)
)
# Written in another way than the condition of the indexes, so that it is found only by its key.
_REMOVE_NEVER_USED = sa.delete(clients).where(
    _THIS, clients.c.registered_by != RegisteredBy.OPERATOR, clients.c.last_used_at.is_(None)
)
_COUNT_OF_POLICY = (
    select(sa.func.count())
    .select_from(clients)
    .where(clients.c.registration_policy == bindparam("policy"), clients.c.disabled_at.is_(None))
)
_FORGET_ORIGINS = sa.delete(client_origins).where(client_origins.c.client_id == bindparam("this"))
_KEEP_LOGO = insert_or_replace(client_logos)
_FORGET_LOGO = sa.delete(client_logos).where(client_logos.c.client_id == bindparam("this"))
_FIND_LOGO = select(*_LOGO.columns).where(
    client_logos.c.client_id == bindparam("client_id"), client_logos.c.digest == bindparam("digest")
)
# A secret that was made elsewhere may come back after it has ended.
_ADD_SECRET = insert_or_replace(client_secrets)
_CHANGE_SECRET = Prepared(change(client_secrets, "digest", "key_id", "expires_at", "last_used_at"))
_ADD_ORIGIN = insert_new(client_origins)
_COUNT_SECRETS = (
    select(client_secrets.c.key_id, sa.func.count().label("secrets"))
    .join_from(client_secrets, clients)
    .where(
        clients.c.disabled_at.is_(None),
        client_secrets.c.expires_at.is_(None)
        | (client_secrets.c.expires_at > bindparam("now", type_=UtcDateTime)),
    )
    .group_by(client_secrets.c.key_id)
)
_DISABLE = (
    sa.update(clients)
    .where(clients.c.client_id == bindparam("id"), clients.c.disabled_at.is_(None))
    .values(disabled_at=bindparam("now"))
)
# It waits for those who hold the client. Their lock lets each other note its use.
_HOLD_TO_DISABLE = select(clients.c.client_id).where(_THIS).with_for_update()
_HOLD_ENABLED = Prepared(
    select(clients.c.disabled_at).where(_THIS).with_for_update(read=True, key_share=True)
)
_KNOWS_ORIGIN = Prepared(
    select(client_origins.c.origin)
    .join_from(client_origins, clients)
    .where(client_origins.c.origin == bindparam("origin"), clients.c.disabled_at.is_(None))
    # In the order of the index: otherwise PostgreSQL reads the whole table for an origin that many clients share.
    .order_by(client_origins.c.client_id)
    .limit(1)
)


class SqlClients:
    """`engine.ports.Clients` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def find(self, client_id: str, now: datetime) -> Client | None:
        if "\0" in client_id:  # which PostgreSQL refuses to compare
            return None
        rows = self._work.recall(_FIND, {"client_id": client_id, "now": now}).all()
        return _client(rows) if rows else None

    def find_all(self, client_ids: Sequence[str], now: datetime) -> Sequence[Client]:
        if len(client_ids) <= 1:
            found = self.find(client_ids[0], now) if client_ids else None
            return [found] if found else []
        return self._several(_FIND_ALL, {"client_ids": list(client_ids), "now": now})

    def add(self, client: Client) -> None:
        self._work.add(_ADD, _CLIENT.row(client))
        for secret in client.secrets:
            self.add_secret(client.client_id, secret)
        self._add_origins(client)

    def change(self, before: Client, after: Client) -> bool:
        this = {"this": before.client_id}
        # Compared as records, because an equal JSON text may have another spelling in the database.
        if not self._work.hold(_HOLD, this):
            return False
        found = _CLIENT.record(self._work.read(_READ, this).one())
        if found != replace(before, secrets=(), last_used_at=found.last_used_at):
            return False
        row = {name: value for name, value in _CLIENT.row(after).items() if name not in _KEEPS}
        self._work.write(_CHANGE, {**row, **this})
        self._work.write(_FORGET_ORIGINS, this)
        self._add_origins(after)
        return True

    def keep_logo(self, client_id: str, logo: Logo | None) -> None:
        if logo is None:
            self._work.write(_FORGET_LOGO, {"this": client_id})
        else:
            self._work.insert(_KEEP_LOGO, {**_LOGO.row(logo), "client_id": client_id})

    def find_logo(self, client_id: str, digest: str) -> Logo | None:
        if "\0" in client_id + digest:
            return None
        row = self._work.read(_FIND_LOGO, {"client_id": client_id, "digest": digest}).one_or_none()
        return _LOGO.record(row) if row else None

    def list(self, now: datetime) -> Sequence[Client]:
        return self._several(_WITH_SECRETS, {"now": now})

    def page(self, now: datetime, *, after: str = "", limit: int) -> Sequence[Client]:
        return self._several(_PAGE, {"after": after, "limit": limit, "now": now})

    def count(self, *, limit: int) -> int:
        return int(self._work.read(_COUNT, {"limit": limit}).scalar_one())

    def with_ending_secret(self, now: datetime, before: datetime, *, limit: int) -> Sequence[Client]:
        ending = self._work.read(_ENDING, {"now": now, "before": before, "limit": limit})
        client_ids = [row.client_id for row in ending]
        found = {client.client_id: client for client in self.find_all(client_ids, now)}
        return [found[client_id] for client_id in client_ids if client_id in found]

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
        if "\0" in text + after:  # which PostgreSQL refuses to compare
            return []
        ids, parameters = _NEXT_IDS, {"after": after, "limit": limit, "now": now}
        if text:
            pattern = _SPECIAL.sub(r"\\\g<0>", text)
            ids, parameters["pattern"] = ids.where(_HAS_TEXT), f"%{pattern}%"
        if registered_by is not None:
            ids = ids.where(_NEXT.c.registered_by == bindparam("registered_by"))
            parameters["registered_by"] = registered_by
        if enabled is not None:
            ids = ids.where(_NEXT.c.disabled_at.is_(None) if enabled else _NEXT.c.disabled_at.is_not(None))
        if never_used:
            ids = ids.where(*_WAS_NEVER_USED)
        return self._several(_IN_ORDER.where(clients.c.client_id.in_(ids)), parameters)

    def disable(self, client_id: str, now: datetime) -> bool:
        self._work.hold(_HOLD_TO_DISABLE, {"this": client_id})
        return self._work.write(_DISABLE, {"id": client_id, "now": now}) == 1

    def hold(self, client_id: str) -> bool:
        if row := self._work.lock(_FIND, {"client_id": client_id}):
            return row[_DISABLED_AT] is None
        held = self._work.held(_HOLD_ENABLED, {"this": client_id})
        return held is None or held[0] is None

    def add_secret(self, client_id: str, secret: ClientSecret) -> None:
        self._work.insert(_ADD_SECRET, {**_SECRET.row(secret), "client_id": client_id})

    def change_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> bool:
        old, new = _SECRET.row(before), _SECRET.row(after)
        return self._work.write(_CHANGE_SECRET, changed({**old, "client_id": client_id}, new)) == 1

    def note_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> None:
        self._work.outdate(_FIND, {"client_id": client_id})
        old, new = _SECRET.row(before), _SECRET.row(after)
        self._work.defer(_CHANGE_SECRET, changed({**old, "client_id": client_id}, new))

    def count_secrets(self, now: datetime) -> Mapping[str, int]:
        rows = self._work.read(_COUNT_SECRETS, {"now": now})
        return {row.key_id: row.secrets for row in rows}

    def knows_origin(self, origin: str) -> bool:
        normal = uris.origin(origin)
        return normal is not None and self._work.read(_KNOWS_ORIGIN, {"origin": normal}).first() is not None

    def touch(self, client_id: str, now: datetime) -> None:
        self._work.outdate(_FIND, {"client_id": client_id})
        self._work.defer(_TOUCH, {"this": client_id, "now": now})

    def note_first_use(self, client_id: str, now: datetime) -> bool:
        self._work.outdate(_FIND, {"client_id": client_id})
        return self._work.write(_TOUCH, {"this": client_id, "now": now}) == 1

    def hold_registrations(self) -> None:
        self._work.hold(_HOLD_REGISTRATIONS[self._work.dialect], {})

    def never_used(self, before: datetime, *, network: str | None = None, limit: int) -> Sequence[Client]:
        statement = _NEVER_USED if network is None else _NEVER_USED_FROM_THERE
        rows = self._work.read(statement, {"before": before, "network": network, "limit": limit})
        return [_CLIENT.record(row) for row in rows]

    def count_never_used(self, *, network: str | None = None, limit: int) -> int:
        statement = _COUNT_NEVER_USED if network is None else _COUNT_NEVER_USED_FROM_THERE
        parameters = {"since": _EVER, "network": network, "limit": limit}
        return int(self._work.read(statement, parameters).scalar_one())

    def remove_never_used(self, client_id: str) -> bool:
        return self._work.write(_REMOVE_NEVER_USED, {"this": client_id}) == 1

    def count_of_policy(self, policy: str) -> int:
        return int(self._work.read(_COUNT_OF_POLICY, {"policy": policy}).scalar_one())

    def _add_origins(self, client: Client) -> None:
        for origin in {uris.origin(uri) for uri in client.redirect_uris} - {None}:
            self._work.add(_ADD_ORIGIN, {"origin": origin, "client_id": client.client_id})

    def _several(self, statement: sa.Select[Any], parameters: dict[str, Any]) -> Sequence[Client]:
        found: dict[str, list[sa.Row[Any]]] = {}
        for row in self._work.read(statement, parameters):
            found.setdefault(row.client_id, []).append(row)
        return [_client(rows) for rows in found.values()]


def _client(rows: Sequence[Sequence[Any]]) -> Client:
    """A client from its rows, one for each live secret or a single one without."""
    secrets = tuple(_SECRET.record(row) for row in rows if row[_SECRET.start] is not None)
    return _CLIENT.record(rows[0], secrets=secrets)
