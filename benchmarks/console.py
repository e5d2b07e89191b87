#!/usr/bin/env python3
"""Measure how long the pages for operators take with many clients and grants.

    benchmarks/console.py                                        100,000 clients, 1,000,000 grants: half an hour, 10 GB
    benchmarks/console.py --clients 500 --grants 2000            a quick look
    benchmarks/console.py --only SQLite
    benchmarks/console.py --folder console                       keep the databases there, and use them again the next time

On a SQLite file and on a PostgreSQL of its own, and a server in this process. Every page is asked for about the client with
half of all grants; then come searches, those that find nothing included. Prints the median and the least of 5 times for each,
and how much of it is CPU of this process, slowest first. Exit status 1 when a median is 300 ms or more.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import fill
import sqlalchemy as sa
from run import postgresql_server
from webtest import TestApp

from authserver import administration
from authserver.api import identity_handle
from authserver.engine.people.account import own_sessions
from authserver.engine.records import GrantFilter, Resource
from authserver.engine.uris import canonical_resource
from authserver.features.console import PAGES
from authserver.storage import migrate
from authserver.testing.server import SETTINGS, Server

# Milliseconds.
LIMIT = 300
TIMES = 5
# How many events, kept records and counts there are.
OTHERS = 1_000_000
# Pages with a search beside those that are shown as they are: by path, what is typed.
SEARCHES = {
    "/admin/people": ("name=user7", "disabled=yes", "name=no-such-person", "after=user5"),
    "/admin/clients": (
        "search=client-77",
        "search=no-such-client",
        "state=disabled",
        "state=unused",
        "by=self",
        "search=Client+99&state=enabled&by=operator",
        "after=client-5",
    ),
    "/admin/grants": ("client=client-1", "user=user1", "client=client-2&state=all", "client=no-such-client"),
    "/admin/statistics": ("since=1d", "since=7d", "since=365d", "since=365d&client=client-1"),
    "/admin/audit": (
        "client=client-1",
        "user=user1",
        "event=refused",
        "event=token.issued",
        "event=client.changed",
        "reason=none&since=1d",
        "source=192.0.2.99&since=7d",
        "grant=grant-1",
    ),
    "/admin/end": ("kind=user&name=user1", "kind=scope&name=profile", f"kind=resource&name={fill.RESOURCE}"),
}


def addresses(server: Server) -> Iterator[str]:
    """Each page, about something that there is, and the searches."""
    with server.begin() as engine:
        stores = engine.stores
        user, root = stores.users.find_by_name("user1"), stores.users.find_by_name("root")
        client = stores.clients.find(fill.POPULAR, engine.now)
        assert user is not None
        assert root is not None
        assert client is not None
        token, _ = administration.make_initial_token(
            engine,
            policy="partners",
            uses=1,
            expires_at=engine.now.replace(year=engine.now.year + 1),
            note="",
        )
        (session, *_) = own_sessions(engine, root, "")
        (identity, *_) = stores.identities.of_user(user.user_id)
        known = {
            "client_id": client.client_id,
            "secret": administration.handle(client.secrets[0]),
            "user_id": user.user_id,
            "grant_id": stores.grants.search(GrantFilter(), limit=1)[0].grant_id,
            "kid": stores.signing_keys.list()[0].kid,
            "event_id": next(iter(stores.events.latest())).event_id,
            "initial_token": token.token_id,
            "resource": "https://stored.example/",
            "limit": "tokens-of-a-client",
            "kind": "client",
            "name": client.client_id,
            "identity": identity_handle(identity),
        }
    # What may be left out.
    others = {"who", "session", "disable", "from_clients"}
    for page in PAGES:
        assert {*page.keys} <= {*known, *others}, f"{page.name} is about something that this does not know"
        query = urlencode({name: known[name] for name in page.keys if name in known})
        yield f"{page.path}?{query}".rstrip("?")
    yield f"/admin/people/sessions?{urlencode({'user_id': root.user_id, 'session': session.handle})}"
    for path, queries in SEARCHES.items():
        yield from (f"{path}?{query}" for query in queries)


def measured(browser: TestApp, address: str) -> tuple[float, float, float]:
    """Milliseconds: the median, the least, and the median of the CPU."""
    times, cpu = [], []
    for _ in range(TIMES):
        worked, begun = time.process_time(), time.perf_counter()
        browser.get(address)
        times.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - worked) * 1000)
    return statistics.median(times), min(times), statistics.median(cpu)


def make(server: Server, url: str, *, clients: int, grants: int) -> None:
    """Fill the database, and add who looks at it."""
    fill.fill(
        url,
        key_id=server.ini["authserver.secret_keys"].partition(":")[0],
        client_count=clients,
        token_count=grants * fill.TOKENS_OF_A_GRANT,
        other_count=min(OTHERS, grants * fill.TOKENS_OF_A_GRANT),
    )
    with server.begin() as engine:
        stored = canonical_resource("https://stored.example/")
        administration.add_resource(engine, Resource(form=stored, uri=stored, created_at=engine.now))
    server.add_user("root", groups=["authserver-admins"])


def measure(url: str, *, clients: int, grants: int) -> bool:
    """Fill this database, and print what each page takes; whether all are good enough."""
    migrate.upgrade(url)
    server = Server(
        url,
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nregistration_token admin_console rate_limits",
            "authserver.plugin.registration_token.policies": "partners = scopes profile",
            "authserver.plugin.rate_limits.limits": "tokens-of-a-client = token_request, client, 1000000, minute",
        },
    )
    begun = time.perf_counter()
    with server.begin() as engine:
        is_filled = engine.stores.users.find_by_name("root") is not None
    if not is_filled:
        make(server, url, clients=clients, grants=grants)
    how = "found" if is_filled else f"made in {time.perf_counter() - begun:.0f} s"
    print(
        f"{sa.make_url(url).get_backend_name()}: {clients:,} clients and {grants:,} grants, {how}", flush=True
    )
    browser = server.browser()
    server.sign_in(browser, "root")
    found = sorted((measured(browser, each), each) for each in addresses(server))
    for (median, least, cpu), address in reversed(found):
        print(f"{median:8.1f} ms (at least {least:.1f}, {cpu:.1f} of CPU here)  {address}", flush=True)
    server.close()
    return found[-1][0][0] < LIMIT


@contextmanager
def database(name: str, kept: Path | None) -> Iterator[str]:
    """The URL of a new one of this kind, or of the one that is kept in this folder."""
    if name == "PostgreSQL":
        with postgresql_server(kept / "postgresql" if kept else None) as (url, _):
            yield url
    elif kept:
        yield f"sqlite:///{kept.resolve()}/console.db"
    else:
        with tempfile.TemporaryDirectory(prefix="authserver-benchmark-") as folder:
            yield f"sqlite:///{folder}/console.db"


def main() -> int:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--clients", type=int, default=100_000)
    reader.add_argument("--grants", type=int, default=1_000_000)
    reader.add_argument(
        "--folder", type=Path, help="keep the filled databases there; use them if they are there"
    )
    reader.add_argument("--only", choices=("SQLite", "PostgreSQL"))
    given = reader.parse_args()
    logging.disable(logging.WARNING)
    if given.folder:
        given.folder.mkdir(exist_ok=True)
    is_good = True
    for name in ("SQLite", "PostgreSQL"):
        if given.only in (None, name):
            with database(name, given.folder) as url:
                is_good = measure(url, clients=given.clients, grants=given.grants) and is_good
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main())
