"""Runs migrations: for `authserver db upgrade`, and for the `alembic` command with one of the INI files."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import URL, Connection, inspect

from authserver.ini import resolve
from authserver.storage.database import file_of, open_engine
from authserver.storage.migrate import LOCK_TIMEOUT, kind_of
from authserver.storage.tables import Base, migrations

KEY = "authserver.database_url"
LOCK = 7_226_849_313  # any number of our own, the same in every process that migrates


def database_url() -> str:
    """What our own code hands over; else `authserver.database_url` of the INI file's `[app:main]`."""
    given = context.config.attributes.get("database_url")
    if given is not None:
        return str(given)
    return resolve(KEY, context.config.get_section("app:main", {})[KEY]).text


def run(connection: Connection) -> None:
    """One process at a time, and everything in one transaction, unless a migration alone says that it must not be."""
    is_sqlite = connection.dialect.name == "sqlite"
    is_transactional = context.config.attributes.get("transactional", True)
    if is_sqlite and is_transactional:
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            configure(connection)
        return
    with alone(connection, is_sqlite=is_sqlite):
        if not is_transactional:
            configure(connection)
            return
        # Of SQLAlchemy's: the database has none, each statement so far was committed by itself.
        connection.commit()
        with connection.begin():
            connection.exec_driver_sql("BEGIN")
            configure(connection)


@contextmanager
def alone(connection: Connection, *, is_sqlite: bool) -> Iterator[None]:
    """While no other process migrates; those ask again and again.

    They must not wait in the database, with a transaction or without: CREATE INDEX CONCURRENTLY would wait for them.
    """
    if is_sqlite:
        with folder_locked(connection.engine.url):
            yield
        return
    # A migration may take longer than a request.
    for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.exec_driver_sql(f"SET {limit} = 0")
    connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({LOCK})").scalar_one():
        time.sleep(0.2)
    try:
        yield
    finally:
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({LOCK})")


@contextmanager
def folder_locked(url: URL) -> Iterator[None]:
    """Lock the folder of a SQLite file: SQLite itself has no lock that is held from one transaction to the next."""
    path = file_of(url)
    if path is None:
        # In memory, where no other process is.
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def configure(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=context.config.attributes.get("transactional", True),
        render_as_batch=connection.dialect.name == "sqlite",
        on_version_apply=note,
    )
    context.run_migrations()


def note(*, ctx: MigrationContext, step: MigrationInfo, **_: object) -> None:
    """Write down what kind of migration it was, for versions that do not know it."""
    connection, revision = ctx.connection, step.up_revision_id
    if connection is None or revision is None or not inspect(connection).has_table(migrations.name):
        return
    # One that was interrupted may come again.
    connection.execute(migrations.delete().where(migrations.c.revision == revision))
    if step.is_upgrade:
        script = step.up_revision
        row = {
            "revision": revision,
            "down_revision": script.down_revision,
            "kind": kind_of(script),
            "applied_at": datetime.now(UTC),
        }
        connection.execute(migrations.insert(), row)


if context.is_offline_mode():
    context.configure(url=database_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = open_engine(database_url())
    try:
        with engine.connect() as connection:
            run(connection)
    finally:
        engine.dispose()
