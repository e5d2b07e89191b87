"""A database that is gone, or locked by somebody else, under a real server process."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing

import psycopg
import pytest
from sqlalchemy.engine import make_url

from authserver.testing.server import Server, basic

FORM = {"grant_type": "client_credentials", "scope": "profile"}


@pytest.fixture
def proxied(postgresql_url, make_proxy):
    """A proxy before PostgreSQL, and the URL of the database through it."""
    url = make_url(postgresql_url)
    proxy = make_proxy(f"{url.query['host']}/.s.PGSQL.{url.port or url.query.get('port', 5432)}")
    through = url.set(port=5432, query={**url.query, "host": str(proxy.folder)})
    yield proxy, through.render_as_string(hide_password=False)
    proxy.cut()


def prepared(url):
    """Add a client to a database; how it asks a process for a token."""
    server = Server(url)
    client, secret = server.add_client(grant_types=("client_credentials",))
    server.close()
    headers = {"Authorization": basic(client.client_id, secret)}
    return lambda process: process.post("/oauth/token", FORM, headers)


def assert_busy(answer):
    assert answer.status == 503
    assert answer.json["error"] == "temporarily_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"access_token" not in answer.body


@pytest.mark.postgresql
def test_while_postgresql_is_away_the_answer_is_503_and_it_recovers_by_itself(proxied, serve):
    """T114, T111: liveness goes on, readiness does not; no dead connection is left in the pool."""
    proxy, url = proxied
    ask = prepared(url)
    (process,) = serve(url, 1)
    assert ask(process).status == 200
    for _ in range(2):
        proxy.cut()
        for _ in range(3):
            busy = ask(process)
            assert_busy(busy)
            assert busy.seconds < 2
        alive = process.get("/health/live")
        assert (alive.status, alive.seconds < 1) == (200, True)
        assert process.get("/oauth/jwks").status == 200
        ready = process.get("/health/ready")
        assert (ready.status, "Retry-After" in ready.headers) == (503, True)
        page = process.get("/oauth/authorize?client_id=x")
        assert page.status == 503
        assert page.headers["Content-Type"].startswith("text/html")
        assert "Retry-After" in page.headers
        proxy.open()
        assert process.get("/health/ready").status == 200
        assert [ask(process).status for _ in range(4)] == [200] * 4


@pytest.mark.postgresql
def test_readiness_does_not_wait_for_a_database_that_is_silent(proxied):
    """T114: two seconds, though to connect may take five; and who asks meanwhile takes no more threads than two."""
    proxy, url = proxied
    server = Server(url)
    try:
        proxy.silence()
        # The connections of before were cut.
        server.http.get("/health/ready", status=503)
        began = time.monotonic()
        ready = server.http.get("/health/ready", status=503)
        assert 1.5 < time.monotonic() - began < 4
        assert ready.headers["Retry-After"]
        server.http.get("/health/ready", status=503)
        began = time.monotonic()
        server.http.get("/health/ready", status=503)
        assert time.monotonic() - began < 1.5
        proxy.cut()
        proxy.open()
        end = time.monotonic() + 10
        while server.http.get("/health/ready", expect_errors=True).status_int != 200:
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        server.close()


@pytest.mark.postgresql
def test_a_table_that_somebody_locked_is_503_within_seconds(postgresql_url, serve):
    """T114, T111: liveness answers in between, and the first request after the lock succeeds."""
    ask = prepared(postgresql_url)
    (process,) = serve(postgresql_url, 1)
    assert ask(process).status == 200
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as holder:
        holder.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(process))) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        alive = process.get("/health/live")
        assert (alive.status, alive.seconds < 1) == (200, True)
        for thread in threads:
            thread.join(timeout=30)
    for answer in answers:
        assert_busy(answer)
        assert answer.seconds < 5
    assert len(answers) == 3
    assert ask(process).status == 200


def test_requests_wait_for_a_writer_of_another_program(sqlite_url, serve):
    """T110: a lock of a second on SQLite delays them, and reads do not even wait."""
    ask = prepared(sqlite_url)
    (process,) = serve(sqlite_url, 1)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(process))) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        assert process.get("/health/ready").status == 200
        assert answers == []
        connection.execute("ROLLBACK")
        for thread in threads:
            thread.join(timeout=30)
    assert Counter(answer.status for answer in answers) == {200: 3}
