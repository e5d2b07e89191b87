"""What each hot request costs: the exact statements, so that one more of them shows (design: speed)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import time_machine

from authserver.engine.clients import secrets
from authserver.storage.tables import clients
from authserver.testing.plans import transcript_of
from authserver.testing.server import PASSWORD, forged, form_with, with_plugin
from authserver.testing.stories import signed_in


@pytest.fixture
def server(make_server, database_url):
    server = make_server(database_url=database_url)
    server.add_user("ann")
    return server


def add_client(server, **metadata):
    """A client that was used a moment ago, which is noted once a day, and its secret, every few minutes."""
    client, secret = server.add_client(**metadata)
    assert server.introspect(client, secret, "x").status_int == 200
    with server.application.begin() as engine:
        engine.stores.clients.touch(client.client_id, engine.now)
    return client, secret


def transaction(server, *writes):
    """What these writes cost: on PostgreSQL they go in one round trip, which is a transaction by itself."""
    return writes if server.application.storage.kind == "postgresql" else ("BEGIN", *writes, "COMMIT")


def test_a_token_for_a_client_itself_costs_one_lookup_and_one_event(server):
    """The floor: nothing else is needed, so nothing else is asked."""
    client, secret = add_client(server, grant_types=("client_credentials",))
    with transcript_of(server.application) as seen:
        assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    # A statement alone is a transaction by itself, in one round trip.
    assert seen == ["SELECT clients", "INSERT events"]


def test_the_first_use_of_a_secret_costs_one_update_more(server):
    """R-05: at the very end, so that nobody waits for it; then not for five minutes."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    with server.application.begin() as engine:
        engine.stores.clients.touch(client.client_id, engine.now)
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        for noted in (True, False, True):
            with transcript_of(server.application) as seen:
                assert server.token(client, secret, grant_type="client_credentials").status_int == 200
            if noted:
                writes = transaction(server, "UPDATE client_secrets", "INSERT events")
                assert seen == ["SELECT clients", *writes]
                clock.shift(secrets.NOTED_EVERY - timedelta(microseconds=1))
            else:
                assert seen == ["SELECT clients", "INSERT events"]
                clock.shift(timedelta(microseconds=1))


def test_the_first_use_of_a_client_in_a_day_costs_one_update_more(server):
    """K-09: its last use is known to the day, so a client that gets tokens all the time writes nothing else."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert server.introspect(client, secret, "x").status_int == 200
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        for _ in range(2):
            for noted in (True, False):
                server.introspect(client, secret, "x")
                with transcript_of(server.application) as seen:
                    assert server.token(client, secret, grant_type="client_credentials").status_int == 200
                update = transaction(server, "UPDATE clients", "INSERT events")
                assert seen == ["SELECT clients", *(update if noted else ["INSERT events"])]
                clock.shift(timedelta(hours=12))


def test_a_redemption_costs_two_lookups_a_claim_a_token_and_an_event(server):
    """The code comes with its grant and user in one statement."""
    client, secret = add_client(server)
    code = server.code(client)
    with transcript_of(server.application) as seen:
        assert server.redeem(client, secret, code).status_int == 200
    writes = transaction(server, "UPDATE tokens", "INSERT tokens", "INSERT events")
    assert seen == ["SELECT clients", "SELECT tokens", *writes]


def test_a_refresh_costs_what_a_redemption_costs(server):
    """And a retry of it costs one lookup more and no token."""
    client, secret = add_client(server)
    token = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    with transcript_of(server.application) as seen:
        assert server.refresh(client, secret, token).status_int == 200
    writes = transaction(server, "UPDATE tokens", "INSERT tokens", "INSERT events")
    assert seen == ["SELECT clients", "SELECT tokens", *writes]
    with transcript_of(server.application) as seen:
        assert server.refresh(client, secret, token).status_int == 200
    assert seen == [
        "SELECT clients",
        "SELECT tokens",
        "SELECT tokens",
        "INSERT events",
    ]


def test_a_refresh_without_rotation_moves_an_end_and_stores_nothing(server):
    """FAPI-05: as fixed as rotation, and a token less."""
    client, secret = server.add_client()
    token = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.update(clients).values(rotates_refresh_tokens=False))
    for _ in range(3):
        with transcript_of(server.application) as seen:
            assert server.refresh(client, secret, token).status_int == 200
        writes = transaction(server, "UPDATE tokens", "INSERT events")
        assert seen == ["SELECT clients", "SELECT tokens", *writes]


@pytest.mark.parametrize("rotates", [True, False])
def test_the_use_of_a_grant_is_noted_once_a_minute(server, rotates):
    """E-16: one update more, whether its refresh token rotates or not."""
    client, secret = server.add_client(token_endpoint_auth_method="none" if rotates else "client_secret_post")
    answer = server.redeem(client, secret, server.code(client)).json
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.update(clients).values(rotates_refresh_tokens=rotates))
    # That it has changed is found once; from then on it is remembered as it is.
    assert server.refresh(client, secret, "unknown").status_int == 400
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        for seconds, noted in ((60, True), (59, False), (1, True), (0, False)):
            clock.shift(timedelta(seconds=seconds))
            with transcript_of(server.application) as seen:
                answer |= server.refresh(client, secret, answer["refresh_token"]).json
            assert ("UPDATE grants" in seen) == noted
            writes = ["a write"] * (2 + rotates + noted)
            assert len(seen) == 2 + len(transaction(server, *writes))
            (grant,) = server.rows("grants")
            assert (datetime.now(UTC).strftime("%H:%M:%S") in str(grant["last_used_at"])) == (
                noted or seconds == 0
            )


@pytest.mark.parametrize(
    ("token_format", "looked_up"), [("jwt", "SELECT grants"), ("opaque", "SELECT tokens")]
)
def test_an_introspection_costs_two_lookups(make_server, database_url, token_format, looked_up):
    """M-04: the token's grant comes with its user; a resource server needs to know the token's client as well."""
    settings = {"authserver.access_token_format": token_format}
    server = make_server(settings, database_url=database_url)
    server.add_user("ann")
    client, secret = add_client(server, grant_types=("authorization_code", "client_credentials"))
    api, api_secret = add_client(server, client_id="api", grant_types=("client_credentials",))
    for token in (
        server.redeem(client, secret, server.code(client)).json["access_token"],
        server.token(client, secret, grant_type="client_credentials").json["access_token"],
    ):
        with transcript_of(server.application) as seen:
            assert server.introspect(client, secret, token).json["active"]
        assert seen == ["SELECT clients", looked_up]
        with transcript_of(server.application) as seen:
            assert server.introspect(api, api_secret, token).json["active"]
        assert seen == ["SELECT clients", looked_up, "SELECT clients"]


def test_garbage_is_not_looked_up(server):
    """T078, L-03, M-03: its form gives it away, so only the client is asked for."""
    client, secret = add_client(server)
    garbage = ("x", "a.b.c", forged("as_refresh_")[:-1] + "!", server.code(client))
    for token in garbage:
        with transcript_of(server.application) as seen:
            assert server.introspect(client, secret, token).json == {"active": False}
        assert seen == ["SELECT clients"]
    for token in garbage[:-1]:
        with transcript_of(server.application) as seen:
            assert server.revoke(client, secret, token).status_int == 200
        assert seen == ["SELECT clients"]


def test_who_scans_for_tokens_costs_one_event(make_server):
    """M-08, T078: beyond the limit there is a 429 each, and no more to write."""
    server = make_server(with_plugin("rate_limits", {"limits": "few = unknown_token, client, 5, minute"}))
    client, secret = add_client(server)
    statuses, events = [], []
    for _ in range(8):
        with transcript_of(server.application) as seen:
            statuses.append(server.introspect(client, secret, "x").status_int)
        assert seen[0] == "SELECT clients"
        events += seen[1:]
    assert statuses == [200] * 4 + [429] * 4
    assert events == ["INSERT events"]


def test_a_revocation_costs_two_lookups_an_update_and_an_event(server):
    """A second one costs the lookups alone."""
    client, secret = add_client(server)
    token = server.redeem(client, secret, server.code(client)).json["access_token"]
    with transcript_of(server.application) as seen:
        assert server.revoke(client, secret, token).status_int == 200
    assert seen == [
        "SELECT clients",
        "SELECT grants",
        "BEGIN",
        "UPDATE grants",
        # What was derived from it.
        "WITH grants",
        "INSERT events",
        "COMMIT",
    ]
    with transcript_of(server.application) as seen:
        assert server.revoke(client, secret, token).status_int == 200
    assert seen == ["SELECT clients", "SELECT grants"]


def test_a_refused_token_request_costs_a_lookup_and_its_own_event(server):
    """The request itself has written nothing."""
    client, _ = add_client(server, grant_types=("client_credentials",))
    with transcript_of(server.application) as seen:
        assert server.token(client, forged("as_secret_"), grant_type="client_credentials").status_int == 401
    assert seen == ["SELECT clients", "INSERT events"]


@pytest.mark.parametrize("many", [1, 30])
def test_the_account_pages_cost_the_same_however_many_they_show(server, many):
    """E-16: one statement for the grants, one for the consents, one for all their clients; one for the sessions."""
    for _ in range(many):
        client, secret = server.add_client()
        server.redeem(client, secret, server.code(client))
    browser = signed_in(server)
    with transcript_of(server.application) as seen:
        assert browser.get("/account/apps").text.count('name="disconnect"') == many
    assert seen == ["SELECT sessions", "SELECT grants", "SELECT consents", "SELECT clients"]
    with transcript_of(server.application) as seen:
        assert browser.get("/account/sessions").text.count("<section") == many + 1
    assert seen == ["SELECT sessions", "SELECT sessions"]
    with transcript_of(server.application) as seen:
        browser.get("/account/password")
    assert seen == ["SELECT sessions"]


@pytest.mark.parametrize("many", [1, 30])
def test_a_changed_password_costs_the_same_however_much_ends_with_it(server, many):
    """I-14."""
    for _ in range(many):
        client, secret = server.add_client()
        server.redeem(client, secret, server.code(client))
    browser = signed_in(server)
    form = form_with(browser.get("/account/password"), "repeated")
    form["current_password"] = PASSWORD
    form["new_password"] = form["repeated"] = "another good password"
    with transcript_of(server.application) as seen:
        assert form.submit().status_int == 303
    assert seen == [
        "SELECT sessions",
        "BEGIN",
        "UPDATE users",
        "SELECT sessions",
        # What ends is counted: in sessions, in JWTs that were issued lately, and in tokens of the grants.
        "SELECT sessions",
        "DELETE sessions",
        "DELETE consents",
        "SELECT resources",
        "SELECT events",
        "SELECT grants",
        "SELECT tokens",
        "UPDATE grants",
        "WITH grants",
        "INSERT sessions",
        "INSERT events",
        "COMMIT",
    ]


@pytest.mark.parametrize(
    "path",
    ["/health/live", "/.well-known/oauth-authorization-server", "/oauth/jwks", "/static/style.css"],
)
def test_what_no_request_changes_asks_the_database_nothing(server, path):
    """T114: these answer whatever state the database is in."""
    with transcript_of(server.application) as seen:
        assert server.http.get(path).status_int == 200
    assert seen == []
