"""A server in a separate process, for tests through a real browser or another real client.

with live_server("sqlite:////tmp/copy.sqlite") as server:
    client, secret = server.add_client()
    page.goto(server.issuer + server.authorization_url(client))
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

from authserver.testing.server import SETTINGS, Server

START_SECONDS = 30.0


@contextmanager
def live_server(
    database_url: str, settings: Mapping[str, str | None] | None = None, *, host: str = "localhost"
) -> Iterator[Server]:
    """Serve a migrated database with `pserve` at `http://localhost:PORT`, its issuer.

    Args:
        host: the name of this machine in the issuer; a browser keeps the cookies of each name apart.
        settings: INI keys that differ from those of `authserver.testing.server`; `{issuer}` in a value
            becomes the issuer.

    Yields:
        A `Server` on the same database in this process, to prepare and to inspect it.

    Raises:
        RuntimeError: the server did not start, or failed to answer a request; the message has its log.
    """
    port = free_port()
    issuer = f"http://{host}:{port}"
    changes = {"authserver.issuer": issuer, **(settings or {})}
    changes = {key: value and value.replace("{issuer}", issuer) for key, value in changes.items()}
    server = Server(database_url, changes)
    with TemporaryDirectory(prefix="authserver-live-") as folder:
        ini, log = Path(folder, "server.ini"), Path(folder, "server.log")
        ini.write_text(_ini(server.ini, port), encoding="utf-8")
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter on a file of ours
                [sys.executable, "-c", "from pyramid.scripts.pserve import main; main()", str(ini)],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        try:
            _wait(f"{issuer}/health/ready", process, log)
            yield server
            said = log.read_text(encoding="utf-8")
            if "unexpected error" in said:
                raise RuntimeError(f"the server failed to answer a request:\n{said}")
        finally:
            process.terminate()
            process.wait()
            server.close()


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def with_playground(settings: Mapping[str, str | None] | None = None) -> dict[str, str | None]:
    """These settings with the plugin that serves /playground."""
    return {
        "authserver.plugins": SETTINGS["authserver.plugins"] + "\nplayground",
        "authserver.plugin.playground.scopes": "profile files.read",
        **(settings or {}),
    }


def _ini(settings: Mapping[str, str], port: int) -> str:
    lines = ["[app:main]", "use = egg:authserver"]
    for key, value in settings.items():
        lines.append(f"{key} = " + "\n    ".join(value.strip().replace("%", "%%").splitlines()))
    lines += ["[server:main]", "use = egg:authserver", f"listen = 127.0.0.1:{port}", "threads = 4"]
    return "\n".join([*lines, _LOGGING])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(url, timeout=1).close()  # noqa: S310 - a loopback address of ours
            return
        except (URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")


_LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = line
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = line
[formatter_line]
format = %(levelname)s %(name)s: %(message)s
"""
