"""`authserver demo`."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest


def test_a_second_run_changes_nothing_and_says_the_same(bare, ini) -> None:
    first = bare("demo")
    assert first.exit_code == 0, first.output
    clients, users = bare("client", "list", "--json").stdout, bare("user", "list", "--json").stdout
    second = bare("demo")
    assert second.exit_code == 0
    assert second.stdout == first.stdout
    assert (
        bare("client", "list", "--json").stdout == clients and bare("user", "list", "--json").stdout == users
    )
    assert [item["client_id"] for item in json.loads(clients)] == ["demo-service", "playground"]


def test_it_says_where_who_and_what_to_paste(run) -> None:
    said = run("demo").stdout
    assert "DEMO" in said
    assert "http://localhost:6543/\n" in said and "http://localhost:6543/playground" in said
    assert re.search(r"Sign in as +demo +password +\S{8,}", said)
    assert len(re.findall(r"^  curl ", said, re.MULTILINE)) == 3


def test_what_was_replaced_since_is_not_printed_as_if_it_worked(run, ini) -> None:
    """The commands are there to be pasted, and the account page lets the demo user change the password."""
    folder = ini.parent / ".local"
    secret, password = (
        (folder / name).read_text().strip() for name in ("demo-service.secret", "demo.password")
    )
    assert run("client", "rotate-secret", "demo-service").exit_code == 0
    said = run("demo").stdout
    assert f"demo-service:{secret} " in said and f"password  {password}\n" in said  # both still work
    assert run("client", "rotate-secret", "demo-service", "--overlap", "0").exit_code == 0
    assert run("user", "password", "demo", "--password-stdin", "--yes", stdin="another one\n").exit_code == 0
    said = run("demo").stdout
    assert secret not in said and password not in said
    assert "demo-service:SECRET " in said and "with its present secret in the place of SECRET" in said
    assert "Sign in as    demo   with the password that it was given since\n" in said


SECRETS = ("secret_keys", "demo.password", "demo-service.secret")


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


@pytest.mark.parametrize("umask", [0, 0o022, 0o777], ids=oct)
def test_all_that_is_made_is_readable_to_its_owner_alone(bare, ini, umask: int) -> None:
    """T142: whatever the umask; and secrets differ between two machines."""
    folder = ini.parent / ".local"
    before = os.umask(umask)
    try:
        assert bare("demo").exit_code == 0
    finally:
        os.umask(before)
    assert modes(folder) == {".local": 0o700, **dict.fromkeys((*SECRETS, "authserver.sqlite"), 0o600)}
    for name in SECRETS:
        assert len((folder / name).read_text().strip()) >= 10


def test_what_was_there_is_taken_from_others(run, ini, caplog) -> None:
    """T142: a folder and files that an older version, or another program, made."""
    folder = ini.parent / ".local"
    for path in (folder, *folder.iterdir()):
        path.chmod(0o777 if path == folder else 0o666)
    assert run("demo").exit_code == 0
    assert f"other users could read {folder}; now they cannot" in caplog.messages
    assert modes(folder) == {".local": 0o700, **dict.fromkeys((*SECRETS, "authserver.sqlite"), 0o600)}


def test_a_folder_outside_of_the_project_is_left_as_it_is(bare, ini, tmp_path_factory) -> None:
    """A key ring may lie where others have files as well."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    elsewhere.chmod(0o755)
    ini.write_text(
        ini.read_text().replace("file:%(here)s/.local/secret_keys", f"file:{elsewhere}/secret_keys")
    )
    (ini.parent / ".local").mkdir()
    assert bare("demo").exit_code == 0
    assert modes(elsewhere) == {elsewhere.name: 0o755, **dict.fromkeys(SECRETS, 0o600)}


def test_it_is_refused_in_production(bare, ini) -> None:
    """T142: known users and clients never reach a real server, also when the environment is not named."""
    for line in ("authserver.environment = production", ""):
        ini.write_text(
            re.sub(r"(?m)^authserver\.environment = .*$", line, ini.read_text())
            if line
            else ini.read_text().replace("authserver.environment = production", "")
        )
        result = bare("demo")
        assert result.exit_code == 1
        assert "authserver.environment is not development" in result.stderr
        assert not (ini.parent / ".local").exists()


def test_a_lost_secret_is_named_with_the_way_out(run, ini) -> None:
    path = ini.parent / ".local" / "demo-service.secret"
    path.unlink()
    result = run("demo")
    assert result.exit_code == 1
    assert f"{path} is missing; remove {path.parent}" in result.stderr


@pytest.mark.parametrize("name", ["demo.password", "demo-service.secret"])
def test_an_empty_secret_is_named_and_not_printed_as_one(run, ini, name: str) -> None:
    """As a full disk, or a machine that stopped, leaves it."""
    path = ini.parent / ".local" / name
    path.write_text("")
    result = run("demo")
    assert result.exit_code == 1
    assert f"{path} is empty; remove {path.parent}" in result.stderr


def test_an_empty_key_ring_is_completed_and_no_other_is_touched(bare, ini) -> None:
    ring = ini.parent / ".local" / "secret_keys"
    ring.parent.mkdir()
    ring.touch()
    assert bare("demo").exit_code == 0
    made = ring.read_text()
    assert len(made) > 40 and stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert bare("demo").exit_code == 0
    assert ring.read_text() == made


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_lost_key_ring_is_not_replaced_while_something_needs_it(run, ini, state: str) -> None:
    """The server would not start with another, and a backup of the ring would be of no use."""
    ring = ini.parent / ".local" / "secret_keys"
    ring.unlink()
    if state == "empty":
        ring.touch()
    for arguments in (["demo"], ["init", str(ini.parent)]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert f"{ring} is {state}, and authserver.sqlite needs it; put it back" in result.stderr
    assert not ring.exists() or not ring.read_text()


def test_a_new_database_gets_new_secrets(run, ini) -> None:
    folder = ini.parent / ".local"
    before = (folder / "demo-service.secret").read_text()
    for path in folder.glob("authserver.sqlite*"):
        path.unlink()
    assert run("demo").exit_code == 0
    assert (folder / "demo-service.secret").read_text() != before
