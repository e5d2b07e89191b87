"""Two real processes on one database: each shows its own figures where it listens for operators, and writes its own log."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authserver.testing.live import free_port
from authserver.testing.server import SETTINGS, Server, basic
from tests.processes import serve

TOKEN = "0123456789abcdef" * 2
INI = """
[app:main]
use = egg:authserver
{settings}

[server:main]
use = egg:authserver
listen = 127.0.0.1:%(http_port)s
management_listen = 127.0.0.1:{management}
url_scheme = https

[loggers]
keys = root, requests

[handlers]
keys = console

[formatters]
keys = json

[logger_root]
level = WARNING
handlers = console

[logger_requests]
level = INFO
handlers =
qualname = authserver.requests

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = json

[formatter_json]
class = authserver.logs.JsonLine
"""


@dataclass
class Process:
    """A process of the server, with the address for operators."""

    port: int
    management: int
    log: Path
    process: BaseProcess

    def token(self, authorization: str, scope: str) -> str:
        """Ask for a token; the request id of the answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/oauth/token",
            urlencode({"grant_type": "client_credentials", "scope": scope}).encode(),
            {"Host": SETTINGS["authserver.issuer"].partition("//")[2], "Authorization": authorization},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return str(answer.headers["X-Request-ID"])
        except urllib.error.HTTPError as refused:
            return str(refused.headers["X-Request-ID"])

    def figures(self) -> dict[tuple[str, ...], float]:
        """Each figure by its name and the values of its labels."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def start(sqlite_url: str, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    settings = {
        **SETTINGS,
        "authserver.database_url": sqlite_url,
        "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nmetrics",
        "authserver.plugin.metrics.tokens": TOKEN,
    }
    text = "\n".join(
        f"{key} = {value}".replace("%", "%%").replace("\n", "\n    ") for key, value in settings.items()
    )
    with ExitStack() as stack:

        def begin() -> Process:
            port, management = free_port(), free_port()
            ini = tmp_path / f"{port}.ini"
            ini.write_text(INI.format(settings=text, management=management))
            log = tmp_path / f"{port}.log"
            found = Process(port, management, log, serve(ini, port, log))
            stack.callback(found.process.join, 20)
            stack.callback(found.process.terminate)
            return found

        yield begin


def wait_for(process: Process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.process.is_alive(), process.log.read_text()
        try:
            process.figures()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(process.log.read_text())


def test_each_process_counts_by_itself_and_together_they_count_all(
    start: Callable[[], Process], sqlite_url: str
) -> None:
    """R-16: a collector that reads both and adds them up has counted every request once."""
    server = Server(sqlite_url)
    client, secret = server.add_client(grant_types=("client_credentials",))
    authorization = basic(client.client_id, secret)
    processes = [start(), start()]
    for process in processes:
        wait_for(process)
    given = [processes[0].token(authorization, "profile") for _ in range(3)]
    given += [processes[1].token(authorization, "profile") for _ in range(2)]
    refused = processes[1].token(authorization, "none-such")
    one, other = (process.figures() for process in processes)
    count = "authserver_request_duration_seconds_count"
    assert (one[count, "2xx", "token"], other[count, "2xx", "token"]) == (3, 2)
    assert one["authserver_events_total", "token.issued"] == 3
    assert other["authserver_events_total", "token.refused"] == 1
    stored = [row["type"] for row in server.rows("events")]
    for kind in ("token.issued", "token.refused"):
        key = ("authserver_events_total", kind)
        assert one.get(key, 0) + other.get(key, 0) == stored.count(kind)
    # Read from the database, so it is the same for both.
    backlog = {key for key in one if key[0] == "authserver_upkeep_backlog_rows"}
    assert backlog
    assert all(one[key] == other[key] for key in backlog)
    # A line for each request, in the log of the process that answered it.
    logged = [
        {line.get("request_id") for line in process.lines() if line.get("endpoint") == "token"}
        for process in processes
    ]
    assert logged == [set(given[:3]), {*given[3:], refused}]
    server.close()
