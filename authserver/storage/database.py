"""Opens the database, begins transactions, and turns its temporary errors into StorageUnavailable."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec
import sqlalchemy as sa
import zope.sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool
from transaction import TransactionManager

from authserver import private_files
from authserver.engine.ports import StorageUnavailable, Stores
from authserver.engine.timeline import SpanKind, note
from authserver.settings import SettingsError
from authserver.storage.columns import encode_json
from authserver.storage.failures import StorageBusy, StorageSlow, StorageUncertain, translate
from authserver.storage.prepared import LINE, Line
from authserver.storage.sqlite_line import SqliteLine, read_any_text
from authserver.storage.stores import stores_of
from authserver.storage.tables import migrations
from authserver.storage.turns import Writers
from authserver.storage.work import Work

__all__ = ["Database", "StorageBusy", "StorageSlow", "StorageUncertain", "open_engine"]

_creating = threading.Lock()

# Seconds. A thread that waits longer than this for the database answers 503 instead (T114).
POOL_TIMEOUT = 2.0
SQLITE_BUSY_TIMEOUT = 5.0
# The table in which Alembic stores the migration of the database.
VERSION_TABLE = "alembic_version"
# Under this name the pool notes that a connection was used before.
_GIVEN = "authserver.given"
# Bytes that must be free on the disk of a SQLite file when a server starts.
MINIMUM_FREE = 4_000_000
# In WAL mode only FULL protects committed transactions against a loss of power.
SQLITE_SYNCHRONOUS = "FULL"
POSTGRESQL_CONNECT_TIMEOUT = 2
# Limits for statements and locks, and for what a frozen process or a lost machine leaves behind: a transaction that
# holds rows, and a session from which PostgreSQL hears nothing more. The last four are for TCP; the last one is in
# milliseconds.
POSTGRESQL_OPTIONS = (
    "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s -c timezone=UTC"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=25000"
)
# The same on this side, for libpq: a firewall may drop a connection although new ones reach the server.
POSTGRESQL_KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}


class Database:
    """Opens transactions with their stores (`engine.ports.Storage`). Each process has one; safe between threads.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://…`.
        pool_size: how many connections are kept, and used at most; the number of threads of the process is right.
        any_text: whether texts that are not UTF-8 can be read from the beginning. Otherwise a connection of SQLite reads
            them only after it has failed with one, because that way of reading takes longer.
    """

    def __init__(self, url: str, *, pool_size: int = 16, any_text: bool = False) -> None:
        self.engine = open_engine(url, pool_size=pool_size, any_text=any_text)

    def for_transaction(self, transaction_manager: TransactionManager) -> Stores:
        """Stores that join the manager's current transaction with their first write."""
        session = Session(self.engine)

        @cache
        def close_at_end() -> None:
            # Until the first write nothing has joined that would give the connection back.
            current = transaction_manager.get()
            current.addAfterCommitHook(lambda _: work.close())
            current.addAfterAbortHook(work.close)

        def connect() -> sa.Connection:
            close_at_end()
            return session.connection()

        work = Work(connect, _Joined(session, transaction_manager))
        return stores_of(work)

    @contextmanager
    def begin(self, *, optimistic: bool = False) -> Iterator[Stores]:
        """Stores in a short transaction of their own: committed at the end, rolled back on an exception.

        Args:
            optimistic: as in `engine.ports.Storage`.
        """
        work = Work(self.engine.connect, optimistic=optimistic)
        try:
            yield stores_of(work)
            work.commit()
        except StorageUnavailable:
            raise
        except Exception:
            # A refusal must not follow from rows that have changed.
            work.confirm()
            raise
        finally:
            work.close()

    def watch(self) -> None:
        """From now on, add each statement and commit to the timeline of its request (`engine.timeline`)."""
        dialect = self.engine.dialect
        timed = {"do_execute": _timed, "do_execute_no_params": _timed, "do_executemany": _timed}
        for name, wrap in {**timed, "do_commit": _timed_commit}.items():
            setattr(dialect, name, wrap(getattr(dialect, name)))

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    def connections(self) -> Mapping[str, int]:
        """How many connections are `in_use` and `idle`, and how many of both there may be, `limit`."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return {}
        return {"in_use": pool.checkedout(), "idle": pool.checkedin(), "limit": pool.size()}

    def check_file(self) -> None:
        """Check that a SQLite file exists and has room to grow. To connect would create an empty one.

        Raises:
            SettingsError: it does not exist, or the disk is almost full.
        """
        path = file_of(self.engine.url)
        if path is None:
            return
        if not path.exists():
            raise SettingsError(
                [
                    f"authserver.database_url: there is no file {path}: run `authserver db upgrade`, or change the path"
                ]
            )
        if (free := shutil.disk_usage(path.parent).free) < MINIMUM_FREE:
            raise SettingsError(
                [
                    (
                        f"authserver.database_url: {free // 1_000_000} MB are free on the disk of {path}, and "
                        f"{MINIMUM_FREE // 1_000_000} are needed; make room, or move the file and change the path"
                    )
                ]
            )

    def ping(self) -> None:
        """Reach the database. Raises StorageUnavailable."""
        with self._connect() as connection:
            connection.execute(sa.select(1)).one()

    def revision(self) -> str | None:
        """The present migration of the database; None if it is empty. Raises StorageUnavailable."""
        with self._connect() as connection:
            if not sa.inspect(connection).has_table(VERSION_TABLE):
                return None
            found = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(VERSION_TABLE))
            return connection.scalar(found)

    def migrations(self) -> Mapping[str, tuple[str | None, str]]:
        """By each migration that was run, the migration before it and its kind. Raises StorageUnavailable."""
        columns = (migrations.c.revision, migrations.c.down_revision, migrations.c.kind)
        with self._connect() as connection:
            rows = connection.execute(sa.select(*columns)).all()
        return {revision: (before, kind) for revision, before, kind in rows}

    def close(self) -> None:
        """Close all idle connections."""
        self.engine.dispose()

    @contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        try:
            connection = self.engine.connect()
        except sa.exc.TimeoutError as error:
            raise StorageSlow("no database connection became free in time") from error
        with connection:
            yield connection


class _Joined:
    """Implements `storage.work.Around`: a transaction that pyramid_tm begins and ends."""

    def __init__(self, session: Session, manager: TransactionManager) -> None:
        self._session = session
        self._manager = manager

    def join(self) -> None:
        # As "changed": zope.sqlalchemy cannot see a write by Core, and would roll it back (T107).
        zope.sqlalchemy.mark_changed(self._session, self._manager)

    def before_commit(self, flush: Callable[[], None]) -> None:
        self._manager.get().addBeforeCommitHook(flush)

    def abandon(self) -> None:
        # If it has not joined, the end of the transaction would not fail without it.
        self.join()
        self._session.rollback()

    def release(self) -> None:
        self._session.close()


def open_engine(url: str | URL, *, pool_size: int = 16, any_text: bool = False) -> Engine:
    """An engine whose connections are in the driver's autocommit mode and whose temporary errors are StorageUnavailable.

    Raises:
        SettingsError: the driver of such databases is not installed.
    """
    url = make_url(url)
    try:
        engine = sa.create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            # LIFO leaves the connections above the usual load unused, and reuses those that have prepared statements.
            pool_use_lifo=True,
            # `Line.reset` does that.
            pool_reset_on_return=None,
            connect_args=_connect_args(url),
            # Statements carry password hashes and sealed secrets; error messages must not.
            hide_parameters=True,
            json_serializer=_dump,
            json_deserializer=msgspec.json.decode,
        )
    except ImportError as error:
        problem = f"the driver of {url.get_backend_name()} cannot be imported ({error}); install it:"
        raise SettingsError(
            [f"authserver.database_url: {problem} pip install 'authserver[postgresql]'"]
        ) from error
    event.listen(engine, "handle_error", translate)
    if url.get_backend_name() == "postgresql":
        # The driver of PostgreSQL is an extra: SQLite works without it.
        from authserver.storage import silence

        silence.watch(engine)
    _keep_lines(engine)
    if url.get_backend_name() == "sqlite":
        _keep_private(engine)
        event.listen(engine, "connect", _prepare_sqlite)
        if any_text:
            event.listen(engine, "connect", lambda connection, _: read_any_text(connection))
    return engine


def _timed(function: Callable[..., None]) -> Callable[..., None]:
    """The same method of a dialect, timed. Its second argument is the text of a statement, which contains no values."""

    def execute(cursor: Any, statement: str, *more: Any) -> None:
        began = time.perf_counter_ns()
        try:
            function(cursor, statement, *more)
        finally:
            note(SpanKind.STATEMENT, statement[:6].rstrip().upper(), began, {"text": statement})

    return execute


def _timed_commit(function: Callable[..., None]) -> Callable[..., None]:
    def commit(connection: Any) -> None:
        began = time.perf_counter_ns()
        try:
            function(connection)
        finally:
            note(SpanKind.STATEMENT, "COMMIT", began, {"text": "COMMIT"})

    return commit


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": SQLITE_BUSY_TIMEOUT}
    # The options of the URL come last, so they win.
    options = f"{POSTGRESQL_OPTIONS} {url.query.get('options', '')}".strip()
    keepalive = {name: value for name, value in POSTGRESQL_KEEPALIVE.items() if name not in url.query}
    # If the driver prepared a statement itself, each rollback would make it forget all prepared statements, also ours.
    return {
        **keepalive,
        "connect_timeout": POSTGRESQL_CONNECT_TIMEOUT,
        "options": options,
        "prepare_threshold": None,
    }


def _keep_private(engine: Engine) -> None:
    """Make the file unreadable for other users; SQLite gives its other files the same mode."""
    path = file_of(engine.url)
    if path is None:
        return
    for beside in ("", "-wal", "-shm", "-journal"):
        private_files.tighten(path.with_name(path.name + beside))
    # A mode in the address, such as `ro`, may prevent that the file is created.
    if "mode=" not in _address(engine.url).query:
        event.listen(engine, "do_connect", lambda *_: _create(path))


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database; None for one in memory, and for others."""
    if url.get_backend_name() != "sqlite":
        return None
    path = Path(os.path.realpath(unquote(_address(url).path)))
    return None if path.name == ":memory:" else path


def _address(url: URL) -> SplitResult:
    """The address that SQLite opens: a path, or a URI with its options."""
    (name,), options = url.get_dialect()().create_connect_args(url)
    return urlsplit(name) if options.get("uri") else SplitResult("", "", quote(name), "", "")


def _create(path: Path) -> None:
    # If this fails, the message of SQLite is the better one. The lock is needed because closing a file ends the locks
    # that other threads hold on it.
    with _creating, suppress(OSError):
        private_files.create(path)


def _keep_lines(engine: Engine) -> None:
    """Give each connection its `Line` for as long as it lives, because prepared statements belong to a connection."""
    if engine.dialect.name == "sqlite":
        file = file_of(engine.url)
        turns = Writers(file and file.with_name(f"{file.name}-wal"))
        event.listen(engine, "engine_disposed", lambda _engine: turns.close())

        def line_of(connection: Any) -> Line:
            return SqliteLine(connection, engine.dialect, turns, SQLITE_BUSY_TIMEOUT)

        def leave(_connection: Any, record: Any) -> None:
            # After a failed reconnect there is no connection.
            if (line := record.info.get(LINE)) is not None:
                line.leave()

        # This is called also if SQLAlchemy ends the transaction.
        event.listen(engine, "checkin", leave)
    else:
        # Its driver is an extra.
        from authserver.storage.postgresql_line import PostgresqlLine

        def line_of(connection: Any) -> Line:
            return PostgresqlLine(connection, engine.dialect)

        def check(_connection: Any, record: Any, _proxy: Any) -> None:
            # A request that is sent and committed in one round trip would be lost with the connection, and nobody would
            # know whether it was committed. A new connection is not checked: if it was lost, too, the pool would fail
            # with an error that is not temporary.
            was_given = record.info.get(_GIVEN)
            record.info[_GIVEN] = True
            if was_given and record.info[LINE].is_lost():
                raise sa.exc.DisconnectionError

        # The pool makes a new one then.
        event.listen(engine, "checkout", check)

    event.listen(
        engine, "connect", lambda connection, record: record.info.update({LINE: line_of(connection)})
    )
    event.listen(engine, "reset", lambda _connection, record, _state: record.info[LINE].reset())


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA synchronous = {SQLITE_SYNCHRONOUS}")
    cursor.close()


def _dump(value: Any) -> str:
    return encode_json(value).decode()
