"""Which errors of a database are passing ones, and as what each error is raised."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, ExceptionContext
from transaction.interfaces import TransientError

from authserver.engine.ports import AlreadyExists, StorageUnavailable
from authserver.storage.prepared import DatabaseSilent, Step

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


class StorageBusy(StorageUnavailable, TransientError):  # type: ignore[misc]  # transaction has no types
    """The connection was lost, or the database ended this transaction (deadlock); a retry at once may succeed."""


class StorageSlow(StorageUnavailable):
    """A request waited for the database, or for a lock in it, as long as it may; a retry would wait again (T114)."""


_NEVER_REACHED = {"OperationalError": StorageBusy, "ConnectionTimeout": StorageSlow}


def translate(context: ExceptionContext) -> BaseException | None:
    """A StorageUnavailable for a passing error; any other error is left as it is. For SQLAlchemy's `handle_error`."""
    error = context.original_exception
    if not isinstance(error, Exception):
        # Ctrl-C costs the connection, which SQLAlchemy therefore calls disconnected.
        return None
    kind = _passing(error) or (StorageBusy if context.is_disconnect else None)
    return kind(str(error)) if kind else None


def failure_of(error: BaseException, connection: Connection, failed: Step | None) -> BaseException:
    """What is raised for an error of prepared statements; a connection that is of no use any more is thrown away.

    Args:
        failed: the one that the error is about, if it is about one.
    """
    driver, dialect = connection.connection.dbapi_connection, connection.dialect
    base: Any = dialect.loaded_dbapi.Error
    is_of_driver = isinstance(error, base)
    is_lost = is_of_driver and dialect.is_disconnect(cast(Any, error), driver, None)
    if is_lost or isinstance(error, DatabaseSilent) or not isinstance(error, Exception):
        connection.invalidate()
    if isinstance(error, DatabaseSilent):
        return StorageSlow(str(error))
    if not is_of_driver:
        return error
    kind = _passing(error) or (StorageBusy if is_lost else None)
    if kind:
        return kind(str(error))
    if failed and failed.statement.is_new and _is_taken(error):
        return AlreadyExists()
    return sa.exc.DBAPIError.instance(
        failed.form.text if failed else "",
        None,
        error,
        base,
        hide_parameters=True,
        dialect=dialect,
    )


def _is_taken(error: BaseException) -> bool:
    """Whether there is a row with this key already."""
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
        return StorageBusy if state.startswith(_POSTGRESQL_UNAVAILABLE) else None
    # Without a code: PostgreSQL was never reached, or the connection was lost in the middle of a statement.
    if type(error).__module__.startswith("psycopg"):
        return _NEVER_REACHED.get(type(error).__name__)
    return None
