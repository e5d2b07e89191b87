"""Signing out: asked for, complete, and leading nowhere else."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from webtest import TestApp

from authserver.testing.server import ISSUER, Server, form_with
from authserver.testing.stories import assert_code, assert_page_error, is_signed_in, sign_in_at, signed_in
from tests.web.account_steps import form_token

COOKIE = "__Host-authserver-session"


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


def test_signing_out_ends_the_session_on_the_server(server: Server, browser: TestApp) -> None:
    """T106, T098: the row is gone, so is the cookie, and the old cookie signs nobody in."""
    cookie = browser.cookies[COOKIE]
    answer = browser.get(server.path("/logout")).forms[0].submit()
    assert "You are signed out" in answer.text
    assert server.rows("sessions") == []
    assert server.events()[-1]["type"] == "sign_out.succeeded"
    assert COOKIE not in browser.cookies
    assert not is_signed_in(server, server.browser(), cookie=f"{COOKIE}={cookie}")


def test_signing_out_ends_one_session_only(server: Server, browser: TestApp) -> None:
    """T106: other browsers of the same user stay signed in."""
    other = signed_in(server)
    browser.get(server.path("/logout")).forms[0].submit()
    assert is_signed_in(server, other)


def test_a_get_only_asks(server: Server, browser: TestApp) -> None:
    """T106, T092: an image on some page signs nobody out."""
    assert "Sign out?" in browser.get(server.path("/logout")).text
    assert len(server.rows("sessions")) == 1


@pytest.mark.parametrize("token", [None, "", "AAAA", "of another session", "of another page"])
def test_signing_out_needs_the_token(server: Server, browser: TestApp, token: str | None) -> None:
    """T092, T106: 403 page, and the session lives."""
    others = {
        "of another session": form_token(server, signed_in(server), "logout"),
        "of another page": form_token(server, browser, "account_sign_out"),
    }
    form = {"x": "y"} if token is None else {"csrf_token": others.get(token, token)}
    answer = browser.post(server.path("/logout"), form, status="*")
    assert_page_error(answer, status=403)
    assert len(server.rows("sessions")) == 2


@pytest.mark.parametrize("origin", ["https://evil.example", "https://as.example.evil.example"])
def test_signing_out_from_another_origin_is_refused(server: Server, browser: TestApp, origin: str) -> None:
    """T092, T106: even with the right token."""
    form = {"csrf_token": browser.get(server.path("/logout")).forms[0]["csrf_token"].value}
    answer = browser.post(server.path("/logout"), form, headers={"Origin": origin}, status="*")
    assert_page_error(answer, status=403)
    assert len(server.rows("sessions")) == 1


@pytest.mark.parametrize("name", ["post_logout_redirect_uri", "next", "return_to", "redirect_uri"])
def test_signing_out_leads_nowhere_else(server: Server, browser: TestApp, name: str) -> None:
    """T106: no parameter makes it a redirect, on the page and on the answer."""
    query = urlencode({name: "https://evil.example/", "id_token_hint": "e30.e30.e30"})
    page = browser.get(server.path(f"/logout?{query}"))
    assert "evil.example" not in page.text
    form = {"csrf_token": page.forms[0]["csrf_token"].value, name: "https://evil.example/"}
    answer = browser.post(server.path(f"/logout?{query}"), form)
    assert answer.status_int == 200
    assert "Location" not in answer.headers
    assert "evil.example" not in answer.text


def test_signing_out_twice_is_harmless(server: Server, browser: TestApp) -> None:
    """T106: the second submit of the same form is out of date; what it advises, reloading, says that it is done."""
    page = browser.get(server.path("/logout"))
    assert page.forms[0].submit().status_int == 200
    assert_page_error(page.forms[0].submit(status="*"), status=403)
    again = browser.get(server.path("/logout"))
    assert again.status_int == 200 and "You are signed out" in again.text
    assert len(server.events("sign_out.succeeded")) == 1


def test_a_page_from_before_cannot_be_answered_afterwards(server: Server, browser: TestApp) -> None:
    """E-04.b: the consent form of the ended session decides nothing; it leads to a sign-in, and so does its link."""
    client, _ = server.add_client()
    page = browser.get(server.authorization_url(client))
    sealed = form_with(page, "scope")["request"].value
    browser.get(server.path("/logout")).forms[0].submit()
    link = f"{ISSUER}/oauth/consent?" + urlencode({"request": sealed})
    for answer in (server.consent(page), browser.get(link)):
        assert answer.location.startswith(f"{ISSUER}/login?request=")
    assert server.rows("grants") == []
    assert_code(server.consent(sign_in_at(answer.follow()).follow()))
