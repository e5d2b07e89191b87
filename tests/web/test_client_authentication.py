"""Client authentication at the token endpoint (OAuth 2.1, 2.4)."""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from webtest import TestResponse

from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.secrets import new_secret, stored_secret
from authserver.engine.records import Client
from authserver.testing.server import Server, basic, forged
from authserver.testing.stories import assert_json_error, stored

FORM = "application/x-www-form-urlencoded"
METHODS = ("client_secret_basic", "client_secret_post", "none")


def ask(server: Server, authorization: str | None = None, **form: str) -> TestResponse:
    """Ask for a token of the client's own with exactly these credentials."""
    headers = {"Content-Type": FORM}
    if authorization is not None:
        headers["Authorization"] = authorization
    body = {"grant_type": "client_credentials", **form}
    return server.http.post("/oauth/token", body, headers=headers, expect_errors=True)


def present(server: Server, method: str, client_id: str, secret: str) -> TestResponse:
    """Ask as a client registered for this method would."""
    match method:
        case "client_secret_basic":
            return ask(server, basic(client_id, secret))
        case "client_secret_post":
            return ask(server, client_id=client_id, client_secret=secret)
        case "client_assertion":
            return ask(server, client_id=client_id, client_assertion="a.b.c")
        case _:
            return ask(server, client_id=client_id)


def encoded(halves: bytes) -> str:
    return "Basic " + base64.b64encode(halves).decode()


@pytest.fixture(scope="module")
def services(shared_server: Server) -> dict[str, tuple[Client, str]]:
    """A client of each method, with a live secret each: a public one's was added to its record."""
    services = {}
    for method in METHODS:
        metadata: dict[str, Any] = {"grant_types": ("client_credentials",)} if method != "none" else {}
        client, secret = shared_server.add_client(token_endpoint_auth_method=method, **metadata)
        if secret is None:
            secret = add_secret(shared_server, client)
        services[method] = (client, secret)
    return services


def add_secret(server: Server, client: Client, text: str | None = None, **changes: Any) -> str:
    """Give a client one more secret."""
    with server.application.begin() as engine:
        secret, kept = new_secret(engine.ring, client.client_id, engine.now)
        if text is not None:
            secret, kept = text, stored_secret(engine.ring, client.client_id, text, engine.now)
        engine.stores.clients.add_secret(client.client_id, replace(kept, **changes))
    return secret


@pytest.mark.parametrize(
    ("authorization", "scheme"),
    [
        (None, "Basic"),
        ("Basic eDp5", "Basic"),
        ("basic eDp5", "Basic"),
        ("Bearer x", "Bearer"),
        ("bearer x", "Bearer"),
        ("Digest x", "Basic"),
        ("", "Basic"),
    ],
)
def test_a_refusal_challenges_in_the_scheme_that_was_used(
    shared_server: Server, authorization: str | None, scheme: str
) -> None:
    """J-03: always with WWW-Authenticate, also where no Authorization header was sent."""
    answer = ask(shared_server, authorization)
    assert_json_error(answer, "invalid_client", status=401)
    assert answer.headers["WWW-Authenticate"] == f'{scheme} realm="{shared_server.issuer}"'


@settings(max_examples=60, deadline=None)
@given(
    authorization=st.one_of(
        st.binary(max_size=60).map(encoded),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60),
        st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=60).map("Basic {}".format),
    )
)
def test_no_authorization_header_makes_the_server_fail(shared_server: Server, authorization: str) -> None:
    """T045, T046: 401 for whatever it holds, and nothing is stored."""
    before = stored(shared_server)
    assert_json_error(ask(shared_server, authorization), "invalid_client", status=401)
    assert stored(shared_server) == before


@settings(max_examples=40, deadline=None)
@given(secret=st.text(min_size=1, max_size=40))
def test_no_secret_makes_the_server_fail(
    shared_server: Server, services: dict[str, tuple[Client, str]], secret: str
) -> None:
    """T046: a secret outside ASCII is compared as bytes, and is wrong."""
    for method in ("client_secret_basic", "client_secret_post"):
        answer = present(shared_server, method, services[method][0].client_id, secret)
        if "\0" in secret and method == "client_secret_post":
            assert_json_error(answer, "invalid_request")  # no form holds NUL
        else:
            assert_json_error(answer, "invalid_client", status=401)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_why_a_client_is_refused_cannot_be_seen(
    server: Server, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J-07, T047: unknown, disabled, expired secret, wrong secret: one answer, and the same work for it.

    A text that is nobody's secret is answered alike with less work, whoever is named.
    """
    settings: dict[str, Any] = {
        "grant_types": ("client_credentials",),
        "token_endpoint_auth_method": method,
    }
    known, right = server.add_client(**settings)
    disabled, disabled_secret = server.add_client(**settings)
    with server.application.begin() as engine:
        assert disable_client(engine, disabled.client_id)
    old, old_secret = server.add_client(**settings)
    with server.application.storage.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE client_secrets SET expires_at = '2020-01-01 00:00:00.000000' WHERE client_id = :id"
            ),
            {"id": old.client_id},
        )
    public, _ = server.add_client(token_endpoint_auth_method="none")
    work: list[str] = []
    digest = hmac.digest
    monkeypatch.setattr(hmac, "digest", lambda *given: work.append("digest") or digest(*given))

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        work.append(statement)

    sa.event.listen(server.application.storage.engine, "before_cursor_execute", count)
    seen, garbage = [], []
    for client_id, secret in (
        (known.client_id, forged("as_secret_")),
        (known.client_id, "wrong"),
        (known.client_id, "made elsewhere, but not for this one"),
        ("client_" + "x" * 22, right),
        ("nobody", right),
        (disabled.client_id, disabled_secret),
        (disabled.client_id, forged("as_secret_")),
        (disabled.client_id, "wrong"),
        ("nobody", "wrong"),
        ("nöbody", "wrong"),
        (public.client_id, "wrong"),
        (old.client_id, old_secret),
        (public.client_id, right),
    ):
        work.clear()
        before = stored(server)
        work.clear()
        answer = present(server, method, client_id, secret or "")
        done = list(work)
        assert_json_error(answer, "invalid_client", status=401)
        assert stored(server) == before
        body = {name: text for name, text in answer.json.items() if name != "error_id"}
        like = garbage if secret == "wrong" else seen
        headers = sorted(item for item in answer.headers.items() if item[0] != "X-Request-ID")
        like.append((answer.status, headers, body, done))
    assert all(each == seen[0] for each in seen)
    assert seen[0][3].count("digest") == 1
    assert all(each == garbage[0] for each in garbage)
    assert garbage[0][:3] == seen[0][:3]
    assert len(garbage[0][3]) == 1  # the refusal's own event
    reasons = {row["reason"] for row in server.events("token.refused")}
    assert reasons == {
        "client-unknown",
        "client-disabled",
        "secret-wrong",
        "secret-malformed",
        "method-not-registered",
    }
