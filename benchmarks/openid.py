"""What signing people in costs: a code flow with an ID token beside one without, and UserInfo beside introspection.

openid.py [--samples N] [--json]

One server in this process, on SQLite. The requests of both sides are sent in turns, in a random order in each pair, so that
what else the machine does falls on both. CPU time of the thread counts, and the ratio of the medians.

The exit status is 1 if a code flow with an ID token takes more than 1.25 times one without, or UserInfo more than 1.2 times an
introspection. What an ID token costs is its signature: with RS256 most of it, with ES256 a tenth of that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from timing import Compared, Send, compare, migrated
from webtest import TestApp

from authserver.engine.records import Client
from authserver.testing.server import SETTINGS, Server, basic

# The most that the second side may take, in times of the first.
FLOW, USERINFO = "code flow: without, with an ID token (RS256)", "introspection, UserInfo"
GOALS = {FLOW: 1.25, USERINFO: 1.2}
WITHOUT, WITH = "profile email", "openid profile email"
SIGNING_IN = {
    "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nopenid",
}


def redeemed(server: Server, client: Client, secret: str | None, code: str) -> dict[str, str]:
    answer = server.redeem(client, secret, code)
    assert answer.status_int == 200, answer
    tokens: dict[str, str] = answer.json
    return tokens


def flowing(
    server: Server, browser: TestApp, client: Client, secret: str | None, scope: str
) -> Callable[[], Send]:
    """An authorization request of somebody who has agreed before, and the code redeemed."""

    def send() -> object:
        tokens = redeemed(server, client, secret, server.code(client, browser, scope=scope))
        assert ("id_token" in tokens) is ("openid" in scope)
        return tokens

    return lambda: send


def redeeming(
    server: Server, browser: TestApp, client: Client, secret: str | None, scope: str
) -> Callable[[], Send]:
    """A code, redeemed."""

    def prepare() -> Send:
        code = server.code(client, browser, scope=scope)
        return lambda: redeemed(server, client, secret, code)

    return prepare


def asking(server: Server, path: str, token: str, authorization: str | None) -> Callable[[], Send]:
    """What the server says of an access token: to its client, or at UserInfo."""

    def send() -> object:
        if authorization is None:
            answer = server.http.get(path, headers={"Authorization": f"Bearer {token}"})
        else:
            answer = server.post(path, f"token={token}", authorization=authorization)
        assert answer.json["sub"]
        return answer

    return lambda: send


def comparisons(folder: Path, samples: int) -> Iterator[Compared]:
    """All of them."""
    server = Server(migrated(folder / "openid.db"), SIGNING_IN)
    try:
        attributes = {"email": ("ann@example.com",), "email_verified": ("ann@example.com",)}
        server.add_user("ann", attributes=attributes)
        browser = server.browser()
        for name, algorithm in (("RS256", None), ("ES256", "ES256")):
            details = {} if algorithm is None else {"id_token_signed_response_alg": algorithm}
            client, secret = server.add_client(scopes=tuple(WITH.split()), details=details)
            server.code(client, browser, scope=WITH)
            first, second = (flowing(server, browser, client, secret, scope) for scope in (WITHOUT, WITH))
            yield compare(f"code flow: without, with an ID token ({name})", first, second, samples)
            first, second = (redeeming(server, browser, client, secret, scope) for scope in (WITHOUT, WITH))
            yield compare(f"code redeemed: without, with an ID token ({name})", first, second, samples)
        token = redeemed(server, client, secret, server.code(client, browser, scope=WITH))["access_token"]
        yield compare(
            USERINFO,
            asking(server, "/oauth/introspect", token, basic(client.client_id, secret or "")),
            asking(server, "/oauth/userinfo", token, None),
            samples,
        )
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=500, help="of each side")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="authserver-openid-"))
    found = []
    try:
        if not options.json:
            print(f"{'microseconds of CPU':52}{'samples':>8}{'first':>8}{'second':>8}{'ratio':>8}{'goal':>7}")
        for compared in comparisons(folder, options.samples):
            found.append(compared)
            if not options.json:
                print(
                    f"{compared.name:52}{compared.samples:>8}{compared.first:>8.0f}{compared.second:>8.0f}"
                    f"{compared.second / compared.first:>8.3f}{GOALS.get(compared.name, ''):>7}",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([asdict(compared) for compared in found], indent=2))
    return int(any(each.second > each.first * GOALS.get(each.name, float("inf")) for each in found))


if __name__ == "__main__":
    sys.exit(main())
