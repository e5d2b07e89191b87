"""Clients, their secrets, and the web origins they registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine import uris
from authserver.engine.records import Client, ClientSecret
from authserver.storage.columns import UtcDateTime
from authserver.storage.rows import Rows
from authserver.storage.tables import client_origins, client_secrets, clients
from authserver.storage.work import Work, change, changed, insert_new

_CLIENT = Rows(Client, clients)
_SECRET = Rows(ClientSecret, client_secrets, at=_CLIENT.end)

_NEXT = clients.alias("next")

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
_FIND = _WITH_SECRETS.where(clients.c.client_id == bindparam("client_id"))
_FIND_ALL = _WITH_SECRETS.where(clients.c.client_id.in_(bindparam("client_ids", expanding=True)))
_PAGE = (
    _WITH_SECRETS.where(
        clients.c.client_id.in_(
            # Under another name, or SQLAlchemy would correlate it with the table outside. The limit is written into
            # the statement: PostgreSQL plans for a tenth of the table if it does not know it.
            select(_NEXT.c.client_id)
            .where(_NEXT.c.client_id > bindparam("after"))
            .order_by(_NEXT.c.client_id)
            .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
        )
    )
    .order_by(None)
    .order_by(clients.c.client_id, client_secrets.c.created_at)
)
_ADD = insert_new(clients)
_ADD_SECRET = insert_new(client_secrets)
_CHANGE_SECRET = change(client_secrets, "digest", "key_id", "expires_at", "last_used_at")
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
_KNOWS_ORIGIN = (
    select(client_origins.c.origin)
    .join_from(client_origins, clients)
    .where(client_origins.c.origin == bindparam("origin"), clients.c.disabled_at.is_(None))
    # In the order of the index: without it PostgreSQL looks for an origin that many share from end to end.
    .order_by(client_origins.c.client_id)
    .limit(1)
)


class SqlClients:
    """`engine.ports.Clients` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def find(self, client_id: str, now: datetime) -> Client | None:
        if "\0" in client_id:  # which PostgreSQL would not even compare
            return None
        rows = self._work.read(_FIND, {"client_id": client_id, "now": now}).all()
        return _client(rows) if rows else None

    def find_all(self, client_ids: Sequence[str], now: datetime) -> Sequence[Client]:
        parameters = {"client_ids": list(client_ids), "now": now}
        return self._several(_FIND_ALL, parameters) if client_ids else []

    def add(self, client: Client) -> None:
        self._work.add(_ADD, _CLIENT.row(client))
        for secret in client.secrets:
            self.add_secret(client.client_id, secret)
        for origin in {uris.origin(uri) for uri in client.redirect_uris} - {None}:
            self._work.add(_ADD_ORIGIN, {"origin": origin, "client_id": client.client_id})

    def list(self, now: datetime) -> Sequence[Client]:
        return self._several(_WITH_SECRETS, {"now": now})

    def page(self, now: datetime, *, after: str = "", limit: int) -> Sequence[Client]:
        return self._several(_PAGE, {"after": after, "limit": limit, "now": now})

    def disable(self, client_id: str, now: datetime) -> bool:
        return self._work.write(_DISABLE, {"id": client_id, "now": now}) == 1

    def add_secret(self, client_id: str, secret: ClientSecret) -> None:
        self._work.add(_ADD_SECRET, {**_SECRET.row(secret), "client_id": client_id})

    def change_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> bool:
        old, new = _SECRET.row(before), _SECRET.row(after)
        return self._work.write(_CHANGE_SECRET, changed({**old, "client_id": client_id}, new)) == 1

    def note_secret(self, client_id: str, before: ClientSecret, after: ClientSecret) -> None:
        old, new = _SECRET.row(before), _SECRET.row(after)
        self._work.defer(_CHANGE_SECRET, changed({**old, "client_id": client_id}, new))

    def count_secrets(self, now: datetime) -> Mapping[str, int]:
        rows = self._work.read(_COUNT_SECRETS, {"now": now})
        return {row.key_id: row.secrets for row in rows}

    def knows_origin(self, origin: str) -> bool:
        normal = uris.origin(origin)
        return normal is not None and self._work.read(_KNOWS_ORIGIN, {"origin": normal}).first() is not None

    def _several(self, statement: sa.Select[Any], parameters: dict[str, Any]) -> Sequence[Client]:
        found: dict[str, list[sa.Row[Any]]] = {}
        for row in self._work.read(statement, parameters):
            found.setdefault(row.client_id, []).append(row)
        return [_client(rows) for rows in found.values()]


def _client(rows: Sequence[sa.Row[Any]]) -> Client:
    """A client from its rows, one for each live secret or a single one without."""
    secrets = tuple(_SECRET.record(row) for row in rows if row[_SECRET.start] is not None)
    return _CLIENT.record(rows[0], secrets=secrets)
