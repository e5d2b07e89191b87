"""What a token costs that is derived, beside one that a client gets in the ordinary way.

derived.py [--samples N] [--postgresql] [--json]

One server in this process, on SQLite or a PostgreSQL of its own, whose time does not count. The requests of both are sent in turns, in a random order in each pair, so that what
else the machine does falls on both. CPU time of the thread counts. The exit status is 1 if the median of one is more than
its goal allows: an exchange (RFC 8693) 1.3 times a refresh, an assertion whose keys are known (RFC 7523) 1.5 times
`client_credentials`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from run import postgresql_server
from timing import Compared, Send, compare, migrated

from authserver.engine.grants.assertion import GRANT_TYPE as JWT_BEARER
from authserver.engine.records import Client
from authserver.features.token_exchange import ACCESS_TOKEN
from authserver.features.token_exchange import GRANT_TYPE as EXCHANGE
from authserver.storage import migrate
from authserver.testing.server import RESOURCE, SETTINGS, Server
from authserver.testing.service import basic
from tests.client_keys import Key
from tests.trusted_issuers import Issuer

TRUSTED = "https://issuer.example"
KEY = Key("ES256")
MAXIMUM = {
    "an exchange, and a refresh": 1.3,
    "an assertion, and client_credentials": 1.5,
    "an identity assertion, and client_credentials": 1.5,
    "a workload, and client_credentials": 1.5,
}
PLATFORM = "https://platform.example"
FEATURES = "token_exchange jwt_bearer id_jag workload_identity"
READERS = "authserver.plugin.introspect_resource_servers.clients"


def sending(server: Server, client: Client, secret: str | None, form: Callable[[], Mapping[str, Any]]) -> Any:
    """Token requests of this client, each written before: that it is written is no work of the server."""
    authorization = basic(client.client_id, secret or "")

    def prepare() -> Send:
        body = urlencode(form())

        def send() -> object:
            answer = server.post("/oauth/token", body, authorization=authorization)
            assert answer.status_int == 200, answer
            return answer

        return send

    return prepare


def exchanging(server: Server, samples: int) -> Compared:
    """A service exchanges a token of a person; an application refreshes one. Both are on one grant."""
    agent, agent_secret = server.add_client(client_id="agent")
    gateway, secret = server.add_client(client_id="gateway", grant_types=(EXCHANGE,))
    browser = server.browser()
    subject = server.redeem(agent, agent_secret, server.code(agent, browser)).json["access_token"]
    chain = [server.redeem(agent, agent_secret, server.code(agent, browser)).json["refresh_token"]]

    def refresh() -> Send:
        def send() -> object:
            answer = server.refresh(agent, agent_secret, chain[-1])
            chain.append(answer.json["refresh_token"])
            return answer

        return send

    form = {"grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS_TOKEN}
    exchange = sending(server, gateway, secret, lambda: form)
    return compare("an exchange, and a refresh", refresh, exchange, samples)


def vouching(server: Server, samples: int) -> Compared:
    """A service presents an assertion, each time another one, with keys that are known; and asks for itself."""
    client, secret = server.add_client(client_id="batch", grant_types=("client_credentials", JWT_BEARER))
    own = sending(server, client, secret, lambda: {"grant_type": "client_credentials", "scope": "files.read"})
    assertion = sending(
        server,
        client,
        secret,
        lambda: {
            "grant_type": JWT_BEARER,
            "assertion": KEY.assertion(TRUSTED, sub="ann"),
            "scope": "files.read",
        },
    )
    return compare("an assertion, and client_credentials", own, assertion, samples)


def identifying(server: Server, samples: int) -> Compared:
    """The same with an identity assertion (ID-JAG), whose issuer is in the database, for a resource and some scopes."""
    client, secret = server.add_client(client_id="notes", grant_types=("client_credentials", JWT_BEARER))
    claims = {"client_id": "notes", "resource": RESOURCE, "scope": "files.read"}
    company = Issuer(key=KEY, typ="oauth-id-jag+jwt", claims=claims)
    company.trust(server, "mcp", resources=(RESOURCE,), scopes=("files.read",), options={"usernames": True})
    own = sending(server, client, secret, lambda: {"grant_type": "client_credentials", "scope": "files.read"})
    assertion = sending(
        server, client, secret, lambda: {"grant_type": JWT_BEARER, "assertion": company.assertion()}
    )
    return compare("an identity assertion, and client_credentials", own, assertion, samples)


def presenting(server: Server, samples: int) -> Compared:
    """A workload presents what its platform signed, each time anew; a client with a secret asks for the same."""
    client, secret = server.add_client(client_id="job", grant_types=("client_credentials", JWT_BEARER))
    rule = {"name": "job", "client": "job", "claims": {"repository_id": "74"}}
    rules = [{**rule, "resources": [RESOURCE], "scopes": ["files.read"]}]
    platform = Issuer(PLATFORM, key=KEY, claims={"repository_id": "74"})
    platform.trust(server, "workload_identity", options={"rules": rules})
    wanted = {"resource": RESOURCE, "scope": "files.read"}
    own = sending(server, client, secret, lambda: {"grant_type": "client_credentials", **wanted})

    def prepare() -> Send:
        body = urlencode({"grant_type": JWT_BEARER, "assertion": platform.assertion(), **wanted})

        def send() -> object:
            answer = server.post("/oauth/token", body)
            assert answer.status_int == 200, answer
            return answer

        return send

    return compare("a workload, and client_credentials", own, prepare, samples)


def comparisons(url: str, samples: int) -> Iterator[Compared]:
    """All of them on this database, the ordinary way first."""
    server = Server(
        url,
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']} {FEATURES}",
            "authserver.plugin.jwt_bearer.issuers": f"{TRUSTED} = {json.dumps(KEY.jwks())}",
            READERS: f"gateway = {RESOURCE}",
        },
    )
    try:
        server.add_user("ann")
        yield exchanging(server, samples)
        yield vouching(server, samples)
        yield identifying(server, samples)
        yield presenting(server, samples)
    finally:
        server.close()


@contextmanager
def database(*, postgresql: bool) -> Iterator[str]:
    """A new database with its tables."""
    if postgresql:
        with postgresql_server() as (url, _):
            migrate.upgrade(url)
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="authserver-derived-") as folder:
        yield migrated(Path(folder) / "derived.db")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=500, help="of each side")
    parser.add_argument("--postgresql", action="store_true", help="in place of SQLite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    with database(postgresql=options.postgresql) as url:
        if not options.json:
            print(
                f"{'microseconds of CPU':46}{'samples':>8}{'ordinary':>9}{'derived':>9}{'ratio':>8}{'goal':>8}"
            )
        for compared in comparisons(url, options.samples):
            found.append(compared)
            if not options.json:
                print(
                    f"{compared.name:46}{compared.samples:>8}{compared.first:>9.0f}{compared.second:>9.0f}"
                    f"{compared.second / compared.first:>8.3f}{MAXIMUM[compared.name]:>8.1f}",
                    flush=True,
                )
    if options.json:
        print(json.dumps([asdict(compared) for compared in found], indent=2))
    return int(any(each.second > each.first * MAXIMUM[each.name] for each in found))


if __name__ == "__main__":
    sys.exit(main())
