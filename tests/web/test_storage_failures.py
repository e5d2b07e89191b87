"""A database that fails in the middle: all of a request happens or nothing, and never twice."""

from __future__ import annotations

import json
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from authserver.engine.crypto.digests import PREFIXES
from authserver.storage.tables import Base
from authserver.testing.plans import Sent
from authserver.testing.server import PASSWORD, REDIRECT_URI, form_with, query_of, with_plugin

OPAQUE = {"authserver.access_token_format": "opaque"}


@pytest.fixture
def server(make_server, database_url):
    server = make_server(database_url=database_url)
    server.add_user("ann")
    return server


# ---- Stories: prepare a server, then say how to ask. Each with the number of rows it writes. --------


def ask_for_the_first_time(server):
    client, secret = server.add_client(grant_types=("client_credentials",))
    return lambda: server.token(client, secret, grant_type="client_credentials")


def ask_for_itself(server):
    client, secret = server.add_client(grant_types=("client_credentials",))
    # Notes the use of the client and of its secret.
    assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    return lambda: server.token(client, secret, grant_type="client_credentials")


def redeem_a_code(server):
    client, secret = server.add_client()
    code = server.code(client)
    return lambda: server.redeem(client, secret, code)


def refresh(server):
    client, secret = server.add_client()
    token = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    return lambda: server.refresh(client, secret, token)


def approve_silently(server):
    client, _ = server.add_client(first_party=True)
    browser = server.browser()
    server.sign_in(browser)
    return lambda: browser.get(server.authorization_url(client), expect_errors=True)


def allow(server):
    client, _ = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    page = browser.get(server.authorization_url(client))
    return lambda: server.consent(page)


def register(server):
    metadata = {"redirect_uris": [REDIRECT_URI], "client_name": "New"}
    return lambda: server.http.post_json("/oauth/register", metadata, expect_errors=True)


def sign_in(server):
    form = form_with(server.browser().get("/login"), "username")
    form["username"], form["password"] = "ann", PASSWORD
    return lambda: form.submit(expect_errors=True)


@dataclass(frozen=True)
class Story:
    prepare: object
    writes: int
    settings: dict | None = None


STORIES = {
    "client_credentials-first": Story(ask_for_the_first_time, 3),
    "client_credentials": Story(ask_for_itself, 1),
    "client_credentials-opaque": Story(ask_for_itself, 3, OPAQUE),
    "authorization_code": Story(redeem_a_code, 4),
    "authorization_code-opaque": Story(redeem_a_code, 5, OPAQUE),
    "refresh_token": Story(refresh, 3),
    "refresh_token-opaque": Story(refresh, 4, OPAQUE),
    "approval": Story(approve_silently, 5),
    "consent": Story(allow, 7),
    "registration": Story(register, 4),
    "sign-in": Story(sign_in, 2),
}
TOKEN_STORIES = [name for name in STORIES if "_" in name]


def prepared(name, make_server, database_url):
    story = STORIES[name]
    server = make_server(story.settings, database_url=database_url)
    server.add_user("ann")
    return server, story.prepare(server)


def is_success(answer):
    """Whether the answer gives anything out."""
    return answer.status_int < 400 and "error=" not in (answer.location or "")


def assert_gives_nothing(answer):
    # Not only "as_": an error id is random and may contain that.
    for word in ("access_token", "refresh_token", "client_secret", "code=", *PREFIXES):
        assert word not in answer.text
        assert word not in (answer.location or "")
    assert "Set-Cookie" not in answer.headers


def contents(server):
    """Every row but the events of failures: those are kept although nothing else is."""
    with server.application.storage.engine.connect() as connection:
        return {
            table.name: sorted(
                repr(row)
                for row in connection.execute(sa.text(f"SELECT * FROM {table.name}"))
                if "request.failed" not in row
            )
            for table in Base.metadata.sorted_tables
        }


# ---- Faults ------------------------------------------------------------------------------------------


@contextmanager
def failing_before_write(server, number):
    """Something of ours breaks right before the `number`th row is written; how many were attempted."""
    engine, seen = server.application.storage.engine, []

    def count(connection, cursor, statement, parameters, context, executemany):
        about = Sent(text=statement, parameters=parameters).about
        if about.startswith(("INSERT", "UPDATE", "DELETE")):
            seen.append(statement)
            if len(seen) == number:
                raise RuntimeError("injected")

    sa.event.listen(engine, "before_cursor_execute", count)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)


@contextmanager
def failing_commits(server, times, code="40001"):
    """The next `times` commits fail in the database itself: a full disk on SQLite, SQLSTATE `code` on PostgreSQL."""
    engine = server.application.storage.engine
    if engine.dialect.name == "sqlite":
        with _full_disk_at_commit(engine, times):
            yield
        return
    cut = "PERFORM pg_terminate_backend(pg_backend_pid());" if code == "cut" else ""
    raised = "" if cut else f"RAISE EXCEPTION 'injected' USING ERRCODE = '{code}';"
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE injected_failures")
        connection.exec_driver_sql(
            f"CREATE FUNCTION injected_failure() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('injected_failures') <= {times} THEN {cut} {raised} END IF; RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER injected_failure AFTER INSERT ON events"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION injected_failure()"
        )
    try:
        yield
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP FUNCTION injected_failure() CASCADE")
            connection.exec_driver_sql("DROP SEQUENCE injected_failures")


@contextmanager
def _full_disk_at_commit(engine, times):
    """No file of this process may grow while SQLite writes its log: at COMMIT, or in a statement without BEGIN."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    commits = []

    def fill(connection):
        commits.append(connection)
        if len(commits) <= times:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))

    def before_commit(connection):
        if connection.connection.dbapi_connection.in_transaction:
            fill(connection)

    def before_statement(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith("INSERT") and not connection.connection.dbapi_connection.in_transaction:
            fill(connection)

    def make_room(*_):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    listeners = [
        ("commit", before_commit),
        ("before_cursor_execute", before_statement),
        ("checkin", make_room),
    ]
    for name, listener in listeners:
        sa.event.listen(engine, name, listener)
    try:
        yield
    finally:
        make_room()
        for name, listener in listeners:
            sa.event.remove(engine, name, listener)


@contextmanager
def failing_statement(server, number, code, times=1):
    """PostgreSQL answers the `number`th statement of a transaction with SQLSTATE `code`, `times` times."""
    engine, seen, failed = server.application.storage.engine, [], []

    def replace(connection, cursor, statement, parameters, context, executemany):
        seen.append(statement)
        if statement == "BEGIN":
            seen.clear()
        elif len(seen) == number and len(failed) < times:
            failed.append(statement)
            return f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}'; END $$", {}
        return statement, parameters

    sa.event.listen(engine, "before_cursor_execute", replace, retval=True)
    try:
        yield failed
    finally:
        sa.event.remove(engine, "before_cursor_execute", replace)


# ---- All or nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORIES)
def test_an_error_between_two_writes_leaves_none_of_them(name, make_server, database_url):
    """T115: before every single write of every story; and without the error all of them are there."""
    server, ask = prepared(name, make_server, database_url)
    before = contents(server)
    for number in range(1, STORIES[name].writes + 1):
        with failing_before_write(server, number) as seen:
            answer = ask()
        assert len(seen) == number + 1  # and the event of the failure
        assert not is_success(answer)
        assert_gives_nothing(answer)
        assert contents(server) == before
    with failing_before_write(server, 0) as seen:
        assert is_success(ask())
    assert len(seen) == STORIES[name].writes
    assert contents(server) != before


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_error_while_a_replay_is_punished_leaves_nothing_and_is_answered(server, number):
    """T115, R-08: revocation and events are one transaction, and its failure has the form of every other."""
    client, secret = server.add_client()
    code = server.code(client)
    assert server.redeem(client, secret, code).status_int == 200
    before = contents(server)
    with failing_before_write(server, number) as seen:
        answer = server.redeem(client, secret, code)
    assert len(seen) == number
    assert (answer.status_int, answer.json["error"]) == (500, "server_error")
    assert contents(server) == before
    assert server.redeem(client, secret, code).json["error"] == "invalid_grant"
    assert len(server.events("grant.revoked")) == 1


# ---- Commits that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORIES)
def test_a_commit_that_fails_is_503_and_gives_nothing_out(name, make_server, database_url):
    """T109: the answer that the view had built is replaced; what was asked for can be asked for again."""
    server, ask = prepared(name, make_server, database_url)
    before = contents(server)
    with failing_commits(server, 100):
        answer = ask()
    if name in ("approval", "consent"):
        assert (answer.status_int, query_of(answer)["error"]) == (303, "temporarily_unavailable")
    else:
        assert answer.status_int == 503
        assert int(answer.headers["Retry-After"]) > 0
    if answer.content_type == "application/json":
        assert answer.json["error"] == "temporarily_unavailable"
        assert answer.headers["Cache-Control"] == "no-store"
    assert_gives_nothing(answer)
    assert contents(server) == before
    assert is_success(ask())


@pytest.mark.parametrize("code", ["40001", "40P01", "53100", "57P01", "cut"])
@pytest.mark.postgresql
def test_every_passing_failure_of_a_commit_is_503(make_server, postgresql_url, code):
    """T109, T111: serialization, deadlock, full disk, shutdown, and a connection that is cut."""
    server, ask = prepared("authorization_code", make_server, postgresql_url)
    before = contents(server)
    with failing_commits(server, 100, code):
        answer = ask()
    assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
    assert "Retry-After" in answer.headers
    assert_gives_nothing(answer)
    assert contents(server) == before
    assert ask().status_int == 200


def test_a_refusal_that_cannot_be_recorded_is_503(server):
    """R-08, T108, T109: nobody is told "refused" while the revocation it stands for was lost."""
    client, secret = server.add_client()
    code = server.code(client)
    assert server.redeem(client, secret, code).status_int == 200
    before = contents(server)
    with failing_commits(server, 100):
        answer = server.redeem(client, secret, code)
    assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
    assert contents(server) == before


# ---- Retries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TOKEN_STORIES, "approval", "registration"])
def test_a_retried_request_issues_once(name, make_server, database_url):
    """T111, T112: two commits fail, the third is the last attempt; one event, with its decisions told once."""
    server, ask = prepared(name, make_server, database_url)
    before = contents(server)
    with failing_commits(server, 2):
        answer = ask()
    assert is_success(answer)
    after = contents(server)
    (event,) = set(after["events"]) - set(before["events"])
    assert event
    row = max(server.rows("events"), key=lambda row: str(row["at"]))
    decisions = row["decisions"] if isinstance(row["decisions"], list) else json.loads(row["decisions"])
    slots = [decision["slot"] for decision in decisions]
    assert len(slots) == len(set(slots))
    tokens = len(after["tokens"]) - len(before["tokens"])
    assert tokens <= STORIES[name].writes - 1


def test_a_retried_request_counts_once(make_server):
    """R-20, T111: two commits fail and the third succeeds; that is one of the requests that the client may send."""
    server = make_server(with_plugin("rate_limits", {"limits": "tokens = token_request, client, 2, minute"}))
    client, secret = server.add_client(grant_types=("client_credentials",))
    with failing_commits(server, 2):
        assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    statuses = [server.token(client, secret, grant_type="client_credentials").status_int for _ in range(2)]
    assert statuses == [200, 429]


@pytest.mark.postgresql
@pytest.mark.parametrize("code", ["40001", "40P01"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_victim_among_the_statements_is_retried(make_server, postgresql_url, number, code):
    """T111: a serialization failure or a deadlock in any write; the code is not taken for spent."""
    server, ask = prepared("authorization_code", make_server, postgresql_url)
    with failing_statement(server, number, code) as failed:
        answer = ask()
    assert len(failed) == 1
    assert answer.status_int == 200
    assert len(server.events("token.issued")) == 1
    assert [row["kind"] for row in server.rows("tokens")].count("refresh") == 1
    assert server.rows("grants")[0]["revoked_at"] is None


@pytest.mark.postgresql
@pytest.mark.parametrize("code", ["40001", "55P03", "57014"])
def test_retries_are_bounded(make_server, postgresql_url, code):
    """T111: three attempts for a victim, one for whoever has waited already; then 503."""
    server, ask = prepared("authorization_code", make_server, postgresql_url)
    before = contents(server)
    with failing_statement(server, 1, code, times=100) as failed:
        answer = ask()
    assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
    assert len(failed) == (3 if code == "40001" else 1)
    assert contents(server) == before


def test_a_refusal_is_recorded_once_however_often_it_is_tried(server):
    """T111, T112, R-08: the replay's revocation survives failures of its own transaction."""
    client, secret = server.add_client()
    code = server.code(client)
    assert server.redeem(client, secret, code).status_int == 200
    with failing_commits(server, 2):
        answer = server.redeem(client, secret, code)
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
    assert [row["reason"] for row in server.events("grant.revoked")] == ["code-replayed"]
    (refused,) = server.events("token.refused")
    assert refused["event_id"] == answer.json["error_id"]


# ---- Waits -------------------------------------------------------------------------------------------


def test_an_exhausted_pool_is_503_within_seconds(server):
    """T114: and health, keys and metadata answer meanwhile."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    engine = server.application.storage.engine
    held = [engine.connect() for _ in range(engine.pool.size())]
    try:
        began = time.monotonic()
        answer = server.token(client, secret, grant_type="client_credentials")
        assert time.monotonic() - began < 4
        assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
        assert "Retry-After" in answer.headers
        began = time.monotonic()
        for path in ("/health/live", "/oauth/jwks", "/.well-known/oauth-authorization-server"):
            assert server.http.get(path).status_int == 200
        assert time.monotonic() - began < 1
        ready = server.http.get("/health/ready", status=503)
        assert "Retry-After" in ready.headers
    finally:
        for connection in held:
            connection.close()
    assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    server.http.get("/health/ready", status=200)


def test_a_locked_sqlite_is_503_and_reads_go_on(make_server, sqlite_url, monkeypatch):
    """T110, T111, T114: a writer that never ends costs one busy timeout, not three."""
    monkeypatch.setattr("authserver.storage.database.SQLITE_BUSY_TIMEOUT", 1.0)
    server, ask = prepared("authorization_code", make_server, sqlite_url)
    before = contents(server)
    with server.application.storage.engine.connect() as holder:
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        answer = ask()
        assert 0.9 < time.monotonic() - began < 2.9
        assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
        assert_gives_nothing(answer)
        server.http.get("/health/ready", status=200)
        server.http.get("/login", status=200)
        holder.exec_driver_sql("ROLLBACK")
    assert contents(server) == before
    assert ask().status_int == 200
