"""A database with many rows, and in it families of 10,000 rotations: what happens there, and how long it takes.

`benchmarks/scale.py` measures the latencies under load.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from authserver.testing.plans import GROWING, plan_of, statements_of
from authserver.testing.server import Server
from benchmarks.fill import Family, add_family

# As often as it takes until the driver prepares a statement and PostgreSQL plans it once for all parameters.
TURNS = 15


@dataclass(frozen=True)
class Owner:
    """A client with a family."""

    server: Server
    client: Any
    secret: Any
    family: Family

    def refresh(self, token: str) -> Any:
        return self.server.refresh(self.client, self.secret, token)

    def introspect(self, token: str) -> Any:
        return self.server.introspect(self.client, self.secret, token)

    def state(self) -> tuple[str | None, int]:
        """Why the family was revoked, and how many tokens it has."""
        statement = sa.text(
            "SELECT revoked_reason, (SELECT count(*) FROM tokens WHERE tokens.grant_id = grants.grant_id)"
            " FROM grants WHERE grant_id = :id"
        )
        with self.server.application.storage.engine.connect() as connection:
            return tuple(connection.execute(statement, {"id": self.family.grant_id}).one())


def owner_of(server: Server, rotations: int) -> Owner:
    """A new client of ann's with a family that was rotated so often."""
    client, secret = server.add_client()
    with server.application.begin() as engine:
        ann = engine.stores.users.find_by_name("ann")
    family = add_family(
        server.ini["authserver.database_url"],
        client_id=client.client_id,
        user_id=ann.user_id,
        scopes=("profile",),
        rotations=rotations,
    )
    return Owner(server, client, secret, family)


@pytest.fixture
def family(servers) -> Owner:
    """One of 10,000 rotations, in the database with many rows."""
    return owner_of(servers.filled, servers.size.rotations)


@pytest.fixture
def small(servers) -> Owner:
    """One of 3 rotations, in the database that is nearly empty."""
    return owner_of(servers.empty, 3)


def watched(owner: Owner, run: Any) -> tuple[Any, list[Any], float]:
    """The answer, what was sent for it, and how many seconds it took."""
    with statements_of(owner.server.application.storage.engine) as sent:
        begun = time.perf_counter()
        answer = run()
        return answer, sent, time.perf_counter() - begun


def test_reuse_revokes_a_family_of_10000_rotations_by_one_row_within_a_second(servers, family, small):
    """T064, I-06: with as many indexed statements as one of three; refresh and access tokens are dead at once."""
    seen = []
    for owner in (small, family):
        live = owner.refresh(owner.family.last).json
        assert owner.introspect(live["access_token"]).json["active"]
        before = owner.state()

        answer, sent, seconds = watched(owner, lambda owner=owner: owner.refresh(owner.family.first))

        assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
        assert seconds < 1
        assert before[0] is None
        assert owner.state() == ("refresh-token-reused", before[1])
        assert owner.refresh(live["refresh_token"]).json["error"] == "invalid_grant"
        for name in ("access_token", "refresh_token"):
            assert owner.introspect(live[name]).json == {"active": False}
        seen.append([statement.about for statement in sent])
        for statement in sent:
            assert plan_of(owner.server.application.storage.engine, statement).scans == () or owner is small
    assert seen[1] == seen[0]
    assert Counter(about.split()[0] for about in seen[1])["UPDATE"] == 1


@pytest.mark.parametrize("token", ["first", "last"])
def test_a_client_revokes_a_family_of_10000_rotations_within_a_second(servers, family, small, token):
    """T064, L-07: by its oldest token or its newest, with as many statements as one of three."""
    seen = []
    for owner in (small, family):
        presented = getattr(owner.family, token)
        answer, sent, seconds = watched(
            owner,
            lambda owner=owner, text=presented: owner.server.revoke(owner.client, owner.secret, text),
        )
        assert answer.status_int == 200
        assert seconds < 1
        assert owner.state()[0] == "token-revoked"
        assert owner.refresh(owner.family.last).json["error"] == "invalid_grant"
        seen.append([statement.about for statement in sent])
    assert seen[1] == seen[0]


def test_a_rotation_after_10000_others_costs_what_the_third_costs(servers, family, small):
    """T064, I-05: the same statements, retries included; twenty in a row within two seconds."""
    seen = []
    for owner in (small, family):
        (rotated, first, _), (again, second, _) = (
            watched(owner, lambda owner=owner: owner.refresh(owner.family.last)) for _ in range(2)
        )
        assert rotated.json["refresh_token"] == again.json["refresh_token"]
        seen.append([statement.about for statement in (*first, *second)])
    assert seen[1] == seen[0]
    token, begun = rotated.json["refresh_token"], time.perf_counter()
    for _ in range(20):
        answer = family.refresh(token)
        assert answer.status_int == 200
        token = answer.json["refresh_token"]
    assert time.perf_counter() - begun < 2
    assert family.state() == (None, servers.size.rotations + 2 + 21)


def test_the_account_of_a_user_with_a_family_of_10000_rotations_is_read_within_a_second(servers, family):
    """T116: what the account pages ask for."""
    storage = servers.filled.application.storage
    with storage.begin() as stores:
        ann = stores.users.find_by_name("ann")
        begun = time.perf_counter()
        grants = stores.grants.list(datetime.now(UTC), user_id=ann.user_id)
        assert time.perf_counter() - begun < 1
    assert family.family.grant_id in {grant.grant_id for grant in grants}


@pytest.mark.postgresql
def test_a_server_at_work_reads_no_table_from_end_to_end(postgresql_servers):
    """T064, T116: by PostgreSQL's own counters, which know of foreign keys and of prepared statements too."""
    server = postgresql_servers.filled
    browser = server.browser()
    assert server.sign_in(browser).status_int == 303
    client, secret = server.add_client()
    itself, its_secret = server.add_client(grant_types=("client_credentials",))
    before = counters(server)

    for _ in range(TURNS):
        assert server.token(itself, its_secret, grant_type="client_credentials").status_int == 200
        code = server.code(client, browser)
        first = server.redeem(client, secret, code).json
        second = server.refresh(client, secret, first["refresh_token"]).json
        third = server.refresh(client, secret, second["refresh_token"]).json
        for token in (third["access_token"], third["refresh_token"]):
            assert server.introspect(client, secret, token).json["active"]
        assert server.refresh(client, secret, first["refresh_token"]).status_int == 400
        assert not server.introspect(client, secret, third["access_token"]).json["active"]
        other = server.redeem(client, secret, server.code(client, browser)).json
        assert server.revoke(client, secret, other["refresh_token"]).status_int == 200

    after = counters(server)
    assert {table: after[table][0] - before[table][0] for table in GROWING} == dict.fromkeys(GROWING, 0)
    # Each turn has 13 requests, and none of them needs more than a few rows.
    read = sum(after[table][1] - before[table][1] for table in GROWING)
    assert 0 < read < TURNS * 13 * 10


def counters(server: Server) -> dict[str, tuple[int, int]]:
    """How often each table was read from end to end so far, and how many rows were fetched by indexes."""
    engine = server.application.storage.engine
    # A connection reports what it did when it ends.
    engine.dispose()
    statement = sa.text("SELECT relname, seq_scan, coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables")
    for _ in range(100):
        with engine.connect() as connection:
            others = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND backend_type = 'client backend'"
            ).scalar_one()
            found = {name: (scans, rows) for name, scans, rows in connection.execute(statement)}
        if others == 1:
            return found
        time.sleep(0.05)
    raise AssertionError("a connection does not end")
