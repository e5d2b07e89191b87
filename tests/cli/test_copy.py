"""`authserver db copy`: from SQLite to PostgreSQL and back, with proof."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from authserver.cli import main
from authserver.engine.event_seals import Sealer
from authserver.event_readers import Reading
from authserver.storage import transfer
from authserver.storage.database import Database
from authserver.testing.server import Server
from tests.faults.conftest import write_ini


@pytest.fixture
def lived_in(sqlite_url: str) -> str:
    """A database in which something happened: tokens, a consent, a refusal, sealed events."""
    server = Server(sqlite_url, {"authserver.opaque_resources": "https://files.example/"})
    server.add_user("ann")
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    server.refresh(client, secret, tokens["refresh_token"])
    server.redeem(client, secret, "as_code_unknown")
    reading = Reading(
        server.application.storage, Sealer(server.application.parts.ring, lambda: datetime.now(UTC))
    )
    assert reading.work()
    server.close()
    # As after a clean-up: the next event must not get a number again.
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE sqlite_sequence SET seq = 500 WHERE name = 'events'")
        connection.commit()
    return sqlite_url


def run(tmp_path, source: str, target: str, *more: str):
    ini = write_ini(tmp_path, source)
    return CliRunner().invoke(main, ["-c", str(ini), "db", "copy", "--to", target, *more])


@pytest.mark.postgresql
def test_everything_is_copied_to_postgresql_and_back(lived_in, empty_postgresql_url, tmp_path) -> None:
    """The server goes on there: the same tokens, the same chain of events, and the next number."""
    there = run(tmp_path, lived_in, empty_postgresql_url)
    assert there.exit_code == 0, there.output
    assert "rows are the same in both databases. The chain of the audit events is whole." in there.stdout
    server = Server(empty_postgresql_url)
    numbers = [row["number"] for row in server.rows("events")]
    client, secret = server.add_client()
    server.redeem(client, secret, server.code(client))
    assert min(row["number"] for row in server.rows("events") if row["number"] not in numbers) == 501
    server.close()

    back = run(tmp_path, empty_postgresql_url, f"sqlite:///{tmp_path}/back.db", "--json")
    assert back.exit_code == 0, back.output
    told = json.loads(back.stdout)
    assert (told["events_are_proven"], told["tables"]["users"]) == (True, 1)
    assert told["rows"] == sum(told["tables"].values()) > 10


def test_what_is_not_empty_is_not_touched(lived_in, tmp_path) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    assert run(tmp_path, lived_in, other).exit_code == 0
    again = run(tmp_path, lived_in, other)
    assert again.exit_code == 1
    assert "nothing was copied: the target is not empty" in again.stderr


def test_what_is_written_meanwhile_is_noticed(lived_in, tmp_path) -> None:
    """A copy that lacks what a server wrote during it would revive what ended: it is not kept."""
    from authserver.storage import migrate

    target_url = f"sqlite:///{tmp_path}/target.db"
    migrate.upgrade(target_url)
    source, target, server = Database(lived_in), Database(target_url), Server(lived_in)

    def told(table: str, _rows: int) -> None:
        if table == "users":
            server.add_user("bob")

    with pytest.raises(transfer.NotCopied, match="stop all servers"):
        transfer.copy(source, target, told)
    assert transfer.count(target) == 0
    for each in (source, target, server):
        each.close()


@pytest.mark.postgresql
def test_a_row_that_the_target_cannot_hold_is_named(lived_in, empty_postgresql_url, tmp_path) -> None:
    """SQLite keeps a NUL in a text, PostgreSQL does not."""
    with closing(sqlite3.connect(lived_in.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE users SET display_name = 'a' || char(0) || 'b'")
        connection.commit()
    done = run(tmp_path, lived_in, empty_postgresql_url)
    assert done.exit_code == 1
    assert "users: the target refuses one of 1 rows" in done.stderr


def test_an_address_that_is_none_is_not_repeated(lived_in, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TARGET", "mysql://me:secret@host/db")
    done = run(tmp_path, lived_in, "env:TARGET")
    assert done.exit_code == 2
    assert "postgresql+psycopg://" in done.stderr and "secret@" not in done.stderr
