"""`authserver db restored`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from authserver.cli.configuration import Configuration
from authserver.engine.keys import ring
from authserver.engine.records import EventType, KeyState
from authserver.engine.restore import generation
from authserver.testing.records import a_consent, a_grant, a_session

NOW = datetime.now(UTC)


@pytest.fixture
def engine(ini):
    """What the database holds, in a transaction of its own: `with engine() as …`."""
    return Configuration(ini).engine


def fill(engine, grants: int = 5) -> str:
    """Grants, sessions and consents of the demo user, whose id is returned; and a key that signs."""
    with engine() as found:
        (user,) = found.stores.users.list()
        for number in range(grants):
            name = f"{number:04}"
            grant = a_grant(grant_id=name, user_id=user.user_id, expires_at=NOW + timedelta(days=1))
            found.stores.grants.add(grant)
            found.stores.sessions.add(a_session(digest=name.encode(), user_id=user.user_id))
            found.stores.consents.remember(a_consent(user_id=user.user_id, client_id=name))
        generation.replace_signing_keys(found)
    return str(user.user_id)


def living_keys(engine) -> list[str]:
    with engine() as found:
        return [key.kid for key in found.stores.signing_keys.list() if key.state(NOW) is not KeyState.REMOVED]


@contextmanager
def each_statement(hear: Callable[..., None]) -> Iterator[None]:
    """Have each statement of any connection heard."""
    sa.event.listen(sa.Engine, "after_cursor_execute", hear)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", hear)


def event_line(type: EventType, **members: Any) -> str:
    event = {"event_id": str(type), "type": type, "at": datetime.now(UTC).isoformat(), **members}
    return f"2026-01-01 00:00:00,000 INFO    authserver.events: {json.dumps(event)}\n"


def test_everything_ends_and_a_new_generation_begins(run, engine) -> None:
    """T149: and an event says so, with the numbers."""
    user_id = fill(engine)
    (before,) = living_keys(engine)

    done = run("db", "restored", "--json")

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["grants_revoked"], told["sessions_ended"], told["consents_forgotten"]) == (5, 5, 5)
    assert told["signing_keys_ended"] == [before]
    with engine() as found:
        assert found.stores.grants.list(NOW) == []
        assert found.stores.sessions.list(user_id, NOW, NOW - timedelta(days=999)) == []
        assert found.stores.consents.find(user_id, "0001") is None
        began_at = found.stores.generations.began_at()
        (event,) = found.stores.events.since(NOW, type=EventType.DATABASE_RESTORED)
    assert told["signing_keys"] == living_keys(engine) != [before]
    assert began_at is not None and began_at.isoformat() == told["began_at"] == event.details["began_at"]
    assert event.details["grants_revoked"] == 5


def test_a_thousand_rows_at_most_change_in_one_transaction(run, engine) -> None:
    """T149, T116: so that no statement is long, whatever the size of the database."""
    fill(engine, grants=2100)
    sizes: list[int] = []

    def note(_connection, cursor, statement, *_others) -> None:
        if statement.startswith(("UPDATE grants", "DELETE FROM sessions", "DELETE FROM consents")):
            sizes.append(cursor.rowcount)

    with each_statement(note):
        told = json.loads(run("db", "restored", "--json").stdout)
    assert (told["grants_revoked"], told["sessions_ended"], told["consents_forgotten"]) == (2100,) * 3
    assert sorted(sizes) == [0, 0, *[100] * 3, *[1000] * 6]


def test_it_may_be_run_again(run, engine) -> None:
    """T149: after an interruption, or because nobody knows whether it was; the last one counts."""
    fill(engine)
    first, second = (json.loads(run("db", "restored", "--json").stdout) for _ in range(2))
    assert second["began_at"] > first["began_at"]
    assert (second["grants_revoked"], second["sessions_ended"], second["consents_forgotten"]) == (0, 0, 0)
    assert second["signing_keys_ended"] == first["signing_keys"]
    assert len(living_keys(engine)) == 1


def test_an_interrupted_run_is_finished_by_the_next(run, engine, monkeypatch) -> None:
    """T149: nothing that was done is undone, and the rest is done."""
    fill(engine)
    monkeypatch.setattr(generation, "BATCH", 2)
    with each_statement(interrupt):
        assert run("db", "restored").exit_code == 1
    with engine() as found:
        assert found.stores.grants.list(NOW) == []
        assert found.stores.events.count(NOW, type=EventType.DATABASE_RESTORED) == 0
    told = json.loads(run("db", "restored", "--json").stdout)
    assert (told["grants_revoked"], told["sessions_ended"], told["consents_forgotten"]) == (0, 5, 5)


def interrupt(_connection, _cursor, statement, *_others) -> None:
    if statement.startswith("DELETE FROM sessions"):
        raise KeyboardInterrupt


def test_what_the_log_tells_is_done_again(run, engine, tmp_path) -> None:
    """T149: what follows is told, and lines that are no event are named by number, without a traceback."""
    user_id = fill(engine)
    log = tmp_path / "events.log"
    log.write_text(
        "nonsense\n"
        + event_line(EventType.PASSWORD_CHANGED, user_id=user_id)
        + event_line(EventType.CLIENT_DISABLED, client_id="demo-service")
        + event_line(EventType.CLIENT_REGISTERED, client_id="late")
        + event_line(EventType.TOKEN_ISSUED, client_id="demo-service")
        + '{"torn": \n' * 30
    )

    done = run("db", "restored", "--events", str(log))

    assert done.exit_code == 0, done.output
    assert "Lines of the log that are not events (31): 1, 6, 7" in done.stdout and "…" in done.stdout
    assert "authserver user password demo" in done.stdout
    assert "it must register again" in done.stdout
    assert "Traceback" not in done.output
    with engine() as found:
        client, user = found.stores.clients.find("demo-service", found.now), found.stores.users.find(user_id)
    assert client is not None and not client.is_enabled
    assert user is not None and user.password_hash is None
    # Doing it again changes nothing that an operator did since.
    assert run("user", "password", "demo", "--password-stdin", stdin="another password\n").exit_code == 0
    again = json.loads(run("db", "restored", "--events", "-", "--json", stdin=log.read_text()).stdout)
    assert [(row["about"], row["outcome"]) for row in again["redone"]] == [("late", "not in the backup")]
    assert again["lines_without_event"] == [1, *range(6, 36)]
    with engine() as found:
        user = found.stores.users.find(user_id)
    assert user is not None and user.password_hash is not None


def test_without_a_log_it_tells_what_to_do_by_hand(run) -> None:
    """T149: what cannot be known from the database."""
    done = run("db", "restored")
    assert done.exit_code == 0, done.output
    for words in ("disabled", "secrets", "passwords", "--events FILE"):
        assert words in done.stdout
    empty = run("db", "restored", "--events", "-")
    assert "the log has no such change" in empty.stdout
    assert "by hand" not in empty.stdout


def test_whoever_sits_at_a_terminal_is_asked_first(run, engine, monkeypatch) -> None:
    fill(engine)
    monkeypatch.setattr("authserver.cli.ending.is_interactive", lambda: True)
    refused = run("db", "restored", stdin="n\n")
    assert refused.exit_code == 1
    with engine() as found:
        assert len(found.stores.grants.list(NOW)) == 5
        assert found.stores.generations.began_at() is None
    assert run("db", "restored", "--yes").exit_code == 0
    with engine() as found:
        assert found.stores.grants.list(NOW) == []


def test_a_key_ring_that_is_not_the_one_of_the_backup_is_refused(run, engine, ini) -> None:
    """T148, T149: before anything is changed, or sealed by a key that nobody wants."""
    fill(engine)
    path = ini.parent / ".local/secret_keys"
    with engine() as found:
        ring.check_known(found)
    key_id, _, _ = path.read_text().partition(":")
    path.write_text(f"{key_id}:{run('keys', 'secret').stdout.partition(':')[2]}")
    done = run("db", "restored")
    assert done.exit_code == 1
    assert f"{key_id} is not the key" in done.output
    with engine() as found:
        assert len(found.stores.grants.list(NOW)) == 5
        assert found.stores.generations.began_at() is None


def test_a_log_that_cannot_be_read_changes_nothing(run, engine, tmp_path) -> None:
    """T149."""
    fill(engine)
    done = run("db", "restored", "--events", str(tmp_path / "nowhere.log"))
    assert done.exit_code == 1
    assert "nowhere.log" in done.output and "Traceback" not in done.output
    with engine() as found:
        assert len(found.stores.grants.list(NOW)) == 5


def test_an_older_database_is_to_be_upgraded_first(bare, ini) -> None:
    """T149: a backup may be older than the server."""
    folder = ini.parent / ".local"
    folder.mkdir()
    (folder / "secret_keys").write_text(bare("keys", "secret").stdout)
    done = bare("db", "restored")
    assert done.exit_code == 1
    assert "authserver db upgrade" in done.output
