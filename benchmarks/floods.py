#!/usr/bin/env python3
"""Measure what honest callers notice of a flood: a client, somebody who signs in, and the liveness probe.

    benchmarks/floods.py                                  all floods, about five minutes
    benchmarks/floods.py --floods secrets --requests 1000 a quick look
    benchmarks/floods.py --addresses 30                   from so many addresses, which have limits of their own

Starts `pserve` with the settings of development.ini: one process, SQLite (or `--database postgresql`), and the limits of
production.ini.
The flood comes from 127.0.0.2 and further addresses, the honest callers from 127.0.0.1. Between the floods they are
measured alone. The goal: a p95 of at most twice that of an idle server, and below 100 ms for liveness. Exit status 1 when
the honest got a wrong answer, or none, or when the goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import json
import multiprocessing
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import run

FLOODS = {
    "registrations": "registrations of clients, each with nothing wrong in it",
    "secrets": "token requests with a wrong secret, for a client that exists and for clients that do not",
    "sign-ins": "sign-ins with a wrong password, as somebody who exists and as people who do not",
    "connections": "connections that send a byte of a request now and then",
}
HONEST, ATTACKER = "127.0.0.1", "127.0.0.2"
# What the requests of a flood may be answered with; else it was not the flood that it should be.
EXPECTED = {
    "registrations": {"201", "429"},
    "secrets": {"401", "429"},
    "sign-ins": {"400", "429", "503"},
    "connections": {"still open", "closed"},
}
# Of the goal: times the idle p95, and milliseconds.
TIMES, LIVENESS = 2.0, 100.0
# Seconds after which the honest give up.
PATIENCE = 5.0
# Connections of a flood of requests; each sends its next request when the last one was answered.
CONNECTIONS = 32
# The lowest priority but one: on a small machine the flood must not take the processor from the server.
NICENESS = 18
WRONG_SECRET = "as_secret_" + "x" * 43


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server, and what is needed to be served by it."""

    port: int
    process: int
    secret: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one honest caller, in milliseconds."""

    requests: int
    p50: float
    p95: float
    wrong: int
    first_wrong: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the honest noticed of one flood, and what the flood got.

    Attributes:
        seconds: how long it lasted.
        sent: requests of the flood, or its connections.
        answers: how many of each status; of connections, how many were still open at the end.
        server_cpu, flood_cpu: the processors that both used, 1.0 is one of them.
        callers: by name.
    """

    flood: str
    seconds: float
    sent: int
    answers: Mapping[str, int]
    server_cpu: float
    flood_cpu: float
    callers: Mapping[str, Latency]


# ---- the honest -------------------------------------------------------------------------------------


def token(target: Target) -> str | None:
    """A token by client_credentials. Returns what was wrong with the answer, or None."""
    with connection(target) as opened:
        credentials = base64.b64encode(f"demo-service:{target.secret}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": FORM}
        status, answer = run.ask(opened, headers, grant_type="client_credentials")
        return None if status == 200 and answer.get("access_token") else f"{status} {answer}"


def sign_in(target: Target) -> str | None:
    """The sign-in page, and the right password, in a browser that was never seen before."""
    with connection(target) as opened:
        page = login_page(opened)
        body = page.form("demo", target.password)
        opened.request("POST", "/login", body, {"Content-Type": FORM, "Cookie": page.cookie})
        response = opened.getresponse()
        text = response.read()
        is_right = response.status == 303 and "authserver-session=" in str(response.headers)
        return None if is_right else f"{response.status} {text[:200]!r}"


def liveness(target: Target) -> str | None:
    with connection(target) as opened:
        opened.request("GET", "/health/live")
        response = opened.getresponse()
        response.read()
        return None if response.status == 200 else str(response.status)


# Each caller, and how many times a second it comes.
CALLERS: Mapping[str, tuple[Callable[[Target], str | None], float]] = {
    "token": (token, 8.0),
    "sign-in": (sign_in, 2.0),
    "liveness": (liveness, 8.0),
}
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class LoginPage:
    """What a form of the sign-in page is sent with."""

    token: str
    cookie: str

    def form(self, username: str, password: str) -> str:
        fields = {"csrf_token": self.token, "request": "", "page": ""}
        return urlencode({**fields, "username": username, "password": password})


def login_page(opened: http.client.HTTPConnection) -> LoginPage:
    """Raises OSError when the server shows none."""
    opened.request("GET", "/login")
    response = opened.getresponse()
    found = re.search(r'name="csrf_token"\s+value="([^"]+)"', response.read().decode())
    if response.status != 200 or not found:
        raise OSError(f"no sign-in page, but {response.status}")
    return LoginPage(found[1], response.headers["Set-Cookie"].partition(";")[0])


@contextmanager
def connection(target: Target) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(
        "127.0.0.1", target.port, timeout=PATIENCE, source_address=(HONEST, 0)
    )
    try:
        yield opened
    finally:
        opened.close()


class Honest:
    """The honest callers, each in a thread; from `start` until `stop` they come at an even pace."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.found: dict[str, list[float]] = {name: [] for name in CALLERS}
        self.wrong: dict[str, list[str]] = {name: [] for name in CALLERS}
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(name,)) for name in CALLERS]

    def __enter__(self) -> Honest:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _come(self, name: str) -> None:
        once, pace = CALLERS[name]
        due = time.perf_counter()
        while True:
            begun = time.perf_counter()
            try:
                problem = once(self.target)
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = repr(error)
            self.found[name].append((time.perf_counter() - begun) * 1000)
            if problem:
                self.wrong[name].append(problem)
            # Who waited long does not make up for it afterwards.
            due = max(due + 1 / pace, time.perf_counter())
            if self._ends.wait(max(0.0, due - time.perf_counter())):
                return

    def latencies(self) -> dict[str, Latency]:
        return {name: latency_of(self.found[name], self.wrong[name]) for name in CALLERS}


def latency_of(milliseconds: Sequence[float], wrong: Sequence[str]) -> Latency:
    cuts = statistics.quantiles(milliseconds, n=20) if len(milliseconds) > 1 else [*milliseconds] * 19
    return Latency(
        requests=len(milliseconds),
        p50=round(cuts[9], 1),
        p95=round(cuts[18], 1),
        wrong=len(wrong),
        first_wrong=wrong[0] if wrong else "",
    )


# ---- the floods -------------------------------------------------------------------------------------


@dataclass
class Told:
    """What a flood got."""

    sent: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)


class Flood(Protocol):
    async def __call__(self, target: Target, options: argparse.Namespace, told: Told) -> None: ...


async def flood_registrations(target: Target, options: argparse.Namespace, told: Told) -> None:
    def request(number: int) -> bytes:
        metadata = {"client_name": f"Flood {number}", "redirect_uris": [f"https://flood.example/{number}"]}
        return request_of(target, "/oauth/register", json.dumps(metadata), "Content-Type: application/json")

    await send_all(target, options, told, request, options.requests, options.rate)


async def flood_secrets(target: Target, options: argparse.Namespace, told: Told) -> None:
    def request(number: int) -> bytes:
        client_id = "demo-service" if number % 2 else f"client-{number}"
        credentials = base64.b64encode(f"{client_id}:{WRONG_SECRET}".encode()).decode()
        return request_of(
            target, "/oauth/token", "grant_type=client_credentials", f"Authorization: Basic {credentials}"
        )

    await send_all(target, options, told, request, options.requests, options.rate)


async def flood_sign_ins(target: Target, options: argparse.Namespace, told: Told) -> None:
    with connection(target) as opened:
        page = login_page(opened)

    def request(number: int) -> bytes:
        name = "demo" if number % 2 else f"person-{number}"
        return request_of(target, "/login", page.form(name, "a wrong password"), f"Cookie: {page.cookie}")

    number = int(options.sign_ins * options.seconds)
    await send_all(target, options, told, request, number, options.sign_ins)


async def flood_connections(target: Target, options: argparse.Namespace, told: Told) -> None:
    ends = time.perf_counter() + options.seconds / 2

    async def drip(number: int) -> None:
        told.sent += 1
        try:
            _, writer = await asyncio.wait_for(opened_from(target, options, number), PATIENCE)
            writer.write(f"POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nX-Long: ".encode())
            while time.perf_counter() < ends:
                await asyncio.sleep(1)
                writer.write(b"x")
                await writer.drain()
                if writer.is_closing():
                    raise ConnectionResetError
            told.answers["still open"] += 1
            writer.close()
        except (OSError, TimeoutError):
            told.answers["closed"] += 1
            # Who floods comes again; a second or so later, as connecting costs the flood something too.
            await asyncio.sleep(1)
            if time.perf_counter() < ends:
                await drip(number)

    await asyncio.gather(*(drip(number) for number in range(options.connections)))


async def send_all(
    target: Target,
    options: argparse.Namespace,
    told: Told,
    request: Callable[[int], bytes],
    number: int,
    rate: float,
) -> None:
    """Send so many requests, not more than `rate` a second, over some connections."""
    begun = time.perf_counter()
    numbers = iter(range(number))

    async def worker(own: int) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for each in numbers:
            if (early := begun + each / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            told.sent += 1
            try:
                if streams is None:
                    streams = await opened_from(target, options, own)
                streams[1].write(request(each))
                told.answers[await answered(streams[0])] += 1
            except (OSError, EOFError, ValueError) as error:
                told.answers[type(error).__name__] += 1
                streams = None

    await asyncio.gather(*(worker(own) for own in range(min(CONNECTIONS, number))))


def request_of(target: Target, path: str, body: str, header: str) -> bytes:
    kind = "" if header.startswith("Content-Type") else f"Content-Type: {FORM}\r\n"
    lines = f"Host: 127.0.0.1:{target.port}\r\n{kind}{header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{lines}{body}".encode()


async def opened_from(
    target: Target, options: argparse.Namespace, number: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from one of the addresses of the flood: 127.0.0.2, 127.0.0.3, and so on."""
    address = f"127.0.0.{int(ATTACKER.rpartition('.')[2]) + number % options.addresses}"
    return await asyncio.open_connection("127.0.0.1", target.port, local_addr=(address, 0))


async def answered(reader: asyncio.StreamReader) -> str:
    """Read an answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return head[9:12].decode()


BY_NAME: Mapping[str, Flood] = {
    "registrations": flood_registrations,
    "secrets": flood_secrets,
    "sign-ins": flood_sign_ins,
    "connections": flood_connections,
}


def flood(name: str, target: Target, options: argparse.Namespace, pipe: Any) -> None:
    """What the process of a flood does; it sends what it was told through the pipe."""
    with suppress(OSError):
        os.nice(NICENESS)
    told = Told()
    begun, cpu = time.perf_counter(), time.process_time()
    asyncio.run(BY_NAME[name](target, options, told))
    told.seconds, told.cpu = time.perf_counter() - begun, time.process_time() - cpu
    pipe.send(told)


# ---- measuring and telling --------------------------------------------------------------------------


def with_usual_limits(text: str) -> str:
    """The INI file with the table of limits that production.ini has, in place of one for test suites."""
    table = re.compile(r"(?m)^authserver\.plugin\.rate_limits\.limits =\n(?:    .*\n)+")
    usual = table.search((run.HERE.parent / "production.ini").read_text())
    assert usual
    return table.sub(lambda _: usual[0], text)


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[Target]:
    """`pserve` with a copy of the INI file in a folder of its own, which is removed afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authserver-floods-")))
        port = run.free_port()
        text = with_usual_limits(Path(options.ini).read_text()).replace("localhost:6543", f"127.0.0.1:{port}")
        if options.database == "postgresql":
            url, _ = stack.enter_context(run.postgresql_server())
            line = f"authserver.database_url = {url.replace('%', '%%')}"
            text = re.sub(r"(?m)^authserver\.database_url = .*$", lambda _: line, text)
        ini = folder / "floods.ini"
        ini.write_text(text)
        programs = Path(sys.executable).parent
        subprocess.run(
            [programs / "authserver", "-c", ini, "demo"], check=True, stdout=subprocess.DEVNULL, timeout=120
        )
        with (folder / "log").open("w+") as log:
            server = subprocess.Popen([programs / "pserve", ini], stdout=log, stderr=log)
            try:
                run.wait_for(port, server)
                secret, password = ((folder / ".local" / name).read_text().strip() for name in SECRETS)
                yield Target(port=port, process=server.pid, secret=secret, password=password)
            finally:
                if server.poll() is not None:
                    log.seek(0)
                    print(*log.readlines()[-30:], sep="", file=sys.stderr)
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(10)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()


SECRETS = ("demo-service.secret", "demo.password")


def measure(name: str, target: Target, options: argparse.Namespace) -> Row:
    """The honest during one flood."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    attacker = fork.Process(target=flood, args=(name, target, options, sender), daemon=True)
    attacker.start()
    sender.close()
    cpu, begun = run.cpu_seconds(target.process), time.perf_counter()
    with Honest(target) as honest:
        try:
            told: Told = receiver.recv()
        except EOFError:
            raise SystemExit(f"{name}: the flood did not work; why is above") from None
        finally:
            attacker.terminate()
            attacker.join()
    elapsed = time.perf_counter() - begun
    return Row(
        flood=name,
        seconds=round(told.seconds, 1),
        sent=told.sent,
        answers=dict(sorted(told.answers.items())),
        server_cpu=round((run.cpu_seconds(target.process) - cpu) / elapsed, 2),
        flood_cpu=round(told.cpu / told.seconds, 2),
        callers=honest.latencies(),
    )


class Idle:
    """The honest alone, in all pauses between the floods together."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {name: [] for name in CALLERS}
        self._wrong: dict[str, list[str]] = {name: [] for name in CALLERS}
        self._seconds = self._cpu = 0.0

    def wait(self, target: Target, seconds: float) -> None:
        cpu, begun = run.cpu_seconds(target.process), time.perf_counter()
        with Honest(target) as honest:
            time.sleep(seconds)
        self._seconds += time.perf_counter() - begun
        self._cpu += run.cpu_seconds(target.process) - cpu
        for name in CALLERS:
            self._found[name] += honest.found[name]
            self._wrong[name] += honest.wrong[name]

    def row(self) -> Row:
        callers = {name: latency_of(self._found[name], self._wrong[name]) for name in CALLERS}
        return Row(
            flood="none",
            seconds=round(self._seconds, 1),
            sent=0,
            answers={},
            server_cpu=round(self._cpu / self._seconds, 2),
            flood_cpu=0.0,
            callers=callers,
        )


def ratio(row: Row, idle: Row, name: str) -> float:
    """The p95 of this caller, in times of the idle one."""
    return round(row.callers[name].p95 / max(idle.callers[name].p95, 0.1), 2)


def problems_of(rows: Sequence[Row], idle: Row) -> list[str]:
    """Why the exit status is 1."""
    found = []
    for row in (idle, *rows):
        if strange := row.answers.keys() - EXPECTED.get(row.flood, set()):
            found.append(f"{row.flood}: it was answered with {', '.join(sorted(strange))}")
        for name, caller in row.callers.items():
            if caller.wrong or not caller.requests:
                found.append(
                    f"{row.flood}: {name}: {caller.wrong} of {caller.requests} wrong: {caller.first_wrong}"
                )
            elif name == "liveness" and caller.p95 >= LIVENESS:
                found.append(f"{row.flood}: liveness has a p95 of {caller.p95} ms, not below {LIVENESS:g}")
            elif name != "liveness" and (times := ratio(row, idle, name)) > TIMES:
                found.append(
                    f"{row.flood}: {name} has a p95 of {times} times the idle one, more than {TIMES:g}"
                )
    return found


def machine() -> dict[str, Any]:
    """What this was measured on; the flood and the honest share it with the server."""
    names = re.findall(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def show(rows: Sequence[Row], idle: Row, found: Mapping[str, Any]) -> None:
    print(
        f"{found['processors']} processors ({found['processor']}), Python {found['python']}, load "
        f"{found['load_before']} before; the server, the flood and the honest callers share them.\n"
    )
    heading = ["flood", "s", "sent", "server CPU", "flood CPU"]
    heading += [f"{name} {what}" for name in CALLERS for what in ("p50 ms", "p95 ms", "times", "wrong")]
    cells = [heading]
    for row in (idle, *rows):
        line = [
            row.flood,
            f"{row.seconds:.0f}",
            str(row.sent),
            f"{row.server_cpu:.2f}",
            f"{row.flood_cpu:.2f}",
        ]
        for name, caller in row.callers.items():
            line += [
                f"{caller.p50:.1f}",
                f"{caller.p95:.1f}",
                f"{ratio(row, idle, name):.1f}",
                str(caller.wrong),
            ]
        cells.append(line)
    # A column for each flood: there are more figures than floods.
    lines = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in cells]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()
    for row in rows:
        answers = ", ".join(f"{status}: {count}" for status, count in row.answers.items())
        print(f"{row.flood}: {FLOODS[row.flood]}; answers: {answers}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="floods: " + "; ".join(f"{name}: {words}" for name, words in FLOODS.items()),
    )  # fmt: skip
    parser.add_argument("--floods", default=",".join(FLOODS), help="a list with commas (default: all)")
    parser.add_argument("--requests", type=int, default=10_000, help="registrations, and secrets (10000)")
    parser.add_argument("--rate", type=float, default=200, help="of these a second, at most (200)")
    parser.add_argument("--sign-ins", type=float, default=50, help="a second (50)")
    parser.add_argument("--seconds", type=float, default=60, help="of sign-ins; of connections the half (60)")
    parser.add_argument("--connections", type=int, default=500, help="that drip (500)")
    parser.add_argument("--addresses", type=int, default=1, help="of the flood, 1 to 250 (1)")
    parser.add_argument("--pause", type=float, default=12, help="seconds before each flood, and after (12)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--ini", default=str(run.HERE.parent / "development.ini"), help="its settings")
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of the table")
    options = parser.parse_args()
    chosen = options.floods.split(",")
    if unknown := [name for name in chosen if name not in FLOODS]:
        parser.error(f"no such flood: {unknown[0]}")
    numbers = (
        options.requests,
        options.rate,
        options.sign_ins,
        options.seconds,
        options.connections,
        options.pause,
    )
    if min(numbers) <= 0 or not 1 <= options.addresses <= 250:
        parser.error("numbers must be positive, and addresses at most 250")
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, options.connections + 200), most), most))
    found, idle, rows = machine(), Idle(), []
    with serving(options) as target:
        with Honest(target):
            time.sleep(min(3, options.pause))  # to warm up
        for name in chosen:
            idle.wait(target, options.pause)
            rows.append(measure(name, target, options))
            print(f"{name}: {FLOODS[name]}: done", file=sys.stderr)
            # What a flood left in queues is not the idle server's.
            time.sleep(min(2, options.pause))
        idle.wait(target, options.pause)
    alone = idle.row()
    if options.json:
        answer = {"machine": found, "idle": asdict(alone), "floods": [asdict(row) for row in rows]}
        print(json.dumps(answer, indent=2))
    else:
        show(rows, alone, found)
    problems = problems_of(rows, alone)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
