"""`authserver apply` is killed in the middle: nothing of it is there, and it can be run again."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from authserver.testing.server import SETTINGS
from tests.processes import Command

INI = """
[app:main]
use = egg:authserver
{settings}
"""
FILE = """
[clients.billing]
client_name = "Billing"
scopes = ["profile"]

[resources."https://notes.example"]
introspecting_clients = ["billing"]
"""


@pytest.mark.postgresql
def test_a_killed_apply_leaves_nothing(postgresql_url: str, tmp_path: Path) -> None:
    """R-17: kill -9 while its last row waits for a lock, after all others were written."""
    settings = {**SETTINGS, "authserver.database_url": postgresql_url}
    lines = (f"{key} = {indented(value)}" for key, value in settings.items())
    ini, file = tmp_path / "server.ini", tmp_path / "declared.toml"
    ini.write_text(INI.format(settings="\n".join(lines)))
    file.write_text(FILE)
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE resources IN SHARE ROW EXCLUSIVE MODE")
        command = Command(ini, tmp_path, "apply", str(file), "--yes")
        wait_for_somebody_at_the_lock(postgresql_url)
        command.kill()
        other.rollback()
        assert other.execute("SELECT count(*) FROM clients").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM events").fetchone() == (0,)
    for expected in ("Applied: 2 changes.", "Everything is as it is declared."):
        output, errors = (again := Command(ini, tmp_path, "apply", str(file), "--yes")).communicate(60)
        assert (again.returncode, errors) == (0, "")
        assert expected in output


def indented(text: str) -> str:
    """A value as an INI file takes it, of several lines, too."""
    return text.replace("%", "%%").replace("\n", "\n    ")


def wait_for_somebody_at_the_lock(url: str) -> None:
    end = time.monotonic() + 60
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        while time.monotonic() < end:
            (waiting,) = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() or (
                0,
            )
            if waiting:
                return
            time.sleep(0.02)
    raise AssertionError("nobody waits for the lock")
