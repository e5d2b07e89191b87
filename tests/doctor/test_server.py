"""What every client relies on: a good server, and one change after the other that breaks it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from authserver.doctor.examination import Unreachable, problem_of
from authserver.doctor.findings import CHECKS, Result
from tests.doctor.conftest import KEY, OPEN, Other, Reply, bad, found, looked_at, refuse

METADATA = "* /.well-known/oauth-authorization-server"
CHECKOUT = Path(__file__).parents[2]


def without(*names: str) -> Callable[[Other], None]:
    def change(other: Other) -> None:
        for name in names:
            del other.metadata[name]

    return change


def stating(**members: Any) -> Callable[[Other], None]:
    return lambda other: other.metadata.update(members)


def answering(key: str, reply: Any) -> Callable[[Other], None]:
    return lambda other: other.answers.update({key: reply})


def keys(*held: Any) -> Callable[[Other], None]:
    return answering("* /keys", Reply(body={"keys": list(held)}, headers=OPEN))


def moved(path: str) -> Callable[[Other], None]:
    """The document is elsewhere."""

    def change(other: Other) -> None:
        other.answers[f"* {path}"] = other.answers.pop(METADATA)

    return change


def everywhere(_other: Any, _method: str, query: Any, *_: Any) -> Reply:
    return Reply(302, None, {"Location": query["redirect_uri"] + "?error=unauthorized_client"})


OPENID = "* /.well-known/openid-configuration"
PAGE = Reply(200, "<h1>Welcome</h1>", kind="text/html")
# What is changed, what is found, its result, and what is said.
BROKEN: dict[str, tuple[Callable[[Other], None], str, Result, str]] = {
    "no metadata": (lambda other: other.answers.pop(METADATA) and None, "metadata-address", Result.STUMBLES, "404"),
    "only OpenID": (moved("/.well-known/openid-configuration"), "metadata-address", Result.WARNING, "alone"),
    "a page for what is missing": (answering(OPENID, PAGE), "metadata-missing", Result.STUMBLES, "text/html"),
    "401 for what is missing": (answering(OPENID, refuse("x", 401)), "metadata-missing", Result.STUMBLES, "401"),
    "a redirect": (
        answering(OPENID, Reply(302, None, {"Location": "/login"})), "metadata-missing", Result.STUMBLES, "redirect to /login",
    ),
    "text": (answering(METADATA, Reply(body="issuer", headers=OPEN)), "metadata-answer", Result.STUMBLES, "malformed"),
    "a list": (answering(METADATA, Reply(body=[], headers=OPEN)), "metadata-answer", Result.STUMBLES, "not an object"),
    "a name twice": (
        answering(METADATA, Reply(body='{"issuer": 1, "issuer": 2}')), "metadata-answer", Result.STUMBLES, "twice",
    ),
    "two documents": (
        answering(OPENID, Reply(body={"issuer": "{origin}/other"}, headers=OPEN)), "metadata-agrees", Result.STUMBLES, "issuer",
    ),
    "another issuer": (stating(issuer="{origin}/"), "issuer-equal", Result.STUMBLES, "goes no further"),
    "an issuer of another type": (stating(issuer=["x"]), "metadata-member", Result.STUMBLES, "wrong type"),
    "no token endpoint": (without("token_endpoint"), "metadata-member", Result.STUMBLES, "token_endpoint"),
    "response types as text": (stating(response_types_supported="code"), "metadata-member", Result.STUMBLES, "wrong type"),
    "no code": (stating(response_types_supported=["id_token"]), "metadata-member", Result.STUMBLES, "list code"),
    "a flag as text": (
        stating(client_id_metadata_document_supported="yes"), "metadata-member", Result.STUMBLES, "wrong type",
    ),
    "an http endpoint": (
        stating(token_endpoint="http://login.example.com/token"), "endpoint-https", Result.STUMBLES, "token_endpoint",
    ),
    "no PKCE": (without("code_challenge_methods_supported"), "pkce", Result.STUMBLES, "S256"),
    "plain PKCE": (stating(code_challenge_methods_supported=["S256", "plain"]), "pkce", Result.WARNING, "plain"),
    "the implicit grant": (stating(grant_types_supported=["implicit"]), "grant-types", Result.WARNING, "implicit"),
    "no iss": (without("authorization_response_iss_parameter_supported"), "iss-parameter", Result.WARNING, "issuer"),
    "secrets only": (
        stating(token_endpoint_auth_methods_supported=["client_secret_post"]), "public-clients", Result.WARNING, "none",
    ),
    "methods unsaid": (
        without("token_endpoint_auth_methods_supported"), "public-clients", Result.WARNING, "client_secret_basic alone",
    ),
    "unsigned assertions": (
        stating(token_endpoint_auth_signing_alg_values_supported=["none"]), "signing-algorithms", Result.STUMBLES, "none",
    ),
    "assertions unsaid": (
        stating(token_endpoint_auth_methods_supported=["none", "private_key_jwt"]), "signing-algorithms", Result.WARNING, "missing",
    ),
    "no way in": (without("registration_endpoint"), "ways-in", Result.WARNING, "given a client id"),
    "documents without none": (
        stating(client_id_metadata_document_supported=True, token_endpoint_auth_methods_supported=["client_secret_post"]),
        "documents-announced", Result.STUMBLES, "Claude",
    ),
    "no keys": (without("jwks_uri"), "keys", Result.WARNING, "introspection"),
    "an empty key set": (keys(), "keys", Result.STUMBLES, "no key"),
    "keys of another type": (keys("key"), "keys", Result.STUMBLES, "kty"),
    "a private key": (keys({**KEY, "d": "secret"}), "keys", Result.STUMBLES, "private"),
    "a shared key": (keys({"kty": "oct", "k": "c2VjcmV0"}), "keys", Result.STUMBLES, "symmetric"),
    "keys of one name": (keys(KEY, KEY), "keys", Result.WARNING, "kid"),
    "a short RSA key": (keys({"kty": "RSA", "n": "A" * 171, "e": "AQAB"}), "key-strength", Result.STUMBLES, "1024 bits"),
    "keys that are gone": (answering("* /keys", Reply(500, "oops", kind="text/plain")), "keys", Result.STUMBLES, "500"),
    "keys in a browser": (answering("* /keys", Reply(body={"keys": [KEY]})), "cross-origin", Result.WARNING, "keys"),
    "no HEAD": (
        answering("HEAD /.well-known/oauth-authorization-server", Reply(405)), "head", Result.WARNING, "405",
    ),
    "no preflight": (
        answering("OPTIONS /.well-known/oauth-authorization-server", Reply(404)), "cross-origin", Result.WARNING, "404",
    ),
    "kept for a month": (
        lambda other: other.answers.update({METADATA: Reply(body=other.metadata, headers={**OPEN, "Cache-Control": "max-age=2592000"})}),
        "caching", Result.WARNING, "720 hours",
    ),
    "registration by token": (answering("POST /register", refuse("invalid_token", 401)), "registration-open", Result.WARNING, "initial access token"),
    "registration that is not there": (answering("POST /register", Reply(404)), "registration-open", Result.STUMBLES, "404"),
    "registration of anything": (answering("POST /register", Reply(201, {"client_id": "x"})), "registration-open", Result.STUMBLES, "201"),
    "registration elsewhere": (
        answering("POST /register", Reply(308, None, {"Location": "{origin}/register/"})), "redirected", Result.STUMBLES, "/register/",
    ),
    "a token endpoint with a slash": (
        answering("POST /token", Reply(301, None, {"Location": "{origin}/token/"})), "redirected", Result.STUMBLES, "POST",
    ),
    "400 for an unknown client": (answering("POST /token", refuse("invalid_client", 400)), "token-refusal", Result.WARNING, "401"),
    "another error": (answering("POST /token", refuse("invalid_request", 400)), "token-refusal", Result.WARNING, "invalid_request"),
    "a page of the token endpoint": (answering("POST /token", PAGE), "token-refusal", Result.STUMBLES, "text/html"),
    "a token endpoint that fails": (answering("POST /token", Reply(502, "bad gateway", kind="text/html")), "token-refusal", Result.STUMBLES, "502"),
    "tokens by GET": (answering("GET /token", refuse("invalid_client", 401)), "token-methods", Result.WARNING, "GET"),
    "an open redirector": (answering("GET /authorize", everywhere), "redirect-refused", Result.STUMBLES, "open redirector"),
    "an authorization endpoint that fails": (answering("GET /authorize", Reply(500)), "redirect-refused", Result.STUMBLES, "500"),
}  # fmt: skip


def test_a_good_server_has_nothing_wrong(other: Other) -> None:
    """All that was looked at is good, apart from http, which is said."""
    report = looked_at(other)
    assert bad(report) == set()
    assert report.result is Result.WARNING
    assert {finding.check for finding in report.found if finding.result is Result.OK} >= {
        "metadata-address", "issuer-equal", "metadata-member", "pkce", "iss-parameter", "public-clients", "ways-in",
        "keys", "head", "cross-origin", "caching", "clock", "registration-open", "token-refusal", "token-methods",
        "redirect-refused",
    }  # fmt: skip
    assert not other.clients


@pytest.mark.parametrize(("change", "check", "result", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_found(
    other: Other, change: Callable[[Other], None], check: str, result: Result, words: str
) -> None:
    change(other)
    report = looked_at(other)
    said = [finding.what for finding in found(report, check, result)]
    assert any(words in text for text in said), report.found
    assert report.result is result


def test_each_broken_server_has_its_clause_and_its_remedy(other: Other) -> None:
    """Whatever stumbles or warns says where that is written, and what would mend it in authserver."""
    for name, check in CHECKS.items():
        assert re.search(r"RFC [0-9]+|OAuth 2\.1|MCP|Fetch|draft-|recorded", check.clause), name
        assert check.remedy or name == "with-a-token", name


def test_every_setting_of_a_remedy_exists() -> None:
    text = (CHECKOUT / "production.ini").read_text() + (CHECKOUT / "development.ini").read_text()
    plugins = {"registration_open", "registration_token", "client_id_documents", "public_client", "client_secret_post",
               "client_secret_basic", "origins_registered", "mcp_clients", "redirect_private_use", "redirect_loopback",
               "redirect_exact", "client_management", "private_key_jwt"}  # fmt: skip
    for name, check in CHECKS.items():
        for setting in re.findall(r"authserver\.[a-z_.]+[a-z]", check.remedy):
            assert setting in text, (name, setting)
        for word in re.findall(r"\b[a-z]+_[a-z_]+\b", re.sub(r"authserver\.[a-z_.]+", "", check.remedy)):
            assert word in plugins, (name, word)
    for plugin in plugins:
        assert re.search(rf"^    (# )?{plugin}$", text, re.M), plugin


def test_an_issuer_with_a_path_is_asked_for_before_its_path(other: Other) -> None:
    """RFC 8414, 3.1."""
    other.metadata["issuer"] = "{origin}/tenant"
    other.answers["* /.well-known/oauth-authorization-server/tenant"] = other.answers.pop(METADATA)
    assert bad(looked_at(other, issuer=f"{other.issuer}/tenant")) == set()
    asked = [received.path for received in other.origin.received]
    assert "/tenant/.well-known/openid-configuration" in asked


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(0, Result.OK), (-60, Result.WARNING), (90, Result.WARNING), (3600, Result.STUMBLES)],
)
def test_a_clock_that_is_wrong_is_noticed(
    other: Other, monkeypatch: pytest.MonkeyPatch, seconds: float, result: Result
) -> None:
    """RFC 9110, 6.6.1."""
    now = time.time
    monkeypatch.setattr(
        "http.server.BaseHTTPRequestHandler.date_time_string",
        lambda self: formatdate(now() + seconds, usegmt=True),
    )
    assert found(looked_at(other), "clock", result)


def test_a_later_address_that_hangs_is_a_finding_about_it_alone(other: Other) -> None:
    def hang(*_: Any) -> Reply:
        time.sleep(0.6)
        return Reply(404)

    other.answers[OPENID] = hang
    report = looked_at(other, seconds=0.3)
    (said,) = found(report, "metadata-answer", Result.STUMBLES)
    assert "no whole answer within 0.3 s" in said.what
    assert found(report, "token-refusal", Result.OK)


def test_a_server_that_is_not_there_is_said_to_be_unreachable() -> None:
    with pytest.raises(Unreachable, match="no connection"):
        looked_at(issuer="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "url", ["login.example.com", "ftp://x.example", "https://", "https://u@x.example", "https://x.example/#a", "https://x:99999", "https://x.example/ä"]
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    assert problem_of(url)
