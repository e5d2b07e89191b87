#!/usr/bin/env python3
"""Measure what floods of refusals make a database grow by: the worst kinds, on SQLite and on PostgreSQL.

    benchmarks/growth.py                                    some minutes
    benchmarks/growth.py --minutes 10 --each-minute 40      a quick look

A server in this process is sent the same refused request many times in each of some minutes; the clock is set, so that a
minute takes no longer than its requests. The size of the table `events` with its indexes is read before and after. What
a day costs is 1,440 times a minute: the number of requests above those that are stored changes a number in one event and
no size. The last column says what the same flood, at 50 requests a second, would cost if each refusal were stored.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

import sqlalchemy as sa
import time_machine
from run import postgresql_server

from authserver.storage import migrate
from authserver.testing.server import SETTINGS, Server, basic, forged, form_with

A_SECOND = 50
A_DAY = 86_400
LONG_REGISTRATION = json.dumps(
    {
        "client_name": "n" * 100,
        "redirect_uris": [f"https://x.example/{number}/{'p' * 1_350}" for number in range(10)],
        "software_id": "s" * 1_500,
    }
)
FORM = "application/x-www-form-urlencoded"

Send = Callable[[], int]


def registration(server: Server) -> Send:
    return lambda: (
        server.http.post(
            "/oauth/register", LONG_REGISTRATION, content_type="application/json", expect_errors=True
        ).status_int
    )


def unknown_client(server: Server) -> Send:
    query = "client_id=nobody&response_type=code&redirect_uri=https://x.example/" + "p" * 1_500
    return lambda: server.http.get(f"/oauth/authorize?{query}", expect_errors=True).status_int


def wrong_secret(server: Server) -> Send:
    client, _ = server.add_client(grant_types=("client_credentials",))
    _, wrong = server.add_client(grant_types=("client_credentials",))
    headers = {"Authorization": basic(client.client_id, wrong or "")}
    return lambda: (
        server.http.post(
            "/oauth/token",
            "grant_type=client_credentials",
            headers=headers,
            content_type=FORM,
            expect_errors=True,
        ).status_int
    )


def wrong_password(server: Server) -> Send:
    name = f"ann-{token_hex(4)}"
    server.add_user(name)
    page = server.http.get("/login")

    def send() -> int:
        form = form_with(page, "username")
        form["username"], form["password"] = name, "wrong"
        return int(form.submit(expect_errors=True).status_int)

    return send


KINDS = {
    "a refused registration with a maximal body": registration,
    "an authorization request with an unknown client": unknown_client,
    "a token request with a wrong secret": wrong_secret,
    "a sign-in with a wrong password": wrong_password,
}


def limits() -> str:
    """The shipped table of limits."""
    ini = RawConfigParser(strict=False)
    ini.read(Path(__file__).parents[1] / "production.ini")
    return ini["app:main"]["authserver.plugin.rate_limits.limits"]


def settings(*, limited: bool, stored: int) -> dict[str, str | None]:
    changes: dict[str, str | None] = {
        "authserver.refusals_per_minute": str(stored),
        "authserver.plugins": SETTINGS["authserver.plugins"].replace(
            "registration_open", "registration_token"
        ),
        "authserver.plugin.registration_open.scopes": None,
        "authserver.plugin.registration_token.tokens": forged("as_secret_"),
    }
    if limited:
        changes["authserver.plugins"] = f"{changes['authserver.plugins']}\nrate_limits"
        changes["authserver.plugin.rate_limits.limits"] = limits()
    return changes


def size(server: Server) -> int:
    """Bytes of the table of events with its indexes."""
    engine = server.application.storage.engine
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            return int(connection.execute(sa.text("SELECT pg_total_relation_size('events')")).scalar_one())
        # All tables: nothing else grows.
        pages = connection.execute(sa.text("PRAGMA page_count")).scalar_one()
        return int(pages) * int(connection.execute(sa.text("PRAGMA page_size")).scalar_one())


def rows(server: Server) -> int:
    with server.application.storage.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM events")).scalar_one())


def grown(url: str, kind: str, minutes: int, each_minute: int, **how: int) -> tuple[float, float]:
    """Events and bytes that one minute of a flood adds."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("TRUNCATE events"))
        else:
            connection.execute(sa.text("DELETE FROM events"))
            connection.execute(sa.text("VACUUM"))
    engine.dispose()
    server = Server(url, settings(limited=bool(how["limited"]), stored=how["stored"]))
    try:
        with time_machine.travel(datetime.now(UTC), tick=True) as clock:
            send = KINDS[kind](server)
            before = rows(server), size(server)
            for _ in range(minutes):
                for _ in range(each_minute):
                    status = send()
                    if status < 400:
                        sys.exit(f"{kind}: {status}, so nothing was refused")
                server.application.floods.store(everything=True)
                clock.shift(60)
            after = rows(server), size(server)
    finally:
        server.close()
    return (after[0] - before[0]) / minutes, (after[1] - before[1]) / minutes


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder, postgresql_server() as (postgresql, _):
        urls = {"SQLite": f"sqlite:///{folder}/floods.sqlite", "PostgreSQL": postgresql}
        for url in urls.values():
            migrate.upgrade(url)
        yield urls


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--minutes", type=int, default=60, help="of each flood")
    reader.add_argument("--each-minute", type=int, default=60, help="requests")
    given = reader.parse_args()
    logging.disable(logging.WARNING)
    day = A_DAY / 60
    print(f"{'':48} {'':10} {'':8} {'events':>8} {'bytes of':>9} {'MB a':>7} {'MB a day, were':>15}")
    print(
        f"{'refused is':48} {'database':10} {'limits':8} {'a minute':>8} {'an event':>9} {'day':>7} {'each stored':>15}"
    )
    with databases() as urls:
        for kind in KINDS:
            for database, url in urls.items():
                # Each stored: what an event takes with its place in the indexes.
                events, size_of_all = grown(url, kind, 5, 100, limited=0, stored=100_000)
                each = size_of_all / events
                whole = each * A_SECOND * A_DAY / 1e6
                for limited in (0, 1):
                    events, added = grown(
                        url, kind, given.minutes, given.each_minute, limited=limited, stored=10
                    )
                    print(
                        f"{kind:48} {database:10} {'shipped' if limited else 'none':8} {events:8.1f} "
                        f"{each:9.0f} {added * day / 1e6:7.1f} {whole:15,.0f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
