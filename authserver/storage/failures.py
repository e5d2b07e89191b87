"""Which errors of a database are temporary, and which exception each error becomes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, ExceptionContext
from transaction.interfaces import TransientError

from authserver.engine.ports import AlreadyExists, StorageUnavailable
from authserver.storage.prepared import Step
from authserver.storage.sqlite_line import read_any_text

# Primary result codes of SQLite: BUSY, LOCKED, IOERR, FULL, CANTOPEN.
_SQLITE_UNAVAILABLE = frozenset({5, 6, 10, 13, 14})
# BUSY without an extension comes at the end of the busy timeout; BUSY_SNAPSHOT and the like come at once.
_SQLITE_WAITED = 5
# CONSTRAINT_PRIMARYKEY and CONSTRAINT_UNIQUE; unique_violation.
_SQLITE_TAKEN = frozenset({1555, 2067})
_POSTGRESQL_TAKEN = "23505"
# SQLSTATE classes of PostgreSQL: connection lost, transaction rollback (serialization failure, deadlock),
# out of resources, operator intervention (shutdown, statement timeout), input/output error.
_POSTGRESQL_UNAVAILABLE = ("08", "40", "53", "57", "58")
# lock_not_available and query_canceled: lock_timeout and statement_timeout have passed.
_POSTGRESQL_WAITED = frozenset({"55P03", "57014"})
# In place of an answer to COMMIT these codes say that nothing was committed: admin_shutdown, when an administrator has
# ended the session; and invalid_sql_statement_name, after which `postgresql_line` closes the connection. After an
# answer to COMMIT there is no code, because the loss of the connection is raised.
_POSTGRESQL_NOT_COMMITTED = frozenset({"57P01", "26000"})
# division_by_zero: a required row does not exist (`prepared.unless_none`), because another transaction was first.
_POSTGRESQL_CHANGED = "22012"
_NO_UTF_8 = "Could not decode to UTF-8"


class StorageBusy(StorageUnavailable, TransientError):
    """The connection was lost, or the database ended this transaction (deadlock); a retry at once may succeed."""


class StorageChanged(StorageBusy):
    """An assumption of an optimistic transaction was wrong: nothing was stored, and a retry reads the rows again."""

    has_passed = True


class StorageSlow(StorageUnavailable):
    """A request waited as long as it may for the database or a lock in it; a retry would wait again (T114)."""


class StorageUncertain(StorageUnavailable):
    """The connection was lost at COMMIT, so it is unknown whether that happened; a retry might look like a replay."""


_NEVER_REACHED = {
    "OperationalError": StorageBusy,
    "ConnectionTimeout": StorageSlow,
    "ServerSilent": StorageSlow,
}


def translate(context: ExceptionContext) -> BaseException | None:
    """A StorageUnavailable for a temporary error; any other error is left as it is. For SQLAlchemy's `handle_error`."""
    error, connection = context.original_exception, context.connection
    if not isinstance(error, Exception):
        # Ctrl-C closes the connection, so SQLAlchemy reports it as disconnected.
        return None
    if _NO_UTF_8 in str(error) and connection is not None:
        return _unreadable(error, connection)
    # An error without a statement comes from COMMIT, or from the ROLLBACK after a failure.
    is_commit = connection is not None and context.statement is None
    return _unavailable(error, is_lost=context.is_disconnect, is_commit=is_commit)


def failure_of(
    error: BaseException, connection: Connection, failed: Step | None, *, is_commit: bool
) -> BaseException:
    """The exception for an error of prepared statements; a connection that cannot be used any more is closed.

    Args:
        failed: the statement that failed, if known.
        is_commit: whether the statements may have been committed.
    """
    driver, dialect = connection.connection.dbapi_connection, connection.dialect
    base: Any = dialect.loaded_dbapi.Error
    if not isinstance(error, base):
        if not isinstance(error, Exception):
            connection.invalidate()
        return error
    if _NO_UTF_8 in str(error):
        return _unreadable(error, connection)
    is_lost = dialect.is_disconnect(error, driver, None)
    if is_lost:
        connection.invalidate()
    if failed and failed.statement.is_new and _is_taken(error):
        return AlreadyExists()
    return _unavailable(error, is_lost=is_lost, is_commit=is_commit) or sa.exc.DBAPIError.instance(
        failed.form.text if failed else "", None, error, base, hide_parameters=True, dialect=dialect
    )


def _unreadable(error: BaseException, connection: Connection) -> StorageBusy:
    """The error is temporary, because the next attempt reads such texts."""
    driver: Any = connection.connection.dbapi_connection
    read_any_text(driver)
    return StorageBusy(str(error))


def _unavailable(error: BaseException, *, is_lost: bool, is_commit: bool) -> StorageUnavailable | None:
    kind = _passing(error) or (StorageBusy if is_lost else None)
    is_not_committed = getattr(error, "sqlstate", None) in _POSTGRESQL_NOT_COMMITTED
    if kind is StorageBusy and is_lost and is_commit and not is_not_committed:
        kind = StorageUncertain
    return kind(str(error)) if kind else None


def _is_taken(error: BaseException) -> bool:
    """Whether a row with this key exists already."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code in _SQLITE_TAKEN or getattr(error, "sqlstate", None) == _POSTGRESQL_TAKEN


def _passing(error: BaseException) -> type[StorageUnavailable] | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        if code == _SQLITE_WAITED:
            return StorageSlow
        # The upper bits tell variants apart.
        return StorageBusy if code & 0xFF in _SQLITE_UNAVAILABLE else None
    state: str | None = getattr(error, "sqlstate", None)
    if state is not None:
        if state in _POSTGRESQL_WAITED:
            return StorageSlow
        if state == _POSTGRESQL_CHANGED:
            return StorageChanged
        return StorageBusy if state.startswith(_POSTGRESQL_UNAVAILABLE) else None
    # An error without a code: PostgreSQL was not reached, or the connection was lost during a statement.
    if type(error).__module__.startswith(("psycopg", "authserver.storage.silence")):
        return _NEVER_REACHED.get(type(error).__name__)
    return None
