"""How clean-up gets at the rows: by an index each, and no more of them than a batch has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from authserver.engine.records import RegisteredBy
from authserver.engine.upkeep_records import Disposable
from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.testing.records import NOW, a_client, a_grant, a_token, a_user

MANY = 30_000

FILL = f"""
INSERT INTO users (user_id, username, display_name, groups, attributes, created_at)
  SELECT 'user_' || n, 'u' || n, '', '[]', '{{}}', now() FROM generate_series(1, {MANY}) n;
INSERT INTO clients (client_id, name, auth_method, redirect_uris, grant_types, response_types, scopes, resources,
    application_type, registered_by, first_party, created_at, details, last_used_at, registered_from,
    registration_policy)
  SELECT 'c' || n, 'C', 'none', '', '', '', '', '', 'web', CASE WHEN n % 3 = 0 THEN 'operator' ELSE 'self' END,
    false, timestamptz '2026-01-01' + n * interval '4 minutes', '{{}}', CASE WHEN n % 2 = 1 THEN now() END,
    '10.0.0.' || n % 300, CASE WHEN n % 100 = 0 THEN 'partners' END FROM generate_series(1, {MANY}) n;
INSERT INTO client_secrets (client_id, digest, key_id, created_at, expires_at)
  SELECT 'c' || n, 'd', 'k', now(), CASE WHEN n % 5 = 0 THEN timestamptz '2026-01-01' + n * interval '4 minutes' END
  FROM generate_series(1, {MANY}) n;
INSERT INTO consents (user_id, client_id, scopes, resources, redirect_uris, granted_at)
  SELECT 'user_' || n, 'c' || n, '', '', '', now() FROM generate_series(1, {MANY}) n;
INSERT INTO grants (grant_id, client_id, user_id, scopes, resources, created_at, expires_at, details)
  SELECT 'g' || n, 'c' || n, 'user_' || n, '', '', now(), timestamptz '2026-01-01' + n * interval '4 minutes', '{{}}'
  FROM generate_series(1, {MANY}, 2) n;
INSERT INTO tokens (kind, digest, grant_id, client_id, scopes, resources, created_at, expires_at, failures, details)
  SELECT CASE WHEN n % 3 = 0 THEN 'access' ELSE 'refresh' END, convert_to(n::text, 'UTF8'),
    'g' || (n / 4) * 2 + 1, 'c1', '', '', now(), timestamptz '2026-01-01' + n * interval '2 minutes', 0, '{{}}'
  FROM generate_series(1, {2 * MANY - 4}) n;
INSERT INTO kept (kind, digest, created_at, expires_at, details)
  SELECT 'used', convert_to(n::text, 'UTF8'), now(), timestamptz '2026-01-01' + n * interval '4 minutes', '{{}}'
  FROM generate_series(1, {MANY}) n;
INSERT INTO sessions (digest, user_id, authenticated_at, last_seen_at, expires_at, details)
  SELECT convert_to(n::text, 'UTF8'), 'user_' || n, now(), now(),
    timestamptz '2026-01-01' + n * interval '4 minutes', '{{}}' FROM generate_series(1, {MANY}) n;
INSERT INTO events (event_id, type, at, reason, decisions, details)
  SELECT 'e' || n, 'token.issued', timestamptz '2026-01-01' + n * interval '4 minutes', '', '[]', '{{}}'
  FROM generate_series(1, {MANY}) n;
INSERT INTO event_counts (step, client_id, at, type, grant_type, reason, count)
  SELECT (ARRAY['hour', 'day', 'month'])[n % 3 + 1], 'c' || n % 50, timestamptz '2026-01-01' + n * interval '4 minutes',
    'token.issued', '', '', 1 FROM generate_series(1, {MANY}) n;
INSERT INTO gauge_samples (gauge, step, at, value)
  SELECT 'people', 'hour', timestamptz '2026-01-01' + n * interval '4 minutes', n FROM generate_series(1, {MANY}) n;
"""


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Some ten thousand rows in each table, in a database of their own; half of them are over."""
    server = str(request.getfixturevalue("postgresql_server"))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_upkeep")
    url = server.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", "/test_upkeep?")
    migrate.upgrade(url)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(FILL)
    database = Database(url)
    yield database
    database.close()


@pytest.mark.postgresql
@pytest.mark.parametrize("analyzed", [False, True], ids=["as inserted", "analyzed"])
@pytest.mark.parametrize("kind", Disposable)
def test_no_statement_reads_more_than_its_batch(filled: Database, kind: Disposable, analyzed: bool) -> None:
    """T116: by an index each, never the whole table, whatever the planner knows of it."""
    limit = 500
    with filled.engine.connect() as connection:
        if analyzed:
            connection.execute(sa.text("ANALYZE"))
    for name in ("remove", "count"):
        plans = explained(
            filled, lambda stores, name=name: getattr(stores.upkeep, name)(kind, NOW, limit=limit)
        )
        assert plans
        for node in (node for plan in plans for node in nodes(plan)):
            assert node["Node Type"] != "Seq Scan", node
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert read <= 2 * limit, node


@pytest.mark.postgresql
@pytest.mark.parametrize("analyzed", [False, True], ids=["as inserted", "analyzed"])
@pytest.mark.parametrize("network", [None, "10.0.0.4"])
def test_what_makes_room_for_a_client_reads_no_more_than_it_wants(
    filled: Database, network: str | None, analyzed: bool
) -> None:
    """T131: while there are ten thousand that were never used."""
    limit = 60
    with filled.engine.connect() as connection:
        if analyzed:
            connection.execute(sa.text("ANALYZE"))
    for run in (
        lambda stores: stores.clients.never_used(NOW, network=network, limit=limit),
        lambda stores: stores.clients.count_never_used(network=network, limit=limit),
        lambda stores: stores.clients.remove_never_used("c2"),
    ):
        # In the transaction of a registration, as they are used.
        plans = explained(filled, lambda stores, run=run: (stores.clients.hold_registrations(), run(stores)))
        assert plans
        for node in (node for plan in plans for node in nodes(plan)):
            assert node["Node Type"] != "Seq Scan", node
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert read <= 2 * limit, node


def explained(database: Database, run: Callable[[Any], object]) -> list[dict[str, Any]]:
    """The plans of all statements that it runs, with what each step really read; nothing is kept."""
    plans: list[dict[str, Any]] = []

    def explain(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(("SELECT", "DELETE")):
            cursor.execute("SAVEPOINT explained")
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", parameters)
            (found,) = cursor.fetchone()
            plans.append((found if isinstance(found, list) else json.loads(found))[0]["Plan"])
            cursor.execute("ROLLBACK TO SAVEPOINT explained")

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    try:
        with database.begin() as stores:
            run(stores)
            raise Undone
    except Undone:
        return plans
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", explain)


class Undone(Exception):
    """Ends a transaction whose writes are not wanted."""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("kind", Disposable)
def test_sqlite_looks_everything_up(sqlite_url: str, kind: Disposable) -> None:
    """T116: what is read of a table is found by an index or a row id; nothing is read from end to end."""
    database, plans = Database(sqlite_url), []

    def explain(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(("SELECT", "DELETE")):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in cursor.fetchall())

    with database.begin() as stores:
        stores.users.add(a_user())
        stores.clients.add(
            a_client(client_id="idle", registered_by=RegisteredBy.SELF, created_at=NOW - timedelta(days=1))
        )
        stores.grants.add(a_grant(expires_at=NOW - timedelta(days=1)))
        stores.tokens.add(a_token())
    sa.event.listen(database.engine, "before_cursor_execute", explain)
    for name in ("remove", "count"):
        with database.begin() as stores:
            getattr(stores.upkeep, name)(kind, NOW, limit=100)
    database.close()
    assert plans
    scanned = [step for step in plans if step.startswith("SCAN") and not step.startswith("SCAN (")]
    assert all(step in ("SCAN anon_1", "SCAN CONSTANT ROW") for step in scanned), scanned
