"""The keys of an issuer: fetched once, kept, replaced, and good for a while when the issuer is down."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from steps import ISSUER, later, let_in, refused

from authserver.testing import forgeries
from authserver_resource import InvalidToken, ProtectedResource, Unavailable
from authserver_resource.fetching import Reply
from authserver_resource.testing import LocalIssuer

METADATA_URL = "https://as.example/.well-known/oauth-authorization-server/tenant"
KEYS_URL = f"{ISSUER}/jwks"


def test_a_warm_cache_needs_no_network(protected, issuer):
    """The metadata are found where RFC 8414, 3.1 puts them (A-05), and the keys where those say."""
    for _ in range(50):
        let_in(protected, issuer.token())
    assert issuer.requests == [METADATA_URL, KEYS_URL]


def test_many_at_once_fetch_once(protected, issuer):
    """T128: single flight."""
    slow, answer = threading.Event(), issuer.fetch

    def fetch(*asked):
        slow.wait(5)
        return answer(*asked)

    protected.use(fetch)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(let_in, protected, issuer.token()) for _ in range(8)]
        slow.set()
        assert {access.result().subject for access in asked} == {"ann"}
    assert issuer.requests == [METADATA_URL, KEYS_URL]


def test_a_new_key_is_found_at_once_and_then_looked_for_once_a_minute(protected, issuer):
    """T128, T144: rotation works without waiting, and a flood of unknown keys is no flood of requests."""
    let_in(protected, issuer.token())
    issuer.rotate()
    let_in(protected, issuer.token())
    assert issuer.requests.count(KEYS_URL) == 2
    for number in range(20):
        assert isinstance(
            refused(protected, f"Bearer {issuer.token(header={'kid': f'k{number}'})}"), InvalidToken
        )
    assert issuer.requests.count(KEYS_URL) == 2
    with later(61):
        issuer.rotate()
        let_in(protected, issuer.token())
    assert issuer.requests.count(KEYS_URL) == 3


def test_a_key_that_is_gone_ends_its_tokens_when_the_keys_are_fetched_again(protected, issuer):
    """T144: remembered tokens too."""
    old = issuer.token(exp=int(time.time()) + 3600)
    let_in(protected, old)
    issuer.rotate(keep=False)
    let_in(protected, old)
    with later(301):
        assert isinstance(refused(protected, f"Bearer {old}"), InvalidToken)


def test_the_last_good_keys_are_good_for_a_day(protected, issuer):
    """an issuer that is down for a while stops nobody who has a token."""
    now = time.time()
    token = issuer.token(exp=int(now) + 10 * 86_400)
    let_in(protected, token)
    issuer.down = True
    asked = len(issuer.requests)
    with later(3600, now):
        for _ in range(20):
            let_in(protected, token)
    assert len(issuer.requests) - asked <= 2  # a failure is not tried again at once
    with later(86_401, now):
        assert isinstance(refused(protected, f"Bearer {token}"), Unavailable)


def test_an_outage_before_the_first_key_is_503_and_not_401(protected, issuer):
    """the token may well be good."""
    issuer.down = True
    refusal = refused(protected, f"Bearer {issuer.token()}")
    assert isinstance(refusal, Unavailable)
    headers = dict(refusal.headers)
    assert refusal.status == 503
    assert 1 <= int(headers["Retry-After"]) <= 10
    assert "WWW-Authenticate" not in headers
    asked = len(issuer.requests)
    refused(protected, f"Bearer {issuer.token()}")
    assert len(issuer.requests) == asked
    issuer.down = False
    with later(11):
        let_in(protected, issuer.token())


def test_an_unknown_key_during_an_outage_is_503(protected, issuer):
    """Nobody knows whether it is a new key of the issuer; it is looked for again after some seconds, not a minute."""
    old = issuer.token()
    let_in(protected, old)
    issuer.rotate()
    issuer.down = True
    for _ in range(2):
        assert isinstance(refused(protected, f"Bearer {issuer.token()}"), Unavailable)
        let_in(protected, old)
    issuer.down = False
    with later(11):
        let_in(protected, issuer.token())


@pytest.mark.parametrize(
    "document",
    [
        b'{"issuer": "https://as.example/tenant/", "jwks_uri": "https://as.example/tenant/jwks"}',
        b'{"issuer": "https://as.example/tenant"}',
        b'{"issuer": "https://as.example/tenant", "jwks_uri": "http://as.example/tenant/jwks"}',
        b'{"issuer": "https://as.example/tenant", "jwks_uri": "file:///etc/passwd"}',
        b'{"issuer": "https://as.example/tenant", "jwks_uri": 7}',
        b'{"issuer": "https://as.example/tenant", "issuer": "https://as.example/tenant", "jwks_uri": "https://as.example/tenant/jwks"}',
    ],
)
def test_wrong_metadata_are_no_metadata(protected, issuer, document):
    """RFC 8414, 3.3: the issuer must be the one that was asked for; and its keys come by https."""
    protected.use(publishing(issuer, METADATA_URL, document))
    assert isinstance(refused(protected, f"Bearer {issuer.token()}"), Unavailable)


def test_no_token_is_good_by_a_hostile_key_set(protected, issuer):
    """T058: 503 where there is no key at all, and 401 where the one that signed is of no use."""
    for name, jwks in forgeries.key_sets(issuer.key, issuer.kid).items():
        protected.use(publishing(issuer, KEYS_URL, json.dumps(jwks).encode()))
        refusal = refused(protected, f"Bearer {issuer.token()}")
        assert isinstance(refusal, InvalidToken if name == "two of one name" else Unavailable), name


@pytest.mark.parametrize("url", [METADATA_URL, KEYS_URL])
def test_hostile_documents_are_none(protected, issuer, url):
    """T062: right but for one thing that two readers could read differently."""
    right = json.loads(issuer.fetch("GET", url, {}).body)
    for name, text in {**forgeries.JSON, **forgeries.NO_OBJECTS}.items():
        protected.use(publishing(issuer, url, forgeries.beside(right, text)))
        assert isinstance(refused(protected, f"Bearer {issuer.token()}"), Unavailable), name


def publishing(issuer: LocalIssuer, url: str, document: bytes):
    """A source that has this document there, and what the issuer has elsewhere."""

    def fetch(method, asked, headers, body):
        if asked == url:
            return Reply(200, {"content-type": "application/json"}, document)
        return issuer.fetch(method, asked, headers, body)

    return fetch


def test_an_issuer_with_openid_configuration_alone_is_found_too():
    """RFC 8414, 5; OpenID Connect Discovery, 4."""
    protected = ProtectedResource("https://api.example/", ISSUER)
    issuer = LocalIssuer(ISSUER, "https://api.example/")

    def fetch(method, url, headers, body):
        if url == METADATA_URL:
            return Reply(404, {}, b"")
        if url == f"{ISSUER}/.well-known/openid-configuration":
            return issuer.fetch(method, METADATA_URL, headers, body)
        return issuer.fetch(method, url, headers, body)

    protected.use(fetch)
    assert let_in(protected, issuer.token()).subject == "ann"


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [("max-age=600", 600), ("public, MAX-AGE=5", 60), ("no-store", 300), ("", 300)],
)
def test_keys_are_fresh_for_as_long_as_their_server_says(protected, issuer, cache_control, seconds):
    """Within bounds: a minute to a day."""
    asked = []

    def fetch(method, url, headers, body):
        reply = issuer.fetch(method, url, headers, body)
        asked.append(url)
        return Reply(reply.status, {**reply.headers, "cache-control": cache_control}, reply.body)

    protected.use(fetch)
    now = time.time()
    for passed, times in ((0, 1), (seconds - 2, 1), (seconds + 2, 2)):
        with later(passed, now):
            let_in(protected, issuer.token())
        assert asked.count(KEYS_URL) == times
