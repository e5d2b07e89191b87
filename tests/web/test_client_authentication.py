"""Client authentication at the token endpoint (OAuth 2.1, 2.4)."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
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


@pytest.mark.parametrize("presented", [*METHODS, "client_assertion"])
@pytest.mark.parametrize("registered", METHODS)
def test_only_the_registered_method_counts(
    shared_server: Server, services: dict[str, tuple[Client, str]], registered: str, presented: str
) -> None:
    """J-01, J-05, T044: a good secret sent another way is no proof, and no secret even less."""
    client, secret = services[registered]
    before = stored(shared_server)
    answer = present(shared_server, presented, client.client_id, secret)
    if presented != registered:
        assert_json_error(answer, "invalid_client", status=401)
        assert stored(shared_server) == before
    elif registered == "none":
        assert_json_error(answer, "unauthorized_client")  # known, but without this grant type (H-01)
    else:
        assert answer.status_int == 200


@pytest.mark.parametrize("registered", METHODS)
def test_two_methods_at_once_are_refused(
    shared_server: Server, services: dict[str, tuple[Client, str]], registered: str
) -> None:
    """J-04, T042: even where both are right, and even one that no policy here serves."""
    client, secret = services[registered]
    client_id = client.client_id
    before = stored(shared_server)
    for authorization, form in (
        (basic(client_id, secret), {"client_secret": secret}),
        (basic(client_id, secret), {"client_id": client_id, "client_secret": secret}),
        (basic(client_id, secret), {"client_assertion": "a.b.c"}),
        (None, {"client_id": client_id, "client_secret": secret, "client_assertion": "a.b.c"}),
        ("Bearer x", {"client_id": client_id, "client_secret": secret}),
    ):
        assert_json_error(ask(shared_server, authorization, **form), "invalid_request")
    assert stored(shared_server) == before


def test_another_client_id_in_the_body_is_refused(
    shared_server: Server, services: dict[str, tuple[Client, str]]
) -> None:
    """J-06, T043: neither the first nor the second wins; the same one may be repeated there."""
    client, secret = services["client_secret_basic"]
    before = stored(shared_server)
    for other in (services["none"][0].client_id, "nobody", client.client_id.upper()):
        answer = ask(shared_server, basic(client.client_id, secret), client_id=other)
        assert_json_error(answer, "invalid_request")
    assert stored(shared_server) == before
    answer = ask(shared_server, basic(client.client_id, secret), client_id=client.client_id)
    assert answer.status_int == 200


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


def test_both_halves_of_basic_are_form_decoded(server: Server) -> None:
    """J-02: ids and secrets may hold any character, once encoded."""
    client, _ = server.add_client(client_id="a:b+c%20d&e", grant_types=("client_credentials",))
    secret = add_secret(server, client, "s:e+c%r=t &é€" + "x" * 20)
    assert ask(server, basic(client.client_id, secret)).status_int == 200
    assert ask(server, basic(client.client_id, secret).replace("Basic", "bAsIc  ")).status_int == 200
    raw = f"{client.client_id}:{secret}".encode()
    assert_json_error(ask(server, encoded(raw)), "invalid_client", status=401)


def test_a_plain_id_and_secret_need_no_encoding(
    shared_server: Server, services: dict[str, tuple[Client, str]]
) -> None:
    """J-02: what form-encoding leaves alone is the same either way."""
    client, secret = services["client_secret_basic"]
    assert ask(shared_server, encoded(f"{client.client_id}:{secret}".encode())).status_int == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda right: "",
        lambda right: "Basic",
        lambda right: "Basic ",
        lambda right: right.removeprefix("Basic "),
        lambda right: right.replace("Basic ", "Basic"),
        lambda right: right.replace("Basic ", "Basic\t"),
        lambda right: right[:20] + "*" + right[20:],
        lambda right: right[:20] + "." + right[20:],
        lambda right: right[:20] + " " + right[20:],
        lambda right: right + "=",
        lambda right: right + "==",
        lambda right: right.rstrip("="),
        lambda right: right + ", " + right,
        lambda right: f"{right}, Bearer x",
        lambda right: right + "\xff",
        lambda right: encoded(b"no-colon"),
        lambda right: encoded(b":"),
        lambda right: encoded(b":secret"),
        lambda right: encoded(b"id%zz:secret"),
        lambda right: encoded(b"id:secret%"),
        lambda right: encoded(b"id:%ff"),
        lambda right: encoded(b"id:\xff"),
        lambda right: encoded(b"%00:secret"),
        lambda right: encoded(b"id:\0"),
        lambda right: encoded(b"id:%ed%a0%80"),
        lambda right: "Basic " + "A" * 10_000,
    ],
)
def test_a_malformed_basic_header_is_refused(server: Server, spoil: Any) -> None:
    """J-03, T045: strict base64, a colon, well-formed escapes, UTF-8; nothing is skipped or mended."""
    # An id of such a length that the right header ends with padding.
    client, secret = server.add_client(client_id="service-12", grant_types=("client_credentials",))
    right = basic(client.client_id, secret or "")
    assert right.endswith("=")
    before = stored(server)
    answer = ask(server, spoil(right))
    assert_json_error(answer, "invalid_client", status=401)
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert stored(server) == before


def test_base64_has_one_spelling(server: Server) -> None:
    """T045: bits that carry nothing are zero (RFC 4648, 3.5)."""
    client, secret = server.add_client(client_id="service-12", grant_types=("client_credentials",))
    right = basic(client.client_id, secret or "")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stem = right.rstrip("=")
    other = stem[:-1] + alphabet[alphabet.index(stem[-1]) + 1] + right[len(stem) :]
    assert base64.b64decode(other[6:]) == base64.b64decode(right[6:])
    assert_json_error(ask(server, other), "invalid_client", status=401)
    assert ask(server, right).status_int == 200


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
        ("nöbody", right),
        (disabled.client_id, disabled_secret),
        (disabled.client_id, forged("as_secret_")),
        (disabled.client_id, "wrong"),
        ("nobody", "wrong"),
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
        like.append((answer.status, sorted(answer.headers.items()), body, done))
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


def test_a_secret_can_be_replaced_without_a_gap(server: Server) -> None:
    """R-02, J-07: both count until the old one expires, to the second; each is stored as a digest."""
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        client, first = server.add_client(grant_types=("client_credentials",))
        second = add_secret(server, client, expires_at=datetime.now(UTC) + timedelta(seconds=60))
        clock.shift(timedelta(seconds=60) - timedelta(microseconds=1))
        for secret in (first, second):
            assert ask(server, basic(client.client_id, secret or "")).status_int == 200
        clock.shift(timedelta(microseconds=1))
        assert_json_error(ask(server, basic(client.client_id, second)), "invalid_client", status=401)
        assert ask(server, basic(client.client_id, first or "")).status_int == 200


def test_a_secret_whose_key_left_the_ring_is_wrong(server: Server) -> None:
    """J-07, T047: it cannot be compared any more, which is no failure of the server."""
    client, right = server.add_client(grant_types=("client_credentials",))
    lost = add_secret(server, client, key_id="gone")
    assert_json_error(ask(server, basic(client.client_id, lost)), "invalid_client", status=401)
    assert ask(server, basic(client.client_id, right or "")).status_int == 200


def test_a_client_disabled_a_moment_ago_is_refused(server: Server) -> None:
    """R-09: from the next request on."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert ask(server, basic(client.client_id, secret or "")).status_int == 200
    with server.application.begin() as engine:
        assert disable_client(engine, client.client_id)
    assert_json_error(ask(server, basic(client.client_id, secret or "")), "invalid_client", status=401)


@pytest.fixture
def only_post(server: Server, sqlite_url: str) -> Iterator[Server]:
    """The same server without a policy for Basic."""
    plugins = server.ini["authserver.plugins"].replace("client_secret_basic", "")
    other = Server(sqlite_url, {"authserver.plugins": plugins})
    yield other
    other.close()


def test_a_method_without_a_policy_is_refused(server: Server, only_post: Server) -> None:
    """J-05: nobody answered means refused; two methods stay `invalid_request` (T042)."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert ask(server, basic(client.client_id, secret or "")).status_int == 200
    assert_json_error(ask(only_post, basic(client.client_id, secret or "")), "invalid_client", status=401)
    answer = ask(only_post, basic(client.client_id, secret or ""), client_secret=secret or "")
    assert_json_error(answer, "invalid_request")
