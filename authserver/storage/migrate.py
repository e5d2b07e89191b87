"""Migrates a database to this version, while servers of this version and of the previous one run.

Each migration has a `kind` in its file:

- `expand` adds something that the previous version does not know and does not need, so that both versions can work;
- `backfill` fills in what an earlier migration added, in batches, and continues where it stopped;
- `contract` removes something that no running version uses.

This version can work with a database that is ahead of it only by expands and backfills: `authserver db upgrade` of the
next version makes it so while this version still serves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

import authserver
from authserver.storage.database import Database
from authserver.storage.failures import StorageSlow

# Alembic is imported only for a migration, because its import takes a tenth of the time to start.
if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory

log = logging.getLogger(__name__)

# On PostgreSQL a migration waits only this long for a lock, because requests wait behind it; then it tries again later.
LOCK_TIMEOUT = "1s"
ATTEMPTS, PAUSE = 60, 1.0
# Kinds of migrations after which the previous version can still work.
KEEPS_WORKING = frozenset({"expand", "backfill"})
KINDS = KEEPS_WORKING | {"contract"}
BATCH = 1000


class Schema(StrEnum):
    """The state of a database's tables, compared with this version.

    CURRENT and AHEAD can be worked with; BEHIND needs `authserver db upgrade`, and TOO_NEW a newer version.
    """

    CURRENT = "current"
    BEHIND = "behind"
    AHEAD = "ahead"
    TOO_NEW = "too new"

    @property
    def is_usable(self) -> bool:
        """Whether this version can work with the tables."""
        return self in (Schema.CURRENT, Schema.AHEAD)


class TooNew(Exception):
    """The database was migrated by a newer version, which removed something that this one needs."""


def upgrade(database_url: str, *, folder: Path | None = None) -> None:
    """Run every migration that the database lacks. Safe to run twice, in several processes at once, and under load.

    Each migration is committed by itself; those of an empty database together, as far as they can be. A
    migration that cannot get a lock tries again.

    Args:
        folder: the folder of the migrations, if not those of this version.

    Raises:
        TooNew: the database belongs to a newer version, and this one cannot work with it. Nothing was changed.
        StorageUnavailable: the database does not answer, or a lock was not free for minutes. Committed migrations remain.
    """
    config = _config(folder)
    config.attributes["database_url"] = database_url
    scripts = _scripts(config)
    database = Database(database_url)
    try:
        found, newest = database.revision(), str(scripts.get_current_head())
        match schema_of(database, found, newest, folder):
            case Schema.TOO_NEW:
                raise TooNew(
                    f"the database is at migration {found}, and this version knows none after {newest}: use the version that "
                    "migrated it, or restore an earlier backup"
                )
            case Schema.CURRENT | Schema.AHEAD:
                return
    finally:
        database.close()
    ahead = list(reversed(list(scripts.iterate_revisions(newest, found or "base"))))
    for script in ahead if found else _steps(ahead):
        log.info("migration %s (%s): %s", script.revision, kind_of(script), script.doc)
        _run(config, script)


def _steps(ahead: Sequence[Script]) -> Iterator[Script]:
    """The migrations after which the upgrade of an empty database commits: few, because no server uses it yet."""
    for script, after in zip_longest(ahead, ahead[1:]):
        if after is None or not (is_transactional(script) and is_transactional(after)):
            yield script


def schema(database: Database) -> Schema:
    """The state of a database, compared with this version. Raises StorageUnavailable."""
    return schema_of(database, database.revision(), head())


def schema_of(database: Database, found: str | None, newest: str, folder: Path | None = None) -> Schema:
    """The same, for a version whose newest migration is this."""
    if found == newest:
        return Schema.CURRENT
    if found is None or found in _known(folder):
        return Schema.BEHIND
    run, revision = database.migrations(), found
    while revision != newest:
        before, kind = run.get(revision, (None, "unknown"))
        if kind not in KEEPS_WORKING or before is None:
            return Schema.TOO_NEW
        revision = before
    return Schema.AHEAD


def current(database_url: str) -> str | None:
    """The present migration of the database; None if it is empty. Raises StorageUnavailable."""
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


def kind_of(script: Script) -> str:
    """The kind of a migration; `contract` if its file does not say."""
    return str(getattr(script.module, "kind", "contract"))


def is_transactional(script: Script) -> bool:
    """Whether it runs in one transaction: not if its file says `transactional = False`, as CREATE INDEX CONCURRENTLY and
    backfills need it. Such a migration can be run again after it was interrupted."""
    return bool(getattr(script.module, "transactional", True))


def in_batches(connection: sa.Connection, statement: str, name: str, batch: int = BATCH) -> int:
    """Run a backfill: the statement, which changes at most `:batch` rows that lack something, until there are none.

    For migrations with `transactional = False`: each batch is committed, so that a new run continues an interrupted one.
    """
    done = 0
    while changed := connection.execute(sa.text(statement), {"batch": batch}).rowcount:
        done += changed
        log.info("%s: %d rows so far", name, done)
    return done


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


def _run(config: Config, script: Script) -> None:
    from alembic import command

    config.attributes["transactional"] = is_transactional(script)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            command.upgrade(config, script.revision)
            return
        except StorageSlow:
            if attempt == ATTEMPTS:
                raise
            log.info("migration %s waits for a lock that others hold; trying again", script.revision)
            time.sleep(PAUSE)


@cache
def _known(folder: Path | None = None) -> frozenset[str]:
    return frozenset(script.revision for script in _scripts(_config(folder)).walk_revisions())


def _scripts(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _config(folder: Path | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder or migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
