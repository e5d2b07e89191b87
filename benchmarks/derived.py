"""What a token costs that is derived, beside one that a client gets in the ordinary way.

derived.py [--requests N] [--sqlite] [--algorithm NAME] [--json]

`pserve production.ini` as it is shipped, with the plugins of these grants, on a PostgreSQL of its own or on SQLite. Both sides
send their requests over a few connections, in turns and in a random order, so that what else the machine does falls on
both. What counts is what `run.py` counts: CPU time of the server's processes, and of PostgreSQL's, for all requests of a side. The
exit status is 1 if one costs more than its goal allows: an exchange (RFC 8693) 1.3 times a refresh, an assertion whose keys
are known (RFC 7523) 1.5 times `client_credentials`.
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
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import run
from seed import client_of
from settings import HOST, RESOURCE, ini

from authserver import app
from authserver.engine import issuers
from authserver.engine.grants.assertion import GRANT_TYPE as JWT_BEARER
from authserver.features.token_exchange import ACCESS_TOKEN
from authserver.features.token_exchange import GRANT_TYPE as EXCHANGE
from tests.client_keys import ALGORITHMS, Key
from tests.trusted_issuers import Issuer

ISSUER = f"https://{HOST}"
PLUGINS = ("token_exchange", "jwt_bearer", "id_jag", "workload_identity")
ARGUMENTS = (
    *[f"+{name}" for name in PLUGINS],
    "authserver.plugin.token_exchange.sources=gateway = bench-code",
)
CONNECTIONS, TURNS = 4, 20
# A turn of each side, so that what is made once is made by then.
WARM_UP = 1

# What the next request of a connection says, from its number and the answer to the one before it.
Next = Callable[[int, Mapping[str, Any] | None], Mapping[str, str]]


@dataclass(kw_only=True)
class Side:
    """Requests of one kind, and what they used.

    Attributes:
        headers: of each request.
        next: see `Next`.
        server, postgresql: seconds of CPU, each turn.
    """

    headers: dict[str, str]
    next: Next
    server: list[float] = field(default_factory=list)
    postgresql: list[float] = field(default_factory=list)
    last: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def turn(self, port: int, count: int) -> None:
        """Send this many requests over each connection."""
        wrong: list[str] = []

        def go(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=run.TIMEOUT)
            for _ in range(count):
                form = self.next(number, self.last.get(number))
                status, answer = run.ask(connection, self.headers, **form)
                if status != 200:
                    wrong.append(f"{status} {answer}")
                    break
                self.last[number] = answer
            connection.close()

        threads = [threading.Thread(target=go, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise SystemExit(wrong[0])


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Seconds of CPU for 1,000 requests of both sides: of the server, and of PostgreSQL."""

    name: str
    goal: float
    requests: int
    ordinary: tuple[float, float]
    derived: tuple[float, float]
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return sum(self.derived) / sum(self.ordinary)


@dataclass(frozen=True)
class Measured:
    """A server that runs: its port, and the processes whose time counts."""

    port: int
    server: int
    postgresql: int | None

    def used(self) -> tuple[float, float]:
        return run.cpu_seconds(self.server), run.cpu_seconds(self.postgresql) if self.postgresql else 0.0

    def compare(self, name: str, goal: float, ordinary: Side, derived: Side, requests: int) -> Compared:
        """Let both sides have their turns."""
        count = max(1, requests // TURNS // CONNECTIONS)
        for number in range(TURNS + WARM_UP):
            for side in random.sample((ordinary, derived), 2):
                before = self.used()
                side.turn(self.port, count)
                after = self.used()
                if number >= WARM_UP:
                    side.server.append(after[0] - before[0])
                    side.postgresql.append(after[1] - before[1])
        sent = count * CONNECTIONS
        each = [
            [
                (server + database) / sent * 1000
                for server, database in zip(side.server, side.postgresql, strict=True)
            ]
            for side in (ordinary, derived)
        ]
        figures = [
            (sum(side.server) / TURNS / sent * 1000, sum(side.postgresql) / TURNS / sent * 1000)
            for side in (ordinary, derived)
        ]
        return Compared(
            name=name,
            goal=goal,
            requests=sent * TURNS,
            ordinary=figures[0],
            derived=figures[1],
            ratios=tuple(second / first for first, second in zip(*each, strict=True)),
        )


def prepare(algorithm: str) -> Mapping[str, Issuer]:
    """Add the clients, the person and the issuers. Returns the issuers by profile."""
    application = app.build(ini(PLUGINS))
    key = Key(algorithm)
    identity = {"client_id": "notes", "resource": RESOURCE, "scope": "read"}
    parties = {
        "jwt_bearer": Issuer("https://issuer.example", key=key),
        "mcp": Issuer("https://company.example", key=key, typ="oauth-id-jag+jwt", claims=identity),
        "workload_identity": Issuer("https://platform.example", key=key, claims={"repository_id": "74"}),
    }
    rule = {"name": "job", "client": "job", "claims": {"repository_id": "74"}}
    limits = {"resources": [RESOURCE], "scopes": ["read"]}
    options: Mapping[str, Mapping[str, Any]] = {
        "jwt_bearer": {},
        "mcp": {"usernames": True},
        "workload_identity": {"rules": [{**rule, **limits}]},
    }
    with application.begin() as engine:
        for client_id in ("batch", "notes", "job"):
            engine.stores.clients.add(client_of(engine, client_id, ("client_credentials", JWT_BEARER)))
        engine.stores.clients.add(client_of(engine, "gateway", (EXCHANGE,)))
        for profile, party in parties.items():
            narrow = limits if profile == "mcp" else {}
            trusted = party.entry(profile, options=options[profile], **narrow)
            issuers.add(engine, trusted)
    return parties


def comparisons(
    measured: Measured, parties: Mapping[str, Issuer], codes: list[str], requests: int
) -> Iterator[Compared]:
    """All of them, the ordinary way first."""
    tokens = [redeemed(measured.port, codes.pop()) for _ in range(CONNECTIONS)]
    exchange = {"grant_type": EXCHANGE, "subject_token_type": ACCESS_TOKEN}
    yield measured.compare(
        "an exchange, and a refresh",
        1.3,
        Side(
            headers=run.CODE,
            next=lambda number, last: {
                "grant_type": "refresh_token",
                "refresh_token": (last or tokens[number])["refresh_token"],
            },
        ),
        Side(
            headers=run.authorization("gateway"),
            next=lambda number, _: {**exchange, "subject_token": tokens[number]["access_token"]},
        ),
        requests,
    )
    wanted = {"scope": "read", "resource": RESOURCE}
    for name, client_id, profile, shows_secret in (
        ("an assertion, and client_credentials", "batch", "jwt_bearer", True),
        ("an identity assertion, and client_credentials", "notes", "mcp", True),
        ("a workload, and client_credentials", "job", "workload_identity", False),
    ):
        ordinary = run.authorization(client_id)
        plain = {key: value for key, value in ordinary.items() if shows_secret or key != "Authorization"}
        form = {"grant_type": JWT_BEARER, **({} if profile == "mcp" else wanted)}
        yield measured.compare(
            name,
            1.5,
            Side(headers=ordinary, next=lambda *_: {"grant_type": "client_credentials", **wanted}),
            Side(
                headers=plain,
                next=lambda *_, form=form, party=parties[profile]: {  # type: ignore[misc]  # bound in the loop
                    **form,
                    "assertion": party.assertion(sub="bench", aud=ISSUER),
                },
            ),
            requests,
        )


def redeemed(port: int, code: str) -> Mapping[str, Any]:
    """The tokens of a new grant of a person."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=run.TIMEOUT)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": run.VERIFIER}
    status, answer = run.ask(connection, run.CODE, redirect_uri=run.REDIRECT_URI, **form)
    connection.close()
    if status != 200:
        raise SystemExit(f"{status} {answer}")
    return answer


@contextmanager
def database(*, sqlite: bool) -> Iterator[tuple[str, int | None]]:
    """A new database: its address, and the process of PostgreSQL."""
    if not sqlite:
        with run.postgresql_server() as server:
            yield server
        return
    with tempfile.TemporaryDirectory(prefix="authserver-derived-") as folder:
        yield f"sqlite:///{Path(folder) / 'derived.db'}", None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=8_000, help="of each side")
    parser.add_argument("--sqlite", action="store_true", help="in place of PostgreSQL")
    parser.add_argument("--algorithm", default="ES256", choices=ALGORITHMS, help="with which issuers sign")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    with ExitStack() as stack:
        url, postgresql = stack.enter_context(database(sqlite=options.sqlite))
        environment = {**os.environ, "DATABASE_URL": url, "CHALLENGE": run.CHALLENGE}
        os.environ["DATABASE_URL"] = url
        run.seed(environment, "setup")
        parties = prepare(options.algorithm)
        codes = run.fresh_codes(environment, CONNECTIONS)
        port, server = stack.enter_context(run.measured_server(environment, settings=ARGUMENTS))
        if not options.json:
            print(
                f"{'seconds of CPU for 1,000 requests':46}{'ordinary':>16}{'derived':>16}{'ratio':>7}{'turns':>13}{'goal':>6}"
            )
        for compared in comparisons(Measured(port, server, postgresql), parties, codes, options.requests):
            found.append(compared)
            if not options.json:
                first, second = (
                    " + ".join(f"{value:.2f}" for value in side if value)
                    for side in (compared.ordinary, compared.derived)
                )
                low, *_, high = statistics.quantiles(compared.ratios, n=4)
                print(
                    f"{compared.name:46}{first:>16}{second:>16}{compared.ratio:>7.2f}{f'{low:.2f}-{high:.2f}':>13}{compared.goal:>6}",
                    flush=True,
                )
    if options.json:
        print(json.dumps([asdict(compared) | {"ratio": compared.ratio} for compared in found], indent=2))
    return int(any(compared.ratio > compared.goal for compared in found))


if __name__ == "__main__":
    sys.exit(main())
