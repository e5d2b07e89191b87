"""OpenID Connect as it is seen on the wire: discovery, UserInfo, `response_modes`, and one story from end to end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from webtest import TestResponse

from authserver.testing.rules import Rules
from authserver.testing.server import CHALLENGE, ISSUER, REDIRECT_URI, Server, form_with
from authserver.testing.stories import register
from tests.features.openid_steps import ATTRIBUTES, ON, SCOPES, a_client_of, a_server, outcome_of

AT = {
    "path": "https://as.example/tenant",
    "none": ISSUER,
}
MEMBERS = {
    "userinfo_endpoint",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
    "userinfo_signing_alg_values_supported",
    "claims_supported",
    "claim_types_supported",
    "claims_parameter_supported",
    "request_parameter_supported",
    "request_uri_parameter_supported",
    "prompt_values_supported",
    "display_values_supported",
}


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    yield from a_running(sqlite_url, ON)


def a_running(sqlite_url: str, settings: dict[str, str]) -> Iterator[Server]:
    server = Server(sqlite_url, settings)
    server.add_user("ann", attributes=ATTRIBUTES)
    yield server
    server.close()


def test_from_discovery_to_the_person(server: Server) -> None:
    """OIDC-09, OIDC-12, OIDC-27, OIDC-33, OIDC-40, OIDC-49: as a client goes that knows the issuer alone."""
    found = server.http.get("/.well-known/openid-configuration").json
    oauth = server.http.get("/.well-known/oauth-authorization-server").json
    assert found == oauth
    assert found.keys() >= MEMBERS | {"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"}
    assert found["issuer"] == ISSUER
    assert found["userinfo_endpoint"] == f"{ISSUER}/oauth/userinfo"
    assert set(found["scopes_supported"]) >= {"openid", "email", "address", "phone"}
    assert found["response_types_supported"] == ["code"]
    assert found["response_modes_supported"] == ["query", "form_post"]
    assert found["subject_types_supported"] == ["public"]
    assert found["id_token_signing_alg_values_supported"] == ["RS256", "ES256"]
    assert found["claim_types_supported"] == ["normal"]
    assert found["claims_parameter_supported"] is True
    assert found["request_uri_parameter_supported"] is found["request_parameter_supported"] is False
    assert set(found["claims_supported"]) >= {
        "sub",
        "name",
        "email",
        "email_verified",
        "address",
        "phone_number",
    }
    client, secret = server.add_client(scopes=SCOPES)
    code = server.code(client, scope="openid email", nonce="n")
    answer = server.redeem(client, secret, code).json
    keys = KeySet.import_key_set(server.http.get("/oauth/jwks").json)
    claims = jwt.decode(answer["id_token"], keys, algorithms=["RS256"]).claims
    header = {"Authorization": f"Bearer {answer['access_token']}"}
    for said in (
        server.http.get("/oauth/userinfo", headers=header),
        server.http.post("/oauth/userinfo", headers=header),
        server.post("/oauth/userinfo", f"access_token={answer['access_token']}"),
    ):
        assert said.content_type == "application/json"
        assert said.headers["Cache-Control"] == "no-store"
        assert said.json == {"sub": claims["sub"], "email": "ann@example.com", "email_verified": True}
    for sent, status, error in (
        ({}, 401, None),
        ({"Authorization": "Bearer x"}, 401, "invalid_token"),
        ({"Authorization": f"Bearer {answer['id_token']}"}, 401, "invalid_token"),
    ):
        refused = server.http.get("/oauth/userinfo", headers=sent, expect_errors=True)
        assert refused.status_int == status
        challenge = refused.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer ") and (error is None or f'error="{error}"' in challenge)
    # Never in an address (RFC 6750, 2.3; OAuth 2.1, 5.1.2).
    in_address = f"/oauth/userinfo?access_token={answer['access_token']}"
    assert server.http.get(in_address, expect_errors=True).status_int == 401
    plain = server.redeem(client, secret, server.code(client, scope="profile")).json["access_token"]
    refused = server.http.get(
        "/oauth/userinfo", headers={"Authorization": f"Bearer {plain}"}, expect_errors=True
    )
    assert refused.status_int == 403
    assert 'error="insufficient_scope", scope="openid"' in refused.headers["WWW-Authenticate"]
    signed, secret = server.add_client(scopes=SCOPES, details={"userinfo_signed_response_alg": "ES256"})
    token = server.redeem(signed, secret, server.code(signed, scope="openid email")).json["access_token"]
    said = server.http.get("/oauth/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert said.content_type == "application/jwt"
    told = jwt.decode(said.text, keys, algorithms=["ES256"]).claims
    assert told == {
        "iss": ISSUER,
        "aud": signed.client_id,
        "sub": claims["sub"],
        "email": "ann@example.com",
        "email_verified": True,
    }


def test_nothing_of_it_is_there_without_the_plugin(sqlite_url: str) -> None:
    """OIDC-50, OIDC-56, A-06, A-18"""
    server = Server(sqlite_url)
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert not MEMBERS & metadata.keys()
    assert metadata["response_modes_supported"] == ["query"]
    for path in ("/.well-known/openid-configuration", "/oauth/userinfo"):
        assert server.http.get(path, expect_errors=True).status_int == 404
    server.close()


def test_the_document_is_at_both_addresses_of_an_issuer_with_a_path(sqlite_url: str) -> None:
    """OIDC-49, A-06: between host and path, and after the path (OIDC Discovery, 4)."""
    server = Server(sqlite_url, {**ON, "authserver.issuer": AT["path"]})
    for path in ("/.well-known/openid-configuration/tenant", "/tenant/.well-known/openid-configuration"):
        found = server.http.get(path).json
        assert found["issuer"] == AT["path"]
        assert found["userinfo_endpoint"] == f"{AT['path']}/oauth/userinfo"
        for member in ("check_session_iframe", "frontchannel_logout_supported"):
            assert member not in found
    server.close()


# ---- form_post --------------------------------------------------------------------------------------


def posted(page: TestResponse, *, to: str = REDIRECT_URI) -> dict[str, str]:
    """What the browser sends to the client from this page, which can send nothing elsewhere."""
    assert page.status_int == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert "Location" not in page.headers
    (form,) = page.forms.values()
    assert (form.method.upper(), form.action) == ("POST", to)
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert policy["form-action"] == "https://client.example"
    (script,) = re.findall(r'<script src="(.*?)"></script>', page.text)
    assert policy["script-src"] == script == f"{ISSUER}/static/send-form.js"
    assert page.text.count("<script") == 1
    assert policy["default-src"] == "'none'"
    # The button sends it without a script.
    assert "<button" in form.text
    return {name: field[0].value for name, field in form.fields.items() if name}


def test_the_response_is_sent_in_a_form(server: Server) -> None:
    """OIDC-13, OIDC-53, OIDC-54, T018: codes and errors alike; values are escaped."""
    client, secret = server.add_client(scopes=SCOPES)
    state = "\"><script>alert('x')</script>&amp;"
    browser = server.browser()
    server.sign_in(browser)
    asked = {"scope": "openid", "response_mode": "form_post", "state": state}
    page = browser.get(server.authorization_url(client, **asked))
    sent = posted(server.consent(page))
    assert sent.keys() == {"code", "state", "iss"}
    assert (sent["state"], sent["iss"]) == (state, ISSUER)
    assert "id_token" in server.redeem(client, secret, sent["code"]).json
    assert "submit()" in server.http.get("/static/send-form.js").text
    # Without a page in between, and to a redirect URI with a query.
    uri = f"{REDIRECT_URI}?tenant=7&x=%20"
    other, secret = server.add_client(scopes=SCOPES, redirect_uris=(uri,))
    server.consent(browser.get(server.authorization_url(other, scope="openid")))
    sent = posted(browser.get(server.authorization_url(other, **asked)), to=uri)
    assert sent["state"] == state and "code" in sent
    refused = posted(browser.get(server.authorization_url(client, **{**asked, "scope": "unknown"})))
    assert (refused["error"], refused["state"]) == ("invalid_scope", state)
    # On this machine the form goes to the very port.
    local, _ = server.add_client(
        scopes=SCOPES, redirect_uris=("http://127.0.0.1/cb",), application_type="native"
    )
    there = {**asked, "redirect_uri": "http://127.0.0.1:49152/cb", "scope": "unknown"}
    page = browser.get(server.authorization_url(local, **there))
    assert "form-action http://127.0.0.1:49152;" in page.headers["Content-Security-Policy"]
    silent = posted(server.browser().get(server.authorization_url(client, **asked, prompt="none")))
    assert silent["error"] == "login_required"
    page = server.browser().get(server.authorization_url(client, login_hint="ann")).follow()
    assert form_with(page, "username")["username"].value == "ann"
    page = browser.get(server.authorization_url(client, **asked, prompt="consent"))
    assert posted(server.consent(page, "deny"))["error"] == "access_denied"


def test_a_stranger_is_asked_before_a_form_is_sent(server: Server) -> None:
    """OIDC-55, B-17: for a client that registered itself the person presses the button."""
    client = server.http.post_json(
        "/oauth/register",
        {"redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none", "scope": "profile"},
    ).json
    browser = server.browser()
    server.sign_in(browser)
    query = (
        f"/oauth/authorize?client_id={client['client_id']}&redirect_uri={REDIRECT_URI}&response_type=code"
        f"&scope=nonsense&code_challenge={CHALLENGE}&code_challenge_method=S256&response_mode=form_post&state=s"
    )
    page = browser.get(query)
    assert "<script" not in page.text and "Leave" in page.text
    form = form_with(page, "error")
    assert (form.method.upper(), form.action) == ("POST", REDIRECT_URI)
    assert (form["error"].value, form["state"].value) == ("invalid_scope", "s")
    assert "form-action 'self' https://client.example" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("uri", ["com.example.app:/cb"])
def test_an_app_gets_no_form(uri: str) -> None:
    """OIDC-55: a browser can only open its address."""
    rules: Rules = a_server(ON)
    client, _ = a_client_of(
        rules, redirect_uris=(uri,), token_endpoint_auth_method="none", application_type="native"
    )
    answer: Any = rules.authorize(client, rules.signed_in(), scope="openid", response_mode="form_post")
    assert outcome_of(answer) == "invalid_request"
    assert answer.mode == "query"


def test_a_bearer_may_ask_from_a_registered_origin(server: Server) -> None:
    """CORS: as the other endpoints that clients call."""
    client, secret = server.add_client(scopes=SCOPES)
    token = server.redeem(client, secret, server.code(client, scope="openid")).json["access_token"]
    sent = {"Authorization": f"Bearer {token}", "Origin": "https://client.example"}
    said = server.http.get("/oauth/userinfo", headers=sent)
    assert said.headers["Access-Control-Allow-Origin"] == "https://client.example"


def test_people_see_what_applications_see(server: Server) -> None:
    """E-16: as it is told now, by application; who is not signed in signs in first."""
    client, secret = server.add_client(client_name="Board", scopes=SCOPES)
    browser = server.browser()
    assert urlsplit(browser.get("/account/shared").location).path == "/login"
    server.sign_in(browser)
    empty = browser.get("/account/shared")
    assert "No application may see anything of you." in empty.text
    server.redeem(client, secret, server.code(client, browser, scope="openid email address"))
    page = browser.get("/account/shared")
    text = " ".join(page.html.find("main").get_text(" ").split())
    assert "Board E-mail address ann@example.com Verified Postal address Berlin, DE" in text
    assert "Phone number" not in text and "078-05-1120" not in page.text
    assert page.html.find("a", attrs={"aria-current": "page"}).get_text() == "What is shared"
    assert "What is shared" in browser.get("/account/apps").text


def test_people_are_told_that_a_client_may_come_back_in_silence(sqlite_url: str) -> None:
    """E-12, E-16: also one that registered itself, if it is confidential: with `prompt=none` it gets what was agreed to."""
    server = Server(sqlite_url, ON)
    server.add_user("ann")
    browser = server.browser()
    for method, words in (
        ("client_secret_basic", "It may get access again without asking you"),
        ("none", "You are asked before it gets access again."),
    ):
        client = register(server, token_endpoint_auth_method=method)
        server.code(client, browser)
        page = browser.get("/account/apps")
        assert words in page.text
        form_with(page, "disconnect").submit("disconnect")
    server.close()
