"""`authserver initial-token`: made, shown once, listed and revoked; and what `client list` says of states."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authserver.cli.configuration import Configuration

COMMAND = "initial-token"
POLICIES = "    partners = scopes profile\n    internal = clients 2\n"


@pytest.fixture
def told(told, ini):
    """What the command prints as JSON, on a server with two registration policies."""
    text = ini.read_text().replace("    registration_open\n", "    registration_token\n")
    text = text.replace("authserver.plugin.registration_open.", "# authserver.plugin.registration_open.")
    line = f"authserver.plugin.registration_token.policies =\n{POLICIES}\n"
    ini.write_text(text.replace("[server:main]", f"{line}[server:main]", 1))
    return told


def database(ini: Path) -> bytes:
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection:
        return "\n".join(connection.iterdump()).encode()


def test_a_token_is_shown_once_and_listed_without_it(told, run, ini) -> None:
    """R-01: stored is its digest."""
    assert "There are none" in run("initial-token", "list").stdout
    made = run(
        "initial-token", "add", "--policy", "partners", "--uses", "5", "--expires", "7d", "--note", "CI"
    )
    assert made.exit_code == 0, made.output
    assert "will not be shown again" in made.stderr
    (token,) = [word for word in made.stdout.split() if word.startswith("as_initial_")]
    listed = run("initial-token", "list")
    assert token not in listed.output
    assert token.encode() not in database(ini)
    (row,) = told("list")
    assert (row["policy"], row["state"], row["used"], row["uses"]) == ("partners", "live", 0, 5)
    assert (row["note"], row["made_by"]) == ("CI", "command:initial-token add")
    left = datetime.fromisoformat(row["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)


def test_one_use_and_a_month_are_what_there_is_without_options(told) -> None:
    made = told("add", "--policy", "partners")
    assert made["uses"] == 1
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lasts == timedelta(days=30)
    assert made["token"].startswith("as_initial_")
    assert told("add", "--policy", "internal", "--unlimited")["uses"] is None


def test_a_token_is_revoked_by_its_id_and_the_event_says_who_did_it(told, run, ini) -> None:
    made = told("add", "--policy", "partners")
    revoked = run("initial-token", "revoke", made["initial_token"])
    assert revoked.exit_code == 0, revoked.output
    assert told("list")[0]["state"] == "revoked"
    again = run("initial-token", "revoke", made["initial_token"])
    assert again.exit_code == 1
    assert "revoked already" in again.output
    with Configuration(ini).engine() as engine:
        events = [event for event in engine.stores.events.latest() if event.type.startswith("initial_token")]
    assert [(event.type, event.actor) for event in events] == [
        ("initial_token.revoked", "command:initial-token revoke"),
        ("initial_token.added", "command:initial-token add"),
    ]
    assert all(event.details["initial_token"] == made["initial_token"] for event in events)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--policy", "partner"], "no such policy; did you mean partners"),
        ([], "--policy"),
        (["--policy", "partners", "--uses", "0"], "--uses"),
        (["--policy", "partners", "--uses", "3", "--unlimited"], "--unlimited: not with --uses"),
        (["--policy", "partners", "--expires", "0"], "it could never be used"),
        (["--policy", "partners", "--expires", "soon"], "not a duration"),
        (["--policy", "partners", "--note", "x" * 201], "a note has up to 200 characters"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(told, run, arguments, problem) -> None:
    result = run("initial-token", "add", *arguments)
    assert result.exit_code == 2
    assert problem in result.output
    assert told("list") == []


def test_without_policies_the_command_says_what_to_add(run, ini) -> None:
    without = run("initial-token", "add", "--policy", "partners")
    assert without.exit_code == 1
    assert "list registration_token there" in without.output
    text = ini.read_text().replace("    registration_open\n", "    registration_token\n")
    ini.write_text(
        text.replace("authserver.plugin.registration_open.", "# authserver.plugin.registration_open.")
    )
    none = run("initial-token", "add", "--policy", "partners")
    assert none.exit_code == 1
    assert "authserver.plugin.registration_token.policies" in none.output


def test_clients_are_listed_by_their_state(run, ini) -> None:
    """K-09: new, used, idle and gone."""
    with Configuration(ini).engine() as engine:
        now = engine.now
        engine.stores.clients.touch("demo-service", now - timedelta(days=1))
        engine.stores.clients.disable("playground", now)
    run("client", "add", "--name", "Idle", "--client-id", "idle", "--scope", "profile")
    run("client", "add", "--name", "New", "--client-id", "new", "--scope", "profile")
    with Configuration(ini).engine() as engine:
        engine.stores.clients.touch("idle", now - timedelta(days=31))

    def listed(*states: str) -> dict[str, str]:
        options = [option for state in states for option in ("--state", state)]
        rows = json.loads(run("client", "list", "--json", *options).stdout)
        return {row["client_id"]: row["state"] for row in rows}

    expected = {"demo-service": "used", "playground": "gone", "idle": "idle", "new": "new"}
    assert listed().items() >= expected.items()
    assert listed("idle") == {"idle": "idle"}
    assert listed("gone", "used") == {"demo-service": "used", "playground": "gone"}
    shown = json.loads(run("client", "show", "idle", "--json").stdout)
    assert shown["state"] == "idle"
    assert shown["last_used_at"].startswith((now - timedelta(days=31)).date().isoformat())
    assert (shown["registered_from"], shown["initial_token"], shown["registration_policy"]) == (
        None,
        None,
        None,
    )
    assert "used" in run("client", "list", "--state", "used").stdout
    run("client", "disable", "idle")
    assert run("client", "list", "--state", "idle").stdout == "No client is idle.\n"
    assert run("client", "list", "--state", "old").exit_code == 2
