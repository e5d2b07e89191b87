"""T147: nothing is issued without its record, and nothing is on record that was not issued, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from webtest import TestResponse

from authserver.testing.server import Server, query_of
from tests.web.test_storage_failures import (
    allow,
    approve_silently,
    ask_for_itself,
    redeem_a_code,
    refresh,
    register,
)

FULL = {
    "sqlite": ["CREATE TRIGGER without_room BEFORE INSERT ON {} BEGIN SELECT RAISE(ABORT, 'no room'); END"],
    "postgresql": [
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$",
        "CREATE TRIGGER without_room BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION no_room()",
    ],
}
ROOM = {
    "sqlite": ["DROP TRIGGER without_room"],
    "postgresql": ["DROP TRIGGER without_room ON {}", "DROP FUNCTION no_room()"],
}
ISSUES = (ask_for_itself, redeem_a_code, refresh, approve_silently, allow, register)


@pytest.fixture
def server(make_server: Callable[..., Server], database_url: str) -> Server:
    server = make_server(database_url=database_url)
    server.add_user("ann")
    return server


@contextmanager
def no_room(server: Server, table: str) -> Iterator[None]:
    """Nothing can be put into a table."""
    engine = server.application.storage.engine

    def run(statements: list[str]) -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("{}", table))

    run(FULL[engine.dialect.name])
    try:
        yield
    finally:
        run(ROOM[engine.dialect.name])


def issued(server: Server) -> dict[str, list[str]]:
    """All that was ever issued, and how it stands; sessions aside."""
    return {
        table: sorted(map(repr, server.rows(table)))
        for table in ("tokens", "grants", "consents", "clients", "client_secrets", "events")
    }


@pytest.mark.parametrize("story", ISSUES)
def test_where_events_cannot_be_written_nothing_is_issued(
    server: Server, story: Callable[[Server], object]
) -> None:
    """Neither to the client nor in the database; and when there is room again, the same request is answered."""
    ask = story(server)
    before = issued(server)
    with no_room(server, "events"):
        answer = ask()
    assert_nothing_was_given(answer)
    assert issued(server) == before
    answer = ask()
    assert answer.status_int < 400 and "server_error" not in answer.headers.get("Location", "")


def test_a_refusal_that_cannot_be_recorded_is_a_refusal(server: Server) -> None:
    client, _ = server.add_client(grant_types=("client_credentials",))
    with no_room(server, "events"):
        assert_nothing_was_given(server.token(client, "wrong", grant_type="client_credentials"))


def assert_nothing_was_given(answer: TestResponse) -> None:
    """It is an error in the form of its endpoint, and does not say what failed."""
    if answer.status_int == 303:
        assert query_of(answer)["error"] == "server_error"
        assert "code" not in query_of(answer)
    else:
        assert (answer.status_int, answer.json["error"]) == (500, "server_error")
        assert not {"access_token", "refresh_token", "client_id"} & answer.json.keys()
    assert "Traceback" not in answer.text and "no room" not in answer.text


@pytest.mark.parametrize(
    ("story", "table"), [(redeem_a_code, "tokens"), (refresh, "tokens"), (register, "clients")]
)
def test_where_an_issue_cannot_be_stored_it_is_not_on_record(
    server: Server, story: Callable[[Server], object], table: str
) -> None:
    """Only that the request failed is."""
    ask = story(server)
    before, known = issued(server), len(server.rows("events"))
    with no_room(server, table):
        assert ask().status_int >= 500
    after = issued(server)
    assert {**after, "events": ()} == {**before, "events": ()}
    assert [row["type"] for row in server.rows("events")][known:] == ["request.failed"]


def test_a_refusal_is_on_record_although_its_transaction_is_rolled_back(server: Server) -> None:
    client, secret = server.add_client()
    code = server.code(client)
    refused = server.redeem(client, secret, code, code_verifier="x" * 43)
    assert refused.status_int == 400
    (event,) = server.events("token.refused")
    assert event["event_id"] == refused.json["error_id"]
