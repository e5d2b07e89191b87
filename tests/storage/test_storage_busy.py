"""Errors that pass are answered with 503: after a retry (StorageBusy, T111) or after a wait (StorageSlow, T114)."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import transaction

from authserver.engine import audit
from authserver.engine.audit import BadSearch
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import EventFilter
from authserver.storage import database as storage
from authserver.storage.database import Database, StorageBusy, StorageSlow, StorageUncertain
from authserver.storage.silence import is_there
from authserver.testing.records import NOW, a_grant, a_token, a_user, an_event
from tests.faults.proxy import Proxy

CUT_ALL = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname LIKE 'test_%'
"""
LATER = NOW + timedelta(seconds=5)
KEEPALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
# The message that ends a round trip.
SYNC = b"S\0\0\0\x04"


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    yield database
    database.close()


def test_storage_busy_is_retried_and_then_unavailable() -> None:
    """T111: pyramid_retry asks the transaction, the web looks for the port's own exception."""
    assert transaction.TransactionManager().begin().isRetryableError(StorageBusy("locked"))
    assert isinstance(StorageBusy("locked"), StorageUnavailable)


def test_storage_slow_is_unavailable_without_a_retry() -> None:
    """T114: whoever has waited for seconds does not wait three times."""
    assert not transaction.TransactionManager().begin().isRetryableError(StorageSlow("locked"))
    assert isinstance(StorageSlow("locked"), StorageUnavailable)


def test_a_lock_that_stays_is_slow_on_sqlite(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T111: and the loser has kept nothing, the winner everything."""
    monkeypatch.setattr(storage, "SQLITE_BUSY_TIMEOUT", 0.2)
    database = Database(sqlite_url)
    with database.begin() as winner:
        winner.grants.add(a_grant(grant_id="a"))
        with pytest.raises(StorageSlow, match="locked"), database.begin() as loser:
            loser.grants.add(a_grant(grant_id="b"))
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM grants").scalar_one() == 1
    database.close()


@pytest.mark.postgresql
def test_a_deadlock_is_busy(postgresql: Database) -> None:
    """T111: of two that wait for each other one is told, the other one goes on."""
    with postgresql.begin() as stores:
        stores.grants.add(a_grant(grant_id="a"))
        stores.grants.add(a_grant(grant_id="b"))
    both_hold_one = threading.Barrier(2)

    def revoke(first: str, second: str) -> bool:
        manager = transaction.TransactionManager(explicit=True)
        try:
            with manager:
                stores = postgresql.for_transaction(manager)
                stores.grants.revoke(first, LATER, first)
                both_hold_one.wait(timeout=10)
                stores.grants.revoke(second, LATER, first)
        except StorageBusy:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.submit(revoke, "a", "b"), threads.submit(revoke, "b", "a")
        assert sorted([one.result(timeout=30), other.result(timeout=30)]) == [False, True]
    with postgresql.begin() as stores:
        reasons = {grant.revoked_reason for name in "ab" if (grant := stores.grants.find(name))}
    assert len(reasons) == 1


@pytest.mark.postgresql
def test_a_serialization_failure_is_busy(postgresql: Database) -> None:
    """T111."""
    with postgresql.begin() as stores:
        stores.grants.add(a_grant())
    with postgresql.engine.connect() as reader:
        reader.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.exec_driver_sql("SELECT * FROM grants").all()
        with postgresql.begin() as stores:
            stores.grants.revoke("grant_1", LATER, "first")
        with pytest.raises(StorageBusy, match="could not serialize"):
            reader.exec_driver_sql("UPDATE grants SET revoked_reason = 'second'")


@pytest.mark.postgresql
def test_a_lock_that_stays_is_slow_after_two_seconds_on_postgresql(postgresql: Database) -> None:
    """T114."""
    with postgresql.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())
    with postgresql.begin() as holder:
        assert holder.tokens.claim(a_token(), LATER)
        began = time.monotonic()
        with pytest.raises(StorageSlow, match="lock timeout"), postgresql.begin() as waiter:
            waiter.tokens.claim(a_token(), LATER)
        assert 1.5 < time.monotonic() - began < 4


@pytest.mark.postgresql
def test_a_statement_that_takes_too_long_is_slow(postgresql: Database) -> None:
    """T114."""
    with postgresql.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "5s"
        connection.exec_driver_sql("SET statement_timeout = '50ms'")
        with pytest.raises(StorageSlow, match="statement timeout"):
            connection.exec_driver_sql("SELECT pg_sleep(10)")
        connection.invalidate()


@pytest.mark.postgresql
@pytest.mark.parametrize(("at", "raised"), [("statement", StorageBusy), ("commit", StorageUncertain)])
def test_a_transaction_that_is_left_alone_is_ended(
    postgresql: Database, postgresql_url: str, at: str, raised: type[StorageUnavailable]
) -> None:
    """T114: a process that is frozen in the middle of one holds no rows that others want; nothing of it is stored."""
    with postgresql.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "10s"
    with postgresql.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())
    hasty = Database(f"{postgresql_url}&options=-c%20idle_in_transaction_session_timeout%3D50ms")
    with pytest.raises(raised), hasty.begin() as frozen:
        assert frozen.tokens.claim(a_token(), LATER)
        time.sleep(0.5)
        if at == "statement":
            frozen.tokens.claim(a_token(), LATER)
    hasty.ping()
    hasty.close()
    with postgresql.begin() as stores:
        assert stores.tokens.claim(a_token(), LATER)


class TcpProxy(Proxy):
    """The same at a port of TCP."""

    def open(self) -> None:
        self._speaks.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()


@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux")
@pytest.mark.postgresql
def test_both_sides_of_a_connection_notice_that_the_other_one_is_gone(postgresql: Database) -> None:
    """T114: by TCP, and what the URL says wins."""
    proxy = TcpProxy(f"{postgresql.engine.url.query['host']}/.s.PGSQL.5432")
    url = f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{postgresql.engine.url.database}"
    for more, idle in (("", 5), ("?keepalives_idle=7", 7)):
        database = Database(url + more)
        with database.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            with socket.socket(fileno=os.dup(driver.fileno())) as end:
                options = [end.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE]
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            found = connection.exec_driver_sql(
                "SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp_%%'"
            )
            of_server = dict(found.all())
        database.close()
        assert options == [idle, 1, 3, 3000]
        assert of_server == {
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": "25000",
        }
    proxy.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket on which a PostgreSQL that is frozen listens, with room for two connections."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ".s.PGSQL.5432"))
        listener.listen(1)
        yield listener


def test_an_attempt_that_took_too_long_is_closed_at_once(tmp_path: Path, silent: socket.socket) -> None:
    """T114: or a server that wakes up begins a session for each of them, until it has room for no others."""
    database = Database(f"postgresql+psycopg://nobody@/none?host={tmp_path}")
    gc.disable()
    try:
        with pytest.raises(StorageSlow):
            database.ping()
        end, _ = silent.accept()
        with end:
            end.settimeout(5)
            assert b"nobody" in end.recv(1000)
            assert end.recv(1000) == b""
    finally:
        gc.enable()
    database.close()


def test_a_server_where_no_connection_is_accepted_any_more_is_not_there(
    tmp_path: Path, silent: socket.socket, postgresql: Database
) -> None:
    """T114: what waits to be accepted has filled the queue of its Unix socket."""
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / ".s.PGSQL.5432"))
        assert not is_there(str(tmp_path), 5432)
    assert is_there(str(postgresql.engine.url.query["host"]), 5432)


@pytest.mark.postgresql
def test_a_search_that_takes_too_long_is_told_what_is_faster(
    postgresql: Database, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T114: nobody looks for a database that is not running."""
    monkeypatch.setattr(storage, "POSTGRESQL_OPTIONS", "-c lock_timeout=100ms -c timezone=UTC")
    hasty = Database(postgresql_url)
    with postgresql.engine.connect() as holder:
        holder.exec_driver_sql("BEGIN")
        holder.exec_driver_sql("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        with (
            pytest.raises(BadSearch, match="by source, every event of the time is read"),
            hasty.begin() as stores,
        ):
            audit.search(stores.events, EventFilter(source="192.0.2.1", since=NOW), limit=1)
        with pytest.raises(StorageSlow), hasty.begin() as stores:
            audit.search(stores.events, EventFilter(source="192.0.2.1", client_id="a"), limit=1)
        holder.exec_driver_sql("ROLLBACK")
    hasty.close()


@pytest.mark.postgresql
def test_a_connection_that_was_cut_is_busy_at_most_once(postgresql: Database, postgresql_server: str) -> None:
    """T111: the pool then connects anew, without an error if it was told before."""
    postgresql.ping()
    with psycopg.connect(postgresql_server, autocommit=True) as operator:
        operator.execute(CUT_ALL)
    with suppress(StorageBusy):
        postgresql.ping()
    postgresql.ping()


@pytest.mark.postgresql
def test_a_transaction_that_is_cut_keeps_nothing(postgresql: Database, postgresql_server: str) -> None:
    """T109, T111: a commit that fails raises; the server says that it ended this, so whoever tries again is no replay."""
    manager = transaction.TransactionManager(explicit=True)
    manager.begin()
    postgresql.for_transaction(manager).grants.add(a_grant())
    with psycopg.connect(postgresql_server, autocommit=True) as operator:
        operator.execute(CUT_ALL)
    with pytest.raises(StorageBusy):
        manager.commit()
    manager.abort()
    with postgresql.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM grants").scalar_one() == 0


def lose(connection: sa.Connection, *_: object) -> None:
    """Let nothing pass on the wire of this connection any more."""
    driver = connection.connection.driver_connection
    with socket.socket(fileno=os.dup(driver.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


@pytest.mark.postgresql
def test_nobody_knows_of_a_commit_whose_connection_was_lost(postgresql: Database) -> None:
    """T109, T111: the server says nothing more, so whoever tries again may look like a replay."""
    manager = transaction.TransactionManager(explicit=True)
    manager.begin()
    postgresql.for_transaction(manager).grants.add(a_grant())
    sa.event.listen(postgresql.engine, "commit", lose)
    with pytest.raises(StorageUncertain):
        manager.commit()
    manager.abort()


@pytest.mark.postgresql
@pytest.mark.parametrize("events", [1, 2])
def test_nobody_knows_of_writes_that_were_sent_with_their_commit(postgresql: Database, events: int) -> None:
    """T109, T111: two go with BEGIN and COMMIT, and one alone is a transaction by itself."""
    with pytest.raises(StorageUncertain), postgresql.begin() as stores:
        assert stores.clients.find("reports", NOW) is None
        for number in range(events):
            stores.events.add(an_event(event_id=f"event_{number}"))
        sa.event.listen(postgresql.engine, "before_cursor_execute", lose)


class EndsSessions(Proxy):
    """Keeps back the last Sync until the operator has ended the session that waits for it, whose COMMIT has run by then."""

    operator: psycopg.Connection[Any] | None = None

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while not answers and (piece := source.recv(65536)):
                if self.operator is not None:
                    self._end(self.operator, piece, sink)
                    break
                sink.sendall(piece)
        super()._carry(source, sink, answers)

    def _end(self, operator: psycopg.Connection[Any], piece: bytes, sink: socket.socket) -> None:
        assert piece.endswith(SYNC)
        sink.sendall(piece.removesuffix(SYNC))
        deadline = time.monotonic() + 10
        while operator.execute("SELECT count(*) FROM grants").fetchone() != (1,):
            assert time.monotonic() < deadline
        operator.execute(CUT_ALL)


@pytest.mark.postgresql
def test_a_session_that_is_ended_after_its_commit_is_not_taken_for_one_that_was_ended_before(
    postgresql: Database, postgresql_server: str
) -> None:
    """T109, T111: the server then says admin_shutdown, too, although everything is stored."""
    url = postgresql.engine.url
    proxy = EndsSessions(f"{url.query['host']}/.s.PGSQL.5432")
    through = Database(
        url.update_query_dict({"host": str(proxy.folder)}).render_as_string(hide_password=False)
    )
    with (
        psycopg.connect(postgresql_server, autocommit=True, dbname=url.database) as operator,
        pytest.raises(StorageUncertain),
        through.begin() as stores,
    ):
        stores.grants.add(a_grant())
        stores.events.add(an_event())
        proxy.operator = operator
    through.close()
    proxy.close()
    with postgresql.begin() as stores:
        assert stores.grants.find("grant_1") is not None


def test_a_database_that_is_not_there_is_busy(tmp_path: Path) -> None:
    """T111, T114."""
    for url in (
        f"sqlite:///{tmp_path}/no/such/folder/authserver.db",
        f"postgresql+psycopg://nobody@/none?host={tmp_path}",
    ):
        database = Database(url)
        with pytest.raises(StorageBusy):
            database.ping()
        with pytest.raises(StorageBusy), database.begin() as stores:
            stores.events.add(an_event())
        database.close()


def test_an_exhausted_pool_is_slow_after_two_seconds(database_url: str) -> None:
    """T114: for a request as for the readiness check."""
    database = Database(database_url, pool_size=1)

    def seconds_until_busy(attempt: Callable[[], None]) -> float:
        began = time.monotonic()
        with pytest.raises(StorageSlow, match="no database connection"):
            attempt()
        return time.monotonic() - began

    with database.begin() as holder, ThreadPoolExecutor(2) as threads:
        holder.clients.find("reports", NOW)
        waited = list(threads.map(seconds_until_busy, [database.ping, lambda: read_something(database)]))
    assert all(1.5 < seconds < 4 for seconds in waited), waited
    database.ping()
    database.close()


def test_a_mistake_is_not_busy(database: Database) -> None:
    """T111: what no retry mends is not retried."""
    with database.engine.connect() as connection:
        for statement in ("SELECT * FROM no_such_table", "SELEC 1"):
            with pytest.raises(sa.exc.DBAPIError):
                connection.exec_driver_sql(statement)
    with pytest.raises(sa.exc.IntegrityError), database.begin() as stores:
        stores.grants.add(a_grant(user_id=a_user().user_id))


def test_sqlite_is_set_up_to_lose_nothing(
    sqlite_url: str, cheap_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T110: on every connection, not only on the first."""
    monkeypatch.setattr(storage, "SQLITE_SYNCHRONOUS", cheap_storage)
    database = Database(sqlite_url)
    with database.engine.connect() as one, database.engine.connect() as other:
        for connection in (one, other):
            settings = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
            }
            assert settings == {
                "journal_mode": "wal",
                "foreign_keys": 1,
                "busy_timeout": 5000,
                "synchronous": 2,
            }
    database.close()


@pytest.mark.postgresql
def test_postgresql_is_set_up_to_answer_in_time(postgresql_url: str) -> None:
    """T114: and what the URL says wins."""
    database = Database(postgresql_url)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "2s"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
    database.close()
    own = Database(f"{postgresql_url}&options=-c%20lock_timeout%3D3s")
    with own.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "3s"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "5s"
    own.close()


def test_ctrl_c_in_the_middle_of_a_statement_is_ctrl_c(database: Database) -> None:
    """It costs the connection, and is no passing trouble of the database that somebody would try again."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    sa.event.listen(database.engine, "before_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_something(database)
    sa.event.remove(database.engine, "before_cursor_execute", interrupt)
    read_something(database)


def read_something(database: Database) -> None:
    with database.begin() as stores:
        stores.clients.find("reports", NOW)
