"""R-19: two neighbouring versions work on one database, and no migration stops the issue of tokens."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from authserver import app
from authserver.settings import SettingsError
from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.storage.migrate import Schema
from authserver.testing.records import a_client
from authserver.testing.server import SETTINGS
from tests.next_version import BACKFILL, CONTRACT, EXPAND, INDEX, migrations

# Those up to here were made before there was a release.
BEFORE_THE_RULES = "0024"
SCRIPTS = {
    script.revision: script for script in ScriptDirectory(str(migrate.migrations_folder())).walk_revisions()
}
RULED = sorted(revision for revision in SCRIPTS if revision > BEFORE_THE_RULES)


def problems(sql: str, kind: str, *, transactional: bool) -> Iterator[str]:
    """What a migration does on PostgreSQL that its kind must not, or that holds a lock for long."""
    made = set(re.findall(r"CREATE TABLE (\w+)", sql))
    statements = [" ".join(part.split()) for part in sql.split(";")]
    for statement in statements:
        if re.match(
            r"(BEGIN|COMMIT|INSERT INTO alembic_version|UPDATE alembic_version|CREATE TABLE)", statement
        ):
            continue
        if index := re.match(r"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?.*?\bON (\w+)", statement):
            if index[2] not in made and not index[1]:
                yield f"locks {index[2]} until the index is made: CONCURRENTLY"
            continue
        if re.match(r"DROP INDEX", statement) and "CONCURRENTLY" in statement:
            continue
        if kind != "contract" and re.search(
            r"\bDROP (TABLE|COLUMN)|\bRENAME\b|ALTER COLUMN|SET NOT NULL|ADD CONSTRAINT", statement
        ):
            yield f"takes away what the version before may use, so it is a contract: {statement}"
        if re.search(r"ALTER COLUMN \w+ (SET DATA )?TYPE", statement):
            yield f"writes the whole table anew: {statement}"
        if (
            (column := re.search(r"ADD COLUMN .*", statement))
            and "NOT NULL" in column[0]
            and "DEFAULT" not in column[0]
        ):
            yield f"the version before does not fill it in: {statement}"
        if "ADD CONSTRAINT" in statement and "NOT VALID" not in statement:
            yield f"reads the whole table under a lock: NOT VALID, then VALIDATE: {statement}"
        if transactional and re.match(r"(UPDATE|DELETE)", statement):
            yield f"changes rows in one transaction: a backfill, in batches: {statement}"
    if "CONCURRENTLY" in sql and transactional:
        yield "CONCURRENTLY needs transactional = False"


def sql_of(revision: str) -> str:
    """What a migration sends to PostgreSQL."""
    config = migrate._config()
    config.output_buffer = text = io.StringIO()
    config.attributes["database_url"] = "postgresql+psycopg://nobody@nowhere/none"
    command.upgrade(config, f"{SCRIPTS[revision].down_revision}:{revision}", sql=True)
    return text.getvalue()


def test_each_migration_says_what_it_is() -> None:
    assert {
        revision: migrate.kind_of(script) for revision, script in SCRIPTS.items()
    }.keys() == SCRIPTS.keys()
    for script in SCRIPTS.values():
        assert script.module.kind in migrate.KINDS, script.revision


@pytest.mark.parametrize("revision", RULED)
def test_no_migration_locks_for_long_or_does_what_its_kind_must_not(revision: str) -> None:
    script = SCRIPTS[revision]
    found = problems(
        sql_of(revision), migrate.kind_of(script), transactional=migrate.is_transactional(script)
    )
    assert list(found) == []


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("CREATE INDEX ix ON clients (name)", "expand"),
        ("CREATE INDEX CONCURRENTLY ix ON clients (name)", "expand"),
        ("ALTER TABLE clients DROP COLUMN name", "expand"),
        ("ALTER TABLE clients RENAME name TO title", "backfill"),
        ("ALTER TABLE clients ADD COLUMN title TEXT NOT NULL", "expand"),
        ("ALTER TABLE clients ALTER COLUMN name TYPE INTEGER", "contract"),
        ("ALTER TABLE clients ADD CONSTRAINT ck CHECK (name <> '')", "contract"),
        ("UPDATE clients SET name = ''", "backfill"),
    ],
)
def test_the_rules_find_what_they_are_for(sql: str, kind: str) -> None:
    assert list(problems(sql, kind, transactional=True))


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE new (name TEXT); CREATE INDEX ix ON new (name)",
        "ALTER TABLE clients ADD COLUMN title TEXT",
        "ALTER TABLE clients ADD COLUMN title TEXT DEFAULT '' NOT NULL",
    ],
)
def test_the_rules_let_pass_what_holds_no_lock(sql: str) -> None:
    assert not list(problems(sql, "expand", transactional=True))


def test_a_database_that_is_ahead_can_be_worked_with_until_something_is_taken_away(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-19: the next version expands and fills in while this one runs; its contract ends this one."""
    caplog.set_level(logging.INFO, "authserver.storage.migrate")
    url = database.engine.url.render_as_string(hide_password=False)
    with database.begin() as stores:
        for number in range(3):
            stores.clients.add(a_client(client_id=f"client-{number}"))
    ini = {**SETTINGS, "authserver.database_url": url}
    try:
        migrate.upgrade(url, folder=migrations(tmp_path, (EXPAND, INDEX, BACKFILL)))
        assert migrate.schema(database) is Schema.AHEAD
        assert "clients: 3 rows so far" in caplog.text
        with database.engine.connect() as connection:
            filled = connection.exec_driver_sql("SELECT DISTINCT novelty FROM clients").scalars().all()
        assert filled == ["known"]
        application = app.build(ini)
        application.prepare()
        application.close()
        migrate.upgrade(url)
        assert migrate.schema(database) is Schema.AHEAD

        migrate.upgrade(url, folder=migrations(tmp_path, (EXPAND, INDEX, BACKFILL, CONTRACT)))
        assert migrate.schema(database) is Schema.TOO_NEW
        application = app.build(ini)
        with pytest.raises(SettingsError, match="later version"):
            application.prepare()
        application.close()
        with pytest.raises(migrate.TooNew, match="restore an earlier backup"):
            migrate.upgrade(url)
    finally:
        undo(database)


def test_a_backfill_goes_on_where_it_was_interrupted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """R-19: each batch is committed, and the log says how far it is."""
    caplog.set_level(logging.INFO, "authserver.storage.migrate")
    with database.begin() as stores:
        for number in range(5):
            stores.clients.add(a_client(client_id=f"client-{number}", name="old"))
    statement = (
        "UPDATE clients SET name = 'new' WHERE client_id IN"
        " (SELECT client_id FROM clients WHERE name = 'old' LIMIT :batch)"
    )
    runs = 0

    def interrupt(*_: object) -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            raise KeyboardInterrupt

    with database.engine.connect() as connection:
        sa.event.listen(connection, "before_cursor_execute", interrupt)
        with pytest.raises(KeyboardInterrupt):
            migrate.in_batches(connection, statement, "clients", batch=2)
    with database.engine.connect() as connection:
        assert migrate.in_batches(connection, statement, "clients", batch=2) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "clients: 2 rows so far",
        "clients: 4 rows so far",
        "clients: 1 rows so far",
    ]


def undo(database: Database) -> None:
    """A PostgreSQL database is used by the next test again."""
    if database.kind == "sqlite":
        return
    with database.engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS novelties")
        connection.exec_driver_sql("ALTER TABLE clients DROP COLUMN IF EXISTS novelty")
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS generations (began_at TIMESTAMP WITH TIME ZONE NOT NULL,"
            " CONSTRAINT pk_generations PRIMARY KEY (began_at))"
        )
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{migrate.head()}'")


@pytest.mark.postgresql
def test_a_migration_that_waits_for_a_lock_gives_way_to_requests(
    empty_postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-19: behind an ALTER TABLE that waits, everybody waits; so it waits for a second at most, and tries again."""
    monkeypatch.setattr(migrate, "PAUSE", 0.3)
    migrate.upgrade(empty_postgresql_url)
    plain = empty_postgresql_url.replace("+psycopg", "")
    upgrading = threading.Thread(
        target=migrate.upgrade,
        args=(empty_postgresql_url,),
        kwargs={"folder": migrations(tmp_path, (EXPAND,))},
    )
    waits = []
    with psycopg.connect(plain) as report, psycopg.connect(plain, autocommit=True) as requests:
        report.execute("SELECT count(*) FROM clients")
        upgrading.start()
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            began = time.monotonic()
            requests.execute("SELECT count(*) FROM clients")
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
        assert upgrading.is_alive()
    upgrading.join(timeout=30)
    assert not upgrading.is_alive()
    assert 0.3 < max(waits) < 2
    assert migrate.current(empty_postgresql_url) == f"{int(migrate.head()) + 1:04d}"
