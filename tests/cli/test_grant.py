"""`authserver grant`."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from authserver.cli.configuration import Configuration
from authserver.engine.records import Event, EventType
from authserver.testing.records import a_consent, a_grant

DAY = timedelta(days=1)


@pytest.fixture
def granted(run, ini: Path) -> Configuration:
    """The users demo and ada; demo let `playground` in twice and `gone` once, ada `playground` once.

    All is remembered, and so is what demo agreed to for `past`.
    """
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
        past = a_consent(user_id=users["demo"], client_id="past")
        engine.stores.consents.remember(past)
    return configuration


def live(run) -> list[str]:
    return [row["grant_id"] for row in listed(run)]


def listed(run, *options: str, what: str = "list") -> list[dict[str, Any]]:
    return list(json.loads(run("grant", what, *options, "--json").stdout))


def revocations(configuration: Configuration) -> list[Event]:
    with configuration.engine() as engine:
        since = engine.now - DAY
        return [
            event
            for kind in (EventType.GRANT_REVOKED, EventType.GRANTS_REVOKED, EventType.CONSENT_ENDED)
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
    rows = listed(run, *options)
    assert [row["grant_id"] for row in rows] == found
    table = run("grant", "list", *options).stdout
    assert all(grant_id in table for grant_id in found)
    assert found or "no live grants" in table


def test_a_grant_is_listed_with_what_it_is_about(run, granted: Configuration) -> None:
    """E-16: by the user's name, in the words of the protocol."""
    row = listed(run, "--user", "ada")[0]
    assert (row["username"], row["client_id"]) == ("ada", "playground")
    assert row["user_id"].startswith("user_")
    assert row["last_used_at"] is None and row["created_at"].endswith("Z") and row["expires_at"].endswith("Z")
    assert isinstance(row["scope"], str) and isinstance(row["resources"], list)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], {("demo", "playground"), ("demo", "gone"), ("demo", "past"), ("ada", "playground")}),
        (["--user", "DEMO"], {("demo", "playground"), ("demo", "gone"), ("demo", "past")}),
        (["--client", "past"], {("demo", "past")}),
        (["--user", "ada", "--client", "past"], set()),
    ],
    ids=["all", "user", "client", "none"],
)
def test_remembered_consents_are_listed(
    run, granted: Configuration, options: list[str], found: set[tuple[str, str]]
) -> None:
    """E-12, E-16: also those that outlived their grants."""
    rows = listed(run, *options, what="consents")
    assert {(row["username"], row["client_id"]) for row in rows} == found
    assert all(row["scope"] == "read" and row["granted_at"].endswith("Z") for row in rows)
    table = run("grant", "consents", *options).stdout
    assert all(client_id in table for _, client_id in found)
    assert found or "no remembered consents" in table
    assert f"Remembered consents: {len(found)}." in run("grant", "list", *options).stdout


@pytest.mark.parametrize("what", ["list", "consents"])
def test_pages_follow_one_another(run, granted: Configuration, what: str) -> None:
    """Each says how to get the next one."""
    whole = listed(run, what=what)
    found: list[dict[str, Any]] = []
    options = ["--limit", "1", "--json"]
    while options:
        result = run("grant", what, *options)
        assert result.exit_code == 0, result.output
        found += json.loads(result.stdout)
        options = shlex.split(result.stderr.strip().splitlines()[-1])[5:] if result.stderr else []
    assert found == whole and len(found) == 4
    if what == "list":
        assert run("grant", "list", "--after", "unknown").exit_code == 2


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["grant_0"], "Revoke grant_0, with all its codes and tokens?"),
        (["--user", "demo"], "Revoke the grants of demo? Would end: 3 grants, 3 remembered consents."),
        (["--user", "demo", "--client", "gone"], "to gone? Would end: 1 grant, 1 remembered consent."),
    ],
    ids=["one", "a person", "an application"],
)
def test_a_person_at_a_terminal_is_asked_first(
    run, granted: Configuration, monkeypatch: pytest.MonkeyPatch, options: list[str], asked: str
) -> None:
    """With how much would end; --yes asks nothing."""
    monkeypatch.setattr("authserver.cli.ending.is_interactive", lambda: True)
    result = run("grant", "revoke", *options, stdin="n\n")
    assert result.exit_code == 1 and asked in result.stderr
    assert len(live(run)) == 4
    assert asked not in run("grant", "revoke", *options, "--yes").output
    assert len(live(run)) < 4


def test_a_consent_without_a_grant_ends(run, granted: Configuration) -> None:
    """E-16: one that is over already, of nobody here or of another person, ends nothing."""
    result = run("grant", "revoke", "--user", "demo", "--client", "past", "--json")
    assert json.loads(result.stdout) == {"grants": 0, "consents": 1}
    assert not remembered(granted, "demo", "past")
    (event,) = revocations(granted)
    assert (event.type, event.client_id, event.details) == (EventType.CONSENT_ENDED, "past", {"consents": 1})
    for user, client_id in (("demo", "past"), ("ada", "gone"), ("ada", "never heard of")):
        again = run("grant", "revoke", "--user", user, "--client", client_id)
        assert again.stdout == "Nothing ended.\n"
    assert len(revocations(granted)) == 1


def test_the_last_grant_takes_the_consent_along(run, granted: Configuration) -> None:
    """E-16: while another grant of this person to this client is live, the consent stays."""
    assert run("grant", "revoke", "grant_0").stdout == "Ended: 1 grant.\n"
    assert remembered(granted, "demo", "playground")
    assert run("grant", "revoke", "grant_1").stdout == "Ended: 1 grant, 1 remembered consent.\n"
    assert not remembered(granted, "demo", "playground")
    assert remembered(granted, "demo", "gone") and remembered(granted, "ada", "playground")


def test_one_grant_is_revoked(run, granted: Configuration) -> None:
    """E-16: the others live; a second time there is nothing to revoke."""
    result = run("grant", "revoke", "grant_0")
    assert result.exit_code == 0, result.output
    assert live(run) == ["grant_3", "grant_2", "grant_1"]
    (event,) = revocations(granted)
    assert (event.grant_id, event.client_id, event.reason) == ("grant_0", "playground", "disconnected")
    # What it was.
    assert event.details.keys() == {"scopes", "resources"} and event.details["scopes"]
    again = run("grant", "revoke", "grant_0")
    assert again.exit_code == 1 and "authserver grant list" in again.stderr
    assert run("grant", "revoke", "unknown").exit_code == 1


def test_all_grants_of_a_person_are_revoked(run, granted: Configuration) -> None:
    """E-16, I-14: nobody else's; what was agreed to is forgotten."""
    result = run("grant", "revoke", "--user", "demo", "--json")
    assert json.loads(result.stdout) == {"grants": 3, "consents": 3}
    assert live(run) == ["grant_3"]
    assert not remembered(granted, "demo", "playground") and not remembered(granted, "demo", "gone")
    assert remembered(granted, "ada", "playground")
    assert [(event.type, event.details) for event in revocations(granted)] == [
        (EventType.GRANTS_REVOKED, {"grants": 3}),
        (EventType.CONSENT_ENDED, {"consents": 3}),
    ]


def test_one_application_of_a_person_is_disconnected(run, granted: Configuration) -> None:
    """E-16: as when the person does it; the application must ask again."""
    result = run("grant", "revoke", "--user", "demo", "--client", "playground")
    assert result.stdout == "Ended: 2 grants, 1 remembered consent.\n"
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
