"""The database: how it is opened, where transactions begin, and which of its errors are temporary."""

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
from authserver.storage.turns import Turns
from authserver.storage.work import Work

__all__ = ["Database", "StorageBusy", "StorageSlow", "StorageUncertain", "open_engine"]

_creating = threading.Lock()

# Seconds. A thread that waits longer than this for the database answers 503 instead (T114).
POOL_TIMEOUT = 2.0
SQLITE_BUSY_TIMEOUT = 5.0
# Alembic keeps there which migration the database is at.
VERSION_TABLE = "alembic_version"
# Under this name the pool notes that it has given somebody a connection before.
_GIVEN = "authserver.given"
# Bytes that must be free on the disk of a SQLite file when a server starts.
MINIMUM_FREE = 4_000_000
# In WAL mode only FULL keeps what was committed through a loss of power.
SQLITE_SYNCHRONOUS = "FULL"
POSTGRESQL_CONNECT_TIMEOUT = 2
# Beside statements and locks, what a process leaves that is frozen or whose machine is gone: a transaction that holds rows,
# and a session of which PostgreSQL learns nothing more. The last four are for TCP, the last one in milliseconds.
POSTGRESQL_OPTIONS = (
    "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s -c timezone=UTC"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=25000"
)
# The same for this side, of libpq: a firewall may forget a connection, although new ones reach the server.
POSTGRESQL_KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}


class Database:
    """Where stores come from (`engine.ports.Storage`). One a process; safe between threads.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://…`.
        pool_size: connections kept, and at most used; the number of threads of the process is right.
        any_text: whether texts that are no UTF-8 are read from the beginning; otherwise a connection of SQLite does from
            the second time on that it meets one, because reading so takes longer.
    """

    def __init__(self, url: str, *, pool_size: int = 16, any_text: bool = False) -> None:
        self.engine = open_engine(url, pool_size=pool_size, any_text=any_text)

    def for_transaction(self, transaction_manager: TransactionManager) -> Stores:
        """Stores that take part in the manager's current transaction, from their first write on."""
        session = Session(self.engine)

        @cache
        def close_at_end() -> None:
            # Until the first write nothing takes part that would give the connection back.
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
            # A refusal, which must not come from what has changed.
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
        """Check that a file of SQLite is there, and has room to grow. Connecting would make an empty one.

        Raises:
            SettingsError: it is not there, or the disk is almost full.
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
        """The migration the database is at; None when it is empty. Raises StorageUnavailable."""
        with self._connect() as connection:
            if not sa.inspect(connection).has_table(VERSION_TABLE):
                return None
            found = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(VERSION_TABLE))
            return connection.scalar(found)

    def migrations(self) -> Mapping[str, tuple[str | None, str]]:
        """The migration before it, and its kind, of each migration that was run. Raises StorageUnavailable."""
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
        # One that has not joined would not be missed at the end.
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
            # LIFO lets connections above the usual load grow old unused, and keeps prepared statements hot.
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
    """The same method of a dialect; its second argument is the text of a statement, in which no values are."""

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
    # At each rollback the driver forgets all prepared statements of a connection, if it prepared one; ours would go, too.
    return {
        **keepalive,
        "connect_timeout": POSTGRESQL_CONNECT_TIMEOUT,
        "options": options,
        "prepare_threshold": None,
    }


def _keep_private(engine: Engine) -> None:
    """Make the file unreadable to other users; SQLite gives the files that it makes beside it the same mode."""
    path = file_of(engine.url)
    if path is None:
        return
    for beside in ("", "-wal", "-shm", "-journal"):
        private_files.tighten(path.with_name(path.name + beside))
    # An address may say with a mode, such as `ro`, that the file is not made.
    if "mode=" not in _address(engine.url).query:
        event.listen(engine, "do_connect", lambda *_: _create(path))


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database; None for one in memory, and for others."""
    if url.get_backend_name() != "sqlite":
        return None
    path = Path(os.path.realpath(unquote(_address(url).path)))
    return None if path.name == ":memory:" else path


def _address(url: URL) -> SplitResult:
    """What SQLite opens: a path, or a URI with its options."""
    (name,), options = url.get_dialect()().create_connect_args(url)
    return urlsplit(name) if options.get("uri") else SplitResult("", "", quote(name), "", "")


def _create(path: Path) -> None:
    # The message of SQLite itself is better. The lock: closing a file ends the locks that other threads hold on it.
    with _creating, suppress(OSError):
        private_files.create(path)


def _keep_lines(engine: Engine) -> None:
    """With each connection its `Line`, as long as it lives: a server keeps statements prepared for a connection."""
    if engine.dialect.name == "sqlite":
        turns = Turns()

        def line_of(connection: Any) -> Line:
            return SqliteLine(connection, engine.dialect, turns, SQLITE_BUSY_TIMEOUT)

        def leave(_connection: Any, record: Any) -> None:
            # There is none after a reconnect that failed.
            if (line := record.info.get(LINE)) is not None:
                line.leave()

        # Also after a transaction whose end SQLAlchemy sends.
        event.listen(engine, "checkin", leave)
    else:
        # Its driver is an extra.
        from authserver.storage.postgresql_line import PostgresqlLine

        def line_of(connection: Any) -> Line:
            return PostgresqlLine(connection, engine.dialect)

        def check(_connection: Any, record: Any, _proxy: Any) -> None:
            # What is sent and committed in one round trip would be lost with it, and nobody would know whether it is. A new
            # one is taken as it is: if it was lost, too, the pool would give up with an error that is not temporary.
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
