"""What a transaction keeps and what it drops, on both databases, with real commits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import transaction

from authserver.engine.count_records import Gauge, Span, Step
from authserver.engine.ports import AlreadyExists, Stores
from authserver.engine.records import ClientSecret, EventType, Logo, RegisteredBy
from authserver.engine.seal_records import DeletionMark
from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.engine.upkeep_records import Disposable
from authserver.storage import tables
from authserver.storage.database import Database
from authserver.testing.records import (
    NOW,
    a_client,
    a_consent,
    a_count,
    a_declaration,
    a_grant,
    a_kept_record,
    a_resource,
    a_ring_key,
    a_session,
    a_signing_key,
    a_token,
    a_user,
    an_event,
    an_event_seal,
    an_identity,
    an_initial_token,
)

LATER = NOW + timedelta(seconds=5)
MUCH_LATER = NOW + timedelta(days=2)

A_SECRET = ClientSecret(digest=b"secret", key_id="k", created_at=NOW)
A_SETTING = StoredSetting(kind=DeclaredKind.SCOPE, name="read", value={}, changed_at=NOW)
WRITES: dict[str, Callable[[Stores], object]] = {
    "clients.add": lambda stores: stores.clients.add(a_client(client_id="new")),
    "clients.change": lambda stores: stores.clients.change(a_client(), replace(a_client(), name="Another")),
    "clients.keep_logo": lambda stores: stores.clients.keep_logo(
        "reports", Logo(digest="0" * 64, media_type="image/svg+xml", body=b"<svg/>")
    ),
    "clients.disable": lambda stores: stores.clients.disable("reports", LATER),
    "clients.add_secret": lambda stores: stores.clients.add_secret(
        "reports", ClientSecret(digest=b"d", key_id="k", created_at=NOW)
    ),
    "clients.change_secret": lambda stores: stores.clients.change_secret(
        "reports", A_SECRET, replace(A_SECRET, last_used_at=LATER)
    ),
    "clients.note_secret": lambda stores: stores.clients.note_secret(
        "reports", A_SECRET, replace(A_SECRET, last_used_at=LATER)
    ),
    "clients.touch": lambda stores: stores.clients.touch("reports", LATER),
    "clients.note_first_use": lambda stores: stores.clients.note_first_use("reports", LATER),
    "clients.remove_never_used": lambda stores: stores.clients.remove_never_used("unused"),
    "initial_tokens.add": lambda stores: stores.initial_tokens.add(
        an_initial_token(token_id="new", digest=b"new")
    ),
    "initial_tokens.claim": lambda stores: stores.initial_tokens.claim("initial_1", LATER),
    "initial_tokens.change": lambda stores: stores.initial_tokens.change(
        an_initial_token(), an_initial_token(note="another")
    ),
    "declarations.keep": lambda stores: stores.declarations.keep(a_declaration(name="new")),
    "declarations.forget": lambda stores: stores.declarations.forget(DeclaredKind.CLIENT, "reports"),
    "stored_settings.keep": lambda stores: stores.stored_settings.keep(replace(A_SETTING, name="new")),
    "stored_settings.remove": lambda stores: stores.stored_settings.remove(A_SETTING.kind, A_SETTING.name),
    "initial_tokens.revoke": lambda stores: stores.initial_tokens.revoke("initial_1", LATER),
    "users.add": lambda stores: stores.users.add(a_user(user_id="user_new", username="new")),
    "users.change": lambda stores: stores.users.change(replace(a_user(), groups=("finance",))),
    "users.disable": lambda stores: stores.users.disable("user_ada", LATER),
    "users.enable": lambda stores: stores.users.enable("user_gone"),
    "users.set_password": lambda stores: stores.users.set_password("user_ada", "another"),
    "grants.add": lambda stores: stores.grants.add(a_grant(grant_id="new")),
    "grants.revoke": lambda stores: stores.grants.revoke("grant_1", LATER, "replayed"),
    "grants.revoke_of_user": lambda stores: stores.grants.revoke_of_user("user_ada", LATER, "left"),
    "grants.revoke_of_client": lambda stores: stores.grants.revoke_of_client("reports", LATER, "left"),
    "grants.touch": lambda stores: stores.grants.touch("grant_1", LATER),
    "grants.revoke_next": lambda stores: stores.grants.revoke_next(LATER, "restored", limit=1),
    "grants.revoke_some": lambda stores: stores.grants.revoke_some(["grant_1"], LATER, "ended"),
    "grants.narrow": lambda stores: stores.grants.narrow(
        a_grant(user_id="user_ada"), a_grant(resources=("urn:other",))
    ),
    "grants.widen": lambda stores: stores.grants.widen(a_grant(user_id="user_ada"), ("read", "new")),
    "resources.add": lambda stores: stores.resources.add(a_resource(form="urn:new", uri="urn:new")),
    "resources.change": lambda stores: stores.resources.change(a_resource(), a_resource(name="Another")),
    "resources.remove": lambda stores: stores.resources.remove(a_resource().form),
    "tokens.add": lambda stores: stores.tokens.add(a_token(digest=b"new")),
    "tokens.claim": lambda stores: stores.tokens.claim(a_token(), LATER),
    "tokens.note_failure": lambda stores: stores.tokens.note_failure(a_token(), LATER, limit=3),
    "tokens.extend": lambda stores: stores.tokens.extend(a_token(), LATER),
    "identities.add": lambda stores: stores.identities.add(an_identity(subject="new")),
    "identities.remove": lambda stores: stores.identities.remove(an_identity().issuer, an_identity().subject),
    "kept.add_once": lambda stores: stores.kept.add_once(a_kept_record(digest=b"new")),
    "kept.change": lambda stores: stores.kept.change(
        a_kept_record(), replace(a_kept_record(), client_id="reports")
    ),
    "kept.claim": lambda stores: stores.kept.claim(a_kept_record(), LATER),
    "consents.forget": lambda stores: stores.consents.forget("user_ada", "reports"),
    "consents.forget_client": lambda stores: stores.consents.forget_client("reports"),
    "consents.forget_some": lambda stores: stores.consents.forget_some(1),
    "consents.narrow": lambda stores: stores.consents.narrow(a_consent(), None),
    "consents.remember": lambda stores: stores.consents.remember(a_consent(scopes=("new",))),
    "events.add": lambda stores: stores.events.add(an_event()),
    "event_positions.begin": lambda stores: stores.event_positions.begin("seals", 0),
    "event_positions.move": lambda stores: stores.event_positions.move("statistics", 0, 1),
    "event_positions.count_set_aside": lambda stores: stores.event_positions.count_set_aside("statistics", 1),
    "statistics.add": lambda stores: stores.statistics.add([a_count()]),
    "statistics.forget": lambda stores: stores.statistics.forget(
        Span(step=Step.DAY, since=NOW - timedelta(days=1), until=LATER), EventType
    ),
    "statistics.note_sample": lambda stores: stores.statistics.note_sample(Step.HOUR, NOW, {Gauge.PEOPLE: 1}),
    "event_seals.add": lambda stores: stores.event_seals.add(an_event_seal(number=2, hash=b"2")),
    "event_seals.change": lambda stores: stores.event_seals.change(
        an_event_seal(), an_event_seal(key_id="another")
    ),
    "event_seals.remove_until": lambda stores: stores.event_seals.remove_until(1),
    "event_seals.mark": lambda stores: stores.event_seals.mark(
        DeletionMark(kind="events", until="1", key_id="test", mac=b"")
    ),
    "sessions.add": lambda stores: stores.sessions.add(a_session(digest=b"new")),
    "sessions.touch": lambda stores: stores.sessions.touch(a_session().digest, LATER),
    "sessions.end": lambda stores: stores.sessions.end(a_session().digest),
    "sessions.end_all": lambda stores: stores.sessions.end_all("user_ada"),
    "sessions.end_some": lambda stores: stores.sessions.end_some(1),
    "signing_keys.add": lambda stores: stores.signing_keys.add(a_signing_key(kid="new", algorithm="RS256")),
    "signing_keys.change": lambda stores: stores.signing_keys.change(
        a_signing_key(), replace(a_signing_key(), retires_at=LATER)
    ),
    "ring_keys.add": lambda stores: stores.ring_keys.add(a_ring_key()),
    "generations.begin": lambda stores: stores.generations.begin(LATER),
    "upkeep.remove": lambda stores: stores.upkeep.remove(Disposable.GRANTS, MUCH_LATER, limit=10),
    "upkeep.take_lease": lambda stores: stores.upkeep.take_lease("work", "me", LATER, MUCH_LATER),
    "upkeep.end_lease": lambda stores: stores.upkeep.end_lease("work", "me"),
}


@pytest.fixture
def manager() -> transaction.TransactionManager:
    return transaction.TransactionManager(explicit=True)


@pytest.fixture
def filled(database: Database) -> Database:
    with database.begin() as stores:
        stores.clients.add(a_client(secrets=(A_SECRET,)))
        stores.clients.add(a_client(client_id="unused", registered_by=RegisteredBy.SELF))
        stores.initial_tokens.add(an_initial_token())
        stores.declarations.keep(a_declaration())
        stores.stored_settings.keep(A_SETTING)
        stores.users.add(a_user())
        stores.users.add(a_user(user_id="user_gone", username="gone"))
        stores.users.disable("user_gone", NOW)
        stores.identities.add(an_identity())
        stores.resources.add(a_resource())
        stores.consents.remember(a_consent())
        stores.signing_keys.add(a_signing_key())
        stores.event_seals.add(an_event_seal())
        stores.grants.add(a_grant(user_id="user_ada"))
        stores.tokens.add(a_token())
        stores.kept.add_once(a_kept_record())
        stores.sessions.add(a_session())
        stores.statistics.add([a_count(step=Step.DAY)])
        stores.upkeep.take_lease("work", "me", NOW, LATER)
        stores.event_positions.begin("statistics", 0)
    return database


def contents(database: Database) -> dict[str, list[Any]]:
    """Every row, seen through a connection of its own."""
    with database.engine.connect() as connection:
        return {
            table.name: connection.execute(sa.select(table).order_by(*table.primary_key)).all()
            for table in tables.Base.metadata.sorted_tables
        }


def test_every_method_that_writes_is_tried_here(database: Database) -> None:
    """T107: a new method that writes must join the list above."""
    reads = {
        "find",
        "find_by_name",
        "find_logo",
        "find_with_user",
        "list",
        "knows_origin",
        "since",
        "latest",
        "following",
        "numbered",
        "last_number",
        "of",
        "count",
        "began_at",
        "search",
        "default",
        "access_tokens",
        "usable_refresh_tokens",
    }
    reads |= {"totals", "totals_of_clients", "top_clients", "series", "strangers", "current", "samples"}
    reads |= {"deletions", "last", "newest", "ancestors", "derived", "foresee", "foresee_with_user"}
    reads |= {"with_ending_secret", "count_secrets", "count_live", "find_all", "hold", "hold_enabled", "page"}
    reads |= {"count_never_used", "count_of_policy", "hold_registrations", "never_used"}
    reads |= {"find_by_id", "of_user", "set_aside"}
    with database.begin() as stores:
        methods = {
            f"{port.name}.{method}"
            for port in fields(stores)  # a dataclass, which the port does not say
            for method in vars(type(getattr(stores, port.name)))
            if not method.startswith("_") and method not in reads
        }
    assert methods == set(WRITES)


@pytest.mark.parametrize("write", WRITES)
def test_a_write_alone_in_a_managed_transaction_is_kept(
    filled: Database, manager: transaction.TransactionManager, write: str
) -> None:
    """T107: zope.sqlalchemy cannot see a write by Core; it is committed all the same."""
    before = contents(filled)
    with manager:
        WRITES[write](filled.for_transaction(manager))
    assert contents(filled) != before


@pytest.mark.parametrize("write", WRITES)
def test_a_write_in_an_aborted_transaction_is_gone(
    filled: Database, manager: transaction.TransactionManager, write: str
) -> None:
    """T115: and what was not yet committed, nobody else sees."""
    before = contents(filled)
    manager.begin()
    WRITES[write](filled.for_transaction(manager))
    assert contents(filled) == before
    manager.abort()
    assert contents(filled) == before


@pytest.mark.parametrize("write", WRITES)
def test_a_write_in_a_short_transaction_is_kept_or_gone_with_it(filled: Database, write: str) -> None:
    before = contents(filled)

    def fail() -> None:
        with filled.begin() as stores:
            WRITES[write](stores)
            raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        fail()
    assert contents(filled) == before
    with filled.begin() as stores:
        WRITES[write](stores)
    assert contents(filled) != before


@pytest.mark.parametrize("stop_after", range(4))
def test_an_error_between_two_writes_leaves_none_of_them(
    filled: Database, manager: transaction.TransactionManager, stop_after: int
) -> None:
    """T115: all or nothing, wherever it stops."""
    before = contents(filled)

    def work(stores: Stores) -> None:
        steps: list[Callable[[], object]] = [
            lambda: stores.tokens.claim(a_token(), LATER),
            lambda: stores.tokens.add(a_token(digest=b"access")),
            lambda: stores.tokens.add(a_token(digest=b"refresh")),
            lambda: stores.events.add(an_event()),
        ]
        for step in steps[: stop_after + 1]:
            step()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"), manager:
        work(filled.for_transaction(manager))
    with pytest.raises(RuntimeError, match="stopped"), filled.begin() as stores:
        work(stores)
    assert contents(filled) == before


def test_reads_alone_open_no_transaction(filled: Database, manager: transaction.TransactionManager) -> None:
    """T110: so they hold no lock, and a write after them cannot be refused for what they saw."""
    statements = listen(filled)
    with manager:
        stores = filled.for_transaction(manager)
        assert stores.clients.find("reports", NOW)
        assert stores.tokens.find(a_token().kind, a_token().digest)
        assert not any(statement.startswith("BEGIN") for statement in statements)
        stores.grants.add(a_grant(grant_id="new"))
        stores.events.add(an_event())
        stores.events.add(an_event(event_id="second"))
    assert [statement for statement in statements if statement.startswith("BEGIN")] == [
        "BEGIN IMMEDIATE" if filled.engine.dialect.name == "sqlite" else "BEGIN"
    ]


def test_an_untouched_transaction_uses_no_connection(
    filled: Database, manager: transaction.TransactionManager
) -> None:
    with manager:
        filled.for_transaction(manager)
        assert filled.engine.pool.checkedout() == 0  # of QueuePool


def test_a_client_token_costs_one_read_and_one_write(
    filled: Database, manager: transaction.TransactionManager
) -> None:
    """A token request of `client_credentials` with a JWT: one client lookup, and one event that commits itself."""
    statements = listen(filled)
    with manager:
        stores = filled.for_transaction(manager)
        stores.clients.find("reports", NOW)
        stores.events.add(an_event())
    assert [statement.split()[0] for statement in statements] == ["SELECT", "INSERT"]


@pytest.mark.parametrize("ending", ["commit", "abort"])
def test_a_connection_goes_back_to_the_pool_clean(
    filled: Database, manager: transaction.TransactionManager, ending: str
) -> None:
    for _ in range(3):
        manager.begin()
        filled.for_transaction(manager).sessions.touch(a_session().digest, LATER)
        getattr(manager, ending)()
        assert filled.engine.pool.checkedout() == 0  # of QueuePool
        with filled.engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            if connection.dialect.name == "sqlite":
                assert not driver.in_transaction
            else:
                assert driver.info.transaction_status == driver.info.transaction_status.IDLE


def test_stores_are_of_no_use_after_their_transaction(
    filled: Database, manager: transaction.TransactionManager
) -> None:
    """T107: a write that no transaction would commit raises."""
    with manager:
        stores = filled.for_transaction(manager)
        stores.clients.find("reports", NOW)
    with pytest.raises(sa.exc.SQLAlchemyError):
        stores.grants.add(a_grant(grant_id="new"))
    with pytest.raises(transaction.interfaces.NoTransaction):
        stores.events.add(an_event())


def test_a_failed_statement_cannot_be_swallowed(
    filled: Database, manager: transaction.TransactionManager
) -> None:
    """T115: PostgreSQL would answer the commit with a silent rollback, SQLite would keep half."""
    before = contents(filled)

    def half(stores: Stores) -> None:
        stores.events.add(an_event())
        with contextlib.suppress(sa.exc.IntegrityError):
            stores.tokens.add(a_token(digest=b"x", grant_id="no such grant"))

    with pytest.raises(sa.exc.SQLAlchemyError), manager:
        half(filled.for_transaction(manager))
    with pytest.raises(sa.exc.SQLAlchemyError), filled.begin() as stores:
        half(stores)
    assert contents(filled) == before


def test_a_taken_name_leaves_the_rest_of_the_transaction_intact(filled: Database) -> None:
    with filled.begin() as stores:
        stores.events.add(an_event(event_id="before"))
        with pytest.raises(AlreadyExists):
            stores.users.add(a_user())
        stores.events.add(an_event(event_id="after"))
    assert [row.event_id for row in contents(filled)["events"]] == ["before", "after"]


def test_an_event_is_kept_with_the_decisions_behind_it(filled: Database) -> None:
    """R-12."""
    event = an_event(
        user_id="user_ada",
        grant_id="grant_1",
        reason="loopback-port",
        decisions=({"slot": "scope_decision", "answers": [{"plugin": "p", "microseconds": 3}]},),
        details={"grant_type": "refresh_token"},
    )
    with filled.begin() as stores:
        stores.events.add(event)
    (row,) = contents(filled)["events"]
    kept = row._asdict()
    kept.pop("number")
    assert kept.pop("decisions") == list(event.decisions)
    assert kept == {
        item.name: getattr(event, item.name) for item in fields(event) if item.name != "decisions"
    }


def test_no_error_message_carries_what_was_to_be_stored(filled: Database) -> None:
    """R-04."""
    with pytest.raises(sa.exc.IntegrityError) as caught, filled.begin() as stores:
        stores.tokens.add(a_token(digest=b"x", grant_id="nowhere", sealed_successor=b"very secret"))
    assert "very secret" not in str(caught.value)


def listen(database: Database) -> list[str]:
    """The statements that are sent from now on, as they are sent."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    return statements


def test_an_event_that_cannot_be_written_fails_the_commit(
    filled: Database, manager: transaction.TransactionManager
) -> None:
    """T147: nothing is issued without its record, alone or with other writes."""
    before = contents(filled)
    twice = an_event(event_id="twice")

    def work(stores: Stores, other_writes: bool) -> None:
        if other_writes:
            stores.tokens.claim(a_token(), LATER)
        stores.events.add(twice)
        stores.events.add(twice)

    for other_writes in (False, True):
        with pytest.raises(sa.exc.IntegrityError), manager:
            work(filled.for_transaction(manager), other_writes)
        manager.abort()
        with pytest.raises(sa.exc.IntegrityError), filled.begin() as stores:
            work(stores, other_writes)
    assert contents(filled) == before


@pytest.mark.parametrize("is_managed", [False, True])
def test_stores_that_rest_hold_no_connection(
    filled: Database, manager: transaction.TransactionManager, is_managed: bool
) -> None:
    """T114: until the next statement; after the first write they keep it, since that holds locks."""

    def in_use() -> int:
        return filled.connections()["in_use"]

    def work(stores: Stores) -> None:
        assert stores.clients.find("reports", NOW) is not None
        assert in_use() == 1
        stores.rest()
        stores.rest()
        assert in_use() == 0
        stores.grants.add(a_grant(grant_id="new"))
        stores.rest()
        assert in_use() == 1
        assert stores.grants.find("new") is not None

    before = contents(filled)
    if is_managed:
        with manager:
            work(filled.for_transaction(manager))
    else:
        with filled.begin() as stores:
            work(stores)
    assert in_use() == 0
    assert contents(filled) != before


def test_a_managed_transaction_that_only_reads_gives_its_connection_back(
    filled: Database, manager: transaction.TransactionManager
) -> None:
    """T114: whichever way it ends, and also after a failure."""
    for end in (manager.commit, manager.abort):
        manager.begin()
        assert filled.for_transaction(manager).clients.find("reports", NOW) is not None
        assert filled.connections()["in_use"] == 1
        end()
        assert filled.connections()["in_use"] == 0
