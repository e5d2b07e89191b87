"""`authserver db reencrypt`: from an older key of the ring to the first one, whatever comes in between."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paste.deploy import loadapp
from rich.console import Console

from authserver.cli import progress
from authserver.testing.server import SETTINGS

# Seals one value again, and is killed before it comes to the next.
KILLED_AFTER_ONE = """
import json, os, signal, sys
from authserver import app
from authserver.engine.keys import ring
application = app.build(json.loads(sys.argv[1]))
key_ring = application.parts.ring
with application.begin() as engine:
    kids = [key.kid for key in ring.outdated(engine.stores, key_ring)]
for problem in ring.reseal(application.storage, key_ring, kids):
    assert not problem
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def started(run, ini):
    """`authserver` on a server with three signing keys, all sealed by the only key of the ring."""
    loadapp(f"config:{ini}").registry.application.close()
    for algorithm in ("ES256", "EdDSA"):
        assert run("keys", "rotate", "--algorithm", algorithm).exit_code == 0
    return run


@pytest.fixture
def old(ini) -> str:
    return ring_file(ini).read_text().strip()


@pytest.fixture
def new(started) -> str:
    return started("keys", "secret").stdout.strip()


def ring_file(ini: Path) -> Path:
    return ini.parent / ".local" / "secret_keys"


def name(entry: str) -> str:
    return entry.partition(":")[0]


def sealed_by(run) -> list[str]:
    return [key["sealed_by"] for key in json.loads(run("keys", "list", "--json").stdout)]


def summary(run) -> dict[str, Any]:
    result = run("db", "reencrypt", "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def serves(ini: Path) -> bool:
    """Whether a server starts with this ring; raises SystemExit with its sentences otherwise."""
    application = loadapp(f"config:{ini}").registry.application
    token = application.parts.signer.sign({}, typ="at+jwt")
    application.close()
    return bool(token)


def test_the_ring_is_rotated_step_by_step(started, ini, old, new) -> None:
    """T148: at each step a server starts and signs; at the end nothing needs the old key."""
    assert sealed_by(started) == [name(old)] * 3
    ring_file(ini).write_text(f"{old} {new}")
    assert serves(ini)
    ring_file(ini).write_text(f"{new} {old}")
    assert serves(ini)
    assert sealed_by(started) == [name(old)] * 3

    done = summary(started)

    assert (done["key_id"], done["sealed_again"], done["problems"]) == (name(new), 3, [])
    event = json.loads(started("audit", "search", "--event", "key.resealed", "--json").stdout)
    assert (event["actor"], len(event["details"]["kids"])) == ("command:db reencrypt", 3)
    # The secret of the demo service is a digest under the old key, until it is next used.
    assert done["older_keys"] == [
        {
            "key_id": name(old),
            "signing_keys": 0,
            "client_secrets": 1,
            "clients": ["demo-service"],
            "may_leave": False,
        }
    ]
    assert sealed_by(started) == [name(new)] * 3
    assert started("client", "disable", "demo-service").exit_code == 0
    (left,) = summary(started)["older_keys"]
    assert (left["client_secrets"], left["may_leave"]) == (0, True)
    ring_file(ini).write_text(new)
    assert serves(ini)


def test_it_says_what_was_done_and_what_is_left(started, ini, old, new) -> None:
    """T148: to people."""
    ring_file(ini).write_text(f"{new} {old}")
    first, second = started("db", "reencrypt"), started("db", "reencrypt")
    assert first.exit_code == second.exit_code == 0
    assert f"3 values were sealed again under {name(new)}." in first.stdout
    assert f"Everything that is sealed is sealed under {name(new)} already." in second.stdout
    for result in (first, second):
        assert f"{name(old)} 0 1 no" in " ".join(result.stdout.split())
        assert f"{name(old)} has those of demo-service." in result.stdout
        assert "authserver client rotate-secret" in result.stdout
    started("client", "disable", "demo-service")
    last = started("db", "reencrypt").stdout
    assert f"{name(old)} 0 0 yes" in " ".join(last.split())
    assert "people sign in again" in last


def test_the_chain_of_events_is_proven_without_the_old_key(started, ini, old, new) -> None:
    """T147, T148: its last seal gets a code of the first key."""
    application = loadapp(f"config:{ini}").registry.application
    (reading,) = (each for each in application.readings if each.reader.name == "seals")
    while reading.work():
        pass
    application.close()
    for ring, sealed_again in ((f"{old} {new}", 0), (f"{new} {old}", 4)):
        ring_file(ini).write_text(ring)
        assert serves(ini)
        head = json.loads(started("audit", "verify", "--json").stdout)["head"]
        assert summary(started)["sealed_again"] == sealed_again
    ring_file(ini).write_text(new)
    proven = started("audit", "verify", "--head", head)
    assert proven.exit_code == 0, proven.output


def test_with_one_key_in_the_ring_there_is_nothing_to_say(started, old) -> None:
    result = started("db", "reencrypt")
    assert result.stdout == f"Everything that is sealed is sealed under {name(old)} already.\n"
    assert summary(started)["older_keys"] == []


def test_many_clients_are_cut_short_for_people_only(started, ini, old, new) -> None:
    for number in range(12):
        added = started("client", "add", "--name", "More", "--client-id", f"more-{number:02}")
        assert added.exit_code == 0, added.output
    ring_file(ini).write_text(f"{new} {old}")
    assert len(summary(started)["older_keys"][0]["clients"]) == 13
    assert "more-08 and 3 more (--json names them)." in started("db", "reencrypt").stdout


def test_progress_is_shown_on_a_terminal(started, ini, old, new, monkeypatch) -> None:
    """And nowhere else: not in what machines read."""
    ring_file(ini).write_text(f"{new} {old}")
    terminal = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=terminal, force_terminal=stderr, width=80)
    )
    result = started("db", "reencrypt")
    assert "Sealing again" in terminal.getvalue() and "100%" in terminal.getvalue()
    assert "Sealing again" not in result.output


def test_killed_between_two_values_it_goes_on_with_the_next(started, ini, old, new) -> None:
    """T148: by kill -9; what is half-way opens and signs, and the second run does the rest."""
    ring_file(ini).write_text(f"{new} {old}")
    settings = {
        **SETTINGS,
        "authserver.secret_keys": f"{new} {old}",
        "authserver.database_url": f"sqlite:///{ini.parent}/.local/authserver.sqlite",
    }
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_ONE, json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(sealed_by(started)) == sorted([name(new), name(old), name(old)])
    assert serves(ini)
    assert summary(started)["sealed_again"] == 2
    assert sealed_by(started) == [name(new)] * 3
    assert serves(ini)


def test_a_value_that_was_moved_is_named_and_stays(started, ini, old, new) -> None:
    """T148: ciphertext from another row does not open; the others are sealed again all the same."""
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        (first, sealed), (second, _) = connection.execute(
            "SELECT kid, sealed_private_jwk FROM signing_keys ORDER BY created_at LIMIT 2"
        ).fetchall()
        connection.execute("UPDATE signing_keys SET sealed_private_jwk = ? WHERE kid = ?", (sealed, second))
    connection.close()
    ring_file(ini).write_text(f"{new} {old}")
    result = started("db", "reencrypt", "--json")
    assert result.exit_code == 1
    done = json.loads(result.stdout)
    assert done["sealed_again"] == 2
    (problem,) = done["problems"]
    assert problem.startswith(f"signing key {second} (signing_keys.sealed_private_jwk) does not open")
    assert (done["older_keys"][0]["signing_keys"], done["older_keys"][0]["may_leave"]) == (1, False)
    assert f"Error: signing key {second}" in started("db", "reencrypt").stderr
    with pytest.raises(SystemExit, match=f"signing key {second} .* does not open"):
        serves(ini)
    # And the way out that it names is one.
    assert started("keys", "revoke", second).exit_code == 0
    assert serves(ini)
    assert first in started("keys", "list").stdout


def test_every_sealed_column_is_known_to_it(sqlite_url) -> None:
    """T148: a column that holds sealed values is sealed again here, or has nothing to do with the ring."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        sealed = {
            f"{table}.{column[1]}"
            for table in tables
            for column in connection.execute(f"PRAGMA table_info({table})")
            if "sealed" in column[1] and not column[1].endswith("_at")
        }
    connection.close()
    # A successor is sealed under the token that it succeeds, whatever the ring is.
    assert sealed == {"signing_keys.sealed_private_jwk", "tokens.sealed_successor"}
