#!/usr/bin/env python3
"""Measure how long the pages for operators take with many clients and grants.

    benchmarks/console.py                                        100,000 clients, 1,000,000 grants: ten minutes, 5 GB
    benchmarks/console.py --clients 500 --grants 2000            a quick look

On a PostgreSQL of its own, and a server in this process. Prints the median and the least of 5 times for each page, and how much
of it is CPU of this process, slowest first. Exit status 1 when a median is 300 ms or more.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import fill
import sqlalchemy as sa
from run import postgresql_server
from webtest import TestApp

from authserver.engine.records import GrantFilter
from authserver.features.console import PAGES
from authserver.storage import migrate
from authserver.testing.server import SETTINGS, Server

# Milliseconds.
LIMIT = 300
TIMES = 5
# Pages with a search beside those that are shown as they are.
SEARCHES = (
    "/admin/people?q=user7",
    "/admin/people?disabled=yes",
    "/admin/clients?q=client-77",
    "/admin/grants?client=client-1",
    "/admin/statistics?since=1d",
    "/admin/statistics?since=365d",
)


def addresses(server: Server) -> Iterator[str]:
    """Each page, about something that there is."""
    with server.begin() as engine:
        stores = engine.stores
        user = stores.users.find_by_name("user1")
        assert user is not None
        known = {
            "client_id": fill.POPULAR,
            "user_id": user.user_id,
            "grant_id": stores.grants.search(GrantFilter(), limit=1)[0].grant_id,
            "kid": stores.signing_keys.list()[0].kid,
            "event_id": next(iter(stores.events.latest())).event_id,
            "kind": "client",
            "name": fill.POPULAR,
        }
    for page in PAGES:
        if {*page.keys} <= {*known, "disable", "from_clients", "session"}:
            query = urlencode({name: known[name] for name in page.keys if name in known})
            yield f"{page.path}?{query}".rstrip("?")
    yield from SEARCHES


def measured(browser: TestApp, address: str) -> tuple[float, float, float]:
    """Milliseconds: the median, the least, and the median of the CPU."""
    times, cpu = [], []
    for _ in range(TIMES):
        worked, begun = time.process_time(), time.perf_counter()
        browser.get(address)
        times.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - worked) * 1000)
    return statistics.median(times), min(times), statistics.median(cpu)


def main() -> int:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--clients", type=int, default=100_000)
    reader.add_argument("--grants", type=int, default=1_000_000)
    given = reader.parse_args()
    logging.disable(logging.WARNING)
    with postgresql_server() as (url, _):
        migrate.upgrade(url)
        server = Server(
            url, {"authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console rate_limits"}
        )
        fill.fill(
            url,
            key_id=server.ini["authserver.secret_keys"].partition(":")[0],
            client_count=given.clients,
            token_count=given.grants * fill.TOKENS_OF_A_GRANT,
        )
        engine = sa.create_engine(url)
        fill.tidy(engine)
        engine.dispose()
        server.add_user("root", groups=["authserver-admins"])
        browser = server.browser()
        server.sign_in(browser, "root")
        found = sorted((measured(browser, each), each) for each in addresses(server))
        for (median, least, cpu), address in reversed(found):
            print(f"{median:8.1f} ms (at least {least:.1f}, {cpu:.1f} of CPU here)  {address}")
        server.close()
    return int(found[-1][0][0] >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
