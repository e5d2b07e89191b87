"""`authserver db purge`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from authserver.engine.records import EventType
from authserver.engine.upkeep_records import Disposable
from authserver.storage.database import SQLITE_BUSY_TIMEOUT, Database
from authserver.testing.records import a_grant, a_session, a_token, a_user, an_event

DAY = timedelta(days=1)

# Issued codes and tokens are kept as long as other events, and sessions until they expire.
KINDS = set(Disposable) - {Disposable.ISSUANCES, Disposable.IDLE_SESSIONS}


@pytest.fixture
def database(run, ini):
    """That of `run`, with some rows that are over and some that are not."""
    database = Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite")
    now = datetime.now(UTC)
    with database.begin() as stores:
        stores.users.add(a_user())
        for name, end in (("over", now - DAY), ("alive", now + DAY)):
            stores.grants.add(a_grant(grant_id=name, expires_at=end))
            for number in range(3):
                stores.tokens.add(a_token(grant_id=name, digest=f"{name}{number}".encode(), expires_at=end))
            stores.sessions.add(a_session(digest=name.encode(), expires_at=end))
        for days in (1, 400, 500):
            stores.events.add(an_event(at=now - days * DAY, type=EventType.SIGNED_OUT))
        for days in (1, 13, 20):
            stores.events.add(an_event(at=now - days * DAY, type=EventType.TOKEN_REFUSED))
    yield database
    database.close()


MANY_EVENTS = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 150000)
INSERT INTO events (event_id, type, at, reason, decisions, details)
SELECT 'old ' || n, 'token.issued', '2020-01-01 00:00:00.000000', '', '[]', '{}' FROM numbers
"""


def counts(answer) -> dict[str, tuple[int, int, int]]:
    assert answer.exit_code == 0, answer.output
    return {
        row["kind"]: (row["removed"], row["removed_with_them"], row["left"])
        for row in json.loads(answer.stdout)
    }


def test_it_removes_what_is_over_and_says_what_it_was(run, database) -> None:
    """R-10: the rules are the server's own; the second time nothing is left to do."""
    nothing = dict.fromkeys(KINDS, (0, 0, 0))
    first = {"grants": (1, 3, 0), "sessions": (1, 0, 0), "refusals": (1, 0, 0), "events": (2, 0, 0)}
    assert counts(run("db", "purge", "--json")) == {**nothing, **first}
    assert counts(run("db", "purge", "--json")) == nothing
    with database.begin() as stores:
        assert stores.grants.find("alive") and not stores.grants.find("over")
        assert stores.events.count(datetime.now(UTC) - 600 * DAY, type=EventType.SIGNED_OUT) == 1


def test_a_dry_run_counts_and_removes_nothing(run, database) -> None:
    before = counts(run("db", "purge", "--dry-run", "--json"))
    assert before["grants"] == (0, 0, 1)
    assert (before["events"], before["refusals"]) == ((0, 0, 2), (0, 0, 1))
    assert counts(run("db", "purge", "--dry-run", "--json")) == before


def test_people_get_a_table(run, database) -> None:
    said = run("db", "purge").stdout
    assert re.search(r"kind +removed +removed with them +left", said)
    assert re.search(r"^grants +1 +3 +0", said, re.MULTILINE)
    assert {line.split()[0] for line in said.splitlines()[1:]} == KINDS


def test_what_is_kept_for_ever_is_not_in_it(run, database, ini) -> None:
    text = ini.read_text()
    ini.write_text(text.replace("# authserver.event_lifetime = 31536000", "authserver.event_lifetime = 0"))
    assert "events" not in counts(run("db", "purge", "--json"))


def test_it_needs_the_tables_of_this_version(bare, ini) -> None:
    (ini.parent / ".local").mkdir()
    (ini.parent / ".local/secret_keys").write_text(bare("keys", "secret").stdout)
    answer = bare("db", "purge")
    assert answer.exit_code == 1
    assert "authserver db upgrade" in answer.output


def test_interrupting_it_loses_nothing_and_leaves_whole_batches(run, database, ini) -> None:
    """R-10: what was removed until Ctrl-C is told, and the next run does the rest; the bar shows how far it came."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql(MANY_EVENTS)
    command = "from authserver.cli import main; main()"
    terminal, inside = pty.openpty()
    purge = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", command, "-c", str(ini), "db", "purge"],
        stdout=subprocess.PIPE,
        stderr=inside,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(inside)
    shown = b""
    while not re.search(rb"Removing.*[1-9]\d{3,}/", shown):
        shown += os.read(terminal, 4096)
    purge.send_signal(signal.SIGINT)
    said, _ = purge.communicate(timeout=30)
    os.close(terminal)
    assert purge.returncode == 1
    (removed, left) = re.findall(r"^events +(\d+) +0 +(\d+)", said, re.MULTILINE)[0]
    assert int(removed) + int(left) == 150_002
    assert 0 < int(removed) < 150_002
    assert counts(run("db", "purge", "--json"))["events"] == (int(left), 0, 0)


def test_somebody_who_writes_for_long_does_not_end_it(run, database) -> None:
    """T110, T114: a batch that could not begin in time is tried again."""
    held = threading.Event()

    def hold() -> None:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            held.set()
            time.sleep(SQLITE_BUSY_TIMEOUT + 1)
            connection.exec_driver_sql("ROLLBACK")

    with ThreadPoolExecutor(1) as threads:
        threads.submit(hold)
        held.wait(timeout=10)
        assert counts(run("db", "purge", "--json"))["grants"] == (1, 3, 0)
