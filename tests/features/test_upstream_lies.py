"""Providers that lie, fail or are away: each ends on a page with a way on, and nobody is signed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from authserver.testing.origins import Reply, sending
from authserver.testing.server import ISSUER, Server
from tests.features.upstream_steps import (
    Liar,
    a_liar,
    come_back,
    query_of,
    reasons,
    to_the_provider,
    with_provider,
)

NOW = int(datetime.now(UTC).timestamp())


@pytest.fixture
def liar() -> Iterator[Liar]:
    with a_liar() as liar:
        yield liar


@pytest.fixture
def server(sqlite_url: str, liar: Liar) -> Iterator[Server]:
    server = Server(sqlite_url, with_provider(liar.issuer, "authserver", "a secret: of ours"))
    yield server
    server.close()


def test_an_honest_answer_signs_in(server: Server, liar: Liar) -> None:
    """UP-01, UP-12: what all others of this file differ from in one thing; the secret is sent encoded, the verifier fits."""
    browser = server.browser()
    answer = come_back(server, liar, browser)
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/")
    (form,) = liar.asked
    assert form["grant_type"] == "authorization_code"
    assert form["redirect_uri"] == f"{ISSUER}/login/staff/callback"
    assert len(form["code_verifier"]) >= 43
    (sent,) = [each for each in liar.origin.received if each.path == "/token"]
    assert sent.headers["Authorization"].startswith("Basic ")
    assert b"client_secret" not in sent.body
    assert "a secret" not in str(server.rows("events"))


def none(liar: Liar) -> str:
    claims = liar.id_token().split(".")[1]
    return f"eyJhbGciOiJub25lIn0.{claims}."


def by_secret(liar: Liar) -> str:
    """HS256 with what the server sends there, and with what the provider publishes."""
    claims = jwt.decode(liar.id_token(), liar.signs_with, algorithms=["ES256"]).claims
    return jwt.encode({"alg": "HS256", "kid": "first"}, claims, OctKey.import_key("a secret: of ours"))


def altered(liar: Liar) -> str:
    head, _, signature = liar.id_token().split(".")
    other = liar.id_token(sub="somebody-else").split(".")[1]
    return f"{head}.{other}.{signature}"


def with_a_key_of_its_own(liar: Liar) -> str:
    liar.header["jwk"] = liar.signs_with.as_dict(private=False)
    return liar.id_token()


CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://other.example"}, "provider-token-issuer-not-trusted"),
    ({"iss": None}, "provider-token-issuer-not-trusted"),
    ({"aud": "another-client"}, "provider-token-audience"),
    ({"aud": ["authserver", "another-client"]}, "provider-token-audience"),
    ({"aud": ["authserver", "another-client"], "azp": "authserver"}, "provider-token-audience"),
    ({"aud": []}, "provider-token-audience"),
    ({"azp": "another-client"}, "provider-token-audience"),
    ({"azp": None, "aud": None}, "provider-token-audience"),
    ({"exp": NOW - 3600}, "provider-token-expired"),
    ({"exp": None}, "provider-token-times-malformed"),
    ({"exp": "soon"}, "provider-token-times-malformed"),
    ({"iat": None}, "provider-token-times-malformed"),
    ({"iat": NOW + 3600, "exp": NOW + 7200}, "provider-token-not-yet-valid"),
    ({"iat": NOW - 3600}, "provider-token-old"),
    ({"nonce": "another"}, "provider-nonce"),
    ({"nonce": None}, "provider-nonce"),
    ({"nonce": 7}, "provider-nonce"),
    ({"sub": ""}, "provider-token-subject-missing"),
    ({"sub": 7}, "provider-token-subject-missing"),
    ({"sub": None}, "provider-subject"),
    ({"sub": "x" * 256}, "provider-subject"),
    ({"sub": "a\nb"}, "provider-subject"),
    ({"auth_time": "yesterday"}, "provider-sign-in-time"),
    ({"auth_time": NOW + 86_400}, "provider-sign-in-time"),
]


@pytest.mark.parametrize(("claims", "reason"), CLAIMS, ids=[reason for _, reason in CLAIMS])
def test_a_claim_that_is_not_for_us_signs_nobody_in(
    server: Server, liar: Liar, claims: dict[str, Any], reason: str
) -> None:
    """UP-02: `iss`, `aud`, `azp`, `exp`, `iat`, `nonce` and `sub` of the ID token."""
    liar.claims |= claims
    answer = come_back(server, liar)
    assert answer.status_int == 400
    assert reasons(server) == [reason]
    assert not server.rows("users") and not server.rows("sessions")
    assert answer.html.find("a", string="Try again")["href"].startswith(f"{ISSUER}/login/staff")
    assert answer.html.find("a", string="Sign in in another way")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (none, "provider-token-algorithm"),
        (by_secret, "provider-token-algorithm"),
        (altered, "provider-token-signature"),
        (with_a_key_of_its_own, "provider-token-header"),
        (lambda liar: "no token", "provider-token-malformed"),
        (lambda liar: "a." * 5_000, "provider-token-malformed"),
    ],
)
def test_a_signature_that_is_none_signs_nobody_in(
    server: Server, liar: Liar, make: Callable[[Liar], str], reason: str
) -> None:
    """UP-02: algorithm `none`, a symmetric one, another payload, a key in the header, no JWT."""
    browser = server.browser()
    sent = query_of(to_the_provider(browser))
    liar.nonce = sent["nonce"]
    liar.token = make(liar)
    answer = browser.get(
        "/login/staff/callback", {"code": "a-code", "state": sent["state"]}, expect_errors=True
    )
    assert answer.status_int == 400
    assert reasons(server) == [reason]
    assert not server.rows("users")


def test_an_algorithm_that_is_not_listed_is_refused(sqlite_url: str, liar: Liar) -> None:
    """UP-02: although the provider publishes a key for it."""
    server = Server(sqlite_url, with_provider(liar.issuer, "authserver", "secret", algorithms="RS256"))
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == ["provider-token-algorithm"]
    server.close()


def test_new_keys_are_fetched_once(server: Server, liar: Liar) -> None:
    """UP-08: the provider signs with a key that was not there; an unknown key again soon after that is not looked for."""
    assert come_back(server, liar).status_int == 303
    liar.signs_with = RSAKey.generate_key(2048, {"kid": "second", "use": "sig", "alg": "RS256"})
    liar.algorithm, liar.publishes = "RS256", [liar.signs_with]
    assert come_back(server, liar).status_int == 400, "a set that was just fetched is not fetched again"
    assert reasons(server) == ["provider-token-key-unknown"]
    assert liar.fetched("/keys") == 1


CONFIGURATIONS: list[tuple[dict[str, Any], str]] = [
    ({"issuer": "https://other.example"}, "provider-issuer-differs"),
    ({"issuer": None}, "provider-configuration-refused"),
    ({"token_endpoint": None}, "provider-configuration-refused"),
    ({"token_endpoint": "http://other.example/token"}, "provider-configuration-refused"),
    ({"jwks_uri": "javascript:alert(1)"}, "provider-configuration-refused"),
    ({"authorization_endpoint": "data:text/html,x"}, "provider-configuration-refused"),
    ({"userinfo_endpoint": 7}, "provider-configuration-refused"),
    ({"token_endpoint_auth_methods_supported": "all"}, "provider-configuration-refused"),
]


@pytest.mark.parametrize(("configuration", "reason"), CONFIGURATIONS, ids=str)
def test_a_configuration_that_is_none_leads_nowhere(
    server: Server, liar: Liar, configuration: dict[str, Any], reason: str
) -> None:
    """UP-08: the issuer of the entry is that of the document, and every address in it is one."""
    liar.configuration |= configuration
    answer = server.http.get("/login/staff", expect_errors=True)
    assert answer.status_int == 400
    assert reasons(server) == [reason]
    assert answer.html.find("a", string="Sign in in another way")


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/.well-known/openid-configuration", 503, "provider-unreachable"),
        ("/keys", 503, "provider-unreachable"),
        ("/token", 503, "provider-unreachable"),
        ("/token", 400, "provider-code-refused"),
        ("/token", 401, "provider-code-refused"),
    ],
)
def test_a_provider_that_fails(server: Server, liar: Liar, path: str, status: int, reason: str) -> None:
    """UP-08: at each of its addresses."""
    liar.answers[path] = sending(b"{}", status)
    browser = server.browser()
    if path.startswith("/."):
        answer = browser.get("/login/staff", expect_errors=True)
    else:
        answer = come_back(server, liar, browser)
    assert answer.status_int == (503 if status == 503 else 400)
    assert reasons(server) == [reason]
    assert answer.html.find("a", string="Try again")
    del liar.answers[path]


def test_a_provider_that_is_away(sqlite_url: str) -> None:
    """UP-08: nobody listens there; the password form is there as ever."""
    with a_liar() as liar:
        issuer = liar.issuer
    server = Server(sqlite_url, with_provider(issuer, "authserver", "secret"))
    answer = server.http.get("/login/staff", expect_errors=True)
    assert answer.status_int == 503
    assert "cannot be reached" in answer.text
    server.add_user("bob")
    assert server.sign_in(server.browser(), "bob").status_int == 303
    server.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "provider-answer-malformed"),
        (b"{", "provider-answer-malformed"),
        (b"{}", "provider-answer-malformed"),
        (b'{"id_token": 7}', "provider-answer-malformed"),
        (b'{"id_token": "", "access_token": []}', "provider-answer-malformed"),
        (b'{"id_token": ""}', "provider-token-malformed"),
    ],
)
def test_a_token_answer_that_is_none(server: Server, liar: Liar, body: bytes, reason: str) -> None:
    liar.answers["/token"] = sending(body)
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == [reason]


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        ({"error": "access_denied"}, 400, "provider-denied"),
        ({"error": "login_required"}, 400, "provider-login-required"),
        ({"error": "interaction_required"}, 400, "provider-login-required"),
        ({"error": "temporarily_unavailable"}, 503, "provider-unavailable"),
        ({"error": "server_error"}, 503, "provider-unavailable"),
        ({"error": "invalid_scope"}, 400, "provider-error"),
        ({"error": "<script>"}, 400, "provider-error"),
        ({"error": "access_denied", "code": "a-code"}, 400, "provider-denied"),
        ({}, 400, "provider-answer-malformed"),
        ({"code": ""}, 400, "provider-answer-malformed"),
        ({"code": "a-code", "iss": "https://other.example"}, 400, "provider-answer-issuer"),
        ({"error": "access_denied", "iss": "https://other.example"}, 400, "provider-answer-issuer"),
    ],
    ids=str,
)
def test_an_answer_without_a_code(
    server: Server, liar: Liar, said: dict[str, str], status: int, reason: str
) -> None:
    """UP-02: errors of the provider, and an answer in the name of another one; the provider is not asked for tokens."""
    answer = come_back(server, liar, **{"code": None, **said})
    assert answer.status_int == status
    assert reasons(server) == [reason]
    assert "<script>" not in answer.text
    assert not liar.asked
    assert answer.html.find("a", string="Try again")


def test_a_provider_that_names_itself_always_does(server: Server, liar: Liar) -> None:
    """UP-02, RFC 9207, 2.4: where it says that it does, an answer without `iss` is another's."""
    liar.configuration["authorization_response_iss_parameter_supported"] = True
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == ["provider-answer-issuer"]
    assert come_back(server, liar, iss=liar.issuer).status_int == 303


def test_userinfo_of_another_person(server: Server, liar: Liar) -> None:
    """UP-02, OIDC Core, 5.3.2: `sub` there is that of the ID token."""
    liar.configuration["userinfo_endpoint"] = f"{liar.issuer}/userinfo"
    liar.userinfo["sub"] = "somebody-else"
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == ["provider-userinfo-subject"]


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (sending(b"{}", 401), 400, "provider-userinfo"),
        (sending(b"[]"), 400, "provider-answer-malformed"),
        (sending(b"<html>"), 400, "provider-answer-malformed"),
        (sending(b'{"sub":"248289761001","sub":"other"}'), 400, "provider-answer-malformed"),
        (sending(b"{}", 500), 503, "provider-unreachable"),
    ],
    ids=["refused", "list", "page", "twice", "failing"],
)
def test_userinfo_that_cannot_be_read(
    server: Server, liar: Liar, answer: Reply, status: int, reason: str
) -> None:
    """UP-02, OIDC Core, 5.3.2: nobody is signed in with half of what the provider should say."""
    liar.configuration["userinfo_endpoint"] = f"{liar.issuer}/userinfo"
    liar.answers["/userinfo"] = answer
    assert come_back(server, liar).status_int == status
    assert reasons(server) == [reason]
    assert not server.rows("users")


def test_userinfo_adds_and_replaces_nothing(server: Server, liar: Liar) -> None:
    liar.configuration["userinfo_endpoint"] = f"{liar.issuer}/userinfo"
    liar.userinfo |= {"preferred_username": "root", "name": "Root"}
    assert come_back(server, liar).status_int == 303
    assert [user["username"] for user in server.rows("users")] == ["ann"]


@pytest.mark.parametrize(
    "name", [None, ["ann"], "a\u202eb", "x" * 500], ids=["none", "list", "hidden", "long"]
)
def test_a_name_that_cannot_be_one(server: Server, liar: Liar, name: object) -> None:
    """UP-09: what cannot be kept is refused, and no failure of the server."""
    liar.claims["preferred_username"] = name
    answer = come_back(server, liar)
    assert answer.status_int == 400
    assert reasons(server) == ["identity-unusable"]
    assert not server.rows("users")


def test_times_may_differ_a_little(server: Server, liar: Liar) -> None:
    past = datetime.now(UTC) - timedelta(seconds=20)
    liar.claims |= {"iat": int(past.timestamp()), "exp": int(past.timestamp())}
    assert come_back(server, liar).status_int == 303


def test_a_key_that_two_have_is_none(server: Server, liar: Liar) -> None:
    """UP-08: a key set with two keys of one id."""
    liar.publishes.append(ECKey.generate_key("P-256", {"kid": "first", "use": "sig", "alg": "ES256"}))
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == ["provider-keys-refused"]
