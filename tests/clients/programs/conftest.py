"""Programs that people use, before a server that runs the shipped development.ini.

`make clients` runs what is here. Each kind of program is installed from its lock file into `.programs`. What is in
`typescript` is run by tests/clients/test_mcp_sdk.py, in every check.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from authserver.testing.live import free_port

if TYPE_CHECKING:
    from tests.clients.programs.resources import Resources

CHECKOUT = Path(__file__).parents[3]
INSTALLED = CHECKOUT / ".programs"
SECONDS_TO_START = 30
MILLISECONDS = 20_000
DEMO_API = "http://localhost:6543/demo-api"
CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
# What each kind of program is installed with, and what to do on a machine without it.
NEEDED = {
    "chromium": "Debian's Chromium: apt-get install chromium-headless-shell",
    "firefox-esr": "Debian's Firefox: apt-get install firefox-esr",
    "go": "Go 1.26 or newer: apt-get install golang-go, or the archive of the Go project",
    "mvn": "Maven and Java 17 or newer: apt-get install maven openjdk-17-jdk-headless",
    "java": "Java 17 or newer: apt-get install openjdk-17-jre-headless",
    "npm": "npm 10 or newer: apt-get install npm, or the archive of the Node.js project",
    "node": "Node.js 22.19 or newer, from the Node.js project",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(folder):
            item.add_marker(pytest.mark.programs)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentServer:
    """A `pserve` process on development.ini, as `make run` starts it.

    Attributes:
        ini: the copy of the file, with ports that were free and with the resources of these tests.
        password: of the user `demo`.
    """

    ini: Path
    issuer: str
    password: str

    def add_client(self, *options: str) -> tuple[str, str]:
        """Add a client, as an operator does; its id and its secret, which is empty for a public client."""
        added = json.loads(authserver(self.ini, "client", "add", "--json", *options))
        return added["client_id"], added.get("client_secret") or ""


@pytest.fixture(scope="session")
def issuer() -> str:
    return f"http://localhost:{free_port()}"


@pytest.fixture(scope="session")
def resources(issuer: str) -> Iterator[Resources]:
    """What the tokens are for."""
    # A second of imports that only these tests need; the file itself is read with all others.
    from tests.clients.programs.resources import Resources

    with Resources(issuer=issuer, port=free_port()).serving() as resources:
        yield resources


@pytest.fixture(scope="session")
def server(
    issuer: str, resources: Resources, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevelopmentServer]:
    """The authorization server."""
    folder = tmp_path_factory.mktemp("development")
    with running(issuer, development_ini(issuer, resources), folder) as server:
        yield server


@pytest.fixture
def signing_in(resources: Resources, tmp_path: Path) -> Iterator[DevelopmentServer]:
    """The same with OpenID Connect, which has a line of its own in the file."""
    issuer = f"http://localhost:{free_port()}"
    text = switched(
        development_ini(issuer, resources),
        ("    # openid\n", "    openid\n"),
        ("    # claims_groups\n", "    claims_groups\n"),
        ("# authserver.fetch_loopback = false\n", "authserver.fetch_loopback = true\n"),
        ("# authserver.plugin.step_up.wished_with =\n", "authserver.plugin.step_up.wished_with = openid\n"),
    )
    with running(issuer, text, tmp_path) as server:
        yield server


@pytest.fixture
def exchanging(tmp_path: Path) -> Iterator[tuple[DevelopmentServer, Resources]]:
    """Another with token exchange, and APIs of its own; the client `notes-service` is the service behind one of them."""
    from tests.clients.programs.resources import Resources

    issuer = f"http://localhost:{free_port()}"
    with Resources(issuer=issuer, port=free_port()).serving() as resources:
        services = "authserver.plugin.introspect_resource_servers.clients ="
        text = switched(
            development_ini(issuer, resources),
            ("    # token_exchange\n", "    token_exchange\n"),
            (f"# {services}\n", f"{services}\n    notes-service = {resources.notes}\n"),
        )
        with running(issuer, text, tmp_path) as server:
            yield server, resources


@contextmanager
def running(issuer: str, text: str, folder: Path) -> Iterator[DevelopmentServer]:
    """A server of this INI file. When it ends, it has logged neither a traceback nor an unexpected error."""
    ini, log = folder / "development.ini", folder / "server.log"
    ini.write_text(text, encoding="utf-8")
    authserver(ini, "demo")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pyramid.scripts.pserve", str(ini)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    try:
        wait_for(f"{issuer}/health/ready", process, log)
        password = (folder / ".local" / "demo.password").read_text(encoding="utf-8").strip()
        yield DevelopmentServer(ini=ini, issuer=issuer, password=password)
    finally:
        process.terminate()
        process.wait(timeout=10)
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "unexpected error" not in said


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, which can reach this computer alone; preferably without the windows that nobody sees."""
    path = shutil.which("chromium-headless-shell") or path_of("chromium")
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a browser that has never been here."""
    context = chromium.new_context()
    context.set_default_timeout(MILLISECONDS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def npm() -> Path:
    """The folder of the programs from npm, which has `node_modules` and our scripts."""
    return installed("node", [path_of("npm"), "ci", "--loglevel=error"])


@pytest.fixture(scope="session")
def node(npm: Path) -> str:
    """The Node.js of the lock file, or the system's where npm has none for it."""
    return next((str(path) for path in npm.glob("node_modules/node-*/bin/node")), None) or path_of("node")


@pytest.fixture(scope="session")
def go_program() -> str:
    """The program in Go."""
    return str(installed("go", [path_of("go"), "build", "-mod=readonly", "-o", "program", "."]) / "program")


@pytest.fixture(scope="session")
def oauth2_proxy() -> str:
    """oauth2-proxy, compiled."""
    module = "github.com/oauth2-proxy/oauth2-proxy/v7"
    return str(
        installed("oauth2-proxy", [path_of("go"), "build", "-mod=readonly", "-o", "program", module])
        / "program"
    )


@pytest.fixture(scope="session")
def spring_application() -> Path:
    """The jar of the Spring Boot application."""
    folder = installed("java", [path_of("mvn"), "--quiet", "--batch-mode", "package"])
    return folder / "target" / "program.jar"


def development_ini(issuer: str, resources: Resources) -> str:
    """development.ini with another port, for the APIs of these tests instead of the demo's."""
    text = (CHECKOUT / "development.ini").read_text(encoding="utf-8")
    listed = f"    {DEMO_API} = *\n"
    assert listed in text
    text = text.replace(listed, "".join(f"    {uri} = *\n" for uri in (resources.mcp, resources.notes)))
    return (
        text.replace(DEMO_API, resources.notes)
        .replace("http://localhost:6543", issuer)
        .replace("localhost:6543", issuer.removeprefix("http://"))
    )


def switched(text: str, *changes: tuple[str, str]) -> str:
    """An INI file in which some lines are replaced by others."""
    for off, on in changes:
        assert off in text
        text = text.replace(off, on)
    return text


def authserver(ini: Path, *words: str) -> str:
    """What this command of `authserver` prints."""
    command = [str(Path(sys.executable).with_name("authserver")), "-c", str(ini), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def path_of(program: str) -> str:
    """Where the program is; without it the test fails and says what to install."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"`make clients` needs {NEEDED[program]}", pytrace=False)
    return path


def installed(kind: str, command: Sequence[str]) -> Path:
    """The folder of one kind of program, installed there unless the sources and the lock are those of last time."""
    source, folder = Path(__file__).parent / kind, INSTALLED / kind
    stamp = folder / "installed"
    INSTALLED.mkdir(exist_ok=True)
    # One process at a time: tests may run in several.
    with (INSTALLED / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = stamp.stat().st_mtime if stamp.exists() else 0
        if any(path.stat().st_mtime > made for path in source.rglob("*")):
            shutil.copytree(source, folder, dirs_exist_ok=True)
            done = subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode != 0:
                pytest.fail(f"{' '.join(command)} in {folder}:\n{done.stdout}", pytrace=False)
            stamp.touch()
    return folder


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the process answers there."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"it did not start:\n{log.read_text(encoding='utf-8')}")
