"""Whether an authorization request costs more with a client that is known by its document than with one that is stored.

documents.py [--samples N] [--json]

One server in this process, on SQLite, with the document in its cache. Both clients say the same of themselves, and nobody
vouches for either. The requests of both are sent in turns, in a random order in each pair, so that what else the machine
does falls on both. CPU time of the thread counts.

The last line is the client alone: how long the engine takes to find it. The exit status is 1 if a request with the document
takes more than 3 % longer by the median, and a random one of them is longer than one with the stored client more often than
chance explains (p < 0.001, Mann-Whitney).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlencode

from timing import Compared, Send, compare, migrated
from webtest import TestApp

from authserver.engine.records import Client, RegisteredBy
from authserver.testing.origins import Authority, sending, serving
from authserver.testing.records import a_client
from authserver.testing.server import REDIRECT_URI, VERIFIER, Server, with_plugin

TOLERATED, MAXIMUM_P = 0.03, 0.001
SCOPES = ("profile", "files.read")


@contextmanager
def running(folder: Path) -> Iterator[tuple[Server, Client, Client]]:
    """A server, a client that is stored and one that is known by its document; user `ann` has agreed to neither."""
    authority = Authority(folder)
    with serving(authority.context("localhost")) as origin:
        address = f"https://localhost:{origin.port}/client.json"
        described = {
            "client_id": address,
            "client_name": "Notes",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            "client_uri": "https://client.example/",
            "scope": " ".join(SCOPES),
        }
        origin.reply = sending(json.dumps(described).encode(), Cache_Control="max-age=86400")
        settings = with_plugin("client_id_documents", {"scopes": " ".join(SCOPES)})
        server = Server(
            migrated(folder / "documents.db"),
            {
                **settings,
                "authserver.fetch_ca_file": str(authority.ca_file),
                "authserver.fetch_loopback": "true",
            },
        )
        try:
            server.add_user("ann")
            common = {
                "redirect_uris": (REDIRECT_URI,),
                "scopes": SCOPES,
                "auth_method": "none",
                "grant_types": ("authorization_code", "refresh_token"),
                "name": "Notes",
                "details": {"client_uri": "https://client.example/"},
                "registered_by": RegisteredBy.SELF,
            }
            # Ids of one length, as the requests and pages have them many times.
            stored = a_client(client_id="client_".ljust(len(address), "x"), **common)
            with server.begin() as engine:
                engine.stores.clients.add(stored)
            yield server, stored, a_client(client_id=address, **common)
            assert len(origin.received) == 1, "the document was not cached"
        finally:
            server.close()


def asking(server: Server, browser: TestApp, client: Client) -> Callable[[], Send]:
    """An authorization request of somebody who is signed in, up to the consent page."""
    url = server.authorization_url(client, scope=" ".join(SCOPES))

    def send() -> object:
        page = browser.get(url)
        assert "Notes" in page.text
        return page

    return lambda: send


def redeeming(server: Server, browser: TestApp, client: Client) -> Callable[[], Send]:
    """A code, redeemed."""

    def prepare() -> Send:
        form = {
            "grant_type": "authorization_code",
            "code": server.code(client, browser),
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
            "client_id": client.client_id,
        }
        body = urlencode(form)

        def send() -> object:
            answer = server.post("/oauth/token", body)
            assert answer.status_int == 200, answer
            return answer

        return send

    return prepare


def finding(server: Server, client: Client) -> Callable[[], Send]:
    """The client, a hundred times in one unit of work."""

    def prepare() -> Send:
        def send() -> None:
            with server.begin() as engine:
                for _ in range(100):
                    assert engine.find_client(client.client_id)

        return send

    return prepare


def comparisons(folder: Path, samples: int) -> Iterator[Compared]:
    """All of them, the stored client first."""
    with running(folder) as (server, *clients):
        browser = server.browser()
        server.sign_in(browser)
        first, second = (asking(server, browser, client) for client in clients)
        yield compare("authorization request, for the first time", first, second, samples)
        first, second = (redeeming(server, browser, client) for client in clients)
        yield compare("code redeemed", first, second, samples)
        first, second = (asking(server, browser, client) for client in clients)
        yield compare("authorization request, agreed to before", first, second, samples)
        first, second = (finding(server, client) for client in clients)
        yield compare("the client, found 100 times", first, second, samples)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=500, help="of each side")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="authserver-documents-"))
    found = []
    try:
        if not options.json:
            print(f"{'microseconds of CPU':44}{'samples':>8}{'stored':>9}{'document':>9}{'ratio':>8}{'p':>9}")
        for compared in comparisons(folder, options.samples):
            found.append(compared)
            if not options.json:
                print(
                    f"{compared.name:44}{compared.samples:>8}{compared.first:>9.0f}{compared.second:>9.0f}"
                    f"{compared.second / compared.first:>8.3f}{compared.p:>9.4f}",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([asdict(compared) for compared in found], indent=2))
    requests = found[:-1]
    return int(any(each.second > each.first * (1 + TOLERATED) and each.p < MAXIMUM_P for each in requests))


if __name__ == "__main__":
    sys.exit(main())
