"""The keys of a trusted issuer: they are in its entry, or the issuer publishes them at an address.

The operator has chosen the address, so if it does not answer, that is not counted as a failure of the client that
presents an assertion. A server process fetches the keys before they are needed, and again before they expire
(`fetch_ahead`), so no request waits for them, unless it names a new key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from authserver.engine import issuer_registry
from authserver.engine.context import Begin, Engine
from authserver.engine.documents import DocumentKind, FetchFailed, Reply
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.tokens.assertions import TrustedKeys
from authserver.limits import MAXIMUM_KEY_SET


def keys_of(engine: Engine, issuer: TrustedIssuer, *, again: bool = False) -> TrustedKeys:
    """The keys with which it signs.

    Args:
        again: whether a fresh key set is fetched again, if its kind allows that by now.

    Raises:
        FetchFailed: they cannot be fetched.
        ValueError: the keys in the entry are no JWK Set; the entry was changed by hand.
    """
    if not issuer.jwks_uri:
        return keys_in(issuer.jwks.encode())
    return engine.fetcher.fetch(KEY_SET, issuer.jwks_uri, again=again).value


def fetch_ahead(begin: Begin) -> Iterator[str]:
    """Fetch the keys of each enabled issuer that has an address, unless they stay fresh for the next minutes.

    Yields the name of each issuer when its keys were fetched, or could not be: the fetcher logs that, and the earlier
    keys remain in use. Each issuer takes some seconds at most, and no transaction is open meanwhile.
    """
    with begin() as engine:
        issuers = [each for each in issuer_registry.all_issuers(engine) if each.is_enabled and each.jwks_uri]
    for issuer in issuers:
        with suppress(FetchFailed):
            engine.fetcher.fetch(KEY_SET, issuer.jwks_uri, ahead=AHEAD)
        yield issuer.issuer


@lru_cache(maxsize=1000)
def keys_in(text: bytes) -> TrustedKeys:
    """The keys of a JWK Set; they are kept, as importing them takes longer than verifying. Raises ValueError."""
    return TrustedKeys.read(text)


def _read(reply: Reply) -> TrustedKeys:
    return keys_in(reply.body)


# A key set is fetched again this many seconds before it expires, which is time for several runs of `background.KeysAhead`.
AHEAD = 180
# As for the keys of clients: a key that is withdrawn is refused an hour later at most, a day if nothing is published.
KEY_SET = DocumentKind(
    name="issuer key set",
    read=_read,
    accept="application/jwk-set+json, application/json",
    maximum=MAXIMUM_KEY_SET,
    maximum_age=3600,
    last_good_for=86_400,
)
