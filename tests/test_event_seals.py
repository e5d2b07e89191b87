"""T147: what is stored in real databases is sealed by a running server, and proven by a command."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from authserver import upkeep
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.event_proof import Proof, verify
from authserver.engine.event_seals import Sealer, digest_of, note_deletion
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import EventType
from authserver.engine.upkeep_records import Disposable
from authserver.event_readers import Reading
from authserver.storage.database import Database
from authserver.testing.records import NOW, an_event, an_event_seal
from authserver.testing.server import Server

RING = KeyRing([("k", b"1" * 32)])
DAY = timedelta(days=1)
ODD = {
    "float": 0.1,
    "whole": 1e3,
    "large": 1e22,
    "zero": -0.0,
    "deep": {"z": [1, None, True], "a": "ü\u2028\U0001f600"},
    "number": 2**53,
}


def clock() -> datetime:
    return datetime.now(UTC)


def store(storage: Database, *event_ids: str, **changes: Any) -> None:
    for event_id in event_ids:
        with storage.begin() as stores:
            stores.events.add(an_event(event_id=event_id, **changes))


def set_position(storage: Database) -> None:
    """Numbers of other tests have gone before."""
    with storage.begin() as stores:
        ((number, _),) = stores.events.following(0, limit=1)
        stores.event_positions.move("seals", 0, number - 1)


def seal(storage: Database) -> None:
    reading = Reading(storage, Sealer(RING, clock))
    while reading.work():
        pass


def run(storage: Database, statement: str, **values: Any) -> None:
    with storage.engine.connect() as connection:
        connection.execute(sa.text(statement), values)


def proven(storage: Database, ring: KeyRing, **options: Any) -> Proof:
    return verify(storage, ring, now=datetime.now(UTC), **options)


def found(storage: Database) -> tuple[bool | None, str]:
    proof = proven(storage, RING)
    return proof.whole, proof.finding.record.split()[0] if proof.finding else ""


@pytest.fixture
def sealed(database: Database) -> Database:
    """Three sealed events, with all that JSON can hold."""
    store(database, "a", "b", "c", details=ODD, decisions=({"slot": "scope_decision", "facts": ODD},))
    set_position(database)
    seal(database)
    assert found(database) == (True, "")
    return database


CHANGES = {
    "event_id": "another",
    "type": "token.refused",
    "at": NOW + DAY,
    "actor": "client:other",
    "source": "198.51.100.1",
    "request_id": "another",
    "client_id": None,
    "user_id": "user_ada",
    "grant_id": "g",
    "reason": "other",
    "decisions": "[]",
    "details": '{"float": 0.2}',
}


def test_a_change_of_any_column_is_noticed(sealed: Database) -> None:
    for column, value in CHANGES.items():
        kind = {"at": sa.DateTime(timezone=True), "decisions": sa.JSON, "details": sa.JSON}.get(column)
        cast = f"CAST(:value AS {'jsonb' if sealed.engine.dialect.name == 'postgresql' else 'text'})"
        new = cast if kind is sa.JSON else ":value"
        with sealed.engine.connect() as connection:
            before = connection.execute(
                sa.text(f"SELECT CAST({column} AS text) FROM events WHERE event_id = 'b'")
            )
            old = before.scalar_one()
        run(sealed, f"UPDATE events SET {column} = {new} WHERE event_id = 'b'", value=value)
        assert found(sealed) == (False, "event"), column
        name = "another" if column == "event_id" else "b"
        back = ":value"
        if sealed.engine.dialect.name == "postgresql":
            types = {"at": "timestamptz", "decisions": "jsonb", "details": "jsonb"}
            back = f"CAST(:value AS {types.get(column, 'text')})"
        run(sealed, f"UPDATE events SET {column} = {back} WHERE event_id = '{name}'", value=old)
        assert found(sealed) == (True, ""), column


def test_a_seal_stays_good_on_the_other_kind_of_database(sqlite_url: str, postgresql_url: str) -> None:
    """Numbers, the order of members and times come back as something that has the same digest."""
    times = [NOW, NOW.replace(microsecond=123456), datetime(1970, 1, 1, tzinfo=UTC)]
    digests = []
    for url in (sqlite_url, postgresql_url):
        database = Database(url)
        for number, at in enumerate(times):
            store(database, f"e{number}", at=at, details=ODD, decisions=({"slot": "s", "facts": ODD},))
        with database.begin() as stores:
            digests.append([digest_of(1, event) for _, event in stores.events.following(0, limit=9)])
        database.close()
    assert len(digests[0]) == len(times)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("type", "token.melted"),
        ("decisions", "nonsense {"),
        ("decisions", "[1, 2]"),
        ("decisions", "5"),
        ("details", "nonsense {"),
        ("details", "[]"),
        ("at", "yesterday"),
        ("actor", b"\xff"),
    ],
)
def test_what_was_written_by_hand_is_sealed_as_it_was_found(sqlite_url: str, column: str, value: Any) -> None:
    """Nothing that is in a row stops those who read, and what is changed of it later is noticed."""
    database = Database(sqlite_url)
    store(database, "a", "b", "c")

    def write(value: Any) -> None:
        path = sqlite_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE events SET {column} = ? WHERE event_id = 'b'", (value,))
            connection.commit()

    write(value)
    seal(database)
    proof = proven(database, RING)
    assert (proof.whole, proof.events) == (True, 3)
    write({"at": "2026-11-30 10:42:05.000000", "actor": b"\xfe"}.get(column, "nothing"))
    assert found(database) == (False, "event")
    database.close()


@pytest.mark.parametrize("column", ["type", "at", "actor", "reason", "decisions", "details"])
def test_text_that_is_no_utf_8_is_sealed_at_the_second_attempt(sqlite_url: str, column: str) -> None:
    """A connection reads such text once it has met it; `audit verify` does from the beginning."""
    database = Database(sqlite_url)
    store(database, "a", "b", "c")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"UPDATE events SET {column} = CAST(x'7bff' AS TEXT) WHERE event_id = 'b'")
        connection.commit()
    with pytest.raises(StorageUnavailable, match="UTF-8"):
        seal(database)
    seal(database)
    database.close()
    database = Database(sqlite_url, any_text=True)
    proof = proven(database, RING)
    assert (proof.whole, proof.events) == (True, 3)
    database.close()


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("event_seals", "number", "two"),
        ("event_seals", "first", "two"),
        ("event_seals", "last", 10**15),
        ("event_seals", "sealed_at", "yesterday"),
        ("event_seals", "form", "x"),
        ("event_seals", "types", "nonsense {"),
        ("event_seals", "types", "7"),
        ("event_seals", "entries", "text"),
        ("event_seals", "previous", 7),
        ("event_seals", "hash", "text"),
        ("event_seals", "mac", "text"),
        ("event_deletions", "until", "nonsense"),
        ("event_deletions", "mac", "text"),
        ("event_positions", "number", "nonsense"),
    ],
)
def test_what_no_server_writes_is_named_and_ends_no_proof(
    sqlite_url: str, table: str, column: str, value: object
) -> None:
    """By hand, where SQLite lets anything in."""
    database = Database(sqlite_url)
    for event_id in "abc":
        store(database, event_id)
        seal(database)
    with database.begin() as stores:
        note_deletion(stores, RING, "events", NOW - DAY)
    which = {"event_seals": "number = 2"}.get(table, "1 = 1")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {which}", (value,))
        connection.commit()
    proof = proven(database, RING)
    assert proof.whole is False
    assert proof.finding is not None
    assert "seal" in proof.finding.record or "the note" in proof.finding.record
    database.close()


@pytest.mark.parametrize("column", ["mac", "hash", "key_id"])
@pytest.mark.parametrize("value", ["text", 7, b"7"])
def test_whatever_the_last_seal_says_those_that_follow_are_made(
    sqlite_url: str, column: str, value: object
) -> None:
    database = Database(sqlite_url)
    store(database, "a")
    seal(database)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"UPDATE event_seals SET {column} = ?", (value,))
        connection.commit()
    store(database, "b")
    seal(database)
    proof = proven(database, RING)
    assert (proof.whole, proof.unsealed) == (False, 0)
    database.close()


def test_clean_up_by_age_and_kind_leaves_a_proof(database_url: str) -> None:
    """What clean-up deletes is explained, what anybody else deletes is not, whatever is deleted in between."""
    server = Server(
        database_url,
        {
            "authserver.refusal_lifetime": "86400",
            "authserver.issuance_lifetime": "864000",
            "authserver.event_lifetime": "8640000",
        },
    )
    storage, caretaker = server.application.storage, server.application.caretaker
    sealer = Reading(storage, Sealer(server.application.parts.ring, clock))

    def proof() -> Any:
        return proven(storage, server.application.parts.ring)

    now = datetime.now(UTC)
    kinds = [EventType.TOKEN_REFUSED, EventType.TOKEN_ISSUED, EventType.CLIENT_CHANGED, EventType.CODE_ISSUED]
    for number in range(40):
        store(storage, f"e{number}", type=kinds[number % 4], at=now - number * 5 * DAY)
    set_position(storage)
    while sealer.work():
        pass
    assert proof().whole is True
    caretaker.work()
    after = proof()
    assert after.whole is True
    with storage.begin() as stores:
        left = {event.type: event for event in stores.events.since(datetime(1970, 1, 1, tzinfo=UTC))}
        oldest = min((event.at, event.type) for event in left.values())
    assert after.deleted >= 29
    assert now - oldest[0] < 101 * DAY
    assert oldest[1] == EventType.CLIENT_CHANGED
    run(storage, "DELETE FROM events WHERE event_id = :one", one=left[EventType.CLIENT_CHANGED].event_id)
    broken = proof()
    assert broken.whole is False
    assert "before it had expired" in broken.finding.problem
    server.close()


def test_two_processes_seal_each_event_once_while_others_write(database: Database) -> None:
    """In one chain, whoever has the turn."""
    store(database, "first")
    set_position(database)
    readings = [Reading(database, Sealer(RING, clock)) for _ in range(2)]
    for number in range(12):
        store(database, f"e{number}")
        readings[number % 2].work()
        if number % 3 == 0:
            readings[(number + 1) % 2].work()
    seal(database)
    proof = proven(database, RING)
    assert (proof.whole, proof.events, proof.unsealed) == (True, 13, 0)


@pytest.mark.postgresql
def test_no_writer_waits_for_a_seal_that_is_being_written(postgresql_url: str) -> None:
    """Neither does sealing wait for a writer: what it has not committed is not sealed yet."""
    database = Database(postgresql_url)
    store(database, "first")
    set_position(database)
    with database.begin() as writer:
        writer.events.add(an_event(event_id="uncommitted"))
        with database.begin() as sealer:
            ((number, _),) = sealer.events.following(0, limit=9)
            sealer.event_positions.move("seals", number - 1, number)
            sealer.event_seals.add(an_event_seal(first=1, last=number))
            store(database, "meanwhile")
        with database.begin() as stores:
            assert [event.event_id for _, event in stores.events.following(0, limit=9)] == [
                "first",
                "meanwhile",
            ]
    database.close()


def test_a_purge_during_the_proof_breaks_nothing(database: Database) -> None:
    for number in range(60):
        store(database, f"e{number}", at=NOW + number * DAY)
        if not number:
            set_position(database)
        if number % 2:
            seal(database)
    purged: list[int] = []

    def told(done: int, total: int) -> None:
        """After each seal, of events further on."""
        before = {Disposable.EVENTS: NOW + (len(purged) * 3) * DAY}
        purged.append(
            sum(batch.removed for _, batch in upkeep.remove_all(database, RING, before, lambda _: None))
        )
        upkeep.remove_old(database, RING)

    proof = proven(database, RING, told=told)
    assert (proof.whole, proof.finding) == (True, None)
    assert sum(purged) > 30


def test_the_head_is_logged(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever cuts off the end of the chain cannot do so in the log."""
    caplog.set_level("INFO", logger="authserver.engine.event_seals")
    sealer = Reading(database, Sealer(RING, clock))
    for event_id in "abc":
        store(database, event_id)
        if event_id == "a":
            set_position(database)
        sealer.work()
    (message,) = caplog.messages
    head = message.rpartition(" ")[2]
    assert proven(database, RING, head=head).whole is True
    assert hashlib.sha256().digest_size * 2 == len(head.partition("-")[2])


def test_a_running_server_seals(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the parts that a process has."""
    monkeypatch.setattr(Sealer, "interval", 0.05)
    server = Server(sqlite_url)
    server.add_user("ann")
    application = server.application
    for reading in application.readings:
        reading.start()
    end = time.monotonic() + 10
    while (proof := proven(application.storage, application.parts.ring)).unsealed:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert proof.events > 0
    server.close()


def test_each_seal_is_found_by_an_index(sqlite_url: str) -> None:
    """T116: however many there are."""
    database = Database(sqlite_url)
    plans: dict[str, list[str]] = {}

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if "FROM event_seals" in statement and not statement.startswith("EXPLAIN"):
            rows = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans[statement] = [str(row[3]) for row in rows]

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    with database.begin() as stores:
        stores.event_seals.following(7, limit=20)
        stores.event_seals.last()
        stores.event_seals.since(NOW)
        stores.event_seals.find(b"hash")
        stores.event_seals.remove_until(7)
    assert len(plans) == 5
    for statement, plan in plans.items():
        step = plan[0]
        is_walk_from_its_end = step.startswith("SCAN event_seals USING INDEX") and "LIMIT" in statement
        assert step.startswith("SEARCH event_seals USING") or is_walk_from_its_end, (statement, step)
    database.close()
