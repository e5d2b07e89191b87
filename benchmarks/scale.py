#!/usr/bin/env python3
"""Measure what a large database costs: the same requests to a server with an empty one and to one with many rows.

    benchmarks/scale.py                                             some minutes
    benchmarks/scale.py --clients 20000 --tokens 100000 --rounds 2  a quick look

Two databases of one PostgreSQL, a server (serve.py) for each. They are measured in turns, a few seconds each, and
each round gives a ratio, so that what else the machine does falls on both; the median of the ratios counts. Exit
status 1 when an answer is wrong, or when p95 is more than 1.5 times that of the empty database.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
import run
from fill import Family, add_family, fill
from run import Figures
from settings import KEY_ID, RESOURCE

WORKLOADS = {
    "W1": "a token by client_credentials, for one of many clients",
    "W2": "an introspection of one of many access and refresh tokens",
    "W3": "a refresh in a family that was rotated often",
    "W4": "a code redeemed, with PKCE",
}
# The highest ratio of p95 that is good enough.
LIMIT = 1.5
ASKING_CLIENTS = 1000
INTROSPECTED_GRANTS = 500
# Of the families in the empty database.
FEW_ROTATIONS = 3
# Families whose oldest token is used again.
STOLEN = 5


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two databases, and the server on it.

    Attributes:
        tokens: what W2 asks about.
        chains: a file for each connection of W3 with the one live refresh token of its family.
        stolen: families whose oldest token is to be used again.
    """

    name: str
    environment: Mapping[str, str]
    port: int
    server: int
    tokens: list[str]
    chains: list[str]
    stolen: list[Family]

    def inputs(self, workload: str, connections: int, seconds: float) -> list[list[str]]:
        """What each connection needs in one round."""
        if workload == "W2":
            return [self.tokens] * connections
        if workload == "W3":
            return [[chain] for chain in self.chains]
        return run.inputs_for(workload, self.port, connections, seconds, self.environment)


def credentials(connection: http.client.HTTPConnection, _: list[str]) -> str | None:
    """W1 of `run.py`, each time for another client."""
    headers = run.authorization(f"bench-{random.randint(1, ASKING_CLIENTS)}")
    status, answer = run.ask(connection, headers, grant_type="client_credentials", scope="read")
    is_right = status == 200 and answer.get("access_token") and answer.get("scope") == "read"
    return None if is_right else f"{status} {answer}"


def introspect(connection: http.client.HTTPConnection, own: list[str]) -> str | None:
    """W2 of `run.py`, each time of another token."""
    status, answer = run.ask(connection, run.CODE, "/oauth/introspect", token=random.choice(own))
    is_right = status == 200 and answer.get("active") is True
    return None if is_right else f"{status} {answer}"


def refresh(connection: http.client.HTTPConnection, own: list[str]) -> str | None:
    """W3 of `run.py`; the chain goes on in the next round."""
    chain = Path(own[0])
    status, answer = present(connection, chain.read_text())
    chain.write_text(answer.get("refresh_token") or "none")
    is_right = status == 200 and answer.get("access_token") and answer.get("refresh_token")
    return None if is_right else f"{status} {answer}"


def reuse(side: Side, family: Family) -> tuple[float, str]:
    """Milliseconds until the oldest token of a family is refused and the family revoked; what was wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=run.TIMEOUT)
    begun = time.perf_counter()
    status, answer = present(connection, family.first)
    elapsed = (time.perf_counter() - begun) * 1000
    late, _ = present(connection, family.last)
    connection.close()
    is_right = (status, answer.get("error"), late) == (400, "invalid_grant", 400)
    return elapsed, "" if is_right else f"{status} {answer}, then {late}"


def present(connection: http.client.HTTPConnection, token: str) -> tuple[int, Mapping[str, Any]]:
    return run.ask(connection, run.CODE, grant_type="refresh_token", refresh_token=token)


# ---- the two sides ----------------------------------------------------------------------------------


@contextmanager
def sides(options: argparse.Namespace) -> Iterator[tuple[int, Side, Side]]:
    """PostgreSQL's process id, the empty side and the filled one."""
    with run.postgresql_server() as (empty_url, postgresql), tempfile.TemporaryDirectory() as folder:
        filled_url = empty_url.replace("/benchmark?", "/filled?")
        with psycopg.connect(empty_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE DATABASE filled")
        prepared = []
        for name, url, rotations in (
            ("empty", empty_url, FEW_ROTATIONS),
            ("filled", filled_url, options.rotations),
        ):
            begun, environment = time.perf_counter(), environment_of(url)
            run.seed(environment, "setup")
            run.seed(environment, "clients", str(ASKING_CLIENTS))
            if name == "filled":
                fill(url, key_id=KEY_ID, client_count=options.clients, token_count=options.tokens)
            families = families_of(url, options.connections + STOLEN, rotations)
            chains = [Path(folder, f"{name}-{family.grant_id}") for family in families[STOLEN:]]
            for chain, family in zip(chains, families[STOLEN:], strict=True):
                chain.write_text(family.last)
            prepared.append((name, environment, [str(chain) for chain in chains], families[:STOLEN]))
            say(f"{name} database prepared in {time.perf_counter() - begun:.0f} s")
        with psycopg.connect(filled_url.replace("+psycopg", ""), autocommit=True) as connection:
            # What would follow at some time anyway should not fall into the measurement.
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        with serving(*prepared[0], options) as empty, serving(*prepared[1], options) as filled:
            yield postgresql, empty, filled


def families_of(url: str, count: int, rotations: int) -> list[Family]:
    """New families of the client whose codes and refresh tokens are measured."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        (user_id,) = connection.execute("SELECT user_id FROM users WHERE username = 'bench'").fetchone()
    return [
        add_family(
            url,
            client_id="bench-code",
            user_id=user_id,
            scopes=("read",),
            resources=(RESOURCE,),
            rotations=rotations,
        )
        for _ in range(count)
    ]


def environment_of(url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url,
        "PYTHONPATH": str(run.HERE.parent),
        "CHALLENGE": run.CHALLENGE,
    }


@contextmanager
def serving(
    name: str,
    environment: Mapping[str, str],
    chains: list[str],
    stolen: list[Family],
    options: argparse.Namespace,
) -> Iterator[Side]:
    with run.measured_server(environment, options.processes, options.threads) as (port, server):
        tokens = tokens_to_introspect(port, environment)
        yield Side(
            name=name,
            environment=environment,
            port=port,
            server=server,
            tokens=tokens,
            chains=chains,
            stolen=stolen,
        )


def tokens_to_introspect(port: int, environment: Mapping[str, str]) -> list[str]:
    """The access and the refresh tokens of some grants."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=run.TIMEOUT)
    tokens = []
    for code in run.fresh_codes(environment, INTROSPECTED_GRANTS):
        _, answer = run.ask(
            connection,
            run.CODE,
            grant_type="authorization_code",
            code=code,
            redirect_uri=run.REDIRECT_URI,
            code_verifier=run.VERIFIER,
        )
        tokens += [str(answer.get(name) or "none") for name in ("access_token", "refresh_token")]
    connection.close()
    return tokens


# ---- measuring and telling --------------------------------------------------------------------------


def measure(
    options: argparse.Namespace, workload: str, postgresql: int, both: tuple[Side, Side]
) -> dict[str, list[Figures]]:
    """The figures of every round, by the name of the side."""
    found: dict[str, list[Figures]] = {side.name: [] for side in both}
    for number in range(options.rounds + 1):
        for side in both if number % 2 else reversed(both):
            inputs = side.inputs(workload, options.connections, options.seconds)
            figures = run.measure(workload, side.port, options.seconds, inputs, side.server, postgresql)
            # The first round only warms up.
            if number:
                found[side.name].append(figures)
    say(f"{workload}: {WORKLOADS[workload]}: done")
    return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """One workload on both sides: medians of the rounds, and the medians of their ratios."""

    workload: str
    empty: Figures
    filled: Figures
    p50_ratio: float
    p95_ratio: float
    wrong: int
    first_wrong: str


def row_of(workload: str, found: Mapping[str, list[Figures]]) -> Row:
    empty, filled = found["empty"], found["filled"]
    wrong = [figures for figures in (*empty, *filled) if figures.wrong or not figures.requests]

    def ratio(name: str) -> float:
        pairs = zip(empty, filled, strict=True)
        return statistics.median(getattr(b, name) / max(getattr(a, name), 0.001) for a, b in pairs)

    return Row(
        workload=workload,
        empty=median_of(empty),
        filled=median_of(filled),
        p50_ratio=ratio("p50"),
        p95_ratio=ratio("p95"),
        wrong=sum(figures.wrong for figures in wrong),
        first_wrong=wrong[0].first_wrong or "no answer at all" if wrong else "",
    )


def median_of(rounds: list[Figures]) -> Figures:
    """Each figure's median."""
    numbers = ("per_second", "p50", "p95", "p99", "server_cpu", "postgresql_cpu")
    medians = {name: statistics.median(getattr(figures, name) for figures in rounds) for name in numbers}
    return Figures(
        **{
            **asdict(rounds[0]),
            **medians,
            "requests": sum(figures.requests for figures in rounds),
            "seconds": sum(figures.seconds for figures in rounds),
        }
    )


def show(rows: list[Row]) -> None:
    heading = (
        "workload", "requests/s", "p50 ms", "ratio", "p95 ms", "ratio",
        "server CPU s/1000", "PostgreSQL CPU s/1000", "wrong",
    )  # fmt: skip
    cells = [heading]
    for row in rows:
        both = row.empty, row.filled
        cells.append(
            (
                row.workload,
                " / ".join(f"{figures.per_second:.0f}" for figures in both),
                " / ".join(f"{figures.p50:.1f}" for figures in both),
                f"{row.p50_ratio:.2f}",
                " / ".join(f"{figures.p95:.1f}" for figures in both),
                f"{row.p95_ratio:.2f}",
                " / ".join(f"{figures.server_cpu:.3f}" for figures in both),
                " / ".join(f"{figures.postgresql_cpu:.3f}" for figures in both),
                str(row.wrong),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="workloads: " + "; ".join(f"{name}: {words}" for name, words in WORKLOADS.items()),
    )  # fmt: skip
    parser.add_argument("--clients", type=int, default=100_000, help="in the filled database")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="in the filled database")
    parser.add_argument("--rotations", type=int, default=10_000, help="of each family in the filled database")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a list with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=11, help="of each workload and database (default: 11)")
    parser.add_argument("--seconds", type=float, default=2, help="for each round (default: 2)")
    parser.add_argument("--connections", type=int, default=8, help="open at once (default: 8)")
    parser.add_argument("--processes", type=int, default=2, help="of each server (default: 2)")
    parser.add_argument("--threads", type=int, default=4, help="in each process (default: 4)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of the table")
    options = parser.parse_args()
    chosen = options.workloads.split(",")
    if unknown := [name for name in chosen if name not in WORKLOADS]:
        parser.error(f"no such workload: {unknown[0]}")
    run.REQUESTS.update({"W1": credentials, "W2": introspect, "W3": refresh})
    with sides(options) as (postgresql, empty, filled):
        rows = [row_of(name, measure(options, name, postgresql, (empty, filled))) for name in chosen]
        reused = {side.name: [reuse(side, family) for family in side.stolen] for side in (empty, filled)}
    times = {name: [elapsed for elapsed, _ in found] for name, found in reused.items()}
    if options.json:
        print(json.dumps({"workloads": [asdict(row) for row in rows], "reuse_ms": times}, indent=2))
    else:
        show(rows)
        print(
            f"reuse of the oldest token: family of {FEW_ROTATIONS} revoked in {max(times['empty']):.1f} ms at most,"
            f" family of {options.rotations:,} in {max(times['filled']):.1f} ms"
        )
    problems = [f"{row.workload}: wrong: {row.first_wrong}" for row in rows if row.first_wrong]
    problems += [f"reuse: wrong: {wrong}" for found in reused.values() for _, wrong in found if wrong]
    problems += [
        f"{row.workload}: p95 is {row.p95_ratio:.2f} times the empty database's, more than {LIMIT}"
        for row in rows
        if row.p95_ratio > LIMIT
    ]
    for problem in problems:
        say(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
