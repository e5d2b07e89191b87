"""Bring a database's tables to the state this version expects."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

import authserver
from authserver.storage.database import Database


def upgrade(database_url: str) -> None:
    """Run every migration that the database lacks. Safe to run twice, and by several processes at once."""
    config = _config()
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
    """The newest migration; the scripts are parsed once, because readiness asks often."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise FileNotFoundError(f"no migrations in {migrations_folder()}")
    return revision


def is_known(revision: str) -> bool:
    """Whether this version has that migration."""
    return revision in {item.revision for item in ScriptDirectory.from_config(_config()).walk_revisions()}


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


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
