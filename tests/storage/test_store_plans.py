"""Every method of the stores sends a fixed number of statements, and each of them finds its rows by an index.

`test_query_plans.py` says the same of whole requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver.engine.count_records import Gauge, Span, Step
from authserver.engine.ports import Stores
from authserver.engine.records import (
    REFUSALS,
    ClientSecret,
    EventFilter,
    EventType,
    GrantFilter,
    Logo,
    TokenKind,
)
from authserver.engine.upkeep_records import Place
from authserver.storage.database import Database
from authserver.testing.plans import plan_of, statements_of
from authserver.testing.records import (
    a_client,
    a_consent,
    a_count,
    a_grant,
    a_kept_record,
    a_session,
    a_token,
    a_user,
    an_event,
    an_identity,
)
from benchmarks.fill import POPULAR

NOW = datetime.now(UTC)
SECRET = ClientSecret(digest=b"digest of a secret", key_id="test", created_at=NOW)
A_DAY = Span(step=Step.DAY, since=NOW, until=NOW + timedelta(days=1))
SPANS = [A_DAY, Span(step=Step.MONTH, since=NOW, until=NOW + timedelta(days=31))]
# Those that revoke what was derived from a grant, too.
REVOKING = {"grants.revoke", "grants.revoke_some", "grants.revoke_of_user, to one client"}
METHODS: dict[str, Callable[[Stores], object]] = {
    "clients.find": lambda stores: stores.clients.find("client-7", NOW),
    "clients.add": lambda stores: add_client(stores),
    "clients.change": lambda stores: change_client(stores),
    "clients.keep_logo": lambda stores: stores.clients.keep_logo(
        add_client(stores), Logo(digest="1", media_type="image/png", body=b"PNG")
    ),
    "clients.keep_logo, none": lambda stores: stores.clients.keep_logo("client-7", None),
    "clients.find_logo": lambda stores: stores.clients.find_logo("client-7", "1"),
    "clients.disable": lambda stores: stores.clients.disable("client-7", NOW),
    "clients.add_secret": lambda stores: stores.clients.add_secret(add_client(stores), SECRET),
    "clients.change_secret": lambda stores: stores.clients.change_secret(
        "client-7", SECRET, replace(SECRET, last_used_at=NOW)
    ),
    "clients.note_secret": lambda stores: stores.clients.note_secret(
        "client-7", SECRET, replace(SECRET, last_used_at=NOW)
    ),
    "clients.find_all": lambda stores: stores.clients.find_all(["client-7", "client-8"], NOW),
    "clients.page": lambda stores: stores.clients.page(NOW, after="client-7", limit=9),
    "clients.count": lambda stores: stores.clients.count(limit=9),
    "clients.with_ending_secret": lambda stores: stores.clients.with_ending_secret(
        NOW, NOW + timedelta(days=30), limit=9
    ),
    "clients.hold": lambda stores: stores.clients.hold("client-7"),
    "clients.knows_origin": lambda stores: stores.clients.knows_origin("https://client-7.example"),
    "clients.touch": lambda stores: stores.clients.touch("client-7", NOW),
    "clients.note_first_use": lambda stores: stores.clients.note_first_use("client-7", NOW),
    "clients.hold_registrations": lambda stores: (stores.clients.hold_registrations(), add_client(stores)),
    "clients.never_used": lambda stores: stores.clients.never_used(NOW, limit=9),
    "clients.never_used, of a network": lambda stores: stores.clients.never_used(
        NOW, network="192.0.2.7", limit=9
    ),
    "clients.count_never_used": lambda stores: stores.clients.count_never_used(limit=9),
    "clients.count_never_used, of a network": lambda stores: stores.clients.count_never_used(
        network="192.0.2.7", limit=9
    ),
    "clients.remove_never_used": lambda stores: stores.clients.remove_never_used("client-7"),
    "clients.count_of_policy": lambda stores: stores.clients.count_of_policy("partners"),
    "users.find": lambda stores: stores.users.find("user_7"),
    "users.find_by_name": lambda stores: stores.users.find_by_name("user7"),
    "users.find_all": lambda stores: stores.users.find_all(["user_7", "user_8"]),
    "users.page": lambda stores: stores.users.page(after="user7", limit=9),
    "users.count": lambda stores: stores.users.count(limit=9),
    "users.page, by prefix": lambda stores: stores.users.page(prefix="user7", limit=9),
    "users.page, disabled": lambda stores: stores.users.page(after="user7", disabled=True, limit=9),
    "users.hold_enabled": lambda stores: stores.users.hold_enabled("user_7"),
    "users.enable": lambda stores: stores.users.enable("user_7"),
    "users.add": lambda stores: add_user(stores),
    "users.disable": lambda stores: stores.users.disable("user_7", NOW),
    "users.change": lambda stores: change_user(stores),
    "users.hold": lambda stores: stores.users.hold(a_user(user_id="user_7")),
    "users.set_password": lambda stores: stores.users.set_password("user_7", "another"),
    "identities.find": lambda stores: stores.identities.find("https://login.example", "subject-7"),
    "identities.of_user": lambda stores: stores.identities.of_user("user_7"),
    "identities.page": lambda stores: stores.identities.page("https://login.example", after="7", limit=9),
    "identities.add": lambda stores: stores.identities.add(
        an_identity(user_id=add_user(stores), subject=new())
    ),
    "identities.remove": lambda stores: stores.identities.remove("https://login.example", "subject-7"),
    "grants.add": lambda stores: stores.grants.add(a_grant(grant_id=new())),
    "grants.find": lambda stores: stores.grants.find("grant-7"),
    "grants.foresee_with_user": lambda stores: (
        stores.grants.foresee_with_user("grant-7"),
        stores.clients.find("client-7", NOW),
    ),
    "grants.find_with_user": lambda stores: stores.grants.find_with_user("grant-7"),
    "grants.revoke": lambda stores: stores.grants.revoke("grant-7", NOW, "left"),
    "grants.list": lambda stores: stores.grants.list(NOW, user_id="user_7"),
    "grants.list, to one client": lambda stores: stores.grants.list(NOW, user_id="user_7", client_id=POPULAR),
    "grants.list, of a client": lambda stores: stores.grants.list(NOW, client_id="client-8"),
    "grants.revoke_of_user": lambda stores: stores.grants.revoke_of_user("user_7", NOW, "left"),
    "grants.revoke_of_user, to one client": lambda stores: stores.grants.revoke_of_user(
        "user_7", NOW, "left", client_id=POPULAR
    ),
    "grants.revoke_of_client": lambda stores: stores.grants.revoke_of_client("client-8", NOW, "left"),
    "grants.revoke_next": lambda stores: (
        stores.grants.add(a_grant(grant_id=new())),
        stores.grants.revoke_next(NOW, "left", limit=9),
    ),
    "grants.derived": lambda stores: stores.grants.derived(["grant-7", "grant-8"], NOW),
    "grants.hold": lambda stores: stores.grants.hold(["grant-7", "grant-8"]),
    "grants.touch": lambda stores: stores.grants.touch("grant-7", NOW),
    "grants.page": lambda stores: stores.grants.page(after="grant-7", limit=9),
    "grants.count_live": lambda stores: stores.grants.count_live(NOW, limit=9),
    "grants.search": lambda stores: search_grants(stores, live_at=NOW, redeemed=True),
    "grants.search, live or not": lambda stores: search_grants(stores),
    "grants.search, of a client": lambda stores: search_grants(stores, client_id="client-8", live_at=NOW),
    "grants.search, of the popular client": lambda stores: search_grants(
        stores, client_id=POPULAR, live_at=NOW, redeemed=True
    ),
    "grants.search, of a user and a client": lambda stores: search_grants(
        stores, user_id="user_7", client_id="client-1", live_at=NOW
    ),
    "grants.search, of a user": lambda stores: search_grants(stores, user_id="user_7", live_at=NOW),
    "grants.search, of a user to a client": lambda stores: search_grants(
        stores, user_id="user_7", client_id="client-8", live_at=NOW
    ),
    "grants.revoke_some": lambda stores: stores.grants.revoke_some(["grant-7", "grant-8"], NOW, "left"),
    "grants.narrow": lambda stores: stores.grants.narrow(
        a_grant(grant_id="grant-7"), a_grant(resources=("urn:other",))
    ),
    "grants.widen": lambda stores: stores.grants.widen(a_grant(grant_id="grant-7"), ("read", "write")),
    "tokens.add": lambda stores: stores.tokens.add(
        a_token(grant_id=add_grant(stores), digest=os.urandom(32))
    ),
    "tokens.foresee": lambda stores: (
        stores.tokens.foresee(TokenKind.REFRESH, b"unknown"),
        stores.clients.find("client-7", NOW),
    ),
    "tokens.find": lambda stores: stores.tokens.find(TokenKind.REFRESH, b"unknown"),
    "tokens.claim": lambda stores: stores.tokens.claim(a_token(), NOW),
    "tokens.note_failure": lambda stores: stores.tokens.note_failure(a_token(), NOW, limit=3),
    "tokens.extend": lambda stores: stores.tokens.extend(a_token(), NOW),
    "tokens.usable_refresh_tokens": lambda stores: stores.tokens.usable_refresh_tokens(
        "user_7", "client-8", NOW, limit=9
    ),
    "tokens.usable_refresh_tokens, of the popular client": lambda stores: stores.tokens.usable_refresh_tokens(
        "user_7", POPULAR, NOW, limit=9
    ),
    "tokens.count_live": lambda stores: stores.tokens.count_live(["grant-7", "grant-8"], NOW),
    "tokens.newest": lambda stores: stores.tokens.newest("grant-7", limit=9),
    "tokens.access_tokens": lambda stores: stores.tokens.access_tokens(["grant-7", "grant-8"], NOW),
    "kept.add_once": lambda stores: stores.kept.add_once(a_kept_record(digest=os.urandom(32))),
    "kept.find": lambda stores: stores.kept.find("example", b"unknown"),
    "kept.change": lambda stores: stores.kept.change(a_kept_record(), a_kept_record(claimed_at=NOW)),
    "kept.claim": lambda stores: stores.kept.claim(a_kept_record(), NOW),
    "consents.find": lambda stores: stores.consents.find("user_7", POPULAR),
    "consents.list": lambda stores: stores.consents.list(user_id="user_7"),
    "consents.list, of a client": lambda stores: stores.consents.list(client_id="client-8"),
    "consents.list, of a user to a client": lambda stores: stores.consents.list(
        user_id="user_7", client_id="client-8"
    ),
    "consents.remember": lambda stores: stores.consents.remember(a_consent(user_id=add_user(stores))),
    "consents.forget": lambda stores: stores.consents.forget("user_7", "client-8"),
    "consents.forget, of all clients": lambda stores: stores.consents.forget("user_7"),
    "consents.page": lambda stores: stores.consents.page(after=("user_7", POPULAR), limit=9),
    "consents.page, to a client": lambda stores: stores.consents.page(
        after=("user_7", ""), client_id="client-8", limit=9
    ),
    "consents.page, of a user": lambda stores: stores.consents.page(user_id="user_7", limit=9),
    "consents.count": lambda stores: stores.consents.count(user_id="user_7"),
    "consents.count, to a client": lambda stores: stores.consents.count(client_id="client-8"),
    "consents.forget_some, to a client": lambda stores: stores.consents.forget_some(9, client_id="client-8"),
    "consents.narrow": lambda stores: stores.consents.narrow(
        a_consent(user_id="user_7"), a_consent(resources=("urn:other",))
    ),
    "consents.narrow, to none": lambda stores: stores.consents.narrow(a_consent(user_id="user_7"), None),
    "consents.forget_client": lambda stores: stores.consents.forget_client("client-8"),
    "events.add": lambda stores: stores.events.add(an_event()),
    "events.find": lambda stores: stores.events.find("event-7"),
    "events.following": lambda stores: stores.events.following(7, limit=9),
    "events.numbered": lambda stores: stores.events.numbered(
        NOW - timedelta(days=1), NOW, after=(NOW, "event-7"), limit=9
    ),
    "events.last_number": lambda stores: stores.events.last_number(),
    "events.since": lambda stores: list(stores.events.since(datetime.now(UTC))),
    "events.latest": lambda stores: next(stores.events.latest()),
    "events.count": lambda stores: stores.events.count(datetime.now(UTC)),
    "events.search": lambda stores: search(stores),
    "events.search, after a page": lambda stores: search(stores, after=(NOW, "event-7")),
    "events.search, by id": lambda stores: search(stores, event_id="event-7"),
    "events.search, of a client": lambda stores: search(stores, client_id="client-8", after=(NOW, "event-7")),
    "events.search, of a client by type": lambda stores: search(
        stores, client_id="client-8", types={EventType.TOKEN_ISSUED, EventType.TOKEN_REFUSED}
    ),
    "events.search, of a user": lambda stores: search(stores, user_id="user_7", after=(NOW, "event-7")),
    "events.search, of a grant": lambda stores: search(stores, grant_id="grant-7", after=(NOW, "event-7")),
    "events.search, of a network address": lambda stores: search(
        stores, source="192.0.2.7", since=NOW - timedelta(days=7)
    ),
    "events.search, of a reason": lambda stores: search(
        stores, reason="scope-not-registered", after=(NOW, "event-7")
    ),
    "events.search, by type": lambda stores: search(
        stores, types={EventType.KEY_REVOKED}, after=(NOW, "event-7")
    ),
    "events.search, by the type of what is issued all day": lambda stores: search(
        stores, types={EventType.TOKEN_ISSUED}, after=(NOW, "event-7")
    ),
    "events.search, by types": lambda stores: search(
        stores, types={EventType.KEY_REVOKED, EventType.CLIENT_DISABLED}, after=(NOW, "event-7")
    ),
    "events.search, refusals": lambda stores: search(stores, types=REFUSALS, after=(NOW, "event-7")),
    "events.search, refusals of a time": lambda stores: search(
        stores, types=REFUSALS, since=NOW - timedelta(days=1), until=NOW
    ),
    "events.search, of a time": lambda stores: search(
        stores, since=NOW - timedelta(days=1), until=NOW, after=(NOW, "event-7")
    ),
    "events.search, oldest first": lambda stores: stores.events.search(
        EventFilter(until=NOW), after=(NOW - timedelta(days=1), "event-7"), oldest_first=True, limit=9
    ),
    "statistics.add": lambda stores: stores.statistics.add([a_count()]),
    "statistics.forget": lambda stores: stores.statistics.forget(A_DAY, EventType),
    "statistics.totals": lambda stores: stores.statistics.totals(SPANS, EventType),
    "statistics.totals, of clients": lambda stores: stores.statistics.totals(
        SPANS, EventType, client_ids=["client-7", "client-8"]
    ),
    "statistics.totals_of_clients": lambda stores: stores.statistics.totals_of_clients(A_DAY, EventType),
    "statistics.top_clients": lambda stores: stores.statistics.top_clients(SPANS, EventType, limit=9),
    "statistics.top_clients, of a grant type": lambda stores: stores.statistics.top_clients(
        SPANS, EventType, grant_type="refresh_token", limit=9
    ),
    "statistics.series": lambda stores: stores.statistics.series(A_DAY, EventType),
    "statistics.strangers": lambda stores: stores.statistics.strangers(Step.DAY, NOW, limit=9),
    "statistics.note_sample": lambda stores: stores.statistics.note_sample(Step.DAY, NOW, {Gauge.PEOPLE: 1}),
    "statistics.samples": lambda stores: stores.statistics.samples(Gauge.PEOPLE, A_DAY),
    "sessions.add": lambda stores: stores.sessions.add(
        a_session(digest=os.urandom(32), user_id=add_user(stores))
    ),
    "sessions.find": lambda stores: stores.sessions.find(b"unknown", NOW, NOW - timedelta(hours=1)),
    "sessions.hold": lambda stores: stores.sessions.hold(b"unknown"),
    "sessions.touch": lambda stores: stores.sessions.touch(b"unknown", NOW),
    "sessions.end": lambda stores: stores.sessions.end(b"unknown"),
    "sessions.list": lambda stores: stores.sessions.list("user_7", NOW, NOW - timedelta(hours=1)),
    "sessions.end_all": lambda stores: stores.sessions.end_all("user_7"),
}
# They are about all that there is: asked for by commands, batch after batch, or once an hour in the background.
WHOLE = {
    "statistics.current",
    "clients.list",
    "clients.search",
    "clients.count_secrets",
    "users.list",
    "grants.count",
    "consents.forget_some",
    "sessions.end_some",
}
# These are about tables with a handful of rows, or have such tests in `test_upkeep.py`.
ELSEWHERE = {
    "declarations",
    "stored_settings",
    "event_positions",
    "event_seals",
    "initial_tokens",
    "resources",
    "signing_keys",
    "ring_keys",
    "generations",
    "upkeep",
}


def search(
    stores: Stores, *, after: Place | None = None, types: Iterable[EventType] = (), **wanted: Any
) -> None:
    stores.events.search(EventFilter(types=frozenset(types), **wanted), after=after, limit=9)


def search_grants(stores: Stores, **wanted: Any) -> None:
    stores.grants.search(GrantFilter(**wanted), after=(NOW, "grant-7"), limit=9)


def new() -> str:
    """An id that nobody has."""
    return os.urandom(9).hex()


def add_client(stores: Stores) -> str:
    """A new client's id."""
    client = a_client(client_id=new())
    stores.clients.add(client)
    return client.client_id


def change_user(stores: Stores) -> None:
    before = stores.users.find(add_user(stores))
    assert before is not None
    assert stores.users.change(replace(before, groups=("staff",)), instead_of=before)


def change_client(stores: Stores) -> None:
    before = stores.clients.find(add_client(stores), NOW)
    assert before is not None
    assert stores.clients.change(before, replace(before, name="Another"))


def add_grant(stores: Stores) -> str:
    """A new grant's id."""
    grant = a_grant(grant_id=new())
    stores.grants.add(grant)
    return grant.grant_id


def add_user(stores: Stores) -> str:
    """A new user's id."""
    user = a_user(user_id=f"user_{new()}", username=new())
    stores.users.add(user)
    return user.user_id


def test_every_method_of_the_stores_is_watched_here(servers):
    """A new one must join the list above."""
    with servers.empty.application.storage.begin() as stores:
        methods = {
            f"{port.name}.{method}"
            for port in fields(stores)
            if port.name not in ELSEWHERE
            for method in vars(type(getattr(stores, port.name)))
            if not method.startswith("_")
        }
    assert methods == {name.partition(",")[0] for name in METHODS} | WHOLE


@pytest.mark.parametrize("method", METHODS)
def test_a_method_sends_as_many_indexed_statements_however_much_is_stored(servers, method):
    """T064, T116: those of the account pages and of the command line, too."""
    watched = []
    for server in (servers.empty, servers.filled):
        storage = server.application.storage
        with statements_of(storage.engine) as sent, storage.begin() as stores:
            METHODS[method](stores)
        watched.append(sent)
    servers.assert_indexed(*watched)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("method", "indexes"),
    [
        ("clients.find", {"pk_clients", "pk_client_secrets"}),
        ("clients.page", {"pk_clients", "pk_client_secrets"}),
        ("clients.change_secret", {"pk_client_secrets"}),
        ("clients.find_logo", {"pk_client_logos"}),
        ("clients.never_used", {"ix_clients_never_used_created_at"}),
        ("clients.never_used, of a network", {"ix_clients_never_used_registered_from"}),
        ("clients.count_never_used, of a network", {"ix_clients_never_used_registered_from"}),
        ("clients.note_first_use", {"pk_clients"}),
        ("clients.remove_never_used", {"pk_clients"}),
        ("clients.count_of_policy", {"ix_clients_registration_policy"}),
        ("clients.knows_origin", {"pk_client_origins", "pk_clients"}),
        ("tokens.find", {"pk_tokens", "pk_grants", "pk_users"}),
        ("tokens.claim", {"pk_tokens", "pk_grants"}),
        ("tokens.extend", {"pk_tokens", "pk_grants"}),
        ("tokens.access_tokens", {"ix_tokens_grant_id"}),
        ("tokens.newest", {"ix_tokens_grant_id"}),
        ("kept.find", {"pk_kept"}),
        ("kept.change", {"pk_kept"}),
        ("kept.claim", {"pk_kept"}),
        ("grants.find_with_user", {"pk_grants", "pk_users"}),
        ("grants.revoke", {"pk_grants"}),
        ("grants.touch", {"pk_grants"}),
        ("grants.page", {"pk_grants"}),
        ("grants.narrow", {"pk_grants"}),
        ("grants.list", {"ix_grants_user_id_client_id", "ix_tokens_grant_id"}),
        ("grants.list, of a client", {"ix_grants_client_id_created_at", "ix_tokens_grant_id"}),
        ("grants.search", {"ix_grants_created_at", "ix_tokens_grant_id"}),
        ("grants.search, live or not", {"ix_grants_created_at"}),
        ("grants.search, of a client", {"ix_grants_client_id_created_at"}),
        ("grants.search, of a user and a client", {"ix_grants_user_id_client_id"}),
        ("grants.search, of a user", {"ix_grants_user_id_client_id"}),
        ("grants.revoke_some", {"pk_grants"}),
        ("tokens.count_live", {"ix_tokens_grant_id"}),
        ("consents.page, to a client", {"ix_consents_client_id_user_id"}),
        ("users.page, by prefix", {"uq_users_username"}),
        ("grants.revoke_of_user", {"ix_grants_user_id_client_id"}),
        ("grants.revoke_of_user, to one client", {"ix_grants_user_id_client_id"}),
        # The other one over the same two columns; the primary key would cost as much.
        ("consents.find", {"ix_consents_client_id_user_id"}),
        ("consents.page", {"pk_consents"}),
        ("sessions.find", {"pk_sessions", "pk_users"}),
        ("sessions.list", {"ix_sessions_user_id"}),
        ("sessions.end_all", {"ix_sessions_user_id"}),
        ("events.since", {"ix_events_at_source"}),
        ("events.latest", {"ix_events_at_source"}),
        ("events.search", {"ix_events_at_source"}),
        ("events.search, by id", {"uq_events_event_id"}),
        ("events.following", {"pk_events"}),
        ("events.last_number", {"pk_events"}),
        ("events.search, of a client", {"ix_events_client_id_at"}),
        ("events.search, of a client by type", {"ix_events_client_id_at"}),
        ("events.search, of a user", {"ix_events_user_id_at"}),
        ("events.search, of a grant", {"ix_events_grant_id_at"}),
        ("events.search, of a network address", {"ix_events_at_source"}),
        ("events.search, of a reason", {"ix_events_reason_at"}),
        ("events.search, by type", {"ix_events_type_at"}),
        ("events.search, by the type of what is issued all day", {"ix_events_issuances_at"}),
        ("events.search, refusals", {"ix_events_refusals_at"}),
        ("events.search, oldest first", {"ix_events_at_source"}),
        ("events.numbered", {"ix_events_at_source"}),
        ("statistics.strangers", {"ix_event_counts_step_at", "pk_clients"}),
        ("users.page", {"uq_users_username"}),
        ("users.page, disabled", {"ix_users_disabled_username"}),
    ],
)
def test_postgresql_finds_the_rows_by_these_indexes(postgresql_servers, method, indexes):
    """T064: rotation and revocation touch a token and a grant by their keys alone."""
    storage = postgresql_servers.filled.application.storage
    with statements_of(storage.engine) as sent, storage.begin() as stores:
        METHODS[method](stores)
    # What was derived from a grant is revoked by a statement of its own.
    statement, *along = sent
    assert len(along) == (method in REVOKING)
    for other in along:
        assert "ix_grants_parent_id" in plan_of(storage.engine, other).indexes
    found = plan_of(storage.engine, statement).indexes
    # A planner may narrow down what it finds by one index by that of the time.
    assert found in (indexes, indexes | {"ix_events_at_source"}, indexes | {"ix_sessions_last_seen_at"})


@pytest.mark.parametrize("method", ["list", "search"])
def test_sqlite_finds_the_grants_of_a_person_to_a_client_by_the_person(sqlite_url: str, method: str) -> None:
    """A person has few grants, and one client may have half of all."""
    between = {"user_id": "user_7", "client_id": "client-1"}
    storage = Database(sqlite_url)
    with statements_of(storage.engine) as sent, storage.begin() as stores:
        if method == "list":
            stores.grants.list(NOW, **between)
        else:
            search_grants(stores, **between)
    (statement,) = sent
    found = plan_of(storage.engine, statement).indexes
    assert found & {"ix_grants_user_id_client_id", "ix_grants_client_id_created_at"} == {
        "ix_grants_user_id_client_id"
    }
