"""Bring a database's tables to the state this version expects."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import authserver
from authserver.storage.database import Database


def upgrade(database_url: str) -> None:
    """Run every migration that the database lacks. Safe to run twice, and by several processes at once."""
    # Imported here: it takes a tenth of the time to start, and only those who upgrade need it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def current(database_url: str) -> str | None:
    """The migration the database is at; None when it is empty. Raises StorageUnavailable."""
    database = Database(database_url)
    try:
        return database.revision()
    finally:
        database.close()


@cache
def head() -> str:
    """The newest migration: the last file `NUMBER_what_it_does.py`; looked up once, because readiness asks often."""
    folder = migrations_folder() / "versions"
    names = sorted(path.name for path in folder.glob("[0-9]*_*.py"))
    if not names:
        raise FileNotFoundError(f"no migrations in {folder}")
    return names[-1].partition("_")[0]


def migrations_folder() -> Path:
    """`authserver/migrations` as installed from a wheel, `alembic` beside the package in a checkout.

    Raises:
        FileNotFoundError: neither is there.
    """
    package = Path(authserver.__file__).parent
    for folder in (package / "migrations", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError(
        "the migrations are not installed: no authserver/migrations, no alembic folder beside it"
    )
