"""Features where they meet: documents, keys of clients, pushed requests and tokens bound to keys, over HTTP."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from webtest import TestResponse

from authserver.engine.records import Client
from authserver.testing.origins import Authority, Origin, sending, serving
from authserver.testing.records import NOW
from authserver.testing.server import ISSUER, REDIRECT_URI, SETTINGS, VERIFIER, Server, query_of
from authserver.testing.stories import assert_json_error, assert_page_error
from tests.client_keys import ASSERTION_TYPE, METHOD, Key

FEATURES = "client_id_documents private_key_jwt pushed_requests dpop software_statements"
VENDOR = "https://vendor.example"
KEY, NEW_KEY = Key(kid="one"), Key("RS256", kid="two")


class Program:
    """A client that is described at an https address, and authenticates with a key in its document."""

    def __init__(self, server: Server, origin: Origin) -> None:
        self.server, self.origin = server, origin
        self.address = f"https://localhost:{origin.port}/client.json"
        self.client = Client(
            client_id=self.address, name="", auth_method=METHOD, redirect_uris=(REDIRECT_URI,), created_at=NOW
        )
        self.publish(KEY)

    def publish(self, key: Key, **changes: Any) -> None:
        members = {
            "client_id": self.address,
            "client_name": "Notes",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": METHOD,
            "jwks": key.jwks(),
            **changes,
        }
        self.origin.reply = sending(json.dumps(members).encode(), Cache_Control="no-store")

    def ask(
        self, key: Key, path: str = "/oauth/token", *, dpop: Key | None = None, **form: Any
    ) -> TestResponse:
        sent = {
            "client_id": self.address,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": key.assertion(self.address),
            **form,
        }
        headers = {"DPoP": proof(dpop, path)} if dpop else {}
        return self.server.post(path, urlencode(sent), headers=headers)

    def push(self, key: Key, **more: Any) -> TestResponse:
        query = dict(query_parts(self.server.authorization_url(self.client)))
        return self.ask(key, "/oauth/par", **{**query, **more})

    def redeem(self, key: Key, code: str, **more: Any) -> TestResponse:
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        return self.ask(key, **form, **more)

    def begin(self, browser: Any, pushed: TestResponse) -> TestResponse:
        query = urlencode({"client_id": self.address, "request_uri": pushed.json["request_uri"]})
        answer: TestResponse = browser.get(f"/oauth/authorize?{query}", expect_errors=True)
        return answer


def query_parts(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query)


def proof(key: Key, path: str) -> str:
    """A DPoP proof for a request to this path."""
    header = {"typ": "dpop+jwt", "alg": key.algorithm, "jwk": key.private.as_dict(private=False)}
    claims = {"htm": "POST", "htu": f"{ISSUER}{path}", "iat": int(time.time()), "jti": os.urandom(12).hex()}
    return key.signed(header, claims)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def program(make_server: Callable[..., Server], authority: Authority) -> Iterator[Program]:
    server = make_server(
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']} {FEATURES}",
            "authserver.plugin.software_statements.issuers": f"{VENDOR} = {json.dumps(NEW_KEY.jwks())}",
            "authserver.plugin.client_id_documents.scopes": "profile files.read",
            "authserver.fetch_ca_file": str(authority.ca_file),
            "authserver.fetch_loopback": "true",
        }
    )
    server.add_user("ann")
    with serving(authority.context("localhost")) as origin:
        yield Program(server, origin)


def test_a_document_with_a_key_makes_a_client_that_must_sign(program: Program) -> None:
    """CIMD-11, CIMD-16, J-09, J-13, A-18: pushed, bound to a key, redeemed and refreshed, each time with the key alone."""
    server, binding = program.server, Key()
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert {"none", METHOD} <= {*metadata["token_endpoint_auth_methods_supported"]}
    assert {"RS256", "ES256"} <= {*metadata["token_endpoint_auth_signing_alg_values_supported"]}
    browser = server.browser()
    server.sign_in(browser)
    assert_json_error(program.push(NEW_KEY), "invalid_client", status=401)
    pushed = program.push(KEY, dpop=binding)
    assert pushed.status_int == 201
    code = query_of(server.consent(program.begin(browser, pushed)))["code"]
    unsigned = server.redeem(program.client, None, code, headers={"DPoP": proof(binding, "/oauth/token")})
    assert_json_error(unsigned, "invalid_client", status=401)
    assert_json_error(program.redeem(KEY, code, dpop=Key()), "invalid_grant", status=400)
    answer = program.redeem(KEY, code, dpop=binding)
    assert answer.status_int == 200, answer.text
    assert answer.json["token_type"] == "DPoP"
    for path in ("/oauth/introspect", "/oauth/revoke"):
        assert program.ask(KEY, path, token=answer.json["access_token"]).status_int == 200
        assert_json_error(
            program.ask(NEW_KEY, path, token=answer.json["access_token"]), "invalid_client", status=401
        )


def test_refresh_needs_the_new_key(program: Program) -> None:
    """CIMD-22: who had the old one gets nothing more."""
    code = program.server.code(program.client)
    token = program.redeem(KEY, code).json["refresh_token"]
    program.publish(NEW_KEY)
    form = {"grant_type": "refresh_token", "refresh_token": token}
    assert_json_error(program.ask(KEY, **form), "invalid_client", status=401)
    assert program.ask(NEW_KEY, **form).status_int == 200


@pytest.mark.parametrize(
    "changes",
    [{"jwks": NEW_KEY.jwks()}, {"redirect_uris": [REDIRECT_URI, "https://client.example/other"]}],
    ids=["keys", "redirect URIs"],
)
def test_a_request_that_was_pushed_before_a_change_is_void(program: Program, changes: Any) -> None:
    """CIMD-22: whoever had the old key cannot begin with it what a person then agrees to."""
    browser = program.server.browser()
    program.server.sign_in(browser)
    pushed = program.push(KEY)
    page = program.begin(browser, pushed)
    assert page.status_int == 200
    program.publish(KEY, **changes)
    assert_page_error(program.begin(browser, pushed), "invalid_request_uri")
    assert_page_error(program.server.consent(page), "invalid_request_uri")
    (event, *_) = program.server.events("authorization.refused")
    assert event["reason"] == "request-pushed-before-change"
    program.publish(KEY)
    assert program.begin(browser, pushed).status_int == 200


def test_a_new_name_voids_no_pushed_request(program: Program) -> None:
    browser = program.server.browser()
    program.server.sign_in(browser)
    pushed = program.push(KEY)
    program.publish(KEY, client_name="Notes 2")
    assert "Notes 2" in program.begin(browser, pushed).text


@pytest.mark.parametrize("form", ["malformed", "no text", "a statement"])
def test_a_statement_in_a_document_is_no_statement(program: Program, form: str) -> None:
    """CIMD-17, K-07: nobody has verified it, so no policy finds it with the client; and it harms nothing."""
    said = KEY.signed(KEY.header(), {"iss": VENDOR, "client_name": "Vouched for"})
    text: Any = {"malformed": "a.b.c", "no text": 7, "a statement": said}[form]
    program.publish(KEY, software_statement=text)
    with program.server.begin() as engine:
        client = engine.find_client(program.address)
    assert client is not None
    assert "software_statement" not in client.details
    assert client.name == "Notes"
    assert "jwks" in client.details


def test_an_assertion_and_a_proof_count_once_at_all_endpoints(program: Program) -> None:
    """J-13, T051: what was used to push is refused at the token endpoint; a refusal uses up neither of them."""
    server, binding = program.server, Key()
    service = {"grant_type": "refresh_token", "refresh_token": "none"}
    assertion = KEY.assertion(program.address)
    shown = proof(binding, "/oauth/par")
    query = dict(query_parts(server.authorization_url(program.client)))

    def push(**changes: str) -> TestResponse:
        form = {**query, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion, **changes}
        return server.post("/oauth/par", urlencode(form), headers={"DPoP": shown})

    assert_json_error(push(code_challenge="short"), "invalid_request", status=400)
    assert push().status_int == 201
    assert_json_error(program.ask(KEY, client_assertion=assertion, **service), "invalid_client", status=401)
    assert server.events("token.refused")[-1]["reason"] == "client-assertion-replayed"
    other = KEY.assertion(program.address)
    assert_json_error(push(client_assertion=other), "invalid_dpop_proof", status=400)
    shown = proof(binding, "/oauth/par")
    assert push(client_assertion=other).status_int == 201, "its first use was refused, so it was none"
