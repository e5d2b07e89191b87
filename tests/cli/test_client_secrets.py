"""`authserver client rotate-secret`, `secrets` and `end-secret`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from authserver.cli.configuration import Configuration
from authserver.cli.durations import duration

SERVICE = "demo-service"


@pytest.fixture
def secrets(run):
    """What `client secrets` lists."""

    def listed(client_id: str = SERVICE) -> list[dict[str, Any]]:
        result = run("client", "secrets", client_id, "--json")
        assert result.exit_code == 0, result.output
        return list(json.loads(result.stdout))

    return listed


def rotate(run, *options: str, client_id: str = SERVICE) -> str:
    result = run("client", "rotate-secret", client_id, "--json", *options)
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["client_secret"])


def is_accepted(run, secret: str, client_id: str = SERVICE) -> bool:
    """Whether the server would let the client in with this."""
    told = run("explain", "client-auth", client_id, "--secret-stdin", "--json", stdin=secret + "\n")
    return bool(json.loads(told.stdout)["verdict"] == "allowed")


def in_the_file(ini) -> str:
    return (ini.parent / ".local/demo-service.secret").read_text().strip()


def events(ini, type: str) -> list[Any]:
    with Configuration(ini).engine() as engine:
        return list(engine.stores.events.since(datetime(2020, 1, 1, tzinfo=UTC), type=type))


def test_a_new_secret_is_shown_once_and_the_old_one_ends_a_day_later(run, ini, secrets) -> None:
    """R-02, R-05: both count meanwhile."""
    first = in_the_file(ini)
    (before,) = secrets()
    assert before["ends_at"] is None
    result = run("client", "rotate-secret", SERVICE)
    assert result.exit_code == 0, result.output
    assert "will not be shown again" in result.stderr
    (second,) = [word for word in result.stdout.split() if word.startswith("as_secret_")]
    assert second != first
    assert is_accepted(run, first)
    assert is_accepted(run, second)
    old, new = secrets()
    assert (old["secret"], new["ends_at"]) == (before["secret"], None)
    assert (old["last_used_at"], new["last_used_at"]) == (None, None)  # a question is no use
    left = datetime.fromisoformat(old["ends_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    for command in (["secrets", SERVICE], ["secrets", SERVICE, "--json"], ["show", SERVICE], ["list"]):
        shown = run("client", *command)
        assert shown.exit_code == 0
        assert first not in shown.output
        assert second not in shown.output


def test_without_overlap_the_older_ones_end_at_once(run, ini, secrets) -> None:
    """R-05: also when there are two."""
    first = in_the_file(ini)
    second = rotate(run)
    third = rotate(run, "--overlap", "0")
    assert [is_accepted(run, secret) for secret in (first, second, third)] == [False, False, True]
    (left,) = secrets()
    assert left["ends_at"] is None
    added = [event.details["secret"] for event in events(ini, "client_secret.added")]
    ended = {event.details["secret"] for event in events(ini, "client_secret.ended")}
    assert added[-1] == left["secret"]
    assert len(ended) == 2
    assert added[0] in ended
    assert {event.client_id for event in events(ini, "client_secret.added")} == {SERVICE}


def test_a_third_live_secret_is_refused(run, secrets) -> None:
    """R-05: two at a time; it says what they are and what to do, and changes nothing."""
    rotate(run, "--overlap", "7d")
    old, new = secrets()
    result = run("client", "rotate-secret", SERVICE)
    assert result.exit_code == 1
    assert f"{SERVICE} has two live secrets already" in result.stderr
    for secret in (old, new):
        assert f"{secret['secret']}: made {secret['created_at'][:10]}" in result.stderr
    assert "last used -" in result.stderr
    assert f"wait until {old['ends_at'][:10]}" in result.stderr
    assert "--overlap 0" in result.stderr
    assert "as_secret_" not in result.output
    assert secrets() == [old, new]


def test_an_end_never_moves_later(run, secrets) -> None:
    """R-05: the newer one ended, and what is left keeps its end when it is replaced."""
    rotate(run, "--overlap", "1h")
    old, new = secrets()
    assert run("client", "end-secret", SERVICE, new["secret"]).exit_code == 0
    rotate(run, "--overlap", "7d")
    assert secrets()[0] == old


def test_one_secret_is_ended_by_its_name(run, ini, secrets) -> None:
    """R-05: the last one stays unless forced."""
    first, second = in_the_file(ini), rotate(run)
    old, new = secrets()
    result = run("client", "end-secret", SERVICE, old["secret"])
    assert result.exit_code == 0, result.output
    assert new["secret"] in result.stdout
    assert [is_accepted(run, secret) for secret in (first, second)] == [False, True]
    again = run("client", "end-secret", SERVICE, old["secret"])
    assert again.exit_code == 1
    assert f"no live secret {old['secret']}" in again.stderr
    last = run("client", "end-secret", SERVICE, new["secret"])
    assert last.exit_code == 1
    assert "--force" in last.stderr
    assert is_accepted(run, second)
    forced = run("client", "end-secret", SERVICE, new["secret"], "--force")
    assert forced.exit_code == 0
    assert "rotate-secret" in forced.stdout
    assert not is_accepted(run, second)
    assert [event.details for event in events(ini, "client_secret.ended")] == [
        {"secret": old["secret"]},
        {"secret": new["secret"]},
    ]
    assert is_accepted(run, rotate(run))


def test_the_secrets_of_a_client_are_shown_with_it(run, secrets) -> None:
    rotate(run)
    shown = json.loads(run("client", "show", SERVICE, "--json").stdout)
    assert shown["secrets"] == secrets()
    table = run("client", "show", SERVICE).stdout
    assert all(secret["secret"] in table for secret in secrets())
    assert json.loads(run("client", "show", "playground", "--json").stdout)["secrets"] == []


@pytest.mark.parametrize("command", [["rotate-secret"], ["secrets"], ["end-secret", "12345678"]])
def test_a_client_without_secrets_is_told_so(run, command: list[str]) -> None:
    name, *rest = command
    result = run("client", name, "playground", *rest)
    assert result.exit_code == 1
    assert "playground has no secrets: it is registered for none" in result.stderr
    unknown = run("client", name, "nobody", *rest)
    assert unknown.exit_code == 1
    assert "nobody: no such client; see `authserver client list`" in unknown.stderr


def test_a_disabled_client_gets_no_secret(run) -> None:
    """R-09: a new one would open nothing."""
    run("client", "disable", SERVICE)
    result = run("client", "rotate-secret", SERVICE)
    assert result.exit_code == 1
    assert "disabled" in result.stderr


def test_a_client_of_a_plugin_has_its_secrets_there(run, ini, tmp_path) -> None:
    (tmp_path / "clients.toml").write_text('[notes-app]\nredirect_uris = ["https://notes.example/cb"]\n')
    text = ini.read_text().replace("    login_password\n", "    login_password\n    clients_file\n", 1)
    ini.write_text(
        text.replace(
            "[app:main]\n", f"[app:main]\nauthserver.plugin.clients_file.file = {tmp_path}/clients.toml\n"
        )
    )
    result = run("client", "rotate-secret", "notes-app")
    assert result.exit_code == 1
    assert "belongs to a plugin" in result.stderr


def test_rotation_of_refresh_tokens_is_off_for_clients_with_a_credential_alone(run) -> None:
    """I-04, FAPI-05: what is in effect is shown."""
    redirect = ("--redirect-uri", "https://bank.example/cb", "--scope", "profile")
    added = run("client", "add", "--name", "Bank", *redirect, "--no-refresh-rotation", "--json")
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["rotates_refresh_tokens"] is False
    usual = run("client", "add", "--name", "Usual", *redirect, "--json")
    assert json.loads(usual.stdout)["rotates_refresh_tokens"] is True
    count = len(json.loads(run("client", "list", "--json").stdout))
    public = run(
        "client", "add", "--name", "App", *redirect, "--auth-method", "none", "--no-refresh-rotation"
    )
    assert public.exit_code == 2
    assert "--no-refresh-rotation: not with --auth-method none" in public.stderr
    assert len(json.loads(run("client", "list", "--json").stdout)) == count


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", timedelta()),
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, length: timedelta) -> None:
    assert duration(text) == length


@pytest.mark.parametrize(
    "text",
    ["", "24", "h", "-1h", "1.5h", "1 h", "1y", "1d12h", "24H", "٣h", "3651d", "9999999s", "999999w"],
)
def test_what_is_no_duration_is_answered_in_a_sentence(run, text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(text)
    result = run("client", "rotate-secret", SERVICE, "--overlap", text)
    assert result.exit_code == 2
    assert "--overlap" in result.stderr
    assert "such as 90s" in result.stderr or "is longer than 3650d" in result.stderr
