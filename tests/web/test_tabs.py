"""A pending request belongs to the browser in which it began: tabs, Back, requests by POST, and forged marks."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

import pytest
from webtest import TestApp, TestResponse

from authserver.engine.records import Client
from authserver.limits import MAXIMUM_MARKS
from authserver.testing.server import ISSUER, PASSWORD, Server
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    fields_of,
    is_signed_in,
    records,
    sign_in_at,
    signed_in,
)

COOKIE = "__Host-authserver-session"
MARK = "__Host-authserver-request-"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def client(server: Server) -> Client:
    return server.add_client()[0]


@pytest.fixture
def browser(server: Server) -> TestApp:
    return server.browser()


def login_page(server: Server, browser: TestApp, client: Client) -> TestResponse:
    return browser.get(server.authorization_url(client)).follow()


def move_cookies(tab: TestApp, browser: TestApp) -> None:
    """What came in one tab, which did not send what the browser had: the last one of a name wins."""
    for cookie in tab.cookiejar:
        browser.cookiejar.set_cookie(cookie)


def marks_of(browser: TestApp) -> list[str]:
    return [name for name in browser.cookies if name.startswith(MARK)]


def test_a_sign_in_page_that_was_open_while_another_tab_signed_in(
    server: Server, browser: TestApp, client
) -> None:
    """B041, B106: it goes on to its own consent page, and the first tab's page can still be answered."""
    browser.get(server.path("/login"))
    first, second = (login_page(server, browser, client) for _ in range(2))
    one = sign_in_at(first).follow()
    other = sign_in_at(second).follow()
    assert assert_code(server.consent(one)) != assert_code(server.consent(other))


def test_back_to_the_sign_in_page_after_signing_in(server: Server, browser: TestApp, client: Client) -> None:
    """B042: the consent page of that request; the page of an account likewise."""
    begun = browser.get(server.authorization_url(client))
    sign_in_at(begun.follow())
    again = browser.get(begun.location)
    assert urlsplit(again.location).path == "/oauth/consent"
    assert_code(server.consent(again.follow()))
    assert browser.get("/login?page=account_apps").location == f"{ISSUER}/account/apps"


def test_a_request_by_post_from_another_site(server: Server, client: Client) -> None:
    """B039, B104: it comes without the session's cookie and replaces none; where it leads, the person is known."""
    browser = signed_in(server)
    session = browser.cookies[COOKIE]
    path, _, query = server.authorization_url(client).partition("?")
    without = server.browser()
    answer = without.post(path, query, content_type=FORM, headers={"Origin": "https://client.example"})
    (cookie,) = answer.headers.getall("Set-Cookie")
    assert answer.status_int == 303 and cookie.startswith(MARK)
    move_cookies(without, browser)
    page = browser.get(answer.location).follow()
    assert "Signed in as" in page.text and browser.cookies[COOKIE] == session
    assert_code(server.consent(page))


def test_three_requests_at_once_of_a_fresh_browser(server: Server, browser: TestApp, client: Client) -> None:
    """B105: none of the cookies takes the place of another; each page goes on by itself."""
    begun = []
    for _ in range(3):
        tab = server.browser()
        begun.append(tab.get(server.authorization_url(client)))
        move_cookies(tab, browser)
    pages = [browser.get(answer.location) for answer in begun]
    shown = [sign_in_at(page).follow() for page in pages]
    assert len({assert_code(server.consent(page)) for page in shown}) == 3


def test_a_browser_keeps_the_latest_twenty(server: Server, browser: TestApp, client: Client) -> None:
    """T136, B105: of fifty requests; the oldest says that it cannot go on, the latest all do."""
    pages = [login_page(server, browser, client) for _ in range(50)]
    assert len(marks_of(browser)) == MAXIMUM_MARKS
    oldest = pages[29].request.url
    assert_page_error(browser.get(oldest, status="*"), status=403)
    assert_page_error(sign_in_at(pages[29]), status=403)
    for page in [sign_in_at(pages[number]).follow() for number in (30, 49)]:
        assert_code(server.consent(page))


@pytest.mark.parametrize(
    "forge", ["none", "empty", "another's", "cut", "of the session", "twice", "of another key"]
)
def test_a_forged_mark_opens_no_request(make_server, server: Server, client: Client, forge: str) -> None:
    """T091, T098, T099: the cookie must be the one that we made for this very request, and come once."""
    browser = server.browser()
    page = login_page(server, browser, client)
    (name,) = marks_of(browser)
    mine = browser.cookies[name].strip('"')
    login_page(server, browser, client)
    (other,) = [browser.cookies[mark].strip('"') for mark in marks_of(browser) if mark != name]
    foreign = make_server(
        {"authserver.secret_keys": f"other:{'A' * 43}= {server.ini['authserver.secret_keys']}"}
    ).browser()
    foreign.get("/login")
    header = {
        "none": "a=b",
        "empty": f"{name}=",
        "another's": f"{name}={other}",
        "cut": f"{name}={mine[:-2]}",
        "of the session": f"{name}={signed_in(server).cookies[COOKIE].partition('.')[2]}",
        "twice": f"{name}={mine}; {name}={mine}",
        "of another key": f"{name}={next(iter(foreign.cookies.values()))}",
    }[forge].replace('"', "")
    before = records(server)
    form = fields_of(page, "username") | {"username": "ann", "password": PASSWORD}
    for answer in (
        server.browser().get(page.request.url, headers={"Cookie": header}, status="*"),
        server.browser().post("/login", form, headers={"Cookie": header}, status="*"),
    ):
        assert_page_error(answer, status=403)
    assert records(server) == before
    right = server.browser().get(page.request.url, headers={"Cookie": f"x=y; {name}={mine}"})
    assert right.status_int == 200


def test_a_browser_without_cookies_is_told_what_to_do(server: Server, client: Client) -> None:
    """T091: however often it starts the request again, it never gets further."""
    first = server.browser().get(server.authorization_url(client))
    page = server.browser().get(first.location, status=403)
    assert "allow cookies for this site" in page.text
    german = server.browser().get(first.location, headers={"Accept-Language": "de"}, status=403)
    assert "erlauben Sie Cookies" in german.text


def test_a_token_of_one_sign_in_page_is_not_good_for_another_request(server: Server, browser, client) -> None:
    """T092: of the same browser, too."""
    first, second = (login_page(server, browser, client) for _ in range(2))
    form = fields_of(first, "username") | {"csrf_token": fields_of(second, "username")["csrf_token"]}
    answer = browser.post("/login", form | {"username": "ann", "password": PASSWORD}, status="*")
    assert_page_error(answer, status=403)
    assert server.rows("sessions") == []


@pytest.mark.parametrize(
    "path", ["/login", "/logout", "/oauth/consent", "/account/apps", "/account/password"]
)
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_no_form_of_another_site_gets_a_cookie(server: Server, path: str, origin: str) -> None:
    """T153, T092, T098: it comes without cookies, is refused, and its answer replaces nothing."""
    form = {"csrf_token": "x", "username": "ann", "password": PASSWORD, "answer": "allow", "request": "x"}
    answer = server.browser().post(path, form, headers={"Origin": origin}, status="*")
    assert_page_error(answer, status=403)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("cookie", ["", "x", f"{'A' * 60}.{'A' * 43}"])
def test_a_session_cookie_that_is_not_ours_is_left_alone(server: Server, cookie: str) -> None:
    """T098, B112: it signs nobody in, and no page replaces it."""
    for path in ("/", "/login", "/logout", "/account/apps"):
        answer = server.browser().get(path, headers={"Cookie": f"{COOKIE}={cookie}"})
        assert not [each for each in answer.headers.getall("Set-Cookie") if each.startswith(COOKIE)]
    assert not is_signed_in(server, server.browser(), cookie=f"{COOKIE}={cookie}")


def test_a_pushed_request_that_expired_names_the_application(make_server, clock) -> None:
    """E-02, RFC 9126, 4: it cannot be sent again, so the page has no link that would be refused."""
    plugins = make_server().ini["authserver.plugins"] + "\npushed_requests"
    server = make_server({"authserver.plugins": plugins})
    client, secret = server.add_client(token_endpoint_auth_method="client_secret_post")
    query = server.authorization_url(client).partition("?")[2]
    pushed = server.http.post("/oauth/par", f"{query}&client_secret={secret}", content_type=FORM).json[
        "request_uri"
    ]
    browser = server.browser()
    begun = browser.get(
        "/oauth/authorize?" + urlencode({"client_id": client.client_id, "request_uri": pushed})
    )
    clock.shift(3600)
    expired = browser.get(begun.location, status="*")
    assert_page_error(expired)
    assert "start again there" in expired.text and "Start again<" not in expired.text
