"""How the database gets at the rows that clean-up removes, and what it passes by."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from authserver.engine.records import ClientSecret, Logo, TokenKind
from authserver.engine.upkeep_records import Disposable
from authserver.storage.database import Database
from authserver.testing.records import (
    NOW,
    a_client,
    a_grant,
    a_token,
)
from authserver.testing.upkeep_contract import DAY, add, remove, self_registered


@pytest.mark.parametrize("many", [2, 250, 251, 600])
def test_clients_in_use_do_not_keep_batches_from_the_idle_ones(database: Database, many: int) -> None:
    """K-09: they are passed by, all at one time of registration as well."""
    clients = [self_registered(f"used_{number:04}") for number in range(many)]
    add(
        database,
        clients=[*clients, self_registered("~idle")],
        grants=[a_grant(grant_id=client.client_id, client_id=client.client_id) for client in clients],
    )
    assert sum(removed for removed, _ in remove(database, Disposable.CLIENTS)) == 1
    with database.begin() as stores:
        assert stores.clients.find("~idle", NOW) is None


def test_a_family_of_10000_goes_in_batches(database: Database) -> None:
    """T116: never by the foreign key at once; its grant stays until the last of them is gone."""
    add(database, clients=[a_client()], grants=[a_grant(expires_at=NOW - DAY)])
    insert_refresh_tokens(database, 10_000)
    batches = remove(database, Disposable.GRANTS, limit=1000)
    assert batches == [(0, 1000)] * 10 + [(1, 0)]


def insert_refresh_tokens(database: Database, number: int) -> None:
    statement = (
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :number) "
        "INSERT INTO tokens (kind, digest, grant_id, client_id, scopes, resources, created_at, expires_at,"
        " failures, details) SELECT 'refresh', CAST(CAST(n AS TEXT) AS {binary}), 'grant_1', 'reports', '', '',"
        " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000', 0, '{{}}' FROM numbers"
    )
    binary = {"sqlite": "BLOB", "postgresql": "BYTEA"}[database.engine.dialect.name]
    text = statement.format(binary=binary).replace("'2026-01-01 00:00:00.000000'", "CAST(:at AS {time})")
    time = {"sqlite": "TEXT", "postgresql": "TIMESTAMPTZ"}[database.engine.dialect.name]
    with database.engine.connect() as connection:
        connection.execute(
            sa.text(text.replace("{time}", time)), {"number": number, "at": "2026-01-01 00:00:00.000000"}
        )


def test_nothing_that_belongs_to_an_idle_client_stays_in_any_table(database: Database) -> None:
    """K-09, T073"""
    secret = ClientSecret(digest=b"digest", key_id="k", created_at=NOW - DAY)
    add(database, clients=[self_registered("idle", secrets=(secret,))])
    with database.begin() as stores:
        stores.clients.keep_logo("idle", Logo(digest="1", media_type="image/png", body=b"PNG"))
    assert remove(database, Disposable.CLIENTS) == [(1, 0)]
    for table in ("client_secrets", "client_origins", "client_logos"):
        assert rows(database, f"SELECT count(*) FROM {table} WHERE client_id = 'idle'") == [(0,)]


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


@pytest.mark.postgresql
@pytest.mark.parametrize("kind", [Disposable.TOKENS, Disposable.GRANTS, Disposable.CLIENTS])
def test_what_another_purge_holds_is_passed_by(postgresql_url: str, kind: Disposable) -> None:
    """T116: nobody waits, nobody is chosen as a victim; between them they remove everything."""
    database = Database(postgresql_url)
    add(
        database,
        clients=[a_client(), *(self_registered(f"idle_{number}") for number in range(4))],
        grants=[a_grant(), *(a_grant(grant_id=f"g{n}", expires_at=NOW - n * DAY) for n in range(1, 5))],
        tokens=[
            a_token(
                kind=TokenKind.ACCESS, digest=bytes([number]), grant_id=f"g{number}", expires_at=NOW - DAY
            )
            for number in range(1, 5)
        ],
    )
    if kind is not Disposable.TOKENS:
        remove(database, Disposable.TOKENS)
    with database.begin() as one:
        # Small enough to leave something; grants and clients are taken by the handful.
        first = one.upkeep.remove(kind, NOW, limit=2)
        with database.begin() as other:
            second = other.upkeep.remove(kind, NOW, limit=100)
    database.close()
    assert first.removed >= 2
    assert first.removed + second.removed == 4


@pytest.mark.postgresql
def test_a_token_that_a_request_holds_is_passed_by(postgresql_url: str) -> None:
    """T116: the purge neither waits for the request nor takes the row from under it."""
    database = Database(postgresql_url)
    add(
        database,
        clients=[a_client()],
        grants=[a_grant()],
        tokens=[
            a_token(kind=TokenKind.ACCESS, digest=digest, expires_at=NOW - DAY) for digest in (b"1", b"2")
        ],
    )
    with database.begin() as request:
        assert request.tokens.claim(a_token(kind=TokenKind.ACCESS, digest=b"1"), NOW)
        assert remove(database, Disposable.TOKENS) == [(1, 0)]
    assert remove(database, Disposable.TOKENS) == [(1, 0)]
    database.close()
