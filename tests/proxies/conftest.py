"""Debian's nginx, HAProxy and Caddy with the configurations of `docs/examples`, in front of one server with the
`[server:main]` of production.ini. Nothing is changed in them but ports and paths."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authserver.testing.live import free_port
from authserver.testing.server import SETTINGS, Server
from tests.processes import serve

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs/examples"
HOST = "login.example.com"
# Not among the trusted proxies, as 127.0.0.1 is; Linux has all of 127.0.0.0/8.
CLIENT = "127.0.0.77"
PROGRAMS = ("nginx", "haproxy", "caddy")
SECONDS = 60.0


@dataclass(frozen=True)
class Front:
    """Where requests are sent: to the server itself or to a proxy."""

    name: str
    port: int
    tls: bool

    def connect(self, source: str = CLIENT, timeout: float = 10) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout, (source, 0))
        if not self.tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=HOST)

    def ask(self, data: bytes, source: str = CLIENT, timeout: float = 10) -> bytes:
        """All that comes back until the connection is closed, or nothing has come for some time."""
        with self.connect(source, timeout) as connection:
            send(connection, data)
            return read(connection, timeout)

    def get(self, path: str = "/health/live", source: str = CLIENT, **headers: str) -> bytes:
        return self.ask(request("GET", path, source_headers=headers), source)


def request(
    method: str, path: str, body: bytes = b"", *, source_headers: Mapping[str, str] | None = None
) -> bytes:
    """A tidy request, after which the connection is closed; `X_Y` in headers is `X-Y`."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in (source_headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it may have been refused before all was sent
        connection.sendall(data)


def read(connection: socket.socket, timeout: float) -> bytes:
    connection.settimeout(timeout)
    received = b""
    with suppress(OSError):
        while piece := connection.recv(65536):
            received += piece
    return received


def statuses(received: bytes) -> list[int]:
    """The status of each response, those for 100 left out."""
    found = re.findall(rb"(?:^|(?<=[\r\n\]}>]))HTTP/1\.[01] (\d{3})", received)
    return [int(status) for status in found if status != b"100"]


@dataclass(frozen=True)
class Edge:
    """The server, with what is in front of it."""

    server: Server
    direct: Front
    management: Front
    fronts: tuple[Front, ...]

    def front(self, name: str) -> Front:
        return next(front for front in (self.direct, *self.fronts) if front.name == name)


@dataclass(frozen=True)
class Served:
    """A process of the server."""

    direct: Front
    management: Front
    process: BaseProcess
    folder: Path


@pytest.fixture(scope="session")
def is_long() -> bool:
    """Whether `make proxies` asks for the long forms."""
    return os.environ.get("AUTHSERVER_PROXIES") == "long"


@pytest.fixture(scope="session")
def edge(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    for program in PROGRAMS:
        if find(program) is None and not os.environ.get("CI"):
            pytest.skip(f"{program} is not installed; on Debian: apt-get install nginx-light haproxy caddy")
    folder = Path(tempfile.mkdtemp(prefix="authserver-proxies-"))
    folder.chmod(0o755)  # nginx' workers are somebody else
    database = Path(shutil.copy(migrated_sqlite_file, folder / "authserver.db"))
    certificate(folder)
    settings = {
        "authserver.issuer": f"https://{HOST}",
        "authserver.database_url": f"sqlite:///{database}",
        "authserver.trusted_proxies": "127.0.0.1 ::1",
        "authserver.trusted_proxy_hops": "2",
    }
    server = Server(settings["authserver.database_url"], settings)
    with ExitStack() as running:
        running.callback(shutil.rmtree, folder, ignore_errors=True)
        running.callback(server.close)
        served = running.enter_context(pserve(folder, settings))
        fronts = running.enter_context(proxies(folder, served.direct.port, served.management.port))
        yield Edge(server, served.direct, served.management, fronts)


@contextmanager
def pserve(
    folder: Path, settings: Mapping[str, str], *, unix: Path | None = None, **changes: str
) -> Iterator[Served]:
    """One process with the `[server:main]` of production.ini, changed like this; `unix` is instead of host and port."""
    port, management = free_port(), free_port()
    shipped = (CHECKOUT / "production.ini").read_text()
    section = shipped[shipped.index("[DEFAULT]") :].replace("16543", str(management), 1)
    if unix:
        # The variable of the command line has to be used.
        section = re.sub(
            r"(?m)^get host = .*\nget port = .*$", f"unix_socket = {unix}-%(http_port)s", section
        )
    for name, value in {"processes": "0", "stop_delay": "0", **changes}.items():
        section, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", section)
        assert count == 1, name
    lines = [
        f"{key} = {value}".replace("%", "%%").replace("\n", "\n    ")
        for key, value in {**SETTINGS, **settings}.items()
    ]
    ini = folder / "server.ini"
    ini.write_text("\n".join(["[app:main]", "use = egg:authserver", *lines, "", section]))
    log = folder / "server.log"
    process = serve(ini, port, log)
    try:
        wait_for(management, lambda: process.is_alive(), log)
        yield Served(
            Front("direct", port, tls=False), Front("management", management, tls=False), process, folder
        )
    finally:
        process.terminate()
        process.join(20)
        sys.stdout.write(log.read_text())  # which pytest shows when a test failed
        assert process.exitcode == 0, "it did not end by itself"


def wait_for(port: int, is_alive: Callable[[], bool], log: Path) -> None:
    """Until something listens on this port."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and is_alive():
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"it did not start: {log.read_text() if log.exists() else ''}")


@contextmanager
def proxies(folder: Path, port: int, management: int) -> Iterator[tuple[Front, ...]]:
    """Each proxy by its shipped example, and HAProxy once more in front of the nginx that is an inner one."""
    ports = {name: free_port() for name in ("nginx", "inner", "haproxy", "caddy", "chain")}
    (folder / "haproxy.cfg").write_text(
        adapted(
            "haproxy.cfg", folder, port, management, **{"bind :443": f"bind 127.0.0.1:{ports['haproxy']}"}
        )
    )
    (folder / "chain.cfg").write_text(
        adapted(
            "haproxy.cfg",
            folder,
            ports["inner"],
            management,
            **{"bind :443": f"bind 127.0.0.1:{ports['chain']}"},
        )
    )
    (folder / "Caddyfile").write_text(
        adapted(
            "Caddyfile",
            folder,
            port,
            management,
            **{"login.example.com {": f"https://login.example.com:{ports['caddy']} {{\n    bind 127.0.0.1"},
        )
    )
    sites = [
        adapted(
            "nginx.conf", folder, port, management, **{"listen 443": f"listen 127.0.0.1:{ports['nginx']}"}
        ),
        adapted(
            "nginx-inner.conf",
            folder,
            port,
            management,
            **{"listen 8080": f"listen 127.0.0.1:{ports['inner']}"},
        ),
    ]
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, sites="\n".join(sites)))
    commands = {
        "nginx": [find("nginx"), "-e", "stderr", "-c", f"{folder}/nginx.conf"],
        "haproxy": [find("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"],
        "chain": [find("haproxy"), "-db", "-f", f"{folder}/chain.cfg"],
        "caddy": [find("caddy"), "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"],
    }
    with ExitStack() as running:
        processes = {}
        for name, command in commands.items():
            log = running.enter_context((folder / f"{name}.log").open("wb"))
            environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
            processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            running.callback(stop, processes[name])
        for name, process in processes.items():
            wait_for(ports[name], lambda process=process: process.poll() is None, folder / f"{name}.log")
        yield tuple(Front(name, ports[name], tls=True) for name in commands)


def adapted(example: str, folder: Path, port: int, management: int, **places: str) -> str:
    """A shipped example with the ports and paths of this run."""
    text = (EXAMPLES / example).read_text()
    changes = {
        **places,
        "127.0.0.1:6543": f"127.0.0.1:{port}",
        "/etc/ssl/": f"{folder}/",
    }
    for old, new in changes.items():
        assert old in text or old == "/etc/ssl/", (example, old)
        text = text.replace(old, new)
    return re.sub(r"port 16543", f"port {management}", text)


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{sites}
}}
"""


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


def certificate(folder: Path) -> None:
    """A key and a certificate of its own: each in a file, and both in one, as HAProxy has them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{HOST}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    (folder / f"{HOST}.key").write_bytes(private)
