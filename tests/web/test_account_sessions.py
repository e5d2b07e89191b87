"""Where somebody is signed in: what is shown of each session, and ending them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from webtest import TestApp

from authserver.testing.server import ISSUER, Server, form_with
from authserver.testing.stories import is_signed_in, records, signed_in
from tests.web.account_steps import page_of, post

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


def sign_in_with(server: Server, user_agent: str, address: str) -> TestApp:
    browser = server.browser()
    browser.extra_environ |= {"HTTP_USER_AGENT": user_agent, "REMOTE_ADDR": address}
    assert server.sign_in(browser).status_int == 303
    return browser


def test_sessions_are_shown_with_device_address_and_times(server: Server) -> None:
    """E-17: this one first and marked; the rest as far as known."""
    sign_in_with(server, "", "2001:db8::7")
    browser = sign_in_with(server, FIREFOX, "192.0.2.9")
    this, other = page_of(server, browser, "sessions").html.find_all("section")
    assert "Firefox on Linux" in " ".join(this.h2.get_text().split()) and "This one" in this.h2.get_text()
    assert "192.0.2.9" in this.get_text()
    assert len(this.find_all("time")) == 2
    assert "does not say which it is" in other.h2.get_text() and "This one" not in other.get_text()
    assert "2001:db8::7" in other.get_text()


def test_a_session_of_before_is_shown_although_nothing_is_known_of_it(
    server: Server, browser: TestApp
) -> None:
    """E-17: sessions outlive an upgrade."""
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql('UPDATE sessions SET details = \'{"amr": ["pwd"]}\'')
    page = page_of(server, browser, "sessions")
    assert "does not say which it is" in page.text and "unknown" in page.text


def test_a_user_agent_is_kept_cut_and_printable(server: Server) -> None:
    """T094: a browser may send anything."""
    sign_in_with(server, "<b>\x1b[31m\x85" + "x" * 300, "192.0.2.9")
    (session,) = server.rows("sessions")
    assert "<b>[31m" + "x" * 249 + '"' in session["details"]
    assert "x" * 250 not in session["details"]


def test_one_session_is_ended(server: Server, browser: TestApp) -> None:
    """E-17, OIDC-57, T098: the other browser is signed out at its next request, this one stays."""
    other, third = signed_in(server), signed_in(server)
    page = page_of(server, other, "sessions")
    handles = [form.fields["session"][0]._value for form in page.forms.values() if "session" in form.fields]
    assert len(handles) == 2
    digests = {bytes(row["digest"]).hex() for row in server.rows("sessions")}
    assert not any(handle in digest for handle in handles for digest in digests)
    answer = post(server, other, "sessions", session=handles[0])
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/sessions?notice=session-ended")
    assert "That session has ended." in answer.follow().text
    assert is_signed_in(server, other)
    assert is_signed_in(server, browser) != is_signed_in(server, third)
    assert len(server.events("session.ended")) == 1
    again = post(server, other, "sessions", session=handles[0])
    assert again.location.endswith("notice=nothing-changed")


def test_all_other_sessions_are_ended(server: Server, browser: TestApp) -> None:
    """E-17: this one stays, and so do those of others."""
    server.add_user("bob")
    bob, other, third = signed_in(server, "bob"), signed_in(server), signed_in(server)
    answer = form_with(page_of(server, browser, "sessions"), "others").submit("others")
    assert answer.location == f"{ISSUER}/account/sessions?notice=others-ended"
    assert [is_signed_in(server, each) for each in (browser, bob, other, third)] == [True, True, False, False]
    (event,) = server.events("session.ended")
    details = json.loads(event["details"])
    assert (details["sessions"], len(details["ended_sessions"])) == (2, 2)
    assert (
        "others" not in page_of(server, browser, "sessions").text.partition("<main")[2].partition("Lost")[0]
    )


@pytest.mark.parametrize("handle", ["of ann", "digest of ann", "unknown", "é", "x" * 5000])
def test_nobody_ends_a_session_of_others(server: Server, browser: TestApp, handle: str) -> None:
    """E-17: a handle means something to its own user alone."""
    ann = signed_in(server)
    page = page_of(server, browser, "sessions")
    digest = bytes(server.rows("sessions")[0]["digest"]).hex()
    names = {"of ann": form_with(page, "session").fields["session"][0]._value, "digest of ann": digest}
    server.add_user("bob")
    bob = signed_in(server, "bob")
    before, events = records(server), server.events()
    answer = post(server, bob, "sessions", session=names.get(handle, handle))
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/sessions?notice=nothing-changed")
    assert (records(server), server.events()) == (before, events)
    assert is_signed_in(server, ann)


def test_an_idle_or_expired_session_is_not_listed(make_server) -> None:
    """E-17: what has ended by itself is no session any more."""
    server = make_server({"authserver.session_lifetime": "600", "authserver.session_idle_lifetime": "300"})
    server.add_user("ann")
    signed_in(server)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=400)):
        page = page_of(server, signed_in(server), "sessions")
        assert len(page.html.find_all("section")) == 1
