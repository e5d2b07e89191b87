"""`authserver resource`: resources are registered, listed, changed, and removed with what hangs on them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

COMMAND = "resource"
DEMO = "http://localhost:6543/demo-api"
NOTES = "https://notes.example"


def insert(ini: Path, **grants: str) -> None:
    """Grants to the demo application, each with its resources."""
    now = datetime.now(UTC).replace(tzinfo=None)
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        (user,) = connection.execute("SELECT user_id FROM users").fetchone()
        for grant_id, resources in grants.items():
            connection.execute(
                "INSERT INTO grants (grant_id, client_id, user_id, scopes, resources, created_at, expires_at, details) "
                "VALUES (?, 'demo-app', ?, 'profile', ?, ?, ?, '{}')",
                (grant_id, user, resources, str(now), str(now + timedelta(days=1))),
            )
            connection.execute(
                "INSERT INTO tokens (kind, digest, grant_id, client_id, scopes, resources, created_at, expires_at, failures, "
                "details) VALUES ('access', ?, ?, 'demo-app', 'profile', ?, ?, ?, 0, '{}')",
                (grant_id.encode(), grant_id, resources, str(now), str(now + timedelta(minutes=5))),
            )
        connection.execute(
            "INSERT INTO consents (user_id, client_id, scopes, resources, redirect_uris, granted_at) "
            "VALUES (?, 'demo-app', 'profile', ?, '', ?)",
            (user, NOTES, str(now)),
        )


def test_a_resource_is_registered_shown_changed_and_removed(told, run) -> None:
    """The whole life of one."""
    made = told(
        "add", NOTES, "--name", "Notes", "--scope", "notes.read", "--scope", "notes.write", "--token-format", "opaque",
        "--token-lifetime", "5m", "--introspecting-client", "demo-service",
    )  # fmt: skip
    assert made.pop("created_at")
    assert made == {
        "resource": NOTES,
        "name": "Notes",
        "scopes": ["notes.read", "notes.write"],
        "token_format": "opaque",
        "token_lifetime": 300,
        "default": False,
        "introspecting_clients": ["demo-service"],
        "source": "database",
    }
    ini, *_, stored = told("list")
    assert (ini["resource"], ini["source"]) == (
        DEMO,
        ["authserver.plugin.resources_listed.resources", "authserver.resource_names"],
    )
    assert ini["default"]
    assert {name: stored[name] for name in made} == made
    table = run("resource", "list")
    assert table.exit_code == 0
    assert NOTES in table.stdout
    assert DEMO in table.stdout
    assert told("show", f"{NOTES}/") == stored
    edited = told(
        "edit", NOTES, "--uri", f"{NOTES}/", "--name", "", "--every-scope", "--token-format", "server",
        "--token-lifetime", "server", "--introspecting-client", "",
    )  # fmt: skip
    assert (edited["resource"], edited["name"], edited["scopes"]) == (f"{NOTES}/", "", "every scope")
    assert (edited["token_format"], edited["token_lifetime"], edited["introspecting_clients"]) == (
        "jwt",
        900,
        [],
    )
    assert told("show", NOTES) == edited
    gone = told("remove", NOTES, "--yes")
    assert gone["grants"] == 0
    assert NOTES not in [row["resource"] for row in told("list")]


def test_a_value_may_have_several_scopes(told) -> None:
    assert told("add", NOTES, "--scope", "notes.read notes.write")["scopes"] == ["notes.read", "notes.write"]
    assert told("edit", NOTES, "--scope", "profile notes.read")["scopes"] == ["profile", "notes.read"]


def test_the_policy_answers_for_it_at_once(told, run) -> None:
    """`explain` says which source answered."""
    told("add", NOTES)
    shown = run("explain", "resource", "demo-service", "--resource", f"{NOTES}/")
    assert shown.exit_code == 0, shown.output
    assert "resource-registered" in shown.stdout
    assert "resources_registered" in shown.stdout
    assert f"{NOTES}: in the database" in shown.stdout
    shown = run("explain", "resource", "demo-service", "--json")
    explanation = json.loads(shown.stdout)
    (check,) = explanation["checks"]
    assert (check["by"], check["reason"]) == ("resources_listed", "resource-default")
    (line,) = explanation["registered"]
    assert line.startswith(f"{DEMO}: in authserver.plugin.resources_listed.resources")


def test_without_its_policy_it_is_said_that_nothing_asks(run, ini) -> None:
    ini.write_text(ini.read_text().replace("\n    resources_registered\n", "\n"))
    added = run("resource", "add", NOTES)
    assert added.exit_code == 0, added.output
    assert "list resources_registered in authserver.plugins" in added.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "notes"), "notes: expected an absolute URI without a fragment"),
        (("add", f"{NOTES}#part"), "expected an absolute URI without a fragment"),
        (
            ("add", DEMO),
            "the INI names it, in authserver.plugin.resources_listed.resources, authserver.resource_names",
        ),
        (("add", NOTES, "--scope", "note.read"), "--scope note.read: no such scope; did you mean notes.read"),
        (("add", NOTES, "--token-format", "JWT"), "'JWT' is not one of"),
        (("add", NOTES, "--token-lifetime", "9s"), "an access token is valid for 10s to 86400s"),
        (("add", NOTES, "--token-lifetime", "2d"), "an access token is valid for 10s to 86400s"),
        (("add", NOTES, "--token-lifetime", "soon"), "'soon' is not a duration"),
        (("add", NOTES, "--introspecting-client", "nobody"), "nobody: no such client"),
        (("add", NOTES, "--default"), f"{DEMO} is the default already"),
        (("show", NOTES), f"{NOTES}: no such resource; known: {DEMO}"),
        (("show", "http://localhost:6543/demo-apis"), f"no such resource; did you mean {DEMO}"),
        (("edit", NOTES, "--name", "Notes"), "no such resource"),
        (
            ("edit", DEMO, "--name", "Notes"),
            "it is in the INI, in authserver.plugin.resources_listed.resources",
        ),
        (("edit", NOTES, "--every-scope", "--scope", "notes.read"), "--every-scope: not with --scope"),
        (("remove", NOTES, "--yes"), "no such resource"),
        (("remove", DEMO, "--yes"), "it is in the INI, in authserver.plugin.resources_listed.resources"),
    ],
)
def test_what_cannot_be_done_is_said(refused, told, arguments: tuple[str, ...], words: str) -> None:
    before = told("list")
    assert words in refused(*arguments)
    assert told("list") == before


def test_an_edit_names_what_is_to_be_changed(refused, told) -> None:
    told("add", NOTES)
    assert "nothing to change: " in refused("edit", NOTES)
    other = refused("edit", NOTES, "--uri", f"{NOTES}/v1")
    assert "this is another resource; add it, and remove the present one" in other
    assert "registered already" in refused("add", f"{NOTES}/")


def test_removing_says_first_and_then_does(told, run, ini) -> None:
    """L-08: the dry run changes nothing, and its figures are those of the removal."""
    told("add", NOTES)
    insert(ini, only=NOTES, both=f"{NOTES} {DEMO}", other=DEMO)
    figures = {
        "grants": 1,
        "narrowed_grants": 1,
        "access_tokens": 2,
        "consents": 1,
        "narrowed_consents": 0,
    }
    dry = told("remove", NOTES, "--dry-run")
    assert {name: dry[name] for name in figures} == figures
    assert dry["dry_run"]
    assert told("remove", NOTES, "--dry-run") | {"jwts_until": ""} == dry | {"jwts_until": ""}
    shown = run("resource", "remove", NOTES, "--dry-run")
    assert "Would end: 1 grant, 1 narrowed grant, 2 access tokens, 1 remembered consent." in shown.stdout
    done = told("remove", NOTES, "--yes")
    assert {name: done[name] for name in figures} == figures
    left = datetime.fromisoformat(done["jwts_until"]) - datetime.now(UTC)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    listed = json.loads(run("grant", "list", "--json").stdout)
    assert {grant["grant_id"]: grant["resources"] for grant in listed} == {
        "both": [DEMO],
        "other": [DEMO],
    }
    assert json.loads(run("grant", "consents", "--json").stdout) == []


def test_a_resource_of_the_ini_is_removed_by_hand_and_then_ends(told, run, ini, refused) -> None:
    """L-08: the lines first, because they count; then everything that hangs on it."""
    insert(ini, only=DEMO)
    assert told("remove", DEMO, "--dry-run")["grants"] == 1
    assert "take it out there and restart" in refused("remove", DEMO, "--yes")
    text = ini.read_text().replace(f"    {DEMO} = *\n", f"    {NOTES} = *\n")
    text = text.replace(f"resources_listed.default = {DEMO}", f"resources_listed.default = {NOTES}")
    ini.write_text(text.replace(f"    {DEMO} = ", "    https://other.example = "))
    shown = run("resource", "remove", DEMO, "--yes")
    assert shown.exit_code == 0, shown.output
    assert f"{DEMO} is removed. Ended: 1 grant, 1 access token." in shown.stdout
    assert "one that was issued at this moment expires, by the present settings, at" in " ".join(
        shown.stdout.split()
    )
    assert "no such resource" in refused("remove", DEMO, "--yes")


def test_lint_lists_what_is_wrong_with_resources(told, run, ini) -> None:
    """What is in both places, what no client or scope is behind, and what nothing asks for."""
    clean = run("lint", "--json")
    assert json.loads(clean.stdout)["resources"] == []
    told("add", NOTES, "--scope", "notes.read", "--introspecting-client", "demo-service")
    told("add", "https://files.example")
    assert run("client", "disable", "demo-service").exit_code == 0
    text = ini.read_text().replace("\n    resources_registered\n", "\n")
    text = text.replace(f"    {DEMO} = *\n", f"    {DEMO} = *\n    https://FILES.example/ = notes.red\n")
    ini.write_text(
        text.replace(
            "[server:main]", "authserver.access_token_lifetime@clients = nobody = 60\n\n[server:main]", 1
        )
    )
    result = run("lint", "--json")
    assert result.exit_code == 1
    told_by_lint = json.loads(result.stdout)
    found = {(each["resource"], each["member"], each["value"]) for each in told_by_lint["resources"]}
    assert found == {
        ("https://FILES.example/", "source", "authserver.plugin.resources_listed.resources"),
        ("https://FILES.example/", "scopes", "notes.red"),
        (NOTES, "introspecting_clients", "demo-service"),
        (NOTES, "source", "database"),
    }
    assert ("authserver.access_token_lifetime@clients", "nobody") in {
        (each["setting"], each["client_id"]) for each in told_by_lint["settings"]
    }
    people = run("lint")
    assert "Resources" in people.stdout
