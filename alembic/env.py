"""Runs migrations: for `authserver db upgrade`, and for the `alembic` command with one of the INI files."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from authserver.ini import resolve
from authserver.storage.database import open_engine
from authserver.storage.tables import Base

KEY = "authserver.database_url"
LOCK = 7_226_849_313  # any number of our own, the same in every process that migrates


def database_url() -> str:
    """What our own code hands over; else `authserver.database_url` of the INI file's `[app:main]`."""
    given = context.config.attributes.get("database_url")
    if given is not None:
        return str(given)
    return resolve(KEY, context.config.get_section("app:main", {})[KEY]).text


def run(connection: Connection) -> None:
    """Everything in one transaction, and one process at a time."""
    with connection.begin():
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
            # A migration may take longer than a request, and wait for another process's.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transactional_ddl=True,
            render_as_batch=connection.dialect.name == "sqlite",
        )
        context.run_migrations()


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
