"""The session of a browser: its cookie, its renewal, and what ends it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from webtest import TestApp

from authserver.engine.crypto import digests
from authserver.engine.people.login import disable_user
from authserver.testing.server import PASSWORD, Server, form_with
from authserver.testing.stories import (
    assert_page_error,
    fields_of,
    is_signed_in,
    records,
    sign_in_at,
    signed_in,
)

COOKIE = "__Host-authserver-session"


@pytest.fixture
def stranger(server: Server) -> TestApp:
    return server.browser()


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


def with_cookie(server: Server, value: str) -> bool:
    """Whether a browser that sends this Cookie header is signed in."""
    return is_signed_in(server, server.browser(), cookie=value)


def attributes_of(answer, *, of_device: bool = False) -> tuple[str, set[str]]:
    """Name and attributes of the cookie that an answer sets; or of that which makes the browser a known device."""
    (cookie,) = [
        cookie
        for cookie in answer.headers.getall("Set-Cookie")
        if of_device == ("authserver-device=" in cookie)
    ]
    pair, *attributes = cookie.split("; ")
    return pair.partition("=")[0], set(attributes)


def test_the_cookie_is_bound_to_the_host_and_hidden_from_scripts(server: Server) -> None:
    """E-17, T099: `__Host-`, Secure, HttpOnly, SameSite=Lax, Path=/ and no Domain; so is the mark of a request."""
    page = server.browser().get(server.path("/login"))
    signed_in = sign_in_at(page)
    assert attributes_of(signed_in) == (COOKIE, {"Path=/", "secure", "HttpOnly", "SameSite=Lax"})
    name, attributes = attributes_of(signed_in, of_device=True)
    assert name == "__Host-authserver-device"
    assert {"Path=/", "secure", "HttpOnly", "SameSite=Lax", "Max-Age=31536000"} <= attributes
    name, attributes = attributes_of(page)
    assert re.fullmatch(r"__Host-authserver-request-[\w-]{22}", name)
    assert {"Path=/", "secure", "HttpOnly", "SameSite=Lax", "Max-Age=86400"} <= attributes
    assert not [attribute for attribute in attributes if attribute.lower().startswith("domain")]


def test_plain_http_on_loopback_has_a_cookie_of_another_name(make_server) -> None:
    """E-17, B112, B113: browsers would refuse `__Host-` and Secure there; no other program of that host has its name."""
    server = make_server({"authserver.issuer": "http://localhost:6543"})
    server.add_user("ann")
    name, attributes = attributes_of(server.sign_in(server.browser()))
    assert (name, attributes) == ("authserver-session", {"Path=/", "HttpOnly", "SameSite=Lax"})
    browser = signed_in(server)
    browser.set_cookie("session", "of-another-program")
    assert is_signed_in(server, browser)
    client, _ = server.add_client()
    page = browser.get(server.authorization_url(client))
    server.consent(page)
    browser.get(server.path("/logout")).forms[0].submit()
    assert browser.cookies["session"] == '"of-another-program"'


def test_signing_in_renews_the_id(server: Server, stranger: TestApp) -> None:
    """E-17, T098: a stranger has none; each sign-in gives another, and the old one is worth nothing."""
    stranger.get(server.path("/login"))
    assert COOKIE not in stranger.cookies
    server.sign_in(stranger)
    first = stranger.cookies[COOKIE]
    server.sign_in(stranger)
    second = stranger.cookies[COOKIE]
    assert first != second
    assert not with_cookie(server, f"{COOKIE}={first}")
    assert with_cookie(server, f"{COOKIE}={second}")
    assert len(server.rows("sessions")) == 1


@pytest.mark.parametrize("change", ["sign-in", "sign-out", "password", "everywhere"])
def test_whoever_is_signed_in_changes_the_id_changes(server: Server, browser: TestApp, change: str) -> None:
    """E-17, T098: at sign-in and a changed password; it ends at sign-out. The id of before is worth nothing."""
    before = browser.cookies[COOKIE]
    match change:
        case "sign-in":
            server.sign_in(browser)
        case "sign-out":
            browser.get(server.path("/logout")).forms[0].submit()
        case "everywhere":
            browser.get(server.path("/account/sign-out-everywhere")).forms[0].submit()
        case "password":
            form = form_with(browser.get(server.path("/account/password")), "repeated")
            form["current_password"] = PASSWORD
            form["new_password"] = form["repeated"] = "another good password"
            assert form.submit().status_int == 303
    after = browser.cookies.get(COOKIE)
    assert after != before
    assert not with_cookie(server, f"{COOKIE}={before}")
    assert with_cookie(server, f"{COOKIE}={after}") == (change in ("sign-in", "password"))
    assert (after is None) == (change in ("sign-out", "everywhere"))


def test_a_planted_session_is_not_adopted(server: Server) -> None:
    """T098: whatever an attacker has from his own visit and puts into the victim's browser stays a stranger's."""
    attacker = signed_in(server)
    planted = attacker.cookies[COOKIE]
    attacker.get(server.path("/logout")).forms[0].submit()
    victim = server.browser()
    victim.set_cookie(COOKIE, planted)
    server.sign_in(victim)
    assert victim.cookies[COOKIE] != planted
    assert not is_signed_in(server, attacker)
    assert not with_cookie(server, f"{COOKIE}={planted}")


def test_a_failed_sign_in_keeps_the_stranger_a_stranger(server: Server, stranger: TestApp) -> None:
    """T098: no session is stored."""
    server.sign_in(stranger, password="wrong password")
    assert not is_signed_in(server, stranger)
    assert server.rows("sessions") == []


def test_nothing_is_stored_about_a_stranger(server: Server, stranger: TestApp) -> None:
    """E-02: before somebody signs in, the cookie is all there is."""
    client, _ = server.add_client()
    before = records(server)
    stranger.get(server.authorization_url(client)).follow()
    assert records(server) == before


@pytest.mark.parametrize(
    "forge", ["as is", "own mac", "other mac", "bare", "empty", "cut", "latin", "request mac"]
)
def test_a_forged_cookie_is_no_session(server: Server, browser: TestApp, forge: str) -> None:
    """T098: no cookie content is trusted without its MAC, and an id that we did not issue is not adopted."""
    session_id, _, mac = browser.cookies[COOKIE].partition(".")
    invented = digests.new_credential(digests.SESSION)
    other = server.browser()
    other.get(server.path("/login"))
    (request_mac,) = other.cookies.values()
    value = {
        "as is": invented,
        "own mac": f"{invented}.{mac}",
        "other mac": f"{session_id}.{mac[:-2]}AA",
        "bare": session_id,
        "empty": "",
        "cut": f"{session_id}.",
        "latin": f"{session_id}.\xff\xfe",
        "request mac": f"{session_id}.{request_mac}",
    }[forge]
    assert not with_cookie(server, f"{COOKIE}={value}")
    assert with_cookie(server, f"{COOKIE}={session_id}.{mac}")


def test_an_id_with_our_mac_needs_a_live_session(server: Server, browser: TestApp) -> None:
    """T098: the row decides, not the cookie."""
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM sessions")
    assert not is_signed_in(server, browser)


@pytest.mark.parametrize("order", ["mine first", "mine last", "the same twice"])
def test_two_cookies_are_none(server: Server, browser: TestApp, order: str) -> None:
    """T099: a sibling domain tossed one in; nobody can say which, so nobody is signed in."""
    mine = f"{COOKIE}={browser.cookies[COOKIE]}"
    server.add_user("bob")
    tossed = f"{COOKIE}={signed_in(server, 'bob').cookies[COOKIE]}"
    header = {
        "mine first": f"{mine}; {tossed}",
        "mine last": f"{tossed};{mine}",
        "the same twice": f"{mine}; {mine}",
    }[order]
    assert not with_cookie(server, header)
    assert with_cookie(server, f"a=b; {mine}; session=x; x{COOKIE}=y")


@pytest.mark.parametrize("path", ["/oauth/authorize", "/account/apps"])
def test_two_session_cookies_lead_to_a_page_that_says_what_to_do(
    server: Server, browser: TestApp, path: str
) -> None:
    """T099: one of them may be sent below this path only; a redirect to the sign-in page would come back."""
    client, _ = server.add_client()
    url = server.authorization_url(client) if path == "/oauth/authorize" else server.path(path)
    mine = f"{COOKIE}={browser.cookies[COOKIE]}"
    answer = server.browser().get(url, headers={"Cookie": f"{mine}; {mine}"}, status="*")
    assert_page_error(answer, status=400)
    assert "Delete the cookies of this site" in answer.text
    assert server.events()[-1]["reason"] == "two-sessions"
    assert server.browser().get(url, headers={"Cookie": mine}).status_int == 200


def test_two_browsers_are_two_sessions(server: Server, browser: TestApp) -> None:
    """E-04.a, T091: of one user; a form token of one is none in the other."""
    other = signed_in(server)
    page, other_page = browser.get(server.path("/logout")), other.get(server.path("/logout"))
    tokens = {fields["csrf_token"].value for fields in (page.forms[0], other_page.forms[0])}
    assert len(tokens) == 2
    form = {"csrf_token": other_page.forms[0]["csrf_token"].value}
    assert_page_error(browser.post(server.path("/logout"), form, status="*"), status=403)
    assert is_signed_in(server, browser)


def test_a_disabled_user_is_out_at_the_next_request(server: Server, browser: TestApp) -> None:
    """R-09: no page greets them, a consent form sent now leads to sign-in, and no code comes out."""
    client, _ = server.add_client()
    page = browser.get(server.authorization_url(client))
    with server.application.begin() as engine:
        disable_user(engine, "ann")
    assert not is_signed_in(server, browser)
    answer = server.consent(page)
    assert answer.location.startswith(f"{server.issuer}/login?")
    assert browser.get(server.authorization_url(client)).location.startswith(f"{server.issuer}/login?")
    assert server.sign_in(browser).status_int == 400
    assert server.rows("grants") == []


@pytest.mark.parametrize(("key", "seconds"), [("session_lifetime", 600), ("session_idle_lifetime", 300)])
def test_a_session_ends(make_server, key: str, seconds: int) -> None:
    """E-17, OIDC-57: after its lifetime in any case, and when nobody used it."""
    server = make_server({f"authserver.{key}": str(seconds)})
    server.add_user("ann")
    browser = signed_in(server)
    start = datetime.now(UTC)
    with time_machine.travel(start + timedelta(seconds=seconds - 10)):
        assert is_signed_in(server, browser)
    with time_machine.travel(start + timedelta(seconds=seconds + 200)):
        # Being seen just before kept it from idling, but not from ending.
        assert is_signed_in(server, browser) == (key == "session_idle_lifetime")
    with time_machine.travel(start + timedelta(seconds=3 * seconds)):
        assert not is_signed_in(server, browser)


def test_only_a_digest_of_the_session_is_stored(server: Server, browser: TestApp) -> None:
    """R-01: a database read gives no cookie."""
    session_id = browser.cookies[COOKIE].partition(".")[0]
    assert session_id not in repr(records(server)) + repr(server.events())


def test_a_rotated_key_signs_nobody_out(make_server) -> None:
    """E-17: while the old key is in the ring, its cookies and forms count."""
    old = make_server()
    old.add_user("ann")
    browser = signed_in(old)
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    token = browser.get(old.path("/logout")).forms[0]["csrf_token"].value
    new_key = "new:" + "A" * 43 + "="
    both = make_server({"authserver.secret_keys": f"{new_key} {old.ini['authserver.secret_keys']}"})
    assert with_cookie(both, cookie)
    answer = both.browser().post("/logout", {"csrf_token": token}, headers={"Cookie": cookie})
    assert answer.status_int == 200
    assert not with_cookie(both, cookie)


def test_the_password_is_nowhere(server: Server, stranger: TestApp, caplog: pytest.LogCaptureFixture) -> None:
    """R-04: not in the log, the events or the tables, right or wrong."""
    page = stranger.get(server.path("/login"))
    sign_in_at(page, password="a wrong password")
    sign_in_at(page)
    everything = caplog.text + repr(records(server)) + repr(server.events())
    assert "a wrong password" not in everything
    assert PASSWORD not in everything
    assert fields_of(page, "username")["csrf_token"] not in everything
