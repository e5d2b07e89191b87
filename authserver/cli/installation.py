"""The checks of `authserver doctor` for this server's own database and keys, which are not visible from outside."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from authserver.cli.issuer import present_keys, problems_of
from authserver.cli.lint import enabled_clients, findings
from authserver.doctor.findings import Result
from authserver.doctor.reading import counted
from authserver.engine import issuer_registry
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import KeyState
from authserver.engine.tokens.assertions import SKEW
from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.storage.tables import Base

if TYPE_CHECKING:
    from authserver.app import Application

# How far the clock of the database may be from that of this machine without a finding.
NOTICEABLE = timedelta(seconds=2)
# The age after which a signing key should be rotated: a thief who copied it unnoticed can use it as long as it signs.
OLD_KEY, OLD_RING_KEY = timedelta(days=180), timedelta(days=730)
# A reader needs minutes for so many events.
WAITING = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result of one check.

    Attributes:
        check: the name of the check, in a word or two.
        what: the finding.
        remedy: what to do; "" if nothing.
    """

    check: str
    result: Result
    what: str
    remedy: str = ""


def examine_installation(application: Application) -> Iterator[Checked]:
    """Examine the database, the keys, the clients and the trusted issuers.

    Checks that need the tables are left out if those are not usable.
    """
    storage = application.storage
    try:
        with storage.engine.connect() as connection:
            yield _clock(storage, connection)
        schema = migrate.schema(storage)
        yield _schema(storage, schema)
        if not schema.is_usable:
            return
        for check in (_indexes, _signing_keys, _ring_keys, _readers, _clients, _issuers):
            yield from check(application)
    except StorageUnavailable as error:
        yield Checked(
            check="database",
            result=Result.STUMBLES,
            what=f"it cannot be used: {error}",
            remedy="is authserver.database_url right, and is it running?",
        )


def _clock(storage: Database, connection: sa.Connection) -> Checked:
    if storage.kind == "sqlite":
        return Checked(check="clock", result=Result.OK, what="SQLite has none of its own")
    before = datetime.now(UTC)
    there: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    after = datetime.now(UTC)
    apart = max(before - there, there - after, timedelta(0))
    what = f"the database is {apart.total_seconds():.1f} s from this machine"
    remedy = "let NTP set both clocks"
    if apart > SKEW:
        return Checked(check="clock", result=Result.STUMBLES, what=what, remedy=remedy)
    if apart > NOTICEABLE:
        return Checked(check="clock", result=Result.WARNING, what=what, remedy=remedy)
    return Checked(check="clock", result=Result.OK, what=what)


def _schema(storage: Database, schema: migrate.Schema) -> Checked:
    what = f"migration {storage.revision() or 'none'}, and this version has {migrate.head()}"
    result, remedy = {
        migrate.Schema.CURRENT: (Result.OK, ""),
        migrate.Schema.AHEAD: (
            Result.WARNING,
            "install the newer version here, too, once it runs well",
        ),
        migrate.Schema.BEHIND: (Result.STUMBLES, "run `authserver db upgrade`"),
        migrate.Schema.TOO_NEW: (
            Result.STUMBLES,
            "run the version that migrated it, or restore an earlier backup",
        ),
    }[schema]
    return Checked(check="schema", result=result, what=what, remedy=remedy)


def _indexes(application: Application) -> Iterator[Checked]:
    engine = application.storage.engine
    inspector = sa.inspect(engine)
    missing = [
        f"{index.name} on {table.name}"
        for table in Base.metadata.sorted_tables
        for index in table.indexes
        if index.name not in {found["name"] for found in inspector.get_indexes(table.name)}
    ]
    if application.storage.kind == "postgresql":
        invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
        with engine.connect() as connection:
            missing += [f"{name} (invalid)" for name in connection.execute(sa.text(invalid)).scalars()]
    if missing:
        yield Checked(
            check="indexes",
            result=Result.WARNING,
            what="missing: " + ", ".join(missing),
            remedy="`authserver db upgrade` does not make what was dropped by hand: create it as a new database has it",
        )
    else:
        yield Checked(check="indexes", result=Result.OK, what="all are there")


def _signing_keys(application: Application) -> Iterator[Checked]:
    now = datetime.now(UTC)
    with application.begin() as engine:
        keys = [key for key in engine.stores.signing_keys.list() if key.state(now) is KeyState.ACTIVE]
    if not keys:
        yield Checked(check="signing keys", result=Result.STUMBLES, what="there is none that signs",
                      remedy="start the server, or `authserver keys rotate`")  # fmt: skip
    for key in keys:
        age = now - key.created_at
        what = f"{key.kid} is {age.days} days old"
        if age > OLD_KEY:
            yield Checked(
                check="signing keys", result=Result.WARNING, what=what, remedy="`authserver keys rotate`"
            )
        else:
            yield Checked(check="signing keys", result=Result.OK, what=what)


def _ring_keys(application: Application) -> Iterator[Checked]:
    now, first = datetime.now(UTC), application.parts.ring.key_ids[0]
    with application.begin() as engine:
        used = {key.key_id: key.first_used_at for key in engine.stores.ring_keys.list()}
    age = now - used.get(first, now)
    what = f"{first}, the first of authserver.secret_keys, is {age.days} days in use"
    if age > OLD_RING_KEY:
        yield Checked(
            check="key ring",
            result=Result.WARNING,
            what=what,
            remedy="put a new one first, made by `authserver keys secret`, then `authserver db reencrypt`",
        )
    else:
        yield Checked(check="key ring", result=Result.OK, what=what)


def _readers(application: Application) -> Iterator[Checked]:
    late = {name: count for name, count in application.events_waiting().items() if count > WAITING}
    for name, count in late.items():
        yield Checked(
            check="events",
            result=Result.WARNING,
            what=f"{count:,} wait for {name}",
            remedy="does a server run, and does its log say why?",
        )
    if not late:
        yield Checked(check="events", result=Result.OK, what="no reader is far behind")


def _clients(application: Application) -> Iterator[Checked]:
    """K-26."""
    checked, hit = 0, []
    for engine, client in enabled_clients(application):
        checked += 1
        if next(iter(findings(engine, client)), None) is not None:
            hit.append(client.client_id)
    if hit:
        more = f" and {len(hit) - 3} more" if len(hit) > 3 else ""
        yield Checked(
            check="clients",
            result=Result.WARNING,
            what=f"{', '.join(hit[:3])}{more} of {checked} would be refused something they are registered for",
            remedy="`authserver lint` lists them with remedies",
        )
    else:
        yield Checked(check="clients", result=Result.OK, what=f"none of {checked} would be refused anything")


def _issuers(application: Application) -> Iterator[Checked]:
    """Whether an assertion of each enabled issuer could be accepted now; keys are fetched after the transaction."""
    with application.begin() as engine:
        entries = [
            (each, list(problems_of(engine, each)))
            for each in issuer_registry.all_issuers(engine)
            if each.is_enabled
        ]
    for issuer, problems in entries:
        keys = present_keys(engine, issuer, problems)
        if problems:
            yield Checked(
                check="trusted issuers",
                result=Result.WARNING,
                what=f"{issuer.issuer}: {'; '.join(problems)}",
                remedy=f"`authserver issuer test {shlex.quote(issuer.issuer)}` tries it again",
            )
        else:
            usable = sum(key["is_accepted"] for key in keys)
            source = f"fetched from {issuer.jwks_uri}" if issuer.jwks_uri else "in its entry"
            what = f"{issuer.issuer}: {counted(usable, 'key')} {source}"
            yield Checked(check="trusted issuers", result=Result.OK, what=what)
    if not entries:
        yield Checked(check="trusted issuers", result=Result.OK, what="none is enabled")
