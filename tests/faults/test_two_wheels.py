"""F11, R-19: the wheel of the release before and that of this version at once on one database, under load, and back again.

`make upgrade` runs it. Until there is a release, the one before is built of the code before the newest migration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from authserver.storage import migrate
from authserver.testing.records import a_client
from authserver.testing.server import SETTINGS, Server
from tests.faults.conftest import ServerProcess, free_port, write_ini
from tests.faults.invariants import assert_hold
from tests.faults.ledger import Ledger
from tests.faults.load import Application, Load

CHECKOUT = Path(__file__).parents[2]
# A wheel, or a revision of this repository.
PREVIOUS = os.environ.get("AUTHSERVER_PREVIOUS", "")
# Seconds for which the load goes on between two changes.
BETWEEN = 5.0
OPAQUE = "https://files.example/"
MORE = {
    "authserver.plugins": f"{SETTINGS['authserver.plugins']}\n        pushed_requests",
    "authserver.opaque_resources": OPAQUE,
}
# Run by the version before, whose tables there are then.
MAKE_ACCOUNTS = """
import json, sys
from authserver.testing.server import Server
server = Server(sys.argv[1])
server.add_user("ann")
made = []
for first_party in (False, False, True):
    grant_types = ("authorization_code", "refresh_token", "client_credentials")
    client, secret = server.add_client(grant_types=grant_types, first_party=first_party)
    made.append((client.client_id, secret))
server.close()
print(json.dumps(made))
"""
REVISION = """
import sys
from authserver.storage.database import Database
print(Database(sys.argv[1]).revision())
"""
PSERVE = "import sys; from pyramid.scripts.pserve import main; sys.argv[0] = 'pserve'; sys.exit(main())"

pytestmark = pytest.mark.postgresql


class Version:
    """A wheel in an environment of its own, with the dependencies that are installed here."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder)
        self.python = folder / "bin/python"
        own = next(folder.glob("lib/python*/site-packages"))
        # Behind the wheel's own folder; what this checkout is installed by is not read there.
        here = next(path for path in sys.path if path.endswith("site-packages"))
        (own / "dependencies.pth").write_text(f"{here}\n")
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        succeed([*pip, "install", "--quiet", "--no-deps", str(wheel)])
        place = self.run("-c", "import authserver; print(authserver.__file__)")
        assert place.startswith(str(own)), place

    def run(self, *words: object) -> str:
        """What Python prints. Raises AssertionError if it fails."""
        return succeed([str(self.python), *map(str, words)])

    def command(self, ini: Path, *words: str) -> str:
        return self.run(self.python.with_name("authserver"), "-c", ini, *words)


@dataclass
class Process:
    """A process as `multiprocessing` would show it."""

    popen: subprocess.Popen[bytes]
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        self.pid = self.popen.pid

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        self.popen.kill()

    def join(self, timeout: float) -> None:
        self.popen.wait(timeout)


class WheelProcess(ServerProcess):
    """A server of whichever version is named last."""

    def __init__(self, ini: Path, log: Path, version: Version) -> None:
        self.version = version
        super().__init__(ini, log)

    def start(self) -> None:
        self.port = free_port()
        with self._log.open("ab") as log:
            command = [str(self.version.python), "-c", PSERVE, str(self._ini), f"http_port={self.port}"]
            popen = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=self._ini.parent)
        self._process = Process(popen)

    def become(self, version: Version) -> None:
        """Start this version, and end the one that served when it is ready, as a rolling update does."""
        successor = WheelProcess(self._ini, self._log, version)
        successor.wait()
        predecessor, self._process = self._process, successor._process
        self.version, self.port = version, successor.port
        # Who has just chosen the other port connects meanwhile.
        time.sleep(0.5)
        predecessor.popen.terminate()
        predecessor.join(30)


def environment() -> dict[str, str]:
    """Nothing of this checkout."""
    hidden = ("PYTHON", "COV", "VIRTUAL_ENV", "AUTHSERVER")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def succeed(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd="/")
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def wheel_of(source: Path, folder: Path) -> Path:
    """Built of a folder with a checkout."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    succeed([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def exported(revision: str, folder: Path) -> Path:
    """The files of a revision, in a folder."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision], cwd=CHECKOUT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive, check=True)
    return folder


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Version]:
    """The release before, and this one as it is committed."""
    folder = tmp_path_factory.mktemp("versions")
    before = Path(PREVIOUS)
    if before.suffix != ".whl":
        before = wheel_of(exported(PREVIOUS, folder / "before"), folder / "wheel-before")
    now = wheel_of(exported("HEAD", folder / "now"), folder / "wheel-now")
    return Version(folder / "venv-before", before.absolute()), Version(folder / "venv-now", now)


def test_two_wheels_serve_one_database_while_it_is_upgraded_and_rolled_back(
    versions, postgresql_server, tmp_path, report
):
    """R-19: both directions under load, with every invariant; nobody outside notices."""
    before, now = versions
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE two_wheels")
    url = postgresql_server.replace("postgresql://", "postgresql+psycopg://").replace(
        "/postgres?", "/two_wheels?"
    )
    inis = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        inis.append(write_ini(tmp_path / str(number), url, MORE))
    before.command(inis[0], "db", "upgrade")
    accounts = json.loads(before.run("-c", MAKE_ACCOUNTS, url))
    applications = [
        Application(a_client(client_id=client_id, redirect_uris=()), secret, resource)
        for (client_id, secret), resource in zip(accounts, (None, OPAQUE, None), strict=True)
    ]
    processes = [WheelProcess(ini, tmp_path / f"{number}.log", before) for number, ini in enumerate(inis)]
    try:
        for process in processes:
            process.wait()
        ledger = Ledger(tmp_path / "ledger.jsonl")
        with Load(processes, applications, ledger) as load:
            time.sleep(BETWEEN)
            now.command(inis[0], "db", "upgrade")
            time.sleep(BETWEEN)
            # Both versions at once, then this one alone; and back.
            for version in (now, before):
                for process in processes:
                    process.become(version)
                    time.sleep(BETWEEN)
        server = Server(url, MORE)
        try:
            seen = assert_hold(server, ledger)
        finally:
            server.close()
        # What the version before does not know stays.
        before.command(inis[0], "db", "upgrade")
        assert now.run("-c", REVISION, url).strip() == migrate.head()
    finally:
        for process in processes:
            process.stop()
    logs = "".join(process.log() for process in processes)
    assert "Traceback" not in logs
    statuses = ledger.statuses()
    assert set(statuses) <= {200, 201, 303, 400}, statuses
    assert seen["answers with tokens"] > 50, seen
    report("F11 two wheels", seen, load)
