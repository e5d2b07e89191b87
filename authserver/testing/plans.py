"""The SQL statements of a server, and how the database would run them.

with statements_of(server.application.storage.engine) as sent:
    server.refresh(client, secret, token)
assert [statement.about for statement in sent] == ["SELECT clients", ...]
assert plan_of(engine, sent[0]).scans == ()
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from authserver.app import Application

# The tables that grow with use; the others always have few rows.
GROWING = frozenset(
    {
        "clients",
        "client_secrets",
        "client_logos",
        "client_origins",
        "users",
        "identities",
        "grants",
        "tokens",
        "kept",
        "consents",
        "events",
        "event_counts",
        "gauge_samples",
        "sessions",
    }
)
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)")
_VERB = re.compile(r"(?:WITH \w+ AS\s*\(\s*)?(\S+)")
_PARAMETER = re.compile(r"%\((\w+)\)s")
_SQLITE_SCAN = re.compile(r"SCAN (\w+)")
_SQLITE_INDEX = re.compile(r"SEARCH \w+ USING (?:COVERING )?INDEX (\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A statement as it was given to the driver."""

    text: str
    parameters: Any

    @property
    def table(self) -> str:
        """The first table in the statement; "" if there is none."""
        found = _TABLE.search(self.text)
        return found[1] if found else ""

    @property
    def about(self) -> str:
        """Its verb and its table, such as `UPDATE tokens`; those of what follows `WITH`, if it begins so."""
        found = _VERB.match(self.text)
        return f"{found[1] if found else ''} {self.table}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the database runs a statement.

    Attributes:
        scans: the growing tables that it reads from end to end.
        indexes: the indexes by which it finds the other rows.
    """

    scans: tuple[str, ...]
    indexes: frozenset[str]


@contextmanager
def statements_of(engine: sa.Engine) -> Iterator[list[Sent]]:
    """Collect the statements about growing tables that this thread sends within the block."""
    sent: list[Sent] = []
    thread = threading.get_ident()

    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, many: bool) -> None:
        statement = Sent(text=text, parameters=parameters[0] if many else parameters)
        if threading.get_ident() == thread and statement.table in GROWING:
            sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


@contextmanager
def transcript_of(application: Application) -> Iterator[list[str]]:
    """Collect verb and table of each statement within the block, and each COMMIT and ROLLBACK.

    Records that a process reads again every few seconds are read before the block, so that no request in it does.
    """
    application.parts.generation.read()
    application.parts.offered.read()
    engine = application.storage.engine
    told: list[str] = []
    # Connections on which a BEGIN was noted; if it is sent together with its COMMIT, no transaction is begun before.
    begun: set[Any] = set()

    def note(connection: sa.Connection, _cursor: Any, text: str, parameters: Any, *_: Any) -> None:
        about = Sent(text=text, parameters=parameters).about
        told.append(about)
        if about == "BEGIN":
            begun.add(connection.connection.dbapi_connection)
        elif about == "ROLLBACK":
            begun.discard(connection.connection.dbapi_connection)

    # Without a transaction the driver sends neither.
    def note_commit(connection: sa.Connection) -> None:
        driver = connection.connection.dbapi_connection
        told.extend(["COMMIT"] * (driver in begun or _is_in_transaction(connection)))
        begun.discard(driver)

    def note_rollback(connection: sa.Connection) -> None:
        told.extend(["ROLLBACK"] * _is_in_transaction(connection))

    listeners = (("before_cursor_execute", note), ("commit", note_commit), ("rollback", note_rollback))
    for name, listener in listeners:
        sa.event.listen(engine, name, listener)
    try:
        yield told
    finally:
        for name, listener in listeners:
            sa.event.remove(engine, name, listener)


def plan_of(engine: sa.Engine, sent: Sent) -> Plan:
    """How this database would run the statement now; it is not run.

    On PostgreSQL this includes two plans: the one for these parameters, and the generic one of prepared statements.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sent.text}", sent.parameters)
            return _sqlite_plan([str(row.detail) for row in rows])
        names: list[str] = []
        numbered = _PARAMETER.sub(lambda found: _number(names, found[1]), sent.text)
        driver = connection.connection.driver_connection
        assert driver is not None
        scans: list[str] = []
        indexes: set[str] = set()
        for answer in (
            driver.execute(f"EXPLAIN (FORMAT JSON) {sent.text}", sent.parameters, prepare=False),
            driver.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {numbered}", prepare=False),
        ):
            (explained,) = answer.fetchone()[0]
            _walk(explained["Plan"], scans, indexes, limited=False)
    return Plan(scans=tuple(scans), indexes=frozenset(indexes))


def _is_in_transaction(connection: sa.Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    from psycopg.pq import TransactionStatus  # an optional package, which a server on SQLite does not need

    return bool(driver.info.transaction_status != TransactionStatus.IDLE)


def _number(names: list[str], name: str) -> str:
    """`$1` for the first parameter, and so on."""
    if name not in names:
        names.append(name)
    return f"${names.index(name) + 1}"


def _walk(node: Mapping[str, Any], scans: list[str], indexes: set[str], *, limited: bool) -> None:
    kind, table = node["Node Type"], node.get("Relation Name", "")
    limited = limited or kind == "Limit"
    if kind == "Seq Scan" and table in GROWING:
        scans.append(f"Seq Scan on {table}")
    if "Index Name" in node:
        indexes.add(node["Index Name"])
        # Without a condition it reads the whole index, unless there is a LIMIT.
        if "Index Cond" not in node and not limited:
            scans.append(f"all of {node['Index Name']}")
    for inner in node.get("Plans", ()):
        _walk(inner, scans, indexes, limited=limited)


def _sqlite_plan(details: list[str]) -> Plan:
    scanned = [match[1] for detail in details if (match := _SQLITE_SCAN.match(detail))]
    searched = [match[1] for detail in details if (match := _SQLITE_INDEX.match(detail))]
    return Plan(
        scans=tuple(f"SCAN {table}" for table in scanned if table in GROWING), indexes=frozenset(searched)
    )
