"""The package as others get it: what it holds, and that it runs from nothing."""

from __future__ import annotations

import base64
import configparser
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def setup_cfg() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser


def test_every_folder_with_code_is_a_listed_package() -> None:
    """A folder that is forgotten in setup.cfg works in the checkout and is missing from the wheel."""
    listed = set(setup_cfg()["options"]["packages"].split())
    folders = {file.parent for file in (CHECKOUT / "authserver").rglob("*.py")}
    here = {".".join(folder.relative_to(CHECKOUT).parts) for folder in folders}
    assert listed == here | {
        "authserver.ini_files",
        "authserver.migrations",
        "authserver.migrations.versions",
    }


def test_the_migrations_do_not_shadow_the_alembic_package() -> None:
    assert not (CHECKOUT / "alembic" / "__init__.py").exists()


def test_setup_cfg_is_not_silenced() -> None:
    """A [project] table in pyproject.toml would replace all of it."""
    assert "project" not in tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as whoever packages us would."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "docs", "tests")
    shutil.copytree(CHECKOUT, source, ignore=leave_out)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_the_migrations_and_the_ini_files(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("authserver", "authserver"), ("alembic", "authserver/migrations")):
        for file in (CHECKOUT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{place}/{file.relative_to(CHECKOUT / folder).as_posix()}" in packed
    assert {name for name in packed if name.startswith("authserver/ini_files/")} == {
        f"authserver/ini_files/{file.name}" for file in CHECKOUT.glob("*.ini")
    }
    top = {name.partition("/")[0] for name in packed}
    assert top == {"authserver", next(name for name in top if name.endswith(".dist-info"))}


@pytest.mark.slow
def test_installed_into_an_empty_environment_it_begins_starts_and_issues_a_token(
    wheel: Path, tmp_path: Path
) -> None:
    """With the pinned dependencies alone, away from the checkout: `init`, `demo`, `pserve`."""
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locked = ("--require-hashes", "--only-binary", ":all:", "-r", CHECKOUT / "requirements" / "run.txt")
    run(*install, "--no-deps", *locked, cwd=tmp_path)
    run(*install, "--no-deps", wheel, cwd=tmp_path)
    run(programs / "python", "-m", "pip", "check", cwd=tmp_path)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    issuer = f"http://localhost:{port}"
    home = tmp_path / "home"
    home.mkdir()
    authserver = programs / "authserver"
    for form, name in ((), "development.ini"), (("--production",), "production.ini"):
        run(authserver, "init", *form, ".", cwd=home)
        assert (home / name).read_text() == (CHECKOUT / name).read_text()
    ini = home / "development.ini"
    ini.write_text(ini.read_text().replace("localhost:6543", f"localhost:{port}"))
    run(authserver, "-c", ini, "demo", cwd=home)
    secret = (home / ".local" / "demo-service.secret").read_text().strip()

    with serving([programs / "pserve", ini], f"{issuer}/health/ready", cwd=home):
        basic = base64.b64encode(f"demo-service:{secret}".encode()).decode()
        request = urllib.request.Request(
            f"{issuer}/oauth/token",
            data=b"grant_type=client_credentials&scope=notes.read",
            headers={"Authorization": f"Basic {basic}"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.load(response)
        page = urllib.request.Request(f"{issuer}/login", headers={"Accept-Language": "de"})
        with urllib.request.urlopen(page, timeout=10) as response:
            assert "<h1>Anmelden</h1>" in response.read().decode()
    assert answer["token_type"] == "Bearer" and answer["scope"] == "notes.read"
    assert answer["access_token"].count(".") == 2


def run(*command: object, cwd: Path) -> str:
    """The standard output of a command that must succeed, in an environment that knows nothing of the checkout."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def environment() -> Mapping[str, str]:
    hidden = ("PYTHON", "COV", "VIRTUAL_ENV", "AUTHSERVER")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


@contextmanager
def serving(command: list[object], ready: str, *, cwd: Path) -> Iterator[None]:
    """A server in a process of its own, from when it is ready to the end of the block."""
    log = cwd / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, command)), cwd=cwd, stdout=output, stderr=output, env=environment()
        )
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(ready, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        else:
            raise AssertionError(f"not ready in time:\n{log.read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)
