"""Probes, and what clients are told when the server itself is ill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from webtest import TestResponse

from authserver.testing.server import REDIRECT_URI, Server

MakeServer = Callable[..., Server]
LIVE, READY = "/health/live", "/health/ready"
LEAKS = (
    "Traceback",
    'File "',
    "SELECT",
    "INSERT",
    "sqlite",
    "sqlalchemy",
    "OperationalError",
    "no such table",
)


def execute(server: Server, statement: str) -> None:
    with server.application.storage.engine.connect() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize("path", [LIVE, READY])
def test_a_healthy_server_says_so(path: str, shared_server: Server) -> None:
    """A-18: JSON, not cached, no session begun, nothing said of what runs here."""
    answer = shared_server.http.get(path)
    assert (answer.status_int, answer.json) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("path", [LIVE, READY])
def test_a_probe_asks_by_address_and_plain_http(path: str, shared_server: Server) -> None:
    """T138, Q-09: whatever restarts and routes knows neither name nor certificate."""
    environ = {"HTTP_HOST": "10.0.0.7:6543", "wsgi.url_scheme": "http"}
    assert shared_server.http.get(path, extra_environ=environ).status_int == 200


@pytest.mark.parametrize("path", [LIVE, READY])
def test_a_probe_only_reads(path: str, shared_server: Server) -> None:
    answer = shared_server.http.post(path, "", expect_errors=True)
    assert (answer.status_int, answer.headers["Allow"]) == (405, "GET")


def test_a_server_without_its_tables_lives_but_is_not_ready(server: Server) -> None:
    """T114: restarting would not help, so only readiness goes; the reason is for the log."""
    execute(server, "UPDATE alembic_version SET version_num = '0000'")
    ready = server.http.get(READY, expect_errors=True)
    assert (ready.status_int, ready.json) == (503, {"status": "unavailable"})
    assert int(ready.headers["Retry-After"]) > 0
    assert server.http.get(LIVE).status_int == 200


@pytest.fixture
def ill(server: Server) -> Server:
    """A server that lost the table of its clients."""
    for table in ("client_secrets", "clients"):
        execute(server, "PRAGMA foreign_keys = OFF")
        execute(server, f"ALTER TABLE {table} RENAME TO {table}_lost")
    return server


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/oauth/token",
            "grant_type=client_credentials&client_id=a&client_secret=none-of-ours-but-long-enough",
        ),
        ("/oauth/register", '{"redirect_uris": ["https://client.example/cb"]}'),
    ],
)
def test_an_unexpected_fault_is_a_json_500(
    path: str, body: str, ill: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """F-12: server_error with an id that the log has too; no trace, no SQL."""
    kind = "application/json" if path.endswith("register") else "application/x-www-form-urlencoded"
    answer = ill.http.post(path, body, content_type=kind, expect_errors=True)
    assert (answer.status_int, answer.content_type) == (500, "application/json")
    assert answer.json["error"] == "server_error"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert_silent(answer)
    assert answer.json["error_id"] in caplog.text
    assert ill.rows("tokens") == ill.rows("grants") == []


def test_an_unexpected_fault_of_a_page_is_a_page(ill: Server, caplog: pytest.LogCaptureFixture) -> None:
    """F-12: before there is a redirect URI to tell, the user is told."""
    url = f"/oauth/authorize?client_id=a&response_type=code&redirect_uri={REDIRECT_URI}"
    answer = ill.http.get(url, expect_errors=True)
    assert (answer.status_int, answer.content_type) == (500, "text/html")
    assert answer.location is None
    assert "server_error" in answer.text
    assert "client.example" not in answer.text
    assert_silent(answer)
    error_id = answer.html.select_one("code.whole").text
    assert error_id in caplog.text


def assert_silent(answer: TestResponse) -> None:
    assert [leak for leak in LEAKS if leak.lower() in answer.text.lower()] == []


def test_a_busy_database_is_a_json_503(make_server: MakeServer) -> None:
    """F-12: overload says when to come back, and issues nothing."""
    server = make_server()
    client, secret = server.add_client(grant_types=("client_credentials",))
    storage = server.application.storage
    with storage.engine.connect() as holder:
        holder.exec_driver_sql("PRAGMA busy_timeout = 0")
        # The request's own connection would wait for seconds; here it gives up at once.
        sa.event.listen(storage.engine, "checkout", impatient)
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
        holder.exec_driver_sql("ROLLBACK")
    assert (answer.status_int, answer.json["error"]) == (503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"
    assert_silent(answer)
    assert server.token(client, secret, grant_type="client_credentials", scope="profile").status_int == 200


def impatient(connection: object, record: object, proxy: object) -> None:
    connection.execute("PRAGMA busy_timeout = 0")  # a connection of sqlite3


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in the time zone that is fourteen hours ahead."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_times_are_utc_wherever_the_process_runs(make_server: MakeServer) -> None:
    """R-11: claims, expiry and event rows do not depend on the process's time zone."""
    server = make_server()
    client, secret = server.add_client(grant_types=("client_credentials",))
    began = int(time.time())
    answer = server.token(client, secret, grant_type="client_credentials", scope="profile").json
    claims = server.claims(answer["access_token"])
    assert began <= claims["iat"] <= began + 5
    assert claims["exp"] - claims["iat"] == answer["expires_in"] == 900
    stored = datetime.fromisoformat(str(server.events("token.issued")[0]["at"])).replace(tzinfo=UTC)
    assert abs(stored.timestamp() - began) < 5


def test_a_process_that_was_told_to_end_is_not_ready(server: Server) -> None:
    """R-18: whatever sends requests here sends them elsewhere, while those that come are still answered."""
    server.application.ending.has_begun = True
    ready = server.http.get(READY, expect_errors=True)
    assert (ready.status_int, ready.json) == (503, {"status": "ending"})
    assert server.http.get(LIVE).status_int == 200
    assert server.http.get("/.well-known/oauth-authorization-server").status_int == 200
