"""A server in a process of its own, as an operator runs it, and a person with a browser to use it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from bs4 import BeautifulSoup

from authserver.testing.server import PASSWORD, SETTINGS, Server

PSERVE = (sys.executable, "-m", "pyramid.scripts.pserve")
SECONDS_TO_START = 30
INI = """
[app:main]
use = egg:authserver
{settings}

[server:main]
use = egg:authserver
listen = 127.0.0.1:{port}
expose_tracebacks = false
max_request_body_size = 65536
max_request_header_size = 16384
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A `pserve` process.

    Attributes:
        issuer: where it is.
        records: a second, unserved application on the same database, to add to it and to look into it.
    """

    issuer: str
    records: Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """Where the browser ended: a page of the server, or an address that belongs to a client."""

    url: str
    page: BeautifulSoup | None = None


class Person:
    """Somebody at a browser that keeps cookies and follows redirects, but leaves clients' addresses alone."""

    def __init__(self, issuer: str, username: str = "ann", password: str = PASSWORD) -> None:
        self._issuer = issuer
        self._username = username
        self._password = password
        self.http = requests.Session()

    def authorize(self, url: str, answer: str = "allow", *, unticked: Collection[str] = ()) -> str:
        """Follow this authorization URL, sign in where asked, answer the consent page; where it all led to.

        Args:
            unticked: scopes that are not given.
        """
        visited = self._answer(self._visit("GET", url), answer, unticked)
        if visited.page is not None:
            raise AssertionError(visited.page.get_text(" ", strip=True))
        return visited.url

    def connect(self, url: str, answer: str = "allow") -> str:
        """Follow the address of a device with its code, and answer; what the last page says."""
        visited = self._answer(self._visit("GET", url), answer, ())
        assert visited.page is not None
        return str(visited.page.main.get_text(" ", strip=True))

    def _answer(self, visited: Visited, answer: str, unticked: Collection[str]) -> Visited:
        """Answer every page that asks something, and end at the first that does not."""
        while visited.page is not None:
            fields = {field["name"] for field in visited.page.select("form [name]")}
            if "password" in fields:
                visited = self._submit(
                    visited, {"username": self._username, "password": self._password}, "password"
                )
            elif "scope" in fields:
                visited = self._submit(visited, {"answer": answer}, "scope", unticked)
            elif "user_code" in fields:
                visited = self._submit(visited, {}, "user_code")
            else:
                break
        return visited

    def _submit(
        self, visited: Visited, typed: Mapping[str, str], field: str, unticked: Collection[str] = ()
    ) -> Visited:
        """Send the form that has this field, with every other box ticked."""
        assert visited.page is not None
        control = visited.page.select_one(f'form [name="{field}"]')
        form = control.find_parent("form")
        pairs = [
            (item["name"], item.get("value", "on"))
            for item in form.select("input[name]")
            if item["name"] not in typed and item.get("value") not in unticked
        ]
        return self._visit("POST", form["action"], [*pairs, *typed.items()])

    def _visit(self, method: str, url: str, form: list[tuple[str, str]] | None = None) -> Visited:
        while url.startswith(self._issuer + "/"):
            answer = self.http.request(method, url, data=form, allow_redirects=False, timeout=10)
            if answer.status_code != 303:
                assert answer.status_code == 200, answer.text
                return Visited(url=url, page=BeautifulSoup(answer.text, "html.parser"))
            method, url, form = "GET", answer.headers["Location"], None
        return Visited(url=url)


@pytest.fixture(scope="module")
def running_server(
    migrated_sqlite_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    settings_of_running_server: Mapping[str, str],
) -> Iterator[RunningServer]:
    """`pserve` on a loopback port, with the user `ann`. It is stopped afterwards, and has logged no traceback."""
    folder = tmp_path_factory.mktemp("running")
    sqlite_url = f"sqlite:///{shutil.copy(migrated_sqlite_file, folder / 'authserver.db')}"
    port = _free_port()
    issuer = f"http://127.0.0.1:{port}"
    settings = {
        **SETTINGS,
        "authserver.issuer": issuer,
        "authserver.database_url": sqlite_url,
        **settings_of_running_server,
    }
    records = Server(sqlite_url, settings)
    records.add_user("ann")
    ini, log = folder / "server.ini", folder / "server.log"
    # A value of several lines goes on in indented ones, and `%` is PasteDeploy's.
    lines = (f"{key} = {value}".replace("\n", "\n    ").replace("%", "%%") for key, value in settings.items())
    ini.write_text(INI.format(settings="\n".join(lines), port=port), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen([*PSERVE, str(ini)], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(issuer, process, log)
        yield RunningServer(issuer=issuer, records=records)
    finally:
        process.terminate()
        process.wait(timeout=10)
        records.close()
    assert "Traceback" not in log.read_text(encoding="utf-8")


@pytest.fixture
def ann(running_server: RunningServer) -> Person:
    """The user `ann` at her browser, not signed in yet."""
    return Person(running_server.issuer)


@pytest.fixture(scope="module")
def settings_of_running_server() -> Mapping[str, str]:
    """INI keys of `running_server` that differ from `authserver.testing.server.SETTINGS`; a test file overrides it."""
    return {}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(issuer: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    address = urlsplit(issuer)
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=1).close()
        except OSError:
            time.sleep(0.05)
            continue
        if requests.get(f"{issuer}/health/ready", timeout=10).status_code == 200:
            return
    raise AssertionError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
