"""A policy demands more than that somebody is signed in: what a browser sees, with tabs, Back and repeated answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from webtest import TestApp, TestResponse

from authserver.api import (
    AuthenticationStep,
    Decision,
    Identity,
    Parameters,
    Session,
    allow,
    deny,
    hookimpl,
)
from authserver.engine.records import Client
from authserver.testing.server import SETTINGS, Server, form_with
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    assert_redirect_error,
    is_signed_in,
    records,
    register,
    sign_in_at,
    signed_in,
)

AGAIN = "You are signed in, but for this request you need to sign in again."
COOKIE = "__Host-authserver-session"
PROXY = {"X-Remote-User": "ann"}


@dataclass(frozen=True)
class Demands:
    """What requests ask for with a parameter: a fresh sign-in, or no page for somebody who must sign in."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def authentication_decision(
        self, session: Session | None, parameters: Parameters
    ) -> Decision[AuthenticationStep] | None:
        match parameters.get("ui"):
            case "fresh":
                return allow("asked-for", AuthenticationStep.SIGN_IN_AGAIN)
            case "none" if session is None:
                return deny("nobody-to-ask", "login_required")
        return None


@dataclass(frozen=True)
class ByProxy:
    """Signs in whom a proxy names."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def login_decision(self, headers: Mapping[str, str]) -> Decision[Identity] | None:
        name = headers.get("x-remote-user")
        return allow("proxied", Identity(username=name)) if name else None


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    own = [f"{__name__}:{kind.__name__}" for kind in (Demands, ByProxy)]
    server = make_server({"authserver.plugins": "\n".join([SETTINGS["authserver.plugins"], *own])})
    server.add_user("ann")
    server.add_user("bob")
    return server


@pytest.fixture
def client(server: Server) -> Client:
    return server.add_client()[0]


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


def begin(server: Server, browser: TestApp, client: Client) -> TestResponse:
    """The sign-in page of a request that wants a fresh sign-in."""
    answer = browser.get(server.authorization_url(client, ui="fresh"))
    assert (answer.status_int, urlsplit(answer.location).path) == (303, "/login")
    page: TestResponse = answer.follow()
    assert form_with(page, "username")
    return page


def test_somebody_who_is_signed_in_signs_in_again(server: Server, browser: TestApp, client: Client) -> None:
    """T024, E-17: in a new session; the old one has ended, and the request goes on once."""
    page, before = begin(server, browser, client), browser.cookies[COOKIE]
    consent = sign_in_at(page).follow()
    assert browser.cookies[COOKIE] != before
    assert len(server.rows("sessions")) == 1
    assert_code(server.consent(consent))
    # The next request wants another one.
    begin(server, browser, client)


def test_the_session_that_was_there_leads_nowhere_else(
    server: Server, browser: TestApp, client: Client
) -> None:
    """No loop: its consent page leads to the sign-in page, and that one shows its form each time."""
    sealed = form_with(begin(server, browser, client), "username")["request"].value
    for _ in range(2):
        led = browser.get(f"/oauth/consent?request={sealed}")
        assert urlsplit(led.location).path == "/login"
        assert form_with(led.follow(), "username")
    assert is_signed_in(server, browser)
    assert server.events("code.issued") == []


def test_a_wrong_password_costs_neither_session_nor_request(
    server: Server, browser: TestApp, client: Client
) -> None:
    page = begin(server, browser, client)
    again = sign_in_at(page, password="wrong password")
    assert again.status_int == 400
    assert AGAIN in page and AGAIN in again
    assert is_signed_in(server, browser)
    assert_code(server.consent(sign_in_at(again).follow()))


def test_one_sign_in_serves_every_tab_that_waited_for_it(
    server: Server, browser: TestApp, client: Client
) -> None:
    """B041, B106: reloaded, the second tab goes on to its own consent page; a third one signs in once more."""
    first, second, third = (begin(server, browser, client) for _ in range(3))
    one = sign_in_at(first).follow()
    led = browser.get(second.request.url)
    assert urlsplit(led.location).path == "/oauth/consent"
    pages = [one, led.follow(), sign_in_at(third).follow()]
    assert len({assert_code(server.consent(page)) for page in pages}) == 3


def test_back_to_the_sign_in_page_leads_on(server: Server, browser: TestApp, client: Client) -> None:
    """B042: and what was answered there before is answered in the same way."""
    page = begin(server, browser, client)
    consent = sign_in_at(page).follow()
    led = browser.get(page.request.url)
    assert urlsplit(led.location).path == "/oauth/consent"
    code = assert_code(server.consent(led.follow()))
    assert assert_code(server.consent(consent)) == code
    assert assert_code(browser.get(page.request.url).follow()) == code


def test_for_somebody_else_the_request_begins_anew(server: Server, browser: TestApp, client: Client) -> None:
    """STEP-07, E-04.b: Bob's sign-in is not the second one of Ann. When he has made his own, the grant is his."""
    led = sign_in_at(begin(server, browser, client), "bob").follow()
    assert urlsplit(led.location).path == "/login"
    page = led.follow()
    assert AGAIN in page
    assert form_with(page, "username")["username"].value == "bob"
    consent = sign_in_at(page, "bob").follow()
    assert_code(server.consent(consent))
    users = {row["username"]: row["user_id"] for row in server.rows("users")}
    assert [row["user_id"] for row in server.rows("grants")] == [users["bob"]]


def test_only_the_person_signs_in_again(server: Server, client: Client) -> None:
    """Whom a proxy names is let in without a page, but that is no act of theirs: a fresh sign-in is asked of them."""
    browser = server.browser()
    url = server.authorization_url(client, ui="fresh")
    for _ in range(2):
        page = browser.get(url).follow(headers=PROXY)
        assert form_with(page, "username")
        browser.get("/login", headers=PROXY)
        assert is_signed_in(server, browser)


def test_a_stranger_signs_in_once(server: Server, client: Client) -> None:
    """A sign-in for the request is a fresh one."""
    page = begin(server, server.browser(), client)
    assert AGAIN not in page
    assert_code(server.consent(sign_in_at(page).follow()))


def test_nobody_signed_in_and_no_page_wanted(server: Server, client: Client, browser: TestApp) -> None:
    """T024; OIDC Core, 3.1.2.6: the client is told before any page, and nothing is kept but the event."""
    url, before = server.authorization_url(client, ui="none"), records(server)
    answer = server.browser().get(url)
    assert_redirect_error(answer, "login_required")
    assert "Set-Cookie" not in answer.headers
    assert records(server) == before
    event = server.events("authorization.refused")[-1]
    assert event["reason"] == "nobody-to-ask"
    # Where somebody is signed in, the policy has nothing against it.
    assert_code(server.consent(browser.get(url)))


def test_no_page_wanted_by_a_client_that_registered_itself(server: Server) -> None:
    """B-16 before B-17, OIDC-05: it has no user who could answer the page that says where the answer goes."""
    client = register(server)
    assert_redirect_error(server.browser().get(server.authorization_url(client, ui="none")), "login_required")


def test_no_page_wanted_at_a_redirect_uri_that_is_not_the_clients(server: Server, client: Client) -> None:
    """T001."""
    evil = "https://evil.example/cb"
    url = server.authorization_url(client, ui="none", redirect_uri=evil)
    assert_page_error(server.browser().get(url, status="*"), supplied=evil)


def test_switching_the_user_in_a_session_that_does_not_suffice(
    server: Server, browser: TestApp, client: Client
) -> None:
    """The sign-in page of the request serves everybody; nobody was signed out without their word (E-03)."""
    sealed = form_with(begin(server, browser, client), "username")["request"].value
    form = {"request": sealed, "answer": "switch", "csrf_token": "forged"}
    answer = browser.post("/oauth/consent", form)
    assert urlsplit(answer.location).path == "/login"
    assert is_signed_in(server, browser)
    assert form_with(answer.follow(), "username")
