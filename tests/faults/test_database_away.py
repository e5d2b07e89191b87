"""F3, F4, F8: PostgreSQL is stopped, restarted, frozen, slow, or cut off, under load and two server processes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.conftest import Faulty, serving_faulty
from tests.faults.invariants import assert_hold
from tests.faults.postgresql import PostgreSQL
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.postgresql

# Seconds: within these a request is refused while the database is away, and the first one succeeds afterwards.
REFUSED_WITHIN, RECOVERY = 3.0, 5.0
# What two loaded cores add.
SLACK = 1.0


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    postgresql = PostgreSQL()
    yield postgresql
    postgresql.close()


@pytest.fixture(scope="module")
def proxy(postgresql: PostgreSQL) -> Iterator[Proxy]:
    proxy = Proxy(postgresql.socket)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def away(postgresql: PostgreSQL, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """Two processes that reach their database through the proxy; the checker does not."""
    folder: Path = tmp_path_factory.mktemp("away")
    url = postgresql.new_database("away")
    with serving_faulty(folder, url, postgresql.url("away", proxy.folder)) as faulty:
        yield faulty


def assert_goes_on_without_its_database(faulty):
    """T114: what needs no database is served, and health says which of the two it is."""
    for process in faulty.processes:
        assert process.get("/health/live").status == 200
        assert process.get("/oauth/jwks").status == 200
        assert process.get("/.well-known/oauth-authorization-server").status == 200
        ready = process.get("/health/ready")
        assert (ready.status, "Retry-After" in ready.headers) == (503, True)
        page = process.get("/oauth/authorize?client_id=x")
        assert (page.status, "Retry-After" in page.headers) == (503, True)
        assert page.headers["Content-Type"].startswith("text/html")


def assert_recovers(faulty, load, since, longest=REFUSED_WITHIN):
    """503 within seconds and nothing else meanwhile, a token within seconds afterwards, and every invariant."""
    for process in faulty.processes:
        process.wait(RECOVERY + SLACK)
    recovery = load.first_success(since, RECOVERY + SLACK)
    # Those that have not been answered yet are left out.
    statuses = {step.status for step in load.ledger.steps("itself", "redeem", "refresh")} - {None}
    refused = [step.seconds for step in load.ledger.steps() if step.status == 503]
    assert statuses <= {200, 400, 503}, statuses
    assert refused
    assert max(refused) < longest + SLACK
    return recovery


def assert_keeps_no_session(postgresql):
    """T114: attempts that failed are closed, so that none of them takes a session from others once it is accepted."""
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'away' AND state = 'idle' AND query = ''"
    end = time.monotonic() + RECOVERY
    with psycopg.connect(postgresql.url().replace("+psycopg", ""), autocommit=True) as connection:
        while (found := connection.execute(left).fetchone()) != (0,):
            assert time.monotonic() < end, f"{found} sessions in which nothing was ever asked"
            time.sleep(0.1)


def wait_until_refused(load):
    end = time.monotonic() + 10
    while not load.ledger.statuses()[503]:
        assert time.monotonic() < end, "nobody is refused"
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_is_restarted(away, postgresql, mode, is_long, report):
    """F3: no dead connection stays in the pool, and nobody has to do anything."""
    for _ in range({"fast": 10, "immediate": 20}[mode] if is_long else 1):
        with away.load() as load:
            time.sleep(0.5)
            postgresql.stop(mode)
            if mode == "fast":
                time.sleep(20 if is_long else 1)
                assert_goes_on_without_its_database(away)
            # Else nobody may have asked meanwhile.
            wait_until_refused(load)
            postgresql.start()
            since = time.monotonic()
            recovery = assert_recovers(away, load, since)
            time.sleep(0.5)
        report(f"F3 stopped: {mode}", assert_hold(away.server, load.ledger), load, recovery)


@pytest.mark.parametrize("how", ["frozen", "black hole"])
def test_postgresql_is_silent(away, postgresql, proxy, how, is_long, report):
    """F8: no request waits longer than seconds, and no thread is held: others are refused at once."""
    silence, speak = {
        "frozen": (postgresql.freeze, postgresql.thaw),
        "black hole": (proxy.silence, proxy.speak),
    }[how]
    for number in range(15 if is_long else 1):
        with away.load() as load:
            time.sleep(0.5)
            silence()
            try:
                time.sleep(REFUSED_WITHIN)
                assert_goes_on_without_its_database(away)
                began = time.monotonic()
                time.sleep(30 if is_long and number < 5 else 1.5)
                refused = [step for step in load.ledger.steps() if step.status == 503 and step.began > began]
                # An attempt each second for each process; all others are not asked to wait.
                quick = sum(step.seconds < 0.5 for step in refused)
                assert quick > 0.6 * len(refused) > 0
            finally:
                speak()
            since = time.monotonic()
            recovery = assert_recovers(away, load, since)
            assert_keeps_no_session(postgresql)
        report(f"F8 {how}", assert_hold(away.server, load.ledger), load, recovery)


def test_the_answer_to_a_commit_is_lost(away, proxy, is_long, report):
    """F8: the transaction is committed, and the server is not told: what it says is no success, and nothing is halved."""
    for _ in range(10 if is_long else 2):
        with away.load(pause=0) as load:
            time.sleep(0.3)
            proxy.cut_commits = 3
            end = time.monotonic() + 10
            while proxy.cut_commits > 0 and time.monotonic() < end:
                time.sleep(0.05)
            assert proxy.cut_commits <= 0
            time.sleep(0.3)
        report("F8 answers to three COMMITs lost", assert_hold(away.server, load.ledger), load)


def test_a_slow_and_lossy_database_is_survived(away, proxy, is_long, report):
    """F8: 50 ms more for each answer, half a second, and one piece in twenty that ends its connection."""
    for delay, loss in ((0.05, 0.0), (0.5, 0.0), (0.0, 0.05)):
        proxy.delay, proxy.loss = delay, loss
        try:
            with away.load() as load:
                time.sleep(10 if is_long else 1.5)
                # Half a second for each answer of the database leaves time for few.
                load.wait_for(6, 0, 60)
        finally:
            proxy.delay = proxy.loss = 0.0
        seen = assert_hold(away.server, load.ledger)
        assert seen["requests"] > 5
        report(f"F8 {1000 * delay:.0f} ms, {loss:.0%} lost", seen, load)
        assert set(load.ledger.statuses()) <= {200, 201, 303, 400, 503}


def test_sessions_are_ended_by_an_administrator(away, postgresql, is_long, report):
    """F4: a lost connection is replaced, and the request repeated: nobody outside notices most of them."""
    url = postgresql.url("away").replace("+psycopg", "")
    with away.load() as load, psycopg.connect(url, autocommit=True) as administrator:
        for _ in range(50 if is_long else 5):
            time.sleep(random.uniform(0.1, 0.3))
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'away' AND pid <> pg_backend_pid() AND application_name = ''"
            )
    seen = assert_hold(away.server, load.ledger)
    assert seen["answers with tokens"] > 0
    assert load.ledger.statuses()[200] > 10 * load.ledger.statuses()[503]
    report("F4 sessions ended", seen, load, times=50)


def test_a_locked_table_is_503_within_seconds(away, postgresql, is_long, report):
    """F4, T111: liveness answers meanwhile, and the first request after the lock succeeds."""
    with away.load() as load, psycopg.connect(postgresql.url("away").replace("+psycopg", "")) as holder:
        holder.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        for _ in range(30 if is_long else 4):
            time.sleep(1)
            alive = away.processes[0].get("/health/live")
            assert (alive.status, alive.seconds < 1) == (200, True)
        holder.rollback()
        recovery = assert_recovers(away, load, time.monotonic())
    report("F4 table locked", assert_hold(away.server, load.ledger), load, recovery)
