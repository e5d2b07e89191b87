"""`authserver grant`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authserver.cli.configuration import Configuration
from authserver.engine.records import Event, EventType
from authserver.testing.records import a_consent, a_grant

DAY = timedelta(days=1)


@pytest.fixture
def granted(run, ini: Path) -> Configuration:
    """The users demo and ada; demo let `playground` in twice and `gone` once, ada `playground` once."""
    run("user", "add", "ada", "--password-stdin", stdin="correct horse battery\n")
    configuration = Configuration(ini)
    now = datetime.now(UTC)
    with configuration.engine() as engine:
        users = {user.username: user.user_id for user in engine.stores.users.list()}
        rows = [("demo", "playground"), ("demo", "playground"), ("demo", "gone"), ("ada", "playground")]
        for number, (name, client_id) in enumerate(rows):
            engine.stores.grants.add(
                a_grant(
                    grant_id=f"grant_{number}",
                    client_id=client_id,
                    user_id=users[name],
                    created_at=now + timedelta(seconds=number),
                    expires_at=now + DAY,
                )
            )
            engine.stores.consents.remember(a_consent(user_id=users[name], client_id=client_id))
    return configuration


def live(run) -> list[str]:
    return [row["grant_id"] for row in json.loads(run("grant", "list", "--json").stdout)]


def revocations(configuration: Configuration) -> list[Event]:
    with configuration.engine() as engine:
        since = engine.now - DAY
        return [
            event
            for kind in (EventType.GRANT_REVOKED, EventType.GRANTS_REVOKED)
            for event in engine.stores.events.since(since, type=kind)
        ]


def remembered(configuration: Configuration, username: str, client_id: str) -> bool:
    with configuration.engine() as engine:
        user = engine.stores.users.find_by_name(username)
        return engine.stores.consents.find(user.user_id, client_id) is not None


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["grant_3", "grant_2", "grant_1", "grant_0"]),
        (["--user", "DEMO"], ["grant_2", "grant_1", "grant_0"]),
        (["--client", "playground"], ["grant_3", "grant_1", "grant_0"]),
        (["--user", "demo", "--client", "playground"], ["grant_1", "grant_0"]),
        (["--client", "nobody"], []),
    ],
    ids=["all", "user", "client", "both", "none"],
)
def test_live_grants_are_listed(run, granted: Configuration, options: list[str], found: list[str]) -> None:
    """E-16: newest first, of a person, an application or both."""
    rows = json.loads(run("grant", "list", *options, "--json").stdout)
    assert [row["grant_id"] for row in rows] == found
    table = run("grant", "list", *options).stdout
    assert all(grant_id in table for grant_id in found)
    assert found or "no live grants" in table


def test_a_grant_is_listed_with_what_it_is_about(run, granted: Configuration) -> None:
    """E-16: by the user's name, in the words of the protocol."""
    row = json.loads(run("grant", "list", "--user", "ada", "--json").stdout)[0]
    assert (row["username"], row["client_id"]) == ("ada", "playground")
    assert row["user_id"].startswith("user_")
    assert row["last_used_at"] is None and row["created_at"].endswith("Z") and row["expires_at"].endswith("Z")
    assert isinstance(row["scope"], str) and isinstance(row["resources"], list)


def test_one_grant_is_revoked(run, granted: Configuration) -> None:
    """E-16: the others live; a second time there is nothing to revoke."""
    result = run("grant", "revoke", "grant_0")
    assert result.exit_code == 0, result.output
    assert live(run) == ["grant_3", "grant_2", "grant_1"]
    (event,) = revocations(granted)
    assert (event.grant_id, event.client_id, event.reason) == ("grant_0", "playground", "disconnected")
    again = run("grant", "revoke", "grant_0")
    assert again.exit_code == 1 and "authserver grant list" in again.stderr
    assert run("grant", "revoke", "unknown").exit_code == 1


def test_all_grants_of_a_person_are_revoked(run, granted: Configuration) -> None:
    """E-16, I-14: nobody else's; what was agreed to is forgotten."""
    result = run("grant", "revoke", "--user", "demo", "--json")
    assert json.loads(result.stdout) == {"grants_revoked": 3}
    assert live(run) == ["grant_3"]
    assert not remembered(granted, "demo", "playground") and not remembered(granted, "demo", "gone")
    assert remembered(granted, "ada", "playground")
    (event,) = revocations(granted)
    assert (event.type, event.details) == (EventType.GRANTS_REVOKED, {"grants": 3})


def test_one_application_of_a_person_is_disconnected(run, granted: Configuration) -> None:
    """E-16: as when the person does it; the application must ask again."""
    result = run("grant", "revoke", "--user", "demo", "--client", "playground")
    assert result.stdout == "Grants revoked: 2.\n"
    assert live(run) == ["grant_3", "grant_2"]
    assert not remembered(granted, "demo", "playground") and remembered(granted, "demo", "gone")


@pytest.mark.parametrize(
    "words",
    [[], ["grant_0", "--user", "demo"], ["--client", "playground"], ["grant_0", "--client", "playground"]],
    ids=["nothing", "both", "client alone", "grant and client"],
)
def test_what_to_revoke_must_be_clear(run, granted: Configuration, words: list[str]) -> None:
    """A slip must not end more than was meant."""
    result = run("grant", "revoke", *words)
    assert result.exit_code == 2
    assert "--user NAME" in result.stderr
    assert len(live(run)) == 4


@pytest.mark.parametrize("command", ["list", "revoke"])
def test_an_unknown_person_is_named(run, command: str) -> None:
    result = run("grant", command, "--user", "nobody")
    assert result.exit_code == 1 and "nobody: no such user" in result.stderr
