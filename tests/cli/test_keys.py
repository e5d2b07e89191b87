"""`authserver keys`."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from paste.deploy import loadapp

from authserver.ini import load
from authserver.settings import key_ring


@pytest.fixture
def started(run, ini):
    """`authserver` on a server that was started once, and so has a signing key."""
    loadapp(f"config:{ini}").registry.application.close()
    return run


def listed(run, *options: str) -> list[dict[str, Any]]:
    result = run("keys", "list", "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ring_file(ini: Path) -> Path:
    return ini.parent / ".local" / "secret_keys"


# ---- The key ring ----------------------------------------------------------------------------------


def test_a_fresh_ring_entry_is_accepted_and_never_the_same(bare) -> None:
    first, second = bare("keys", "secret"), bare("keys", "secret")
    assert first.exit_code == 0 and first.stdout != second.stdout
    ini = {
        "authserver.issuer": "https://login.example.com",
        "authserver.database_url": "sqlite:///",
        "authserver.secret_keys": f"{first.stdout} {second.stdout}",
        "authserver.environment": "development",
    }
    loaded = load(ini)
    assert [len(key) for _, key in key_ring(loaded.settings)] == [32, 32]
    assert not any("not random" in line for line in loaded.insecure)


def test_a_ring_entry_tells_the_day_it_was_made(bare) -> None:
    key_id, _, encoded = bare("keys", "secret").stdout.strip().partition(":")
    assert abs((datetime.now(UTC) - datetime.strptime(key_id[:8], "%Y%m%d").replace(tzinfo=UTC)).days) <= 1
    assert len(base64.b64decode(encoded, validate=True)) == 32


@pytest.mark.parametrize(
    "command",
    [
        ("keys", "rotate"),
        ("db", "reencrypt"),
        ("keys", "revoke", "whatever"),
        ("client", "add", "--name", "New"),
        ("client", "rotate-secret", "demo-service"),
    ],
    ids=" ".join,
)
def test_no_command_seals_with_another_key_of_the_same_name(started, ini, command) -> None:
    """T148: the same sentence as at start, and nothing is written."""
    key_id = ring_file(ini).read_text().partition(":")[0]
    other = started("keys", "secret").stdout.strip().partition(":")[2]
    ring_file(ini).write_text(f"{key_id}:{other}")
    before = contents(ini)
    result = started(*command)
    assert result.exit_code == 1
    assert f"{key_id} is not the key that has had this id here since" in result.stderr
    assert "needed by 1 signing key and 1 client secret" in result.stderr
    with pytest.raises(SystemExit, match=f"cannot start:\n  authserver.secret_keys: {key_id} is not the key"):
        loadapp(f"config:{ini}")
    assert contents(ini) == before


@pytest.mark.parametrize("command", [("keys", "rotate"), ("db", "reencrypt")], ids=" ".join)
def test_a_missing_key_of_the_ring_is_named(started, ini, command) -> None:
    """T148: with what depends on it."""
    key_id = ring_file(ini).read_text().partition(":")[0]
    ring_file(ini).write_text(started("keys", "secret").stdout)
    result = started(*command)
    sentence = f"key {key_id} is missing, and is needed by 1 signing key and 1 client secret"
    assert result.exit_code == 1
    assert sentence in result.stderr
    with pytest.raises(SystemExit, match=sentence):
        loadapp(f"config:{ini}")


def test_who_lost_the_ring_gets_a_server_that_starts_again(started, ini) -> None:
    """T148: by the commands that the refusal names."""
    ring_file(ini).write_text(started("keys", "secret").stdout)
    (key,) = listed(started)
    revoked = started("keys", "revoke", key["kid"], "--reason", "ring lost")
    assert revoked.exit_code == 0, revoked.output
    renewed = started("client", "rotate-secret", "demo-service", "--overlap", "0")
    assert renewed.exit_code == 0, renewed.output
    loadapp(f"config:{ini}").registry.application.close()


def contents(ini: Path) -> list[str]:
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        return [line for line in connection.iterdump() if "ring_keys" not in line]


# ---- list ------------------------------------------------------------------------------------------


def test_signing_keys_are_listed_without_their_private_parts(run, ini) -> None:
    """R-01, R-06: the server makes one when it first starts."""
    assert listed(run) == []
    assert "There are no keys" in run("keys", "list").stdout
    loadapp(f"config:{ini}").registry.application.close()
    (key,) = listed(run)
    assert (key["algorithm"], key["state"], key["signs"]) == ("ES256", "active", True)
    assert key["public_jwk"]["kty"] == "EC" and "d" not in key["public_jwk"]
    assert key["sealed_by"] == ring_file(ini).read_text().partition(":")[0]
    shown = run("keys", "list").stdout
    assert key["kid"] in shown and "signs new tokens" in shown


def test_every_state_and_time_is_listed(started) -> None:
    """R-06: what each key is, and when that changes."""
    (first,) = listed(started)
    assert started("keys", "rotate").exit_code == 0
    old, new = listed(started)
    assert (old["state"], new["state"]) == ("active", "staged")
    assert (old["signs"], new["signs"]) == (True, False)
    assert old["retires_at"] == new["activates_at"]
    lines = started("keys", "list").stdout.splitlines()
    assert " ".join(lines[0].split()) == "kid algorithm state published signs from signs until ends"
    shown = {line.split()[0]: line for line in lines[1:3]}
    assert f"{at(old['ends_at']):%Y-%m-%d %H:%M:%SZ}" in shown[first["kid"]]
    assert f"{at(new['activates_at']):%Y-%m-%d %H:%M:%SZ}" in shown[new["kid"]]


def test_ended_keys_are_listed_on_demand(started) -> None:
    (first,) = listed(started)
    assert started("keys", "revoke", first["kid"]).exit_code == 0
    assert [key["kid"] for key in listed(started)] != [first["kid"]]
    kept = {key["kid"]: key for key in listed(started, "--all")}
    assert len(kept) == 2
    assert (kept[first["kid"]]["state"], kept[first["kid"]]["sealed_by"]) == ("removed", None)
    assert first["kid"] not in started("keys", "list").stdout
    assert first["kid"] in started("keys", "list", "--all").stdout


# ---- rotate ----------------------------------------------------------------------------------------


def test_a_rotation_says_when_the_new_key_signs(started) -> None:
    """R-06, T144: 300 seconds of caches, 10 of following, 5 of clocks."""
    (first,) = listed(started)
    result = started("keys", "rotate")
    assert result.exit_code == 0, result.output
    old, new = listed(started)
    assert at(new["activates_at"]) - at(new["created_at"]) == timedelta(seconds=315)
    assert "staged" in result.stdout and new["kid"] in result.stdout
    assert f"It signs from {at(new['activates_at']):%Y-%m-%d %H:%M:%SZ} on." in result.stdout
    until = f"verifies until {at(old['ends_at']):%Y-%m-%d %H:%M:%SZ}"
    assert f"{first['kid']}, which it replaces, {until}" in result.stdout


def test_a_second_rotation_says_what_to_do(started) -> None:
    """T144."""
    started("keys", "rotate")
    before = listed(started)
    result = started("keys", "rotate")
    assert result.exit_code == 1
    staged = before[1]["kid"]
    assert f"{staged} is staged already, and signs from" in result.stderr
    assert f"remove it with `authserver keys revoke {staged}`" in result.stderr
    assert listed(started) == before


def test_a_rotation_can_be_put_off_but_not_hurried(started) -> None:
    """T144."""
    refused = started("keys", "rotate", "--after", "314")
    assert refused.exit_code == 1 and "at least 315 seconds before it signs" in refused.stderr
    never = started("keys", "rotate", "--after", "9" * 20)
    assert never.exit_code == 2 and "is not in the range 0<=x<=31536000" in never.stderr
    answer = json.loads(started("keys", "rotate", "--after", "3600", "--json").stdout)
    assert at(answer["new"]["activates_at"]) - at(answer["new"]["created_at"]) == timedelta(hours=1)
    assert answer["old"]["retires_at"] == answer["new"]["activates_at"]


def test_other_algorithms_stand_side_by_side(started) -> None:
    """N-06: RS256 for who can verify nothing else."""
    answer = json.loads(started("keys", "rotate", "--algorithm", "RS256", "--json").stdout)
    assert (answer["new"]["algorithm"], answer["new"]["state"], answer["old"]) == ("RS256", "staged", None)
    assert [key["algorithm"] for key in listed(started)] == ["ES256", "RS256"]
    unknown = started("keys", "rotate", "--algorithm", "HS256")
    assert unknown.exit_code == 2 and "RS256" in unknown.stderr


# ---- revoke ----------------------------------------------------------------------------------------


def test_an_emergency_is_one_command_that_says_what_others_notice(started) -> None:
    """R-06, T144, R-12."""
    (first,) = listed(started)
    result = started("keys", "revoke", first["kid"], "--reason", "stolen")
    assert result.exit_code == 0, result.output
    (new,) = listed(started)
    assert (new["state"], new["signs"]) == ("active", True)
    assert f"{first['kid']} (ES256) is out of use, and its private part is erased." in result.stdout
    assert "Within 10 seconds no server publishes it or accepts what it signed." in result.stdout
    assert f"{new['kid']} (ES256) signs from now on." in result.stdout
    assert "for up to 300 seconds" in result.stdout
    assert "unknown `kid`" in result.stdout


def test_taking_a_staged_key_back_is_noticed_by_nobody(started) -> None:
    """T144."""
    (before,) = listed(started)
    staged = json.loads(started("keys", "rotate", "--json").stdout)["new"]["kid"]
    result = started("keys", "revoke", staged)
    assert f"{before['kid']}, which it was to replace, continues to sign." in result.stdout
    assert "no client notices" in result.stdout
    assert listed(started) == [before]


def test_a_revocation_is_json_for_machines(started) -> None:
    (first,) = listed(started)
    answer = json.loads(started("keys", "revoke", "--json", first["kid"][:12]).stdout)
    assert (answer["revoked"]["kid"], answer["revoked"]["state"]) == (first["kid"], "removed")
    assert (answer["was"], answer["revoked"]["sealed_by"]) == ("active", None)
    assert answer["signs"] == listed(started)[0]["kid"]


@pytest.mark.parametrize("kid", ["-h", "-c", "--json", "-", "-x7_f4k3kid", "nobody"])
def test_a_key_id_may_look_like_an_option(started, kid) -> None:
    """One in 64 begins with a dash; it is taken for what it is, and none is revoked by accident."""
    arguments = ("--", kid) if kid == "--json" else (kid,)
    result = started("keys", "revoke", *arguments)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {kid}: no such key; see `authserver keys list`\n",
    )
    assert len(listed(started, "--all")) == 1


def test_key_changes_are_on_record(started, ini) -> None:
    """R-12: who reads the events learns of every key that came and went, and why."""
    (first,) = listed(started)
    started("keys", "rotate")
    started("keys", "revoke", first["kid"], "--reason", "stolen")
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        rows = connection.execute(
            "SELECT type, reason, details FROM events WHERE type LIKE 'key.%' ORDER BY at"
        )
        events = [(type, reason, json.loads(details)["kid"]) for type, reason, details in rows]
    (staged,) = listed(started)
    assert events == [
        ("key.created", "first-key", first["kid"]),
        ("key.created", "rotated", staged["kid"]),
        ("key.revoked", "stolen", first["kid"]),
    ]
