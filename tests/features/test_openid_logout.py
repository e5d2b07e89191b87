"""Signing people out for an application (OpenID Connect RP-Initiated Logout 1.0): what it must show, and who is asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from webtest import TestApp

from authserver.api import Parameters
from authserver.engine.errors import Refusal
from authserver.features.openid import logout
from authserver.features.openid.logout import LogoutRequest
from authserver.testing.rules import Rules, assert_refused
from authserver.testing.server import ISSUER, Server, form_with
from authserver.testing.stories import assert_page_error, is_signed_in
from tests.features.openid_steps import ATTRIBUTES, ON, SCOPES, a_client_of, a_server, id_claims, tokens

BYE = "https://client.example/bye"
LOCAL = "http://127.0.0.1/bye"
APP = "com.example.app:/bye"
REGISTERED = {"post_logout_redirect_uris": [BYE, LOCAL, APP, f"{BYE}?tenant=7"]}
PATH = "/oauth/logout"


@pytest.fixture
def rules() -> Rules:
    return a_server(ON)


def read(rules: Rules, **sent: str | None) -> LogoutRequest | Refusal:
    """What this request asks for, or why it is refused."""
    parameters = Parameters.of((name, value) for name, value in sent.items() if value is not None)
    return rules.at("end_session", lambda engine: logout.read(engine, parameters))


def reason_of(answer: LogoutRequest | Refusal) -> str:
    assert isinstance(answer, Refusal) and answer.status == 400, answer
    return answer.reason


# ---- what is read -----------------------------------------------------------------------------------


def test_an_id_token_names_client_and_session_also_when_it_has_expired(rules: Rules) -> None:
    """OUT-02, OUT-06: `client_id` beside it names the same client, or the request is refused."""
    client, secret = a_client_of(rules, details=REGISTERED)
    other, _ = a_client_of(rules, details=REGISTERED)
    hint = tokens(rules, client, secret)["id_token"]
    claims = id_claims(rules, hint)
    try:
        rules.wait(10 * 86_400)
        assert claims["exp"] < rules.now.timestamp()
        for named in (None, client.client_id):
            found = read(rules, id_token_hint=hint, client_id=named)
            assert isinstance(found, LogoutRequest)
            assert found.client is not None and found.client.client_id == client.client_id
            assert found.session == claims["sid"]
        assert reason_of(read(rules, id_token_hint=hint, client_id=other.client_id)) == "hint-refused"
    finally:
        rules.wait(-10 * 86_400)


@pytest.mark.parametrize(
    "forged",
    ["none", "hs256 of our key", "another's key", "changed", "access token", "other type", "issuer", "text"],
)
def test_what_is_no_id_token_of_ours_is_refused(rules: Rules, forged: str) -> None:
    """OUT-02, OUT-06, T061, T106: unsigned, with our public key as a secret (algorithm confusion), foreign, changed, another token."""
    client, secret = a_client_of(rules)
    answer = tokens(rules, client, secret)
    claims = id_claims(rules, answer["id_token"])
    header, body, signature = answer["id_token"].split(".")
    public = rules.parts.signer.jwks()["keys"][0]

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    sent = {
        "none": f"{part({'alg': 'none', 'typ': 'JWT', 'kid': public['kid']})}.{body}.",
        "hs256 of our key": jwt.encode(
            {"alg": "HS256", "typ": "JWT", "kid": public["kid"]},
            claims,
            OctKey.import_key(json.dumps(public).encode()),
        ),
        "another's key": jwt.encode(
            {"alg": "HS256", "typ": "JWT", "kid": "x"},
            claims,
            OctKey.import_key("a secret of 32 bytes or a bit more"),
        ),
        "changed": f"{header}.{part({**claims, 'sid': '0' * 32})}.{signature}",
        "access token": answer["access_token"],
        "other type": rules.parts.signer.sign(claims, typ="logout+jwt"),
        "issuer": rules.parts.signer.sign({**claims, "iss": "https://other.example"}, typ="JWT"),
        "text": "abc",
    }[forged]
    assert reason_of(read(rules, id_token_hint=sent)) == "hint-refused"


@pytest.mark.parametrize("uri", [BYE, f"{BYE}?tenant=7", APP, LOCAL, "http://127.0.0.1:49152/bye"])
@pytest.mark.parametrize("state", [None, "a b&c=ü#\"'"])
def test_registered_addresses_get_the_state_as_it_was_sent(rules: Rules, uri: str, state: str | None) -> None:
    """OUT-01, OUT-08, OUT-09, C-04: exactly as registered, but for the port of a loopback address."""
    client, _ = a_client_of(rules, details=REGISTERED)
    found = read(rules, client_id=client.client_id, post_logout_redirect_uri=uri, state=state)
    assert isinstance(found, LogoutRequest)
    after, _, query = found.location.partition("?")
    sent = Parameters.parse(query)
    assert after == uri.partition("?")[0]
    assert sent.get("state") == state
    assert sent.get("tenant") == ("7" if "tenant" in uri else None)
    assert found.host


@pytest.mark.parametrize(
    "uri",
    [
        f"{BYE}/",
        f"{BYE}?x=y",
        f"{BYE}#",
        BYE.upper(),
        BYE.replace("https", "http"),
        BYE.replace("client.example", "client.example:443"),
        BYE.replace("client.example", "client.example.evil.example"),
        BYE.replace("client.example", "client.example@evil.example"),
        "https://evil.example/",
        "//evil.example",
        "http://localhost/bye",
        "http://127.0.0.1:70000/bye",
        "https://127.0.0.1:8443/bye",
        "https://client.example/cb",
        "javascript:alert(1)",
    ],
)
def test_no_other_address_is_used(rules: Rules, uri: str) -> None:
    """OUT-01, OUT-09, C-02: nor is a redirect URI of the client, or one of another client."""
    client, secret = a_client_of(rules, details=REGISTERED)
    a_client_of(rules, details={"post_logout_redirect_uris": ["https://evil.example/"]})
    hint = tokens(rules, client, secret)["id_token"]
    for who in ({"client_id": client.client_id}, {"id_token_hint": hint}):
        assert reason_of(read(rules, post_logout_redirect_uri=uri, **who)) == "logout-redirect-refused"
    # Without a client there is nobody who could have registered it.
    found = read(rules, post_logout_redirect_uri=uri, state="s")
    assert isinstance(found, LogoutRequest) and found.location == ""


@pytest.mark.parametrize(
    "uri",
    [
        "http://client.example/bye",
        f"{BYE}#x",
        f"{BYE}#",
        "javascript:alert(1)",
        "data:text/html,x",
        "urn:ietf:wg:oauth:2.0:oob",
        "https://a@client.example/",
        "https://client.example/a/../b",
        "https://client.example\\@evil.example/",
        "https://*.example/",
        f"{BYE}?state=x",
        "/bye",
    ],
)
def test_addresses_that_cannot_be_registered(rules: Rules, uri: str) -> None:
    """OUT-09: as redirect URIs (C-08, C-09, C-10, C-12)."""
    sent = {"redirect_uris": [BYE], "token_endpoint_auth_method": "none", "post_logout_redirect_uris": [uri]}
    refused = rules.register(sent)
    assert_refused(refused, "invalid_client_metadata")
    assert refused.json["error_description"].startswith("post_logout_redirect_uris")


def test_whoever_does_not_exist_is_refused_unless_an_id_token_names_them(rules: Rules) -> None:
    """OUT-01, OUT-06: the person can sign out of an application that is not there any more, and goes nowhere."""
    client, secret = a_client_of(rules, details=REGISTERED)
    hint = tokens(rules, client, secret)["id_token"]
    assert reason_of(read(rules, client_id="nobody")) == "client-unknown"
    with rules.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    assert reason_of(read(rules, client_id=client.client_id)) == "client-disabled"
    found = read(rules, id_token_hint=hint, post_logout_redirect_uri=BYE)
    assert isinstance(found, LogoutRequest)
    assert found.session and found.client is None and found.location == ""


def test_hints_of_others_and_languages_are_no_error(rules: Rules) -> None:
    """OUT-08: `logout_hint` is ignored, `ui_locales` is not; nothing occurs twice."""
    sent = Parameters.of([("state", "1"), ("state", "2")])
    refused = rules.at("end_session", lambda engine: logout.read(engine, sent))
    assert isinstance(refused, Refusal) and refused.status == 400
    found = read(rules, logout_hint="ann", ui_locales="de", unknown="x")
    assert isinstance(found, LogoutRequest) and found.client is None and found.session is None


def test_what_came_in_a_form_goes_on_in_an_address_if_it_fits(rules: Rules) -> None:
    """OUT-05: sealed, and back as it was; what does not fit is refused, and so is what this server did not seal."""

    def there_and_back(state: str) -> Parameters | Refusal:
        sent = Parameters.of([("state", state)])
        return rules.at("end_session", lambda engine: logout.unseal(engine, logout.seal(engine, sent)))

    kept = there_and_back("ü&=" * 100)
    assert isinstance(kept, Parameters) and kept.get("state") == "ü&=" * 100
    for refused in (
        there_and_back("x" * 8_100),
        rules.at("end_session", lambda engine: logout.unseal(engine, "")),
        rules.at("end_session", lambda engine: logout.unseal(engine, "AAAA")),
    ):
        assert isinstance(refused, Refusal) and refused.reason == "logout-malformed"


# ---- who is asked -----------------------------------------------------------------------------------


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, {**ON, "authserver.plugin.registration_open.scopes": "openid"})
    server.add_user("ann", attributes=ATTRIBUTES)
    yield server
    server.close()


def url(**sent: str) -> str:
    return f"{PATH}?{urlencode(sent)}"


def signed_in(server: Server) -> TestApp:
    browser = server.browser()
    server.sign_in(browser)
    return browser


def test_an_application_signs_the_person_out(server: Server) -> None:
    """OUT-01, OUT-02, OUT-05, OUT-06, OUT-07, OUT-08, T106: at once with an ID token of this session, else after a question."""
    assert server.http.get("/.well-known/openid-configuration").json["end_session_endpoint"] == ISSUER + PATH
    client, secret = server.add_client(client_name="Board", scopes=SCOPES, details=REGISTERED)

    def hint_of(browser: TestApp) -> str:
        code = server.code(client, browser, scope="openid")
        return str(server.redeem(client, secret, code).json["id_token"])

    back = {"post_logout_redirect_uri": BYE, "state": "a&b"}
    gone = f"{BYE}?state=a%26b"

    # With an ID token of this session, by GET and by POST.
    browser = signed_in(server)
    hint = hint_of(browser)
    for _ in range(2):
        # The second time the session has ended: whoever goes back goes on again.
        answer = browser.get(url(id_token_hint=hint, **back))
        assert (answer.status_int, answer.location) == (303, gone)
        assert not is_signed_in(server, browser)
    event = server.events("sign_out.succeeded")[-1]
    assert event["client_id"] == client.client_id
    browser = signed_in(server)
    sent = {"id_token_hint": hint_of(browser), **back}
    assert browser.post(PATH, sent).location == gone
    assert not is_signed_in(server, browser)

    # A form from another site comes without the cookie; nothing of it is in the address of the next request.
    browser = signed_in(server)
    sent = {"id_token_hint": hint_of(browser), **back}
    onward = server.browser().post(PATH, sent, headers={"Origin": "https://client.example"})
    assert onward.status_int == 303 and onward.location.startswith(f"{ISSUER}{PATH}?request=")
    assert sent["id_token_hint"][:40] not in onward.location
    assert browser.get(onward.location).location == gone
    assert not is_signed_in(server, browser)
    assert_page_error(browser.get(f"{PATH}?request=abc", expect_errors=True))

    # Without one, with one of another session of hers, or of somebody else: the page asks, and nothing ends before.
    other = signed_in(server)
    browser = signed_in(server)
    for asked in (
        {"client_id": client.client_id},
        {"id_token_hint": hint_of(other)},
        {"id_token_hint": sent["id_token_hint"]},
    ):
        page = browser.get(url(**asked, **back))
        assert page.status_int == 200 and "Board" in page.text and "client.example" in page.text
        assert is_signed_in(server, browser) and is_signed_in(server, other)
    form = form_with(page, "request")
    form["csrf_token"] = "x"
    assert form.submit(expect_errors=True).status_int == 403
    assert is_signed_in(server, browser)
    page = browser.get(url(client_id=client.client_id, **back))
    refused = form_with(page, "request").submit(
        headers={"Origin": "https://evil.example"}, expect_errors=True
    )
    assert refused.status_int == 403 and is_signed_in(server, browser)
    assert form_with(page, "request").submit().location == gone
    assert not is_signed_in(server, browser) and is_signed_in(server, other)

    # Nothing at all, in another language: the page asks, and leads nowhere.
    page = other.get(url(ui_locales="de", post_logout_redirect_uri="https://evil.example/", state="s"))
    assert "Abmelden?" in page.text and "evil.example" not in page.text
    done = form_with(page, "request").submit()
    assert done.status_int == 200 and "evil.example" not in done.text
    assert not is_signed_in(server, other)

    # What cannot be answered: a page that leads to the sign-out of this server, and nobody is signed out.
    browser = signed_in(server)
    for bad in (
        {"id_token_hint": "abc"},
        {"client_id": "nobody"},
        {"client_id": client.client_id, "post_logout_redirect_uri": "https://evil.example/"},
        {"id_token_hint": hint, "client_id": "nobody"},
    ):
        for answer in (
            browser.get(url(**bad), expect_errors=True),
            browser.post(PATH, bad, expect_errors=True),
        ):
            assert answer.status_int == 400 and "Location" not in answer.headers
            assert f'href="{ISSUER}/logout"' in answer.text and "evil.example" not in answer.text
    assert is_signed_in(server, browser)


def test_a_browser_without_a_session_goes_on_by_itself_only_for_clients_of_operators(server: Server) -> None:
    """OUT-01: nobody makes a redirect of ours to wherever they like by registering a client, or with a bare name."""
    client, secret = server.add_client(scopes=SCOPES, details=REGISTERED)
    hint = server.redeem(client, secret, server.code(client, scope="openid")).json["id_token"]
    stranger = server.browser()
    assert stranger.get(url(id_token_hint=hint, post_logout_redirect_uri=BYE)).location == BYE
    own = server.http.post_json(
        "/oauth/register",
        {
            "redirect_uris": ["https://client.example/cb"],
            "token_endpoint_auth_method": "none",
            "scope": "openid",
            **REGISTERED,
        },
    ).json
    with server.begin() as engine:
        registered = engine.find_client(own["client_id"])
    assert registered is not None
    hint = server.redeem(registered, None, server.code(registered, scope="openid")).json["id_token"]
    for asked in ({"id_token_hint": hint}, {"client_id": client.client_id}):
        page = stranger.get(url(**asked, post_logout_redirect_uri=BYE, state="s"))
        assert page.status_int == 200
        assert page.html.find("a", class_="primary")["href"] == f"{BYE}?state=s"
