"""The command line on a real SQLite file: development.ini in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from authserver.cli import main
from authserver.plugins.importing import forget

CHECKOUT = Path(__file__).parents[2]

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def modules_beside(tmp_path: Path) -> Iterator[None]:
    """The folder of another test may have modules of the same names."""
    yield
    forget(tmp_path)


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    """A development.ini of this test alone; nothing that it points at is there yet."""
    return Path(shutil.copy(CHECKOUT / "development.ini", tmp_path))


@pytest.fixture
def bare(ini: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`authserver -c development.ini` on a server that has no secrets and no database yet."""
    monkeypatch.delenv("AUTHSERVER_CONFIG", raising=False)

    def run(*arguments: str, stdin: str = "", config: Path = ini) -> Result:
        return CliRunner().invoke(main, ["-c", str(config), *arguments], input=stdin)

    return run


@pytest.fixture
def run(bare: Run) -> Run:
    """`authserver -c development.ini` on a server prepared by `demo`."""
    done = bare("demo")
    assert done.exit_code == 0, done.output
    return bare
