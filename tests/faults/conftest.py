"""Real server processes on one database: started by pserve from one INI, killed without warning, asked over HTTP."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
import pytest
from webtest import TestApp

from authserver.engine.records import Client
from authserver.storage import migrate
from authserver.testing.server import ISSUER, SETTINGS, VERIFIER, Server, basic
from tests.faults.ledger import Ledger
from tests.faults.load import Application, Load
from tests.processes import Command, serve

# Whether `make faults` asks for the long forms.
IS_LONG = os.environ.get("AUTHSERVER_FAULTS") == "long"
# `make upgrade` alone runs it: it needs a release to begin with.
collect_ignore = [] if os.environ.get("AUTHSERVER_PREVIOUS") else ["test_two_wheels.py"]
REPORT = Path(__file__).parents[2] / "build/faults.jsonl"
HOST = urlsplit(ISSUER).netloc

INI = """
[app:main]
use = egg:authserver
{settings}

[server:main]
use = egg:authserver
listen = 127.0.0.1:%(http_port)s
threads = 4
# As if a proxy had terminated TLS.
url_scheme = https

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys =

[logger_root]
level = WARNING
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
"""


@dataclass(frozen=True)
class Answer:
    """What came back over the wire."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class ServerProcess:
    """One server process, whichever process it is at the moment: it may be killed and started again."""

    def __init__(self, ini: Path, log: Path) -> None:
        self._ini, self._log = ini, log
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it; `wait` says when it serves."""
        self.port = free_port()
        self._process = serve(self._ini, self.port, self._log)

    def wait(self, seconds: float = 60) -> None:
        """Until it is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process.is_alive(), f"it did not start:\n{self.log()}"
            try:
                if self.get("/health/ready").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s:\n{self.log()}")

    def kill(self) -> None:
        """kill -9: no handler runs, nothing is flushed."""
        self._process.kill()
        self._process.join(timeout=10)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def queued(self) -> float:
        """Seconds in which its main thread, which starts it, could have run and had no processor; 0 where nobody counts."""
        try:
            _, waited, _ = Path(f"/proc/{self.pid}/schedstat").read_text().split()
        except OSError:
            return 0.0
        return int(waited) / 1e9

    def stop(self) -> None:
        sys.stdout.write(self.log())  # which pytest shows when the test failed
        self.kill()

    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, headers: dict[str, str] | None = None, timeout: float = 60) -> Answer:
        return self._ask("GET", path, None, headers or {}, timeout)

    def post(self, path: str, form: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, urlencode(form, doseq=True), {**kind, **(headers or {})}, 60)

    def _ask(
        self, method: str, path: str, body: str | None, headers: dict[str, str], timeout: float
    ) -> Answer:
        """Raises OSError or HTTPException when no whole answer came."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Host": HOST, "Connection": "close", **headers})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read(), time.monotonic() - began)
        finally:
            connection.close()


@dataclass
class Cluster:
    """Several server processes on one database, and one more in this very process that makes codes for them."""

    server: Server
    processes: list[ServerProcess]
    _browser: TestApp | None = field(default=None)

    def code(self, client: Client) -> str:
        """A code of user `ann`, who signs in once."""
        if self._browser is None:
            self._browser = self.server.browser()
        return self.server.code(client, self._browser)

    def any_process(self) -> ServerProcess:
        return random.choice(self.processes)

    def token(self, process: ServerProcess, client: Client, secret: str | None, **form: Any) -> Answer:
        assert client.auth_method == "client_secret_basic"
        headers = {"Authorization": basic(client.client_id, secret or "")}
        return process.post("/oauth/token", form, headers)

    def redeem(self, process: ServerProcess, client: Client, secret: str | None, code: str) -> Answer:
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        return self.token(process, client, secret, **form)

    def refresh(self, process: ServerProcess, client: Client, secret: str | None, token: str) -> Answer:
        return self.token(process, client, secret, grant_type="refresh_token", refresh_token=token)

    def tokens_of(self, grant_id: str, kind: str) -> list[dict[str, Any]]:
        rows = self.server.rows("tokens")
        return [row for row in rows if (row["grant_id"], row["kind"]) == (grant_id, kind)]

    def events_of(self, grant_id: str, type: str) -> list[dict[str, Any]]:
        return [row for row in self.server.events(type) if row["grant_id"] == grant_id]

    def grant(self, grant_id: str) -> dict[str, Any]:
        return next(row for row in self.server.rows("grants") if row["grant_id"] == grant_id)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def is_long() -> bool:
    """Whether `make faults` asks for the long forms."""
    return IS_LONG


@pytest.fixture
def report(request: pytest.FixtureRequest, is_long: bool) -> Callable[..., None]:
    """Note what was tried and seen, once no invariant is broken; `make faults` keeps it in `build/faults.jsonl`."""
    database = "SQLite" if "sqlite" in f"{request.node.name} {request.fixturenames}" else "PostgreSQL"

    def note(
        fault: str,
        seen: Counter[str],
        load: Load,
        recovery: float | Recovery | None = None,
        times: int = 1,
    ) -> None:
        statuses = {str(status): count for status, count in load.ledger.statuses().items()}
        line = {
            "fault": fault,
            "database": database,
            "times": times,
            "seconds": recovery.seconds if isinstance(recovery, Recovery) else recovery,
            "queued": recovery.queued if isinstance(recovery, Recovery) else None,
            **seen,
            "statuses": statuses,
        }
        if is_long:
            REPORT.parent.mkdir(exist_ok=True)
            with REPORT.open("a") as file:
                file.write(json.dumps(line) + "\n")

    return note


def write_ini(folder: Path, database_url: str, changes: Mapping[str, str] | None = None) -> Path:
    """The INI file of a server on this database, with these settings changed."""
    ini = folder / "server.ini"
    settings = {**SETTINGS, "authserver.database_url": database_url, **(changes or {})}
    escaped = {key: value.replace("%", "%%").replace("\n", "\n    ") for key, value in settings.items()}
    lines = [f"{key} = {value}" for key, value in escaped.items()]
    ini.write_text(INI.format(settings="\n".join(lines)))
    return ini


@contextmanager
def serving(
    folder: Path,
    database_url: str,
    count: int,
    settings: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
) -> Iterator[list[ServerProcess]]:
    """Processes on a database, with settings that differ from those of tests; the same for all, or for each its own."""
    each = settings if isinstance(settings, Sequence) else [settings] * count
    processes: list[ServerProcess] = []
    try:
        for number, own in enumerate(each):
            (folder / str(number)).mkdir(exist_ok=True)
            ini = write_ini(folder / str(number), database_url, own)
            processes.append(ServerProcess(ini, folder / f"{number}.log"))
        for process in processes:
            process.wait()
        yield processes
    finally:
        for process in processes:
            process.stop()


@pytest.fixture(name="serve")
def make_serve(tmp_path: Path) -> Iterator[Callable[..., list[ServerProcess]]]:
    """Start `count` processes on a database: `serve(url, 2)`; they are gone when the test is over.

    Settings that differ from those of `authserver.testing.server` may follow.
    """
    running = []

    def start(
        database_url: str, count: int, settings: Mapping[str, str] | None = None
    ) -> list[ServerProcess]:
        running.append(serving(tmp_path, database_url, count, settings))
        return running[-1].__enter__()

    yield start
    for context in running:
        context.__exit__(None, None, None)


@pytest.fixture
def ini_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the INI file of a server on a database, for commands: `ini_file(url)`, with settings as for `serve`."""

    def write(database_url: str, settings: Mapping[str, str] | None = None) -> Path:
        return write_ini(tmp_path, database_url, settings)

    return write


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Command]:
    """Start `authserver -c INI …` in a process of its own: `command(ini, "keys", "rotate")`."""
    return lambda ini, *words: Command(ini, tmp_path, *words)


_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two server processes on one database, for all tests of a file; once on each kind of database."""
    folder = tmp_path_factory.mktemp("cluster")
    url = _new_database(request, folder)
    server = Server(url)
    try:
        server.add_user("ann")
        with serving(folder, url, 2) as processes:
            yield Cluster(server, processes)
            logs = "".join(process.log() for process in processes)
    finally:
        server.close()
    # Kept for the end, so that every test of the file is under it.
    assert "Traceback" not in logs, logs[logs.index("Traceback") - 1000 :][:4000]


@dataclass(frozen=True, order=True)
class Recovery:
    """How long a new process took to serve.

    Attributes:
        seconds: on the clock.
        queued: those of them in which it had to wait for a processor, which other programs used.
    """

    seconds: float
    queued: float

    @property
    def own(self) -> float:
        """Seconds that it took by itself, and that others let it wait for an answer."""
        return self.seconds - self.queued


@dataclass
class Faulty(Cluster):
    """The same, with processes that can be stopped at a named point, and a load of people and applications for it."""

    folder: Path = Path()
    loads: int = 0

    def load(self, visitors: int = 3, **how: Any) -> Load:
        return Load(self.processes, self.applications[:visitors], self.ledger(), **how)

    def ledger(self) -> Ledger:
        """A new one."""
        self.loads += 1
        return Ledger(self.folder / f"ledger-{self.loads}.jsonl")

    @cached_property
    def applications(self) -> list[Application]:
        """One whose tokens are JWTs, one whose tokens are opaque, and one that nobody is asked about."""
        made = []
        for resource, first_party in ((None, False), ("https://files.example/", False), (None, True)):
            grant_types = ("authorization_code", "refresh_token", "client_credentials")
            client, secret = self.server.add_client(grant_types=grant_types, first_party=first_party)
            made.append(Application(client, secret or "", resource))
        return made

    def process_of(self, pid: int) -> ServerProcess:
        return next(process for process in self.processes if process.pid == pid)

    def replace(self, process: ServerProcess) -> Recovery:
        """kill -9, and start another in its place, until that one serves."""
        process.kill()
        began = time.monotonic()
        process.start()
        process.wait()
        return Recovery(time.monotonic() - began, process.queued)


@contextmanager
def serving_faulty(
    folder: Path,
    url: str,
    reached_by: str | None = None,
    *,
    settings: Sequence[Mapping[str, str]] = ({}, {}),
    plugins: Sequence[str] = (),
) -> Iterator[Faulty]:
    """Two server processes on a database.

    Args:
        reached_by: the URL by which they reach it, if the checker reaches it by another.
        settings: of each process.
        plugins: more of them.
    """
    opaque = {"authserver.opaque_resources": "https://files.example/"}
    own = {
        "authserver.plugins": "\n    ".join(
            [SETTINGS["authserver.plugins"], "pushed_requests", "tests.faults.points:FaultPoints", *plugins]
        ),
        "authserver.plugin.fault_points.folder": str(folder),
    }
    server = Server(url, opaque)
    try:
        server.add_user("ann")
        each = [{**opaque, **own, **more} for more in settings]
        with serving(folder, reached_by or url, len(each), each) as processes:
            yield Faulty(server, processes, folder=folder)
            logs = "".join(process.log() for process in processes)
    finally:
        server.close()
    # Whatever failed was foreseen.
    assert "Traceback" not in logs, logs[max(0, logs.index("Traceback") - 1000) :][:4000]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def faulty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """Two server processes on one database for the faults of a file, once on each kind of database."""
    folder = tmp_path_factory.mktemp("faulty")
    with serving_faulty(folder, _new_database(request, folder)) as faulty:
        yield faulty


@pytest.fixture
def make_faulty(tmp_path: Path) -> Iterator[Callable[..., Faulty]]:
    """As `serving_faulty` in this test's folder: `make_faulty(url)`."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            serving_faulty(tmp_path, *arguments, **options)
        )


def _new_database(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite_file"), folder / "authserver.db")
        return f"sqlite:///{folder / 'authserver.db'}"
    server, name = str(request.getfixturevalue("postgresql_server")), f"cluster_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = server.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", f"/{name}?")
    migrate.upgrade(url)
    return url
