"""`authserver demo`."""

from __future__ import annotations

import json
import re
import stat


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


def test_secrets_are_readable_to_their_owner_alone(run, ini) -> None:
    """T142: and differ between two machines."""
    folder = ini.parent / ".local"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("secret_keys", "demo.password", "demo-service.secret"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
        assert len((folder / name).read_text().strip()) >= 10


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
    assert f"{path} is gone; remove {path.parent}" in result.stderr


def test_a_new_database_gets_new_secrets(run, ini) -> None:
    folder = ini.parent / ".local"
    before = (folder / "demo-service.secret").read_text()
    for path in folder.glob("authserver.sqlite*"):
        path.unlink()
    assert run("demo").exit_code == 0
    assert (folder / "demo-service.secret").read_text() != before
