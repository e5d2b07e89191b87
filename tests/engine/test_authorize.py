"""The authorization endpoint: which request gets which answer, and how it is delivered."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest

from authserver.engine.authorize import AskConsent, AskLogin
from authserver.engine.clients.registration import add_client
from authserver.engine.errors import RedirectError
from authserver.engine.records import Client, ClientMetadata
from authserver.testing.rules import (
    STRANGER,
    Rules,
    assert_code,
    assert_page_error,
    assert_redirect_error,
    location_of,
)
from authserver.testing.server import CHALLENGE, REDIRECT_URI
from authserver.testing.stories import records

EVIL = "https://evil.example/cb"


# Each is wrong in one way that the client is told: what to change in a correct request, and the error.
WRONG = {
    "response_type missing (B-07)": ({"response_type": None}, "invalid_request"),
    "response_type empty (B-03)": ({"response_type": ""}, "invalid_request"),
    "response_type token (B-08)": ({"response_type": "token"}, "unsupported_response_type"),
    "response_type id_token (T017)": ({"response_type": "id_token"}, "unsupported_response_type"),
    "response_type code token (T017)": ({"response_type": "code token"}, "unsupported_response_type"),
    "response_type CODE": ({"response_type": "CODE"}, "unsupported_response_type"),
    "response_mode form_post (T018)": ({"response_mode": "form_post"}, "invalid_request"),
    "response_mode fragment (B-26)": ({"response_mode": "fragment"}, "invalid_request"),
    "response_mode unknown (B-26)": ({"response_mode": "javascript:alert(1)"}, "invalid_request"),
    "scope unknown (B-10)": ({"scope": "profile nope"}, "invalid_scope"),
    "scope of another case (B-12)": ({"scope": "Profile"}, "invalid_scope"),
    "scope not registered (B-12)": ({"scope": "files.write"}, "invalid_scope"),
    "scope with a quote (T016)": ({"scope": 'pro"file'}, "invalid_scope"),
    "scope with two spaces (T016)": ({"scope": "profile  files.read"}, "invalid_scope"),
    "scope with a line break (T016)": ({"scope": "profile\r\nX-Evil: 1"}, "invalid_scope"),
    "scope beyond ASCII (T016)": ({"scope": "profilé"}, "invalid_scope"),
    "scope repeated (B-04)": ({"scope": ["profile", "profile"]}, "invalid_request"),
    "response_type repeated (B-04)": ({"response_type": ["code", "code"]}, "invalid_request"),
    "code_challenge repeated (T012)": ({"code_challenge": [CHALLENGE, CHALLENGE]}, "invalid_request"),
    "unknown parameter repeated (B-04)": ({"x": ["1", "2"]}, "invalid_request"),
    "resource unknown": ({"resource": "https://other.example/"}, "invalid_target"),
    "resource with a fragment": ({"resource": "https://api.example/#x"}, "invalid_target"),
}


@pytest.mark.parametrize(("changes", "code"), WRONG.values(), ids=WRONG)
def test_an_error_is_redirected_to_the_client(rules: Rules, changes: dict, code: str) -> None:
    """B-03, B-04, B-07, B-08, B-10, B-12, B-15, B-18, B-20, B-26, T012, T016, T017, T018, T020: and nothing is stored."""
    client, _ = rules.add_client()
    browser = rules.signed_in()
    before, events = records(rules), len(rules.events())
    assert_redirect_error(rules.authorize(client, browser, **changes), code)
    assert records(rules) == before
    assert [event["type"] for event in rules.events()[events:]] == ["authorization.refused"]


def in_an_object(*parts: object) -> str:
    """These as the parts of a JWS or JWE; those that are mappings as JSON."""
    texts = (json.dumps(part) if isinstance(part, dict) else str(part) for part in parts)
    return ".".join(urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in texts)


INSIDE = {"redirect_uri": EVIL, "response_type": "token", "response_mode": "fragment", "state": "evil"}


@pytest.mark.parametrize(
    "request_object",
    [
        in_an_object({"alg": "none"}, INSIDE, ""),
        in_an_object({"alg": "ES256"}, INSIDE, "signature"),
        in_an_object({"alg": "RSA-OAEP", "enc": "A256GCM"}, "key", "iv", INSIDE, "tag"),
    ],
    ids=["unsigned", "signed", "encrypted"],
)
def test_nothing_in_a_request_object_says_where_its_refusal_goes(rules: Rules, request_object: str) -> None:
    """B-28, T171: it is refused, whatever it is wrapped in, at the registered URI and in the query."""
    client, _ = rules.add_client()
    browser = rules.signed_in()
    answer = rules.authorize(client, browser, request=request_object)
    assert_redirect_error(answer, "request_not_supported")
    assert location_of(answer).startswith(f"{REDIRECT_URI}?")
    assert "evil" not in location_of(answer)


@pytest.mark.parametrize(("changes", "code"), WRONG.values(), ids=WRONG)
def test_no_error_is_redirected_before_client_and_uri_are_accepted(
    rules: Rules, changes: dict, code: str
) -> None:
    """T001, B-05, B-06: whatever else is wrong, an unknown client or a foreign URI gives a page."""
    client, _ = rules.add_client()
    browser = rules.signed_in()
    before = records(rules)
    for target in ({"client_id": "nobody"}, {"redirect_uri": EVIL}):
        answer = rules.authorize(client, browser, **{**changes, **target})
        assert_page_error(answer, supplied=target.get("redirect_uri", ""))
    assert records(rules) == before


@pytest.mark.parametrize(("changes", "code"), WRONG.values(), ids=WRONG)
def test_a_stranger_is_sent_to_sign_in_and_not_to_the_client(rules: Rules, changes: dict, code: str) -> None:
    """B-16: the error is redirected only once somebody is signed in."""
    client, _ = rules.add_client()
    before = records(rules)
    answer = rules.authorize(client, STRANGER, **changes)
    assert isinstance(answer, AskLogin)
    assert records(rules) == before


WRONG_CLIENT = {
    "missing": None,
    "empty": "",
    "unknown": "nobody",
    "of another case": "APP",
    "repeated": ["app", "app"],
    "repeated, once empty": ["app", ""],
    "with a control character": "app\x07",
    "beyond ASCII": "äpp",
    "too long": "a" * 3000,
    "markup": "<script>alert(1)</script>",
}


@pytest.fixture
def app(rules: Rules) -> Client:
    return rules.add_client(client_id="app")[0]


@pytest.mark.parametrize("client_id", WRONG_CLIENT.values(), ids=WRONG_CLIENT)
@pytest.mark.parametrize("is_signed_in", [True, False])
def test_a_wrong_client_id_gives_a_page(
    rules: Rules, app: Client, client_id: object, is_signed_in: bool
) -> None:
    """B-05, T012: missing, repeated, malformed or unknown: 400, no redirect, nothing stored but the refusal."""
    browser = rules.signed_in() if is_signed_in else STRANGER
    before = records(rules)
    answer = rules.authorize(app, browser, client_id=client_id)
    assert_page_error(answer, supplied=REDIRECT_URI)
    assert "alert(1)" not in answer.description
    assert records(rules) == before
    assert rules.events()[-1]["type"] == "authorization.refused"


def test_a_disabled_client_gives_a_page(rules: Rules) -> None:
    """B-05, R-09: from the next request on, and it looks like an unknown one."""
    client, _ = rules.add_client()
    browser = rules.signed_in()
    assert isinstance(rules.authorize(client, browser), AskConsent)
    with rules.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    answer = rules.authorize(client, browser)
    assert_page_error(answer, supplied=REDIRECT_URI)
    assert answer.description == "There is no such application here."


def test_a_client_without_the_code_grant_is_unauthorized(rules: Rules) -> None:
    """B-09: registered, but for another grant."""
    metadata = ClientMetadata(
        client_name="Robot",
        redirect_uris=(REDIRECT_URI,),
        grant_types=("client_credentials",),
        response_types=(),
        scopes=("profile",),
    )
    with rules.begin() as engine:
        client, _ = add_client(engine, metadata)
    answer = rules.authorize(client, rules.signed_in())
    assert_redirect_error(answer, "unauthorized_client")


def test_unknown_and_empty_parameters_are_ignored(rules: Rules) -> None:
    """B-02, B-03: `x=1` does nothing, and `state=` is a request without state."""
    client, _ = rules.add_client()
    answer = rules.authorize(client, rules.signed_in(), x="1", nonce="n", state="")
    assert_code(rules.consent(answer), state=None)


def test_resource_may_repeat(rules: Rules) -> None:
    """B-04: the registered exception."""
    client, secret = rules.add_client()
    code = rules.code(client, resource=["https://api.example/", "https://files.example/"], scope="files.read")
    audience = rules.claims(rules.redeem(client, secret, code).json["access_token"])["aud"]
    assert audience == ["https://api.example/", "https://files.example/"]


def test_a_repeated_state_is_refused_without_state(rules: Rules) -> None:
    """B-04, B-25.b: nobody can say which one is meant."""
    client, _ = rules.add_client()
    answer = rules.authorize(client, rules.signed_in(), state=["a", "b"])
    assert_redirect_error(answer, "invalid_request", state=None)


def test_no_scope_gets_the_default(rules: Rules) -> None:
    """B-11: the documented default, never everything."""
    client, secret = rules.add_client()
    answer = rules.redeem(client, secret, rules.code(client, scope=None))
    assert answer.json["scope"] == "profile"


def test_no_scope_without_a_default_is_refused(make_rules) -> None:
    """B-11: silence of the policies is no scope."""
    rules = make_rules({"authserver.plugin.scopes_default.scopes": None})
    rules.add_user("ann")
    client, _ = rules.add_client()
    answer = rules.authorize(client, rules.signed_in(), scope=None)
    assert_redirect_error(answer, "invalid_scope")
    assert isinstance(answer, RedirectError)
    assert answer.description == "The request names no scope: the parameter scope is required."


def test_scope_is_a_set(rules: Rules) -> None:
    """B-12: order and repeats do not matter."""
    client, secret = rules.add_client()
    code = rules.code(client, scope="files.read profile files.read")
    assert set(rules.redeem(client, secret, code).json["scope"].split()) == {"profile", "files.read"}


STATES = {
    "plain": "xyz",
    "specials": "a b&c=d%26?e#f/\\\"<>'`{|}~",
    "a plus and an escape": "a+b%2Bc%zz",
    "2000 characters": "s" * 2000,
    "2048 characters": "s" * 2048,
    "2048 characters that need escapes": '"' * 2048,
    "9500 characters": "s" * 9500,
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_state_comes_back_as_sent_through_sign_in_and_consent(rules: Rules, state: str) -> None:
    """B-13, B-25.a, T021: on success and on errors, whatever pages stand between."""
    client, _ = rules.add_client()
    asked = rules.authorize(client, STRANGER, state=state)
    browser = rules.signed_in()
    assert_code(rules.consent(rules.resume(asked, browser)), state=state)
    denied = rules.authorize(client, browser, state=state, scope="profile files.read")
    assert_redirect_error(rules.consent(denied, "deny"), "access_denied", state=state)


@pytest.mark.parametrize("state", ["ü", "a\r\nSet-Cookie: x=y", "a\tb", "\x7f", "\0"])
def test_a_state_that_cannot_come_back_is_refused(rules: Rules, state: str) -> None:
    """B-25.b, T021: redirect invalid_request without state, and no header is split."""
    client, _ = rules.add_client()
    answer = rules.authorize(client, rules.signed_in(), state=state)
    assert_redirect_error(answer, "invalid_request", state=None)
    assert not {"\r", "\n"} & set(location_of(answer))


def test_the_query_of_the_registered_uri_is_kept(rules: Rules) -> None:
    """B-14, B-15: the response is added after it."""
    redirect_uri = "https://client.example/cb?tenant=7&x=a%20b"
    client, _ = rules.add_client(redirect_uris=(redirect_uri,))
    browser = rules.signed_in()
    assert_code(rules.consent(rules.authorize(client, browser)), redirect_uri=redirect_uri)
    assert_redirect_error(
        rules.authorize(client, browser, response_type="token"),
        "unsupported_response_type",
        redirect_uri=redirect_uri,
    )
