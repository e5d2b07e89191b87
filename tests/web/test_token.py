"""The token endpoint's own rules, whatever the grant (OAuth 2.1, 3.2)."""

from __future__ import annotations

import gc
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webtest import TestResponse

from authserver.engine.records import Client
from authserver.storage import database
from authserver.testing.server import Server, basic, forged
from authserver.testing.stories import assert_json_error, stored

FORM = "application/x-www-form-urlencoded"
Registered = tuple[Client, str]


@pytest.fixture(scope="module")
def service(shared_server: Server) -> Registered:
    """A client that acts on its own behalf, and its secret."""
    client, secret = shared_server.add_client(grant_types=("client_credentials",))
    assert secret
    return client, secret


def post(
    server: Server, service: Registered | None, body: bytes | str, content_type: str = FORM
) -> TestResponse:
    """Post this very body, authenticated by Basic if there is a client."""
    headers = {"Content-Type": content_type}
    if service is not None:
        headers["Authorization"] = basic(*(service[0].client_id, service[1]))
    raw = body.encode() if isinstance(body, str) else body
    return server.http.post("/oauth/token", raw, headers=headers, expect_errors=True)


def test_a_code_becomes_tokens(server: Server) -> None:
    """F-07, F-08, F-09, F-13, T082: the answer says what was issued, for an hour at most, and is not cached."""
    client, secret = server.add_client()
    answer = server.redeem(client, secret, server.code(client))
    assert (answer.status_int, answer.content_type) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert answer.json["token_type"] == "Bearer"
    assert type(answer.json["expires_in"]) is int
    assert 0 < answer.json["expires_in"] <= 3600
    assert answer.json["scope"] == "profile"
    assert server.claims(answer.json["access_token"])["aud"] == "https://api.example/"
    assert server.refresh(client, secret, answer.json["refresh_token"]).status_int == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_only_post_is_answered(shared_server: Server, service: Registered, method: str) -> None:
    """F-01, T084: other methods are 405 with `Allow: POST`, whatever credentials they bring."""
    client, secret = service
    query = urlencode(
        {"grant_type": "client_credentials", "client_id": client.client_id, "client_secret": secret}
    )
    before = stored(shared_server)
    answer = shared_server.http.request(
        f"{shared_server.issuer}/oauth/token?{query}", method=method, expect_errors=True
    )
    assert (answer.status_int, answer.headers["Allow"]) == (405, "POST")
    assert answer.headers["Cache-Control"] == "no-store"
    if method != "HEAD":
        assert answer.json["error"] == "invalid_request"
    assert stored(shared_server) == before


def test_the_query_is_not_read(
    shared_server: Server, service: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    """F-02.a, T084: credentials in the query authenticate nobody and are not logged."""
    caplog.set_level("DEBUG")
    client, secret = service
    before = stored(shared_server)
    form = {"grant_type": "client_credentials", "client_id": client.client_id, "client_secret": secret}
    headers = {"Content-Type": FORM}
    address = f"/oauth/token?{urlencode(form)}"
    answer = shared_server.http.post(address, b"", headers=headers, expect_errors=True)
    assert_json_error(answer, "invalid_request")
    body = b"grant_type=client_credentials"
    answer = shared_server.http.post(address, body, headers=headers, expect_errors=True)
    assert_json_error(answer, "invalid_client", status=401)
    assert secret not in caplog.text
    assert stored(shared_server) == before
    # Nor does it contradict or complete a body that stands by itself.
    headers["Authorization"] = basic(client.client_id, secret)
    body = "grant_type=client_credentials"
    answer = shared_server.http.post("/oauth/token?grant_type=password&scope=admin", body, headers=headers)
    assert answer.json["scope"] == "profile"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"{FORM}; charset=utf-16",
        f"{FORM}; charset=iso-8859-1",
        f"{FORM}; boundary=x",
        f"{FORM}; charset=utf-8; charset=utf-8",
        f"{FORM}, application/json",
        f"{FORM}, {FORM}",
        f"{FORM}; charset=",
        "application/x-www-form-urlencodedx",
        "\xff",
    ],
)
def test_another_content_type_is_refused(
    shared_server: Server, service: Registered, content_type: str
) -> None:
    """F-02.b, T083: exactly form encoding; anything else is 400, not a failure."""
    before = stored(shared_server)
    answer = post(shared_server, service, "grant_type=client_credentials", content_type)
    assert_json_error(answer, "invalid_request")
    assert stored(shared_server) == before


@pytest.mark.parametrize(
    "content_type", [FORM, FORM.title(), f"{FORM};charset=utf-8", f'{FORM}; charset="UTF-8"']
)
def test_form_encoding_may_name_utf_8(shared_server: Server, service: Registered, content_type: str) -> None:
    """T083: the one charset there is may be said."""
    assert post(shared_server, service, "grant_type=client_credentials", content_type).status_int == 200


@pytest.mark.parametrize(
    "body", [b"grant_type=%FF", b"grant_type=\xff", b"scope=%00", b"a=\0", b"\xed\xa0\x80=1"]
)
def test_what_is_no_utf_8_text_is_refused(shared_server: Server, service: Registered, body: bytes) -> None:
    """F-02.b: parameters are UTF-8, and none holds NUL."""
    assert_json_error(
        post(shared_server, service, b"grant_type=client_credentials&" + body), "invalid_request"
    )


def test_a_bad_client_learns_nothing_about_a_code(server: Server) -> None:
    """F-11, G-06: authentication comes first: a live code and a made-up one get the same answer."""
    client, secret = server.add_client()
    live = server.code(client)
    before = stored(server)
    answers = [server.redeem(client, forged("as_secret_"), code) for code in (live, forged("as_code_"), "x")]
    answers.append(server.token(client, forged("as_secret_"), grant_type="password"))
    answers.append(server.token(client, "wrong"))
    for answer in answers:
        assert_json_error(answer, "invalid_client", status=401)
    assert len({answer.json["error_description"] for answer in answers}) == 1
    headers = [
        {name: text for name, text in answer.headers.items() if name != "X-Request-ID"} for answer in answers
    ]
    assert all(each == headers[0] for each in headers)
    assert stored(server) == before
    assert server.redeem(client, secret, live).status_int == 200


def test_a_failure_says_nothing_of_its_cause(server: Server) -> None:
    """F-12: a fault here is JSON 500 with an id, without trace, SQL or secret."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert secret
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE events RENAME TO elsewhere"))
    answer = server.token(client, secret, grant_type="client_credentials")
    assert_json_error(answer, "server_error", status=500)
    for word in ("events", "insert", "trace", "sqlite", secret.lower()):
        assert word not in answer.text.lower()


def test_a_busy_database_is_said_to_be_busy(
    make_server: Callable[..., Server], sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-12: 503 with Retry-After; nothing was issued, and later the same request succeeds."""
    monkeypatch.setattr(database, "SQLITE_BUSY_TIMEOUT", 0.05)
    server = make_server()
    client, secret = server.add_client(grant_types=("client_credentials",))
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = server.token(client, secret, grant_type="client_credentials")
        assert_json_error(answer, "temporarily_unavailable", status=503)
        assert int(answer.headers["Retry-After"]) > 0
    assert not server.events("token.issued")
    assert server.token(client, secret, grant_type="client_credentials").status_int == 200


def test_a_large_body_is_refused(shared_server: Server, service: Registered) -> None:
    """T137: more than 64 KiB is 413, authenticated or not."""
    before = stored(shared_server)
    body = "grant_type=client_credentials&x=" + "a" * 65_536
    with warnings.catch_warnings():
        # WebOb keeps a body this large in a temporary file, and leaves closing it to the garbage collector, which need not
        # look through what other tests have left.
        gc.freeze()
        warnings.simplefilter("ignore", ResourceWarning)
        for who in (service, None):
            answer = post(shared_server, who, body)
            assert_json_error(answer, "invalid_request", status=413)
        del answer
        gc.collect()
    assert stored(shared_server) == before


@pytest.mark.parametrize(
    ("filling", "status"),
    [
        ("".join(f"&x{number}=" for number in range(99)), 200),
        ("".join(f"&x{number}=" for number in range(100)), 400),
        ("&" * 100, 400),
        ("&x=" + "a" * 8192, 200),
        ("&x=" + "a" * 8193, 400),
        ("&" + "a" * 8193 + "=x", 400),
    ],
)
def test_a_flood_of_parameters_is_refused(
    shared_server: Server, service: Registered, filling: str, status: int
) -> None:
    """T137: at most 100 parameters, each of at most 8 kB."""
    answer = post(shared_server, service, "grant_type=client_credentials" + filling)
    assert answer.status_int == status
    if status == 400:
        assert_json_error(answer, "invalid_request")


NAMES = st.sampled_from(
    [
        "grant_type",
        "code",
        "code_verifier",
        "redirect_uri",
        "refresh_token",
        "scope",
        "resource",
        "nonsense",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    ]
)
VALUES = st.one_of(
    st.sampled_from(["authorization_code", "refresh_token", "as_code_", "https://api.example/", "profile"]),
    st.text(max_size=20),
)


# One database serves all examples: a refusal leaves nothing behind that the next one could see.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.lists(st.tuples(NAMES, VALUES), max_size=6).map(
            lambda pairs: urlencode(pairs, errors="surrogatepass").encode()
        ),
    ),
    authenticated=st.booleans(),
)
def test_no_form_makes_the_server_fail(
    shared_server: Server, service: Registered, body: bytes, authenticated: bool
) -> None:
    """F-10, F-12, T045, T046: whatever the body, the answer is an error of the protocol and nothing is stored."""
    before = stored(shared_server)
    answer = post(shared_server, service if authenticated else None, body)
    assert_json_error(answer, answer.json["error"], status=answer.status_int)
    assert answer.status_int in (400, 401)
    assert stored(shared_server) == before
