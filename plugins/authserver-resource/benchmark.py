"""Measures the cost of a request: python benchmark.py. Needs no server; exits with 1 if a figure misses its limit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from authserver_resource import Dpop, Issuer, ProtectedResource, Request, needs
from authserver_resource.jose import public_key, split
from authserver_resource.testing import DpopKey, LocalIssuer

ROUNDS, CALLS = 100, 20
# The highest accepted ratios to the bare check.
BAR = 1.3
NEEDED = needs("files.read")


def least(*work: Callable[[], object]) -> list[float]:
    """The least microseconds of each function; they take turns, so that a busy machine slows all of them alike."""
    best = [float("inf")] * len(work)
    for _ in range(ROUNDS):
        for number, function in enumerate(work):
            begin = time.perf_counter()
            for _ in range(CALLS):
                function()
            best[number] = min(best[number], (time.perf_counter() - begin) / CALLS * 1e6)
    return best


def jwt(algorithm: str) -> tuple[float, float, float]:
    """The bare check of a signature, the check of an unknown token, and that of a remembered one."""
    protected = ProtectedResource("https://api.example/", Issuer("https://as.example"), dpop=Dpop())
    issuer = LocalIssuer.of(protected, algorithm=algorithm)
    tokens = [issuer.token(scope="files.read") for _ in range(ROUNDS * CALLS + 1)]
    requests = [Request("GET", "/files", (f"Bearer {token}",)) for token in tokens]
    known, part = requests.pop(), split(tokens[0])
    protected.check(known, NEEDED)
    key = public_key(issuer.keys[0], algorithm)
    bare, first, again = least(
        lambda: key.verifies(part),
        lambda: protected.check(requests.pop(), NEEDED),
        lambda: protected.check(known, NEEDED),
    )
    assert len(issuer.requests) == 2, "the metadata and the keys, once"
    return bare, first, again


def opaque() -> float:
    """A token that was introspected a moment ago."""
    known = Issuer("https://as.example", client_id="api", client_secret="secret")
    protected = ProtectedResource("https://api.example/", known, dpop=Dpop())
    issuer = LocalIssuer.of(protected)
    request = Request("GET", "/files", (f"Bearer {issuer.opaque_token(scope='files.read')}",))
    protected.check(request, NEEDED)
    (cached,) = least(lambda: protected.check(request, NEEDED))
    return cached


def dpop() -> float:
    """A proof of a known key, with a remembered token."""
    protected = ProtectedResource("https://api.example/", "https://as.example", dpop=Dpop())
    issuer, key = LocalIssuer.of(protected), DpopKey()
    token = issuer.token(scope="files.read", cnf=key.confirmation)
    url = "https://api.example/files"
    requests = [
        Request("GET", "/files", (f"DPoP {token}",), (key.proof("GET", url, token),))
        for _ in range(ROUNDS * CALLS)
    ]
    (proof,) = least(lambda: protected.check(requests.pop(), NEEDED))
    return proof


def main() -> int:
    missed = False
    say = sys.stdout.write
    say(
        f"{'':26}{'bare check':>12}{'first time':>12}{'ratio':>8}{'again':>8}{'ratio':>8}{'of two':>8}   (µs)\n"
    )
    for algorithm in ("ES256", "EdDSA", "RS256", "PS256"):
        bare, first, again = jwt(algorithm)
        times = f"{bare:12.1f}{first:12.1f}{first / bare:8.2f}{again:8.1f}{again / bare:8.2f}"
        of_two = (first + again) / 2 / bare
        say(f"{f'JWT, {algorithm}':26}{times}{of_two:8.2f}\n")
        # RSA signatures are checked so fast that reading the token costs nearly as much: two requests make up for it.
        missed |= of_two > BAR or (algorithm in ("ES256", "EdDSA") and first > BAR * bare)
    cached = opaque()
    say(f"{'opaque token, remembered':26}{'':32}{cached:8.1f}\n")
    say(f"{'DPoP proof of a known key':26}{'':12}{dpop():12.1f}\n")
    return int(missed or cached > 50)


if __name__ == "__main__":
    sys.exit(main())
