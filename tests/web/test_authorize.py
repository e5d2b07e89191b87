"""The authorization endpoint: which request gets which answer, and how it is delivered."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, urlencode

import pytest

from authserver.engine.records import Client
from authserver.testing.server import ISSUER, REDIRECT_URI, Server, query_of
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    assert_redirect_error,
    challenge,
    records,
    sign_in_at,
    signed_in,
)

GET_WITH_BODY = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}


@pytest.fixture
def server(shared_server: Server) -> Server:
    return shared_server


EVIL = "https://evil.example/cb"


def test_an_error_is_redirected_to_the_client(server: Server) -> None:
    """B-15, B-16, B-18, B-20, T001: and nothing is stored; the cases are in tests/engine."""
    client, _ = server.add_client()
    browser = signed_in(server)
    before, events = records(server), len(server.events())
    wrong = {"response_type": "token"}
    assert_redirect_error(browser.get(server.authorization_url(client, **wrong)), "unsupported_response_type")
    assert [event["type"] for event in server.events()[events:]] == ["authorization.refused"]
    for target in ({"client_id": "nobody"}, {"redirect_uri": EVIL}):
        answer = browser.get(server.authorization_url(client, **wrong, **target), status="*")
        assert_page_error(answer, supplied=target.get("redirect_uri", ""))
    answer = server.browser().get(server.authorization_url(client, **wrong))
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


@pytest.mark.parametrize("is_signed_in", [True, False])
def test_a_wrong_client_id_gives_a_page(server: Server, is_signed_in: bool) -> None:
    """B-05, T012: 400, no redirect, nothing of what was sent, nothing stored but the refusal."""
    browser = signed_in(server) if is_signed_in else server.browser()
    client, _ = server.add_client()
    url = server.authorization_url(client, client_id="<script>alert(1)</script>")
    before = records(server)
    answer = browser.get(url, status="*")
    assert_page_error(answer, supplied=REDIRECT_URI)
    assert "There is no such application here." in answer.text
    assert "remove the connection to this server in the application, and add it again" in answer.text
    assert "alert(1)" not in answer.text
    assert records(server) == before
    assert server.events()[-1]["type"] == "authorization.refused"


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


@pytest.mark.parametrize("state", ["a b&c=d%26?e#f/\\\"<>'`{|}~", '"' * 2048], ids=["specials", "long"])
def test_state_comes_back_as_sent_through_sign_in_and_consent(server: Server, state: str) -> None:
    """B-13, B-25.a, T021: on success and on errors, whatever pages stand between."""
    client, _ = server.add_client()
    browser = server.browser()
    answer = sign_in_at(browser.get(server.authorization_url(client, state=state)).follow())
    assert_code(server.consent(answer.follow()), state=state)
    denied = browser.get(server.authorization_url(client, state=state, scope="profile files.read"))
    assert_redirect_error(server.consent(denied, "deny"), "access_denied", state=state)


def test_a_state_that_cannot_come_back_is_refused(server: Server) -> None:
    """B-25.b, T021: redirect invalid_request without state, and no header is split."""
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, state="a\r\nSet-Cookie: x=y"))
    assert_redirect_error(answer, "invalid_request", state=None)
    assert not {"\r", "\n"} & set("".join(f"{name}{value}" for name, value in answer.headerlist))
    assert "x" not in [cookie.partition("=")[0] for cookie in answer.headers.getall("Set-Cookie")]


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
    """B-13, B-25.b: error and iss come back, and the state where it can; before sign-in as after it."""
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
