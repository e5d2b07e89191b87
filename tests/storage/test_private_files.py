"""The files of the SQLite database: no other user of the machine reads them."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from authserver import private_files
from authserver.storage import migrate
from authserver.storage.database import Database, open_engine


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What the process was started with."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files_of(database: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in database.parent.iterdir()}


def write(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS things (name TEXT)")
        connection.exec_driver_sql("INSERT INTO things VALUES ('secret')")


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite:///file:{}?uri=true"])
def test_a_new_database_is_readable_to_its_owner_alone(tmp_path: Path, umask: int, url: str) -> None:
    """T160"""
    engine = open_engine(url.format(tmp_path / "new.sqlite"))
    connection = engine.connect()
    write(engine)
    assert files_of(tmp_path / "new.sqlite") == {
        "new.sqlite": 0o600,
        "new.sqlite-wal": 0o600,
        "new.sqlite-shm": 0o600,
    }
    connection.close()
    engine.dispose()


def test_a_migrated_database_is_readable_to_its_owner_alone(tmp_path: Path, umask: int) -> None:
    url = f"sqlite:///{tmp_path}/new.sqlite"
    migrate.upgrade(url)
    database = Database(url)
    database.ping()
    assert set(files_of(tmp_path / "new.sqlite").values()) == {0o600}
    database.close()


def test_it_is_never_readable_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a file may read it ever after: it has its mode from the first moment."""
    before = os.umask(0)
    modes: list[int] = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        descriptor = real(path, flags, mode, **more)
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    try:
        monkeypatch.setattr(os, "open", watched)
        private_files.create(tmp_path / "new")
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_a_database_that_was_there_is_taken_from_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """T160: With what SQLite keeps beside it, and a line in the log."""
    path = tmp_path / "old.sqlite"
    url = f"sqlite:///{path}"
    first = open_engine(url)
    held = first.connect()
    write(first)
    for file in tmp_path.iterdir():
        file.chmod(0o666)
    second = open_engine(url)
    write(second)
    assert set(files_of(path).values()) == {0o600}
    assert f"other users could read {path}; now they cannot" in caplog.messages
    caplog.clear()
    third = open_engine(url)
    write(third)
    assert caplog.messages == []
    held.close()
    for engine in (first, second, third):
        engine.dispose()


def test_a_link_leads_to_the_file(tmp_path: Path) -> None:
    """SQLite keeps its files beside what the link points at."""
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "here.sqlite").symlink_to(there / "real.sqlite")
    before = os.umask(0)
    engine = open_engine(f"sqlite:///{tmp_path}/here.sqlite")
    try:
        held = engine.connect()
        write(engine)
    finally:
        os.umask(before)
    assert files_of(there / "real.sqlite") == {
        "real.sqlite": 0o600,
        "real.sqlite-wal": 0o600,
        "real.sqlite-shm": 0o600,
    }
    held.close()
    engine.dispose()


def test_what_is_not_ours_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "theirs"
    path.touch()
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    private_files.tighten(path)
    assert mode(path) == 0o644
    assert caplog.messages == []


def test_what_cannot_be_changed_is_announced_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a file system that is read-only: the server starts all the same."""
    path = tmp_path / "old.sqlite"
    path.touch()
    path.chmod(0o644)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "chmod", refuse)
    engine = open_engine(f"sqlite:///{path}")
    write(engine)
    engine.dispose()
    (line,) = [line for line in caplog.messages if str(path) in line]
    assert line == f"other users may read {path}, and that cannot be changed (Read-only file system)"


def test_an_address_for_reading_makes_no_file(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///file:{tmp_path}/none.sqlite?mode=ro&uri=true")
    with pytest.raises(Exception, match="unable to open database file"):
        engine.connect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_memory_is_no_file(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = sa.create_engine(url)
    from authserver.storage.database import _keep_private

    _keep_private(engine)
    engine.connect().close()
    # Closes what a pool for memory keeps open.
    engine.dispose()
    assert list(tmp_path.iterdir()) == []


def test_threads_that_open_a_new_file_at_once_keep_their_locks(tmp_path: Path) -> None:
    """To close a file ends all locks of the process on it: that happens before SQLite has any."""
    engine = open_engine(f"sqlite:///{tmp_path}/new.sqlite")
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                write(engine)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar_one() == 40
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    engine.dispose()
    assert problems == []


def test_a_folder_is_made_for_us_alone_with_all_that_it_is_in(tmp_path: Path, umask: int) -> None:
    private_files.create_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    private_files.create_folder(tmp_path / "a" / "b")
    private_files.create(tmp_path / "a" / "b" / "secret", "hush")
    assert mode(tmp_path / "a" / "b" / "secret") == 0o600
    with pytest.raises(FileExistsError):
        private_files.create(tmp_path / "a" / "b" / "secret")


def test_the_log_names_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "wide"
    path.touch(mode=0o600)
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        private_files.tighten(path)
        private_files.tighten(tmp_path / "not there")
    assert caplog.messages == [f"other users could read {path}; now they cannot"]
    assert mode(path) == 0o600


def test_a_file_that_cannot_be_written_is_not_left_half_written(tmp_path: Path) -> None:
    """A surrogate is no UTF-8: the write fails as it does on a full disk."""
    with pytest.raises(UnicodeEncodeError):
        private_files.create(tmp_path / "secret", "\udc80")
    assert list(tmp_path.iterdir()) == []
    private_files.create(tmp_path / "secret", "text")
    with pytest.raises(FileExistsError):
        private_files.create(tmp_path / "secret", "another")
    assert (tmp_path / "secret").read_text() == "text"
