"""The command line on a real SQLite file: development.ini in a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a development.ini and everything that `demo` makes, to be copied: all of it is beside the file."""
    folder = tmp_path_factory.mktemp("prepared")
    ini = shutil.copy(CHECKOUT / "development.ini", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AUTHSERVER_CONFIG", raising=False)
        done = CliRunner().invoke(main, ["-c", str(ini), "demo"])
    forget(folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(bare: Run, prepared: Path, tmp_path: Path) -> Run:
    """`authserver -c development.ini` on a server prepared by `demo`."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("development.ini"))
    return bare


@pytest.fixture
def told(request: pytest.FixtureRequest, run: Run) -> Callable[..., Any]:
    """What the command of the file, its `COMMAND`, prints as JSON."""

    def told(*arguments: str, status: int = 0) -> Any:
        result = run(request.module.COMMAND, *arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    return told


@pytest.fixture
def refused(request: pytest.FixtureRequest, run: Run) -> Callable[..., str]:
    """What that command says when it changes nothing, in one line."""

    def refused(*arguments: str) -> str:
        result = run(request.module.COMMAND, *arguments)
        assert result.exit_code in (1, 2), result.output
        assert not result.stdout
        assert "Traceback" not in result.stderr
        return " ".join(result.stderr.split())

    return refused
