"""Whether refusals that must not be told apart take the same time (threats T047 and T100).

timing.py [--samples N] [--json]

One server in this process, on SQLite. The requests of both sides of a comparison are sent in turns, in a random order in
each pair, so that what else the machine does falls on both. CPU time of the thread counts: what an attacker sees has the
noise of a network on top.

For each comparison: the medians; how likely a random sample of the first side is longer than one of the second
(`effect`: 0.5 is none, Vargha and Delaney's A); and p of the Mann-Whitney test, which also finds differences that are
too small to matter. A comparison fails, and the exit status is 1, if the effect is outside of 0.35 to 0.65 with p < 0.001,
and the medians differ by more than 5 % and by more than is tolerated.

Tolerated are 500 microseconds between client ids, which are public: the record of a known client is read, and policies are
asked about it. Wrong credentials are limited by source, so nobody gets many samples. Of a secret nothing is tolerated.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode

from webtest import TestResponse

from authserver.engine.crypto import digests
from authserver.engine.people.login import disable_user
from authserver.storage import migrate
from authserver.testing.server import Server, basic, form_with, with_plugin
from tests.client_keys import ASSERTION_TYPE, Key

MAXIMUM_EFFECT, MAXIMUM_DIFFERENCE, MAXIMUM_P = 0.15, 0.05, 0.001
# An untold sign-in is held after this many; a known and an unknown name reach it alike.
HELD_AFTER = 3
Send = Callable[[], TestResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two sides of a comparison; medians in microseconds."""

    name: str
    samples: int
    first: float
    second: float
    effect: float
    p: float
    tolerated: float

    @property
    def is_told_apart(self) -> bool:
        difference = abs(self.first - self.second)
        return (
            abs(self.effect - 0.5) > MAXIMUM_EFFECT
            and self.p < MAXIMUM_P
            and difference > MAXIMUM_DIFFERENCE * min(self.first, self.second)
            and difference > self.tolerated
        )


def mann_whitney(first: list[float], second: list[float]) -> tuple[float, float]:
    """The share of pairs in which the first is longer, ties as half; and p of two sides, by the normal approximation."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    sums, ties, place = [0.0, 0.0], 0, 0
    while place < len(ranked):
        end = place
        while end < len(ranked) and ranked[end][0] == ranked[place][0]:
            end += 1
        for _, side in ranked[place:end]:
            sums[side] += (place + 1 + end) / 2
        ties += (end - place) ** 3 - (end - place)
        place = end
    n, m = len(first), len(second)
    u = sums[0] - n * (n + 1) / 2
    total = n + m
    deviation = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    z = 0.0 if deviation == 0 else (u - n * m / 2) / deviation
    return u / (n * m), math.erfc(abs(z) / math.sqrt(2))


def compare(
    name: str, first: Callable[[], Send], second: Callable[[], Send], samples: int, *, tolerated: float = 0
) -> Compared:
    """Sample both sides in turns. Each side prepares a request, and what it returns is timed."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(samples + 5):
        order = (0, 1) if secrets.randbits(1) else (1, 0)
        for side in order:
            send = (first, second)[side]()
            began = time.thread_time_ns()
            send()
            taken = (time.thread_time_ns() - began) / 1_000
            if turn >= 5:  # what is made once is made by then
                times[side].append(taken)
    effect, p = mann_whitney(*times)
    return Compared(
        name=name,
        samples=samples,
        first=statistics.median(times[0]),
        second=statistics.median(times[1]),
        effect=effect,
        p=p,
        tolerated=tolerated,
    )


def comparisons(folder: Path, samples: int) -> Iterator[Compared]:
    """All of them."""
    server = Server(migrated(folder / "timing.db"), with_plugin("private_key_jwt", {}))
    try:
        yield from of_clients(server, samples)
        yield from of_signing_clients(server, samples)
        # A hash takes most of the time, so fewer say as much.
        yield from of_people(server, max(30, samples // 10))
    finally:
        server.close()
    limits = {"limits": f"sign-ins = sign_in, account, {HELD_AFTER}, day"}
    server = Server(migrated(folder / "held.db"), with_plugin("rate_limits", limits))
    try:
        server.add_user("ann")
        for name in ("ann", "nobody"):
            for _ in range(HELD_AFTER + 1):
                signing_in(server, name)()()
        yield compare(
            "held sign-in: known or unknown name",
            signing_in(server, "ann"),
            signing_in(server, "nobody"),
            samples // 4,
        )
    finally:
        server.close()


def of_clients(server: Server, samples: int) -> Iterator[Compared]:
    secret = server.add_client(client_id="known-1")[1]
    server.add_client(client_id="gone-01")
    with server.begin() as engine:
        engine.stores.clients.disable("gone-01", engine.now)
    assert secret is not None
    nearly = secret[:-7] + ("A" if secret[-7] != "A" else "B")
    nearly += digests.checksum(nearly)

    def asking(client_id: str, text: str | None = None) -> Callable[[], Send]:
        def prepare() -> Send:
            shown = text or digests.new_credential(digests.SECRET)
            authorization = basic(client_id, shown)
            return lambda: server.post(
                "/oauth/token", "grant_type=client_credentials", authorization=authorization
            )

        return prepare

    yield compare("client id: known or unknown", asking("known-1"), asking("other-1"), samples, tolerated=500)
    yield compare(
        "client id: disabled or unknown", asking("gone-01"), asking("other-1"), samples, tolerated=500
    )
    yield compare(
        "secret: wrong in the last character or in all", asking("known-1", nearly), asking("known-1"), samples
    )


def of_signing_clients(server: Server, samples: int) -> Iterator[Compared]:
    """Clients that sign: whoever has no key of them may know its name, or may not."""
    key, another = Key(), Key()
    key.client(server, client_id="signing-1")
    key.client(server, client_id="signed-01")
    with server.begin() as engine:
        engine.stores.clients.disable("signed-01", engine.now)

    def asking(client_id: str, kid: str = "one") -> Callable[[], Send]:
        def prepare() -> Send:
            assertion = another.signed(another.header(kid=kid), another.claims(client_id))
            form = {
                "grant_type": "client_credentials",
                "client_assertion": assertion,
                "client_assertion_type": ASSERTION_TYPE,
            }
            return lambda: server.post("/oauth/token", urlencode(form))

        return prepare

    unknown = asking("another-1")
    yield compare("assertion: known or unknown client", asking("signing-1"), unknown, samples, tolerated=500)
    yield compare(
        "assertion: unknown key or unknown client",
        asking("signing-1", "two"),
        unknown,
        samples,
        tolerated=500,
    )
    yield compare(
        "assertion: disabled or unknown client", asking("signed-01"), unknown, samples, tolerated=500
    )


def of_people(server: Server, samples: int) -> Iterator[Compared]:
    server.add_user("ann")
    server.add_user("carl", password=None)
    server.add_user("dora")
    with server.begin() as engine:
        disable_user(engine, "dora")
    unknown = signing_in(server, "nobody")
    yield compare("user name: known or unknown", signing_in(server, "ann"), unknown, samples)
    yield compare("user name: without password or unknown", signing_in(server, "carl"), unknown, samples)
    yield compare("user name: disabled or unknown", signing_in(server, "dora"), unknown, samples)


def signing_in(server: Server, name: str) -> Callable[[], Send]:
    """The form of a new browser, with a wrong password."""

    def prepare() -> Send:
        form = form_with(server.browser().get(server.path("/login")), "username")
        form["username"], form["password"] = name, secrets.token_urlsafe(12)
        return lambda: form.submit(expect_errors=True)

    return prepare


def migrated(path: Path) -> str:
    migrate.upgrade(f"sqlite:///{path}")
    return f"sqlite:///{path}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--samples", type=int, default=2_000, help="of each side; a tenth where a password is hashed"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="authserver-timing-"))
    found = []
    try:
        if not options.json:
            print(f"{'microseconds of CPU':48}{'samples':>8}{'first':>9}{'second':>9}{'effect':>8}{'p':>9}")
        for compared in comparisons(folder, options.samples):
            found.append(compared)
            if not options.json:
                verdict = "  TOLD APART" if compared.is_told_apart else ""
                print(
                    f"{compared.name:48}{compared.samples:>8}{compared.first:>9.0f}{compared.second:>9.0f}"
                    f"{compared.effect:>8.3f}{compared.p:>9.4f}{verdict}",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([asdict(compared) for compared in found], indent=2))
    return int(any(compared.is_told_apart for compared in found))


if __name__ == "__main__":
    sys.exit(main())
