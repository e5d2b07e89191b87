"""Prepared statements: how many round trips PostgreSQL has to answer, and what is left when one of a trip fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from authserver.engine.ports import AlreadyExists, Stores
from authserver.engine.records import Client, JoinedIdentity, TokenKind
from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.storage.database import Database, StorageBusy
from authserver.storage.failures import StorageChanged
from authserver.testing.records import NOW, a_client, a_grant, a_kept_record, a_token, a_user, an_event

LATER = NOW + timedelta(seconds=5)
REFRESH = a_token(kind=TokenKind.REFRESH)


ADA_THERE = ("https://issuer.example", "ada-1")
ISSUER = StoredSetting(
    kind=DeclaredKind.ISSUER, name="https://issuer.example", value={"profile": "jwt_bearer"}, changed_at=NOW
)


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database)
    return database


def fill(database: Database) -> None:
    with database.begin() as stores:
        stores.clients.add(a_client())
        stores.users.add(a_user())
        stores.identities.add(
            JoinedIdentity(issuer=ADA_THERE[0], subject=ADA_THERE[1], user_id="user_ada", joined_at=NOW)
        )
        stores.stored_settings.keep(ISSUER)
        stores.grants.add(a_grant(user_id="user_ada"))
        stores.tokens.add(REFRESH)


def read_all(stores: Stores) -> tuple[Any, ...]:
    """All that a connection may remember."""
    return (
        stores.clients.find("reports", LATER),
        stores.users.find("user_ada"),
        stores.users.find_by_name("ada"),
        stores.identities.find(*ADA_THERE),
        stores.stored_settings.find(ISSUER.kind, ISSUER.name),
    )


@contextmanager
def trips(database: Database, folder: Path) -> Iterator[Callable[[], int]]:
    """How many round trips were made so far: the Sync messages that libpq itself writes down, one for each."""
    trace = folder / "trace"
    with database.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
    with trace.open("wb") as file:
        driver.pgconn.trace(file.fileno())

        def count() -> int:
            driver.pgconn.untrace()
            return trace.read_text().count("\tSync")

        yield count


def client_credentials(stores: Stores) -> None:
    stores.clients.find("reports", LATER)
    stores.events.add(an_event())


def introspection(stores: Stores) -> None:
    stores.grants.foresee_with_user("grant_1")
    stores.clients.find("reports", LATER)
    assert stores.grants.find_with_user("grant_1")


def rotation(stores: Stores) -> None:
    stores.tokens.foresee(REFRESH.kind, REFRESH.digest)
    stores.clients.find("reports", LATER)
    assert stores.tokens.find(REFRESH.kind, REFRESH.digest)
    assert stores.tokens.claim(REFRESH, LATER, successor_digest=b"next", sealed_successor=b"sealed")
    stores.tokens.add(replace(REFRESH, digest=b"next"))
    stores.grants.touch("grant_1", LATER)
    stores.events.add(an_event())


def assertion(stores: Stores) -> None:
    """A new grant of a person for whom an issuer vouches."""
    stores.clients.find("reports", LATER)
    assert stores.stored_settings.find(ISSUER.kind, ISSUER.name)
    assert stores.identities.find(*ADA_THERE)
    assert stores.users.find("user_ada")
    assert stores.kept.add_once(a_kept_record(digest=b"assertion"))
    assert stores.stored_settings.hold(ISSUER.kind, ISSUER.name)
    assert stores.clients.hold("reports")
    assert stores.users.hold_enabled("user_ada")
    stores.grants.add(a_grant(grant_id="grant_2", user_id="user_ada"))
    stores.events.add(an_event())


@pytest.mark.parametrize("remembers", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    ("work", "first", "later"),
    [(client_credentials, 2, 1), (introspection, 1, 1), (rotation, 2, 2), (assertion, 5, 1)],
)
@pytest.mark.postgresql
def test_requests_of_machines_make_few_round_trips(
    postgresql_url: str,
    tmp_path: Path,
    work: Callable[[Stores], None],
    first: int,
    later: int,
    remembers: bool,
) -> None:
    """BEGIN goes with the first write, COMMIT with the last, and what does not depend on each other together.

    Clients, people and settings that the connection has read before are checked with what is written.
    """
    database = Database(postgresql_url, pool_size=1)
    fill(database)
    if remembers:
        with database.begin(optimistic=True) as stores:
            read_all(stores)
    with trips(database, tmp_path) as made:
        with database.begin(optimistic=True) as stores:
            work(stores)
        assert made() == (later if remembers else first)
    database.close()


def test_what_fails_in_a_trip_takes_everything_with_it(filled: Database) -> None:
    """R-07, T147: the COMMIT that was sent along is not run."""
    with pytest.raises(AlreadyExists), filled.begin() as stores:
        assert stores.tokens.claim(REFRESH, LATER)
        stores.tokens.add(REFRESH)
        stores.events.add(an_event())
    with pytest.raises(sa.exc.IntegrityError), filled.begin() as stores:
        assert stores.tokens.claim(REFRESH, LATER)
        stores.tokens.add(replace(REFRESH, digest=b"next", grant_id="nowhere"))
        stores.events.add(an_event())
    with pytest.raises(sa.exc.IntegrityError), filled.begin() as stores:
        assert stores.tokens.claim(REFRESH, LATER)
        stores.tokens.add(replace(REFRESH, digest=b"next"))
        stores.events.add(an_event(event_id="twice"))
        stores.events.add(an_event(event_id="twice"))
    with filled.begin() as stores:
        found = stores.tokens.find(REFRESH.kind, REFRESH.digest)
        assert found is not None
        assert found.token == REFRESH
        assert stores.tokens.find(REFRESH.kind, b"next") is None
        assert list(stores.events.latest()) == []


@pytest.mark.parametrize("revoked", [False, True], ids=["claimed", "revoked"])
def test_a_claim_that_comes_too_late_leaves_nothing(filled: Database, revoked: bool) -> None:
    """R-07: whether it is known at once, or when what was sent along with it is not run. The request is repeated then."""
    with filled.begin() as stores:
        if revoked:
            stores.grants.revoke("grant_1", LATER, "user")
        else:
            assert stores.tokens.claim(REFRESH, LATER, successor_digest=b"next")
    is_known_at_once = filled.kind == "sqlite"
    refused = nullcontext() if is_known_at_once else pytest.raises(StorageChanged)
    with refused, filled.begin(optimistic=True) as stores:
        claimed = stores.tokens.claim(REFRESH, LATER, successor_digest=b"other")
        assert claimed is not is_known_at_once
        if claimed:
            stores.tokens.add(replace(REFRESH, digest=b"other"))
            stores.events.add(an_event())
    with filled.begin() as stores:
        found = stores.tokens.find(REFRESH.kind, REFRESH.digest)
        assert found is not None
        assert found.token.successor_digest == (None if revoked else b"next")
        assert stores.tokens.find(REFRESH.kind, b"other") is None
        assert list(stores.events.latest()) == []


def test_a_token_that_was_added_is_seen_by_what_comes_next(filled: Database) -> None:
    added = replace(REFRESH, digest=b"next")
    with filled.begin() as stores:
        stores.tokens.add(added)
        found = stores.tokens.find(added.kind, added.digest)
        assert found is not None
        assert found.token == added
        assert stores.tokens.count_live([added.grant_id], NOW) == {TokenKind.REFRESH: 2}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "é \U0001f600 \u0001 %(name)s $1 ?"},
        {"created_at": datetime(1, 1, 1, tzinfo=UTC)},
        {"created_at": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)},
        {"created_at": datetime(1999, 12, 31, 23, 59, 59, 1, tzinfo=UTC), "scopes": (), "first_party": True},
        {"details": {"text": "é\n", "number": 1.5, "nothing": None, "nested": {"list": [1, "2"]}}},
    ],
    ids=["text", "first-day", "last-day", "before-2000", "json"],
)
def test_every_value_comes_back_as_it_was(filled: Database, change: dict[str, Any]) -> None:
    """In the binary formats of PostgreSQL, too."""
    client: Client = a_client(client_id="odd", secrets=(), **change)
    with filled.begin() as stores:
        stores.clients.add(client)
    with filled.begin() as stores:
        assert stores.clients.find("odd", NOW) == client


@pytest.mark.postgresql
def test_statements_stay_prepared_whatever_fails(postgresql_url: str) -> None:
    """Also where a rollback of the driver comes between, after it ran any statement of its own often."""
    database = Database(postgresql_url, pool_size=1)
    for number in range(8):
        with pytest.raises(sa.exc.IntegrityError), database.begin() as stores:
            stores.tokens.add(a_token(grant_id="nowhere"))
            stores.events.add(an_event())
        with pytest.raises(RuntimeError, match="stopped"), database.begin() as stores:
            stores.clients.count(limit=1)
            stores.grants.revoke_of_client("reports", NOW, "left")
            raise RuntimeError("stopped")
        with database.begin() as stores:
            stores.events.add(an_event(event_id=f"event_{number}"))
    with database.engine.connect() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    with pytest.raises(StorageBusy), database.begin() as stores:
        stores.events.add(an_event(event_id="lost"))
    with database.begin() as stores:
        stores.events.add(an_event(event_id="again"))
    database.close()


def test_the_log_of_the_engine_has_every_statement_and_no_value(
    filled: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """R-04: also of statements that pass by SQLAlchemy, which has `hide_parameters`."""
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    with filled.begin() as stores:
        stores.tokens.add(replace(REFRESH, digest=b"a digest"))
        # In one round trip it would be a transaction by itself.
        assert stores.tokens.find(REFRESH.kind, b"a digest")
        stores.events.add(an_event(client_id="a-client-of-the-log"))
    logged = [record.getMessage().split(" (")[0] for record in caplog.records]
    for statement in ("INSERT INTO tokens", "INSERT INTO events", "COMMIT"):
        assert logged.count(statement) == 1
    assert any(line.startswith("BEGIN") for line in logged)
    assert not any(value in caplog.text for value in ("a digest", "a-client-of-the-log"))
