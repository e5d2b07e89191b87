"""Tokens that only their issuer can read (RFC 7662): asked once, kept for a moment, never beyond their end."""

from __future__ import annotations

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest
from steps import ISSUER, later, let_in, refused

from authserver_resource import InvalidToken, ProtectedResource, Unavailable
from authserver_resource.fetching import FetchFailed, Reply
from authserver_resource.testing import LocalIssuer

INTROSPECTION = f"{ISSUER}/introspect"


def answering(issuer: LocalIssuer, status: int, body: bytes, **headers: str):
    """A source of documents whose introspection endpoint answers this."""

    def fetch(method, url, sent, form):
        if url == INTROSPECTION:
            issuer.requests.append(url)
            return Reply(status, {"content-type": "application/json", **headers}, body)
        return issuer.fetch(method, url, sent, form)

    return fetch


def test_an_opaque_token_is_asked_about_once(protected, issuer):
    token = issuer.opaque_token(scope="files.write")
    for _ in range(20):
        assert let_in(protected, token).scopes == {"files.write", "files.read"}
    assert issuer.requests.count(INTROSPECTION) == 1


def test_the_client_authenticates_as_oauth_says(protected, issuer):
    """OAuth 2.1, 2.4.1: both halves are form-encoded before they are joined."""
    sent = []

    def fetch(method, url, headers, form):
        sent.append((method, headers, form))
        return issuer.fetch(method, url, headers, form)

    protected.use(fetch)
    let_in(protected, issuer.opaque_token())
    method, headers, form = sent[-1]
    assert method == "POST"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"api:a+secret%3A+100%25"
    assert parse_qs(form.decode())["token_type_hint"] == ["access_token"]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.example/"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": "soon"},
        {"nbf": 10**11},
        {"scope": ["files.read"]},
        {"token_type": "DPoP"},
        {"cnf": {"kid": "k"}},
    ],
    ids=str,
)
def test_an_active_token_that_is_not_for_here_is_refused(protected, issuer, changes):
    """P-05, P-08: what JWTs must say, other tokens must say too."""
    assert isinstance(refused(protected, f"Bearer {issuer.opaque_token(**changes)}"), InvalidToken)


def test_an_unknown_token_is_refused_and_remembered_for_a_shorter_time(protected, issuer):
    """P-05, T078."""
    for _ in range(5):
        assert isinstance(refused(protected, "Bearer unknown"), InvalidToken)
    assert issuer.requests.count(INTROSPECTION) == 1
    with later(11):
        refused(protected, "Bearer unknown")
    assert issuer.requests.count(INTROSPECTION) == 2


def test_a_revocation_counts_after_half_a_minute(protected, issuer):
    """P-05."""
    token = issuer.opaque_token()
    let_in(protected, token)
    issuer.revoke(token)
    let_in(protected, token)
    with later(31):
        assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


def test_nothing_is_remembered_beyond_the_end_of_the_token(protected, issuer):
    now = time.time()
    token = issuer.opaque_token(exp=int(now) + 10)
    let_in(protected, token)
    with later(11, now):
        assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


def test_jwts_can_be_introspected_too(make):
    """P-05: then a revocation counts for them as well."""
    protected, issuer = make(issuer={"introspect_jwts": True, "active_seconds": 0, "inactive_seconds": 0})
    token = issuer.token()
    let_in(protected, token)
    issuer.revoke(token)
    assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (503, b"", {"retry-after": "7"}),
        (429, b"{}", {"retry-after": "7"}),
        (500, b'{"active": false}', {}),
        (401, b'{"error": "invalid_client"}', {}),
        (302, b"", {"location": "https://evil.example"}),
        (200, b'{"active": "yes"}', {}),
        (200, b'{"active": 1}', {}),
        (200, b"{}", {}),
        (200, b"[]", {}),
        (200, b"<html>", {}),
        (200, b'{"active": true}', {"content-type": "text/html"}),
    ],
    ids=str,
)
def test_an_answer_that_says_nothing_is_503_and_not_401(protected, issuer, status, body, headers):
    """also when our own credential is wrong, which is not the fault of the client; and it is not remembered."""
    token = issuer.opaque_token()
    protected.use(answering(issuer, status, body, **headers))
    for _ in range(2):
        refusal = refused(protected, f"Bearer {token}")
        assert isinstance(refusal, Unavailable)
        assert dict(refusal.headers)["Retry-After"] == headers.get("retry-after", "10")
    assert issuer.requests.count(INTROSPECTION) == 2


def test_an_outage_stops_no_token_that_is_remembered(protected, issuer):
    token = issuer.opaque_token()
    let_in(protected, token)
    issuer.down = True
    let_in(protected, token)
    assert isinstance(refused(protected, f"Bearer {issuer.opaque_token()}"), Unavailable)


def test_a_silent_issuer_holds_one_thread_and_no_other(protected, issuer):
    """T126, T128: after the first failure one tries, the rest are told at once; and all ask again when it answers."""
    tokens = [issuer.opaque_token() for _ in range(8)]
    let_in(protected, tokens[0])
    gate, waiting = threading.Event(), threading.Semaphore(0)
    answer, under_way = issuer.fetch, []

    def fetch(method, url, headers, form):
        if url == INTROSPECTION and not gate.is_set():
            under_way.append(url)
            if len(under_way) > 1:
                waiting.release()
                gate.wait(10)
            raise FetchFailed("no answer")
        return answer(method, url, headers, form)

    protected.use(fetch)
    assert isinstance(refused(protected, f"Bearer {tokens[1]}"), Unavailable)
    with ThreadPoolExecutor(1) as thread:
        trying = thread.submit(refused, protected, f"Bearer {tokens[2]}")
        assert waiting.acquire(timeout=10)
        for token in tokens[3:]:
            refusal = refused(protected, f"Bearer {token}")
            assert isinstance(refusal, Unavailable)
            assert dict(refusal.headers)["Retry-After"] == "10"
        gate.set()
        assert isinstance(trying.result(), Unavailable)
    assert len(under_way) == 2
    for token in tokens[1:]:
        assert let_in(protected, token).subject == "ann"


def test_many_at_once_ask_once(protected, issuer):
    """T128: about each token."""
    token, slow, answer = issuer.opaque_token(), threading.Event(), issuer.fetch

    def fetch(*asked):
        slow.wait(5)
        return answer(*asked)

    protected.use(fetch)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(let_in, protected, token) for _ in range(8)]
        slow.set()
        assert {access.result().subject for access in asked} == {"ann"}
    assert issuer.requests.count(INTROSPECTION) == 1


def test_the_cache_is_bounded_and_strangers_push_nobody_out(make):
    """T128: tokens that are not active have a place of their own."""
    protected, issuer = make(issuer={"cache_size": 10})
    token = issuer.opaque_token()
    let_in(protected, token)
    for number in range(50):
        refused(protected, f"Bearer stranger-{number}")
    asked = issuer.requests.count(INTROSPECTION)
    let_in(protected, token)
    assert issuer.requests.count(INTROSPECTION) == asked
    for _ in range(10):
        let_in(protected, issuer.opaque_token())
    let_in(protected, token)
    assert issuer.requests.count(INTROSPECTION) == asked + 11


def test_where_nobody_can_be_asked_an_opaque_token_is_refused():
    protected = ProtectedResource("https://api.example/", ISSUER)
    issuer = LocalIssuer.of(protected)
    assert isinstance(refused(protected, f"Bearer {issuer.opaque_token()}"), InvalidToken)
    assert issuer.requests == []
