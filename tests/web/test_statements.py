"""What each hot request costs: the exact statements, so that one more of them shows (design: speed)."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

from authserver.testing.server import forged


@pytest.fixture
def server(make_server, database_url):
    server = make_server(database_url=database_url)
    server.add_user("ann")
    return server


@contextmanager
def statements_of(server):
    """What was sent meanwhile: each statement's verb and the first table it names, and COMMIT or ROLLBACK."""
    engine, seen = server.application.storage.engine, []

    def note(connection, cursor, statement, parameters, context, executemany):
        verb = statement.split(None, 1)[0]
        table = re.search(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)", statement)
        seen.append(f"{verb} {table[1]}" if table else verb)

    # Without a transaction the driver sends neither.
    def committed(connection):
        seen.extend(["COMMIT"] * is_in_transaction(connection))

    def rolled_back(connection):
        seen.extend(["ROLLBACK"] * is_in_transaction(connection))

    listeners = [("before_cursor_execute", note), ("commit", committed), ("rollback", rolled_back)]
    for name, listener in listeners:
        sa.event.listen(engine, name, listener)
    yield seen
    for name, listener in listeners:
        sa.event.remove(engine, name, listener)


def is_in_transaction(connection):
    driver = connection.connection.dbapi_connection
    if connection.dialect.name == "sqlite":
        return driver.in_transaction
    return driver.info.transaction_status != TransactionStatus.IDLE


def test_a_token_for_a_client_itself_costs_one_lookup_and_one_event(server):
    """The floor: nothing else is needed, so nothing else is asked."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    with statements_of(server) as seen:
        assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    # A statement alone is a transaction by itself, in one round trip.
    assert seen == ["SELECT clients", "INSERT events"]


def test_a_redemption_costs_two_lookups_a_claim_a_token_and_an_event(server):
    """The code comes with its grant and user in one statement."""
    client, secret = server.add_client()
    code = server.code(client)
    with statements_of(server) as seen:
        assert server.redeem(client, secret, code).status_int == 200
    assert seen == [
        "SELECT clients",
        "SELECT tokens",
        "BEGIN",
        "UPDATE tokens",
        "INSERT tokens",
        "INSERT events",
        "COMMIT",
    ]


def test_a_refresh_costs_what_a_redemption_costs(server):
    """And a retry of it costs one lookup more and no token."""
    client, secret = server.add_client()
    token = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    with statements_of(server) as seen:
        assert server.refresh(client, secret, token).status_int == 200
    assert seen == [
        "SELECT clients",
        "SELECT tokens",
        "BEGIN",
        "UPDATE tokens",
        "INSERT tokens",
        "INSERT events",
        "COMMIT",
    ]
    with statements_of(server) as seen:
        assert server.refresh(client, secret, token).status_int == 200
    assert seen == [
        "SELECT clients",
        "SELECT tokens",
        "SELECT tokens",
        "INSERT events",
    ]


@pytest.mark.parametrize(
    ("token_format", "looked_up"), [("jwt", "SELECT grants"), ("opaque", "SELECT tokens")]
)
def test_an_introspection_costs_two_lookups(make_server, database_url, token_format, looked_up):
    """M-04: the token's grant comes with its user; a resource server needs to know the token's client as well."""
    settings = {"authserver.access_token_format": token_format}
    server = make_server(settings, database_url=database_url)
    server.add_user("ann")
    client, secret = server.add_client(grant_types=("authorization_code", "client_credentials"))
    api, api_secret = server.add_client(client_id="api", grant_types=("client_credentials",))
    for token in (
        server.redeem(client, secret, server.code(client)).json["access_token"],
        server.token(client, secret, grant_type="client_credentials").json["access_token"],
    ):
        with statements_of(server) as seen:
            assert server.introspect(client, secret, token).json["active"]
        assert seen == ["SELECT clients", looked_up]
        with statements_of(server) as seen:
            assert server.introspect(api, api_secret, token).json["active"]
        assert seen == ["SELECT clients", looked_up, "SELECT clients"]


def test_garbage_is_not_looked_up(server):
    """T078, L-03, M-03: its form gives it away, so only the client is asked for."""
    client, secret = server.add_client()
    garbage = ("x", "a.b.c", forged("as_refresh_")[:-1] + "!", server.code(client))
    for token in garbage:
        with statements_of(server) as seen:
            assert server.introspect(client, secret, token).json == {"active": False}
        assert seen == ["SELECT clients"]
    for token in garbage[:-1]:
        with statements_of(server) as seen:
            assert server.revoke(client, secret, token).status_int == 200
        assert seen == ["SELECT clients"]


def test_a_revocation_costs_two_lookups_an_update_and_an_event(server):
    """A second one costs the lookups alone."""
    client, secret = server.add_client()
    token = server.redeem(client, secret, server.code(client)).json["access_token"]
    with statements_of(server) as seen:
        assert server.revoke(client, secret, token).status_int == 200
    assert seen == [
        "SELECT clients",
        "SELECT grants",
        "BEGIN",
        "UPDATE grants",
        "INSERT events",
        "COMMIT",
    ]
    with statements_of(server) as seen:
        assert server.revoke(client, secret, token).status_int == 200
    assert seen == ["SELECT clients", "SELECT grants"]


def test_a_refused_token_request_costs_a_lookup_and_its_own_event(server):
    """The request itself has written nothing."""
    client, _ = server.add_client(grant_types=("client_credentials",))
    with statements_of(server) as seen:
        assert server.token(client, "wrong", grant_type="client_credentials").status_int == 401
    assert seen == ["SELECT clients", "INSERT events"]


@pytest.mark.parametrize(
    "path",
    ["/health/live", "/.well-known/oauth-authorization-server", "/oauth/jwks", "/static/style.css"],
)
def test_what_no_request_changes_asks_the_database_nothing(server, path):
    """T114: these answer whatever state the database is in."""
    with statements_of(server) as seen:
        assert server.http.get(path).status_int == 200
    assert seen == []
