"""What is wrong when a server starts: one line that names the key and the remedy, exit status 1, and nothing half-made."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from authserver.app import wsgi
from authserver.storage import database
from authserver.testing.live import free_port
from authserver.testing.server import SETTINGS

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, sqlite_url: str) -> Refused:
    """The line with which a start ends; nothing new is in the folder afterwards."""

    def refused(**settings: str) -> str:
        before = sorted(tmp_path.iterdir())
        own = {f"authserver.{name}": text for name, text in settings.items()}
        with pytest.raises(SystemExit) as ended:
            wsgi({"here": str(tmp_path)}, **{**SETTINGS, "authserver.database_url": sqlite_url, **own})
        assert isinstance(ended.value.code, str)  # so the exit status is 1
        first, line = ended.value.code.split("\n")
        assert first == "authserver cannot start:"
        assert sorted(tmp_path.iterdir()) == before
        return line.strip()

    return refused


@pytest.mark.parametrize("url", ["postgres//x", "mysql://x/y", "sqlite://///"])
def test_a_url_that_is_none(refused: Refused, url: str) -> None:
    said = refused(database_url=url)
    assert said.startswith("authserver.database_url: ")


def test_no_database_at_that_address(refused: Refused) -> None:
    """The message of the driver has several lines, and the URL is not repeated."""
    said = refused(database_url=f"postgresql+psycopg://a:hidden@127.0.0.1:{free_port()}/x")
    assert said.startswith("authserver.database_url: the database cannot be used: ")
    assert said.endswith("; start it, or correct the address, the user and the password")
    assert "hidden" not in said


def test_no_file_and_no_folder(refused: Refused, tmp_path: Path) -> None:
    for path in (tmp_path / "none.db", tmp_path / "nowhere/none.db"):
        assert refused(database_url=f"sqlite:///{path}") == (
            f"authserver.database_url: there is no file {path}: run `authserver db upgrade`, or change the path"
        )


def test_a_database_without_tables_and_of_another_version(
    refused: Refused, tmp_path: Path, migrated_sqlite_file: Path
) -> None:
    (tmp_path / "empty.db").touch()
    assert "the database has no tables, not at this version's: run `authserver db upgrade`" in refused(
        database_url=f"sqlite:///{tmp_path}/empty.db"
    )
    for revision, said in (
        ("0001", "the database is at migration 0001, not at this version's: run `authserver db upgrade`"),
        ("9999", "the database is at migration 9999, of a later version: install that version, or name"),
    ):
        path = tmp_path / f"{revision}.db"
        shutil.copy(migrated_sqlite_file, path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
            connection.commit()
        assert f"authserver.database_url: {said}" in refused(database_url=f"sqlite:///{path}")


def test_too_little_disk(refused: Refused, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MINIMUM_FREE", 10**18)
    said = refused(database_url=sqlite_url)
    assert said.startswith("authserver.database_url: ")
    assert "MB are free on the disk of " in said and said.endswith(
        "make room, or move the file and change the path"
    )


def test_a_key_file_that_is_missing_or_unreadable(refused: Refused, tmp_path: Path) -> None:
    """Once, and not as a key that is missing, too."""
    assert refused(secret_keys=f"file:{tmp_path}/none") == (
        f"authserver.secret_keys: cannot read {tmp_path}/none: No such file or directory; make the file readable for "
        "this server, or name another"
    )
    assert "Is a directory" in refused(secret_keys=f"file:{tmp_path}")


def test_a_shared_store_that_does_not_answer(refused: Refused) -> None:
    """Only when a server starts: a process that replaces another goes on with what `store_down` says."""
    settings = {
        "plugins": SETTINGS["authserver.plugins"] + "\nrate_limits",
        "plugin.rate_limits.storage": f"redis://127.0.0.1:{free_port()}/0",
        "plugin.rate_limits.limits": "few = sign_in, account, 4, hour",
    }
    assert refused(**settings) == (
        "authserver.plugin.rate_limits: storage: the shared store does not answer; start it, correct the address, or "
        "count in memory: memory://"
    )
