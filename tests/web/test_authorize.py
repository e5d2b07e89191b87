"""The authorization endpoint: which request gets which answer, and how it is delivered."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, urlencode

import pytest

from authserver.engine.clients.registration import add_client
from authserver.engine.records import Client, ClientMetadata
from authserver.testing.server import CHALLENGE, ISSUER, REDIRECT_URI, Server, query_of
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    assert_redirect_error,
    challenge,
    records,
    sign_in_at,
    signed_in,
)

EVIL = "https://evil.example/cb"
GET_WITH_BODY = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}


@pytest.fixture
def server(shared_server: Server) -> Server:
    return shared_server


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
def test_an_error_is_redirected_to_the_client(server: Server, changes: dict, code: str) -> None:
    """B-03, B-04, B-07, B-08, B-10, B-12, B-15, B-18, B-20, B-26, T012, T016, T017, T018, T020: and nothing is stored."""
    client, _ = server.add_client()
    browser = signed_in(server)
    before, events = records(server), len(server.events())
    assert_redirect_error(browser.get(server.authorization_url(client, **changes)), code)
    assert records(server) == before
    assert [event["type"] for event in server.events()[events:]] == ["authorization.refused"]


@pytest.mark.parametrize(("changes", "code"), WRONG.values(), ids=WRONG)
def test_no_error_is_redirected_before_client_and_uri_are_accepted(
    server: Server, changes: dict, code: str
) -> None:
    """T001, B-05, B-06: whatever else is wrong, an unknown client or a foreign URI gives a page."""
    client, _ = server.add_client()
    browser = signed_in(server)
    before = records(server)
    for target in ({"client_id": "nobody"}, {"redirect_uri": EVIL}):
        answer = browser.get(server.authorization_url(client, **{**changes, **target}), status="*")
        assert_page_error(answer, supplied=target.get("redirect_uri", ""))
    assert records(server) == before


@pytest.mark.parametrize(("changes", "code"), WRONG.values(), ids=WRONG)
def test_a_stranger_is_sent_to_sign_in_and_not_to_the_client(
    server: Server, changes: dict, code: str
) -> None:
    """B-16: the error is redirected only once somebody is signed in."""
    client, _ = server.add_client()
    before = records(server)
    answer = server.browser().get(server.authorization_url(client, **changes))
    assert answer.status_int == 303
    assert answer.location.startswith(f"{ISSUER}/login?request=")
    assert records(server) == before


def test_an_error_reaches_the_client_after_sign_in(server: Server) -> None:
    """B-16, T019: sign-in leads to the consent step, and that to the client, each by a 303."""
    client, _ = server.add_client()
    page = server.browser().get(server.authorization_url(client, response_type="token")).follow()
    answer = sign_in_at(page)
    assert answer.status_int == 303
    assert answer.location.startswith(f"{ISSUER}/oauth/consent?request=")
    assert_redirect_error(answer.goto(answer.location, expect_errors=True), "unsupported_response_type")


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


@pytest.fixture(scope="module")
def app(shared_server: Server) -> Client:
    return shared_server.add_client(client_id="app")[0]


@pytest.mark.parametrize("client_id", WRONG_CLIENT.values(), ids=WRONG_CLIENT)
@pytest.mark.parametrize("is_signed_in", [True, False])
def test_a_wrong_client_id_gives_a_page(
    server: Server, app: Client, client_id: object, is_signed_in: bool
) -> None:
    """B-05, T012: missing, repeated, malformed or unknown: 400, no redirect, nothing stored but the refusal."""
    browser = signed_in(server) if is_signed_in else server.browser()
    before = records(server)
    answer = browser.get(server.authorization_url(app, client_id=client_id), status="*")
    assert_page_error(answer, supplied=REDIRECT_URI)
    assert "alert(1)" not in answer.text
    assert records(server) == before
    assert server.events()[-1]["type"] == "authorization.refused"


def test_a_disabled_client_gives_a_page(server: Server) -> None:
    """B-05, R-09: from the next request on, and it looks like an unknown one."""
    client, _ = server.add_client()
    browser = signed_in(server)
    assert browser.get(server.authorization_url(client)).status_int == 200
    with server.application.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    answer = browser.get(server.authorization_url(client), status="*")
    assert_page_error(answer, supplied=REDIRECT_URI)
    assert "There is no such application here." in answer.text


def test_a_client_without_the_code_grant_is_unauthorized(server: Server) -> None:
    """B-09: registered, but for another grant."""
    metadata = ClientMetadata(
        client_name="Robot",
        redirect_uris=(REDIRECT_URI,),
        grant_types=("client_credentials",),
        response_types=(),
        scopes=("profile",),
    )
    with server.application.begin() as engine:
        client, _ = add_client(engine, metadata)
    answer = signed_in(server).get(server.authorization_url(client))
    assert_redirect_error(answer, "unauthorized_client")


def test_the_form_body_works_like_the_query(server: Server) -> None:
    """B-01, B039: a POST with a form body leads to the same page, which can be reloaded."""
    client, _ = server.add_client()
    browser = signed_in(server)
    path, _, query = server.authorization_url(client).partition("?")
    page = browser.post(path, query, content_type="application/x-www-form-urlencoded")
    assert page.status_int == 303
    assert_code(server.consent(page.follow()))


def test_a_post_reads_only_its_body_and_a_get_only_its_query(server: Server) -> None:
    """T014, T002: parameters of the other channel count for nothing."""
    client, _ = server.add_client()
    browser = signed_in(server)
    path, _, query = server.authorization_url(client).partition("?")
    form = {"content_type": "application/x-www-form-urlencoded", "status": "*"}
    assert_page_error(browser.post(f"{path}?{query}", "", **form))
    page = browser.post(f"{path}?redirect_uri={quote(EVIL)}&scope=admin", query, **form)
    assert_code(server.consent(page.follow()))
    with_body = browser.request(ISSUER + path, method="GET", body=query.encode(), status="*", **GET_WITH_BODY)
    assert_page_error(with_body)


def test_a_body_of_another_type_gives_a_page(server: Server) -> None:
    """B-01, T014: JSON is no form."""
    client, _ = server.add_client()
    path, _, query = server.authorization_url(client).partition("?")
    assert_page_error(server.browser().post(path, query, content_type="application/json", status="*"))


def test_unknown_and_empty_parameters_are_ignored(server: Server) -> None:
    """B-02, B-03: `x=1` does nothing, and `state=` is a request without state."""
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, x="1", nonce="n", state=""))
    assert_code(server.consent(answer), state=None)


def test_resource_may_repeat(server: Server) -> None:
    """B-04: the registered exception."""
    client, secret = server.add_client()
    code = server.code(
        client, resource=["https://api.example/", "https://files.example/"], scope="files.read"
    )
    audience = server.claims(server.redeem(client, secret, code).json["access_token"])["aud"]
    assert audience == ["https://api.example/", "https://files.example/"]


def test_a_repeated_state_is_refused_without_state(server: Server) -> None:
    """B-04, B-25: nobody can say which one is meant."""
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, state=["a", "b"]))
    assert_redirect_error(answer, "invalid_request", state=None)


def test_no_scope_gets_the_default(server: Server) -> None:
    """B-11: the documented default, never everything."""
    client, secret = server.add_client()
    answer = server.redeem(client, secret, server.code(client, scope=None))
    assert answer.json["scope"] == "profile"


def test_no_scope_without_a_default_is_refused(make_server) -> None:
    """B-11: silence of the policies is no scope."""
    server = make_server({"authserver.plugin.scopes_default.scopes": None})
    server.add_user("ann")
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, scope=None))
    assert_redirect_error(answer, "invalid_scope")


def test_scope_is_a_set(server: Server) -> None:
    """B-12: order and repeats do not matter."""
    client, secret = server.add_client()
    code = server.code(client, scope="files.read profile files.read")
    assert set(server.redeem(client, secret, code).json["scope"].split()) == {"profile", "files.read"}


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
def test_state_comes_back_as_sent_through_sign_in_and_consent(server: Server, state: str) -> None:
    """B-13, B-25, T021: on success and on errors, whatever pages stand between."""
    client, _ = server.add_client()
    browser = server.browser()
    answer = sign_in_at(browser.get(server.authorization_url(client, state=state)).follow())
    assert_code(server.consent(answer.follow()), state=state)
    denied = browser.get(server.authorization_url(client, state=state, scope="profile files.read"))
    assert_redirect_error(server.consent(denied, "deny"), "access_denied", state=state)


@pytest.mark.parametrize("state", ["ü", "a\r\nSet-Cookie: x=y", "a\tb", "\x7f", "\0"])
def test_a_state_that_cannot_come_back_is_refused(server: Server, state: str) -> None:
    """B-25, T021: redirect invalid_request without state, and no header is split."""
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, state=state))
    assert_redirect_error(answer, "invalid_request", state=None)
    assert not {"\r", "\n"} & set("".join(f"{name}{value}" for name, value in answer.headerlist))
    assert "x" not in [cookie.partition("=")[0] for cookie in answer.headers.getall("Set-Cookie")]


def test_the_query_of_the_registered_uri_is_kept(server: Server) -> None:
    """B-14, B-15: the response is added after it."""
    redirect_uri = "https://client.example/cb?tenant=7&x=a%20b"
    client, _ = server.add_client(redirect_uris=(redirect_uri,))
    browser = signed_in(server)
    assert_code(server.consent(browser.get(server.authorization_url(client))), redirect_uri=redirect_uri)
    assert_redirect_error(
        browser.get(server.authorization_url(client, response_type="token")),
        "unsupported_response_type",
        redirect_uri=redirect_uri,
    )


def test_a_response_has_the_issuer(server: Server) -> None:
    """T020 (RFC 9207): on success too, and nothing else comes with the code."""
    client, _ = server.add_client()
    answer = server.consent(signed_in(server).get(server.authorization_url(client)))
    assert set(query_of(answer)) == {"code", "state", "iss"}
    assert query_of(answer)["iss"] == ISSUER


@pytest.mark.parametrize(("method", "status"), [("GET", 303), ("POST", 400), ("OPTIONS", 405)])
def test_no_page_may_read_the_endpoint(server: Server, method: str, status: int) -> None:
    """B-21: not even the preflight answers with CORS headers."""
    client, _ = server.add_client()
    headers = {
        "Origin": "https://client.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = server.browser().request(
        ISSUER + server.authorization_url(client), method=method, headers=headers, status="*"
    )
    assert answer.status_int == status
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_a_semicolon_separates_nothing(server: Server) -> None:
    """T013: `a;client_id=b` is one value, so proxy, browser and server read the same parameters."""
    client, _ = server.add_client()
    browser = signed_in(server)
    url = server.authorization_url(client, state=None)
    assert_code(server.consent(browser.get(f"{url}&state=a;client_id=b")), state="a;client_id=b")
    hidden = f"{server.path('/oauth/authorize')}?x=1;client_id={client.client_id}&response_type=code"
    assert_page_error(browser.get(hidden, status="*"))


UNREADABLE = {
    "bytes that are no UTF-8": "client_id=%ff%fe",
    "a lone surrogate": "client_id=%ed%a0%80",
    "NUL": "client_id=a%00b",
    "NUL in a name": "a%00b=c",
    "101 parameters": "&".join(f"p{number}=1" for number in range(101)),
}


@pytest.mark.parametrize("query", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_cannot_be_read_gives_a_page(server: Server, query: str, method: str) -> None:
    """T015: 400, never a redirect and never a failure, even when client and URI are right."""
    client, _ = server.add_client()
    browser = signed_in(server)
    good = urlencode({"client_id": client.client_id, "redirect_uri": REDIRECT_URI, **challenge()})
    path = server.path("/oauth/authorize")
    for text in (query, f"{good}&{query}"):
        if method == "GET":
            answer = browser.get(f"{path}?{text}", status="*")
        else:
            answer = browser.post(path, text, content_type="application/x-www-form-urlencoded", status="*")
        assert_page_error(answer)


SPOILED = ("state=%ff%fe", "state=%ed%a0%80", "state=a%00b", "state=" + "s" * 20_000, "state=xyz&scope=%ff")


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda text: text[:14])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unreadable_value_does_not_take_the_answer_with_it(
    server: Server, spoiled: str, method: str
) -> None:
    """B-13, B-25: error and iss come back, and the state where it can; before sign-in as after it."""
    client, _ = server.add_client()
    good = server.authorization_url(client, state=None, scope=None).partition("?")[2]
    state = "xyz" if "xyz" in spoiled else None
    for browser in (signed_in(server), server.browser()):
        path, query = server.path("/oauth/authorize"), f"{good}&{spoiled}"
        if method == "GET":
            answer = browser.get(f"{path}?{query}")
        else:
            answer = browser.post(path, query, content_type="application/x-www-form-urlencoded")
        if answer.location.startswith(f"{ISSUER}/login"):
            answer = sign_in_at(answer.follow()).follow()
        assert_redirect_error(answer, "invalid_request", state=state)


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda text: text[:14])
def test_an_unreadable_value_leads_nowhere_but_to_the_client(server: Server, spoiled: str) -> None:
    """T001, T015: client and redirect URI are checked first, and what is unreadable of them is a page."""
    client, _ = server.add_client()
    browser = signed_in(server)
    path = server.path("/oauth/authorize?")
    for target in (
        f"client_id={client.client_id}&redirect_uri=https%3A%2F%2Fevil.example%2F",
        f"client_id={client.client_id}&redirect_uri=%ff",
        f"client_id={client.client_id}&redirect_uri={'a' * 20_000}",
        f"client_id={client.client_id}&redirect_uri={quote_plus(REDIRECT_URI)}&redirect_uri=%ff",
        f"client_id={client.client_id}&redirect_uri=%00&redirect_uri={quote_plus(REDIRECT_URI)}",
        f"client_id=%ff&redirect_uri={quote_plus(REDIRECT_URI)}",
        f"client_id={client.client_id}&client_id=%00",
    ):
        for sent in (target, f"{target}&{spoiled}"):
            assert_page_error(browser.get(path + sent, status="*"))
            assert_page_error(server.browser().get(path + sent, status="*"))


def test_a_request_too_long_to_carry_is_refused_at_once(server: Server) -> None:
    """T015, B-13: not on some later page; the client hears of it with its state."""
    client, _ = server.add_client()
    long = {f"x{number}": "ü" * 2000 for number in range(10)}
    assert_redirect_error(signed_in(server).get(server.authorization_url(client, **long)), "invalid_request")
    answer = server.browser().get(server.authorization_url(client, **long))
    assert len(answer.location) < 1000
    assert_redirect_error(sign_in_at(answer.follow()).follow(), "invalid_request")
    url = server.authorization_url(client, **long, redirect_uri="https://evil.example/")
    assert_page_error(signed_in(server).get(url, status="*"))


def test_a_long_request_survives_sign_in(server: Server) -> None:
    """B-02, B-13: unknown parameters of some length are carried along."""
    client: Client = server.add_client()[0]
    page = server.browser().get(server.authorization_url(client, login_hint="x" * 6500)).follow()
    assert_code(server.consent(sign_in_at(page).follow()))
