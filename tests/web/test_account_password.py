"""Changing the password: what is refused, and what ends with the old one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from webtest import TestApp

from authserver.testing.server import ISSUER, PASSWORD, Server, form_with
from authserver.testing.stories import is_signed_in, records, signed_in
from tests.web.account_steps import COOKIE, NEW_PASSWORD, change_password, is_dead, page_of, post, tokens_of


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_a_changed_password_ends_all_that_the_old_one_led_to(make_server, token_format: str) -> None:
    """I-14, E-17, T073, T098: a new session id, no other session, no grant, no remembered consent."""
    server = make_server({"authserver.access_token_format": token_format})
    server.add_user("ann")
    server.add_user("bob")
    browser, other, bob = signed_in(server), signed_in(server), signed_in(server, "bob")
    client, secret = server.add_client()
    tokens = tokens_of(server, other, client, secret)
    of_bob = tokens_of(server, bob, client, secret)
    cookie = browser.cookies[COOKIE]
    answer = change_password(server, browser)
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/password?notice=password-changed")
    assert "Your password is changed. Your other sessions have ended" in answer.follow().text
    assert browser.cookies[COOKIE] != cookie
    assert not is_signed_in(server, server.browser(), cookie=f"{COOKIE}={cookie}")
    assert [is_signed_in(server, each) for each in (browser, other, bob)] == [True, False, True]
    assert is_dead(server, client, secret, tokens)
    assert not is_dead(server, client, secret, of_bob)
    assert "Allow access to your account?" in browser.get(server.authorization_url(client)).text
    (event,) = server.events("password.changed")
    details = json.loads(event["details"])
    assert (details["sessions"], details["grants"], details["consents"]) == (2, 1, 1)
    assert server.sign_in(server.browser()).status_int == 400
    assert server.sign_in(server.browser(), password=NEW_PASSWORD).status_int == 303


def test_of_those_who_change_a_password_at_once_one_does(server: Server) -> None:
    """I-14, T073: whoever comes second no longer knows the current one, and is signed out."""
    browsers = [signed_in(server) for _ in range(6)]
    forms = []
    for number, browser in enumerate(browsers):
        form = form_with(page_of(server, browser, "password"), "repeated")
        form["current_password"] = PASSWORD
        form["new_password"] = form["repeated"] = f"{NEW_PASSWORD} {number}"
        forms.append(form)
    with ThreadPoolExecutor(len(forms)) as pool:
        answers = list(pool.map(lambda form: form.submit(expect_errors=True), forms))
    changed = [answer for answer in answers if (answer.location or "").endswith("password-changed")]
    assert len(changed) == 1
    winner = answers.index(changed[0])
    for number, (browser, answer) in enumerate(zip(browsers, answers, strict=True)):
        assert is_signed_in(server, browser) == (number == winner)
        # 503: to check six passwords may take longer than a request may wait for its turn.
        assert answer.status_int in (303, 400, 503)
    assert len(server.events("password.changed")) == 1
    assert server.sign_in(server.browser(), password=f"{NEW_PASSWORD} {winner}").status_int == 303


def test_the_renewed_session_lasts_no_longer_than_the_old_one(server: Server, browser: TestApp) -> None:
    """E-17: the absolute limit and how the user signed in stay as they were."""
    (before,) = server.rows("sessions")
    change_password(server, browser)
    (after,) = server.rows("sessions")
    for name in ("authenticated_at", "expires_at", "details", "user_id"):
        assert after[name] == before[name]
    assert after["digest"] != before["digest"]


@pytest.mark.parametrize(
    ("current", "new", "repeated", "field", "reason"),
    [
        ("not this one", NEW_PASSWORD, None, "current_password", "current-password-wrong"),
        ("", NEW_PASSWORD, None, "current_password", "current-password-wrong"),
        ("x" * 2000, NEW_PASSWORD, None, "current_password", "current-password-wrong"),
        (PASSWORD, PASSWORD, None, "new_password", "new-password-same"),
        (PASSWORD, "7 bytes", None, "new_password", "new-password-length"),
        (PASSWORD, "", None, "new_password", "new-password-length"),
        (PASSWORD, "é" * 513, None, "new_password", "new-password-length"),
        (PASSWORD, NEW_PASSWORD, "something else", "repeated", "new-password-differs"),
    ],
    ids=["wrong", "empty", "endless", "same", "short", "no new", "long", "differs"],
)
def test_a_password_that_is_refused_changes_nothing(
    server: Server, browser: TestApp, current: str, new: str, repeated: str | None, field: str, reason: str
) -> None:
    """I-14, T104: a 400 page with the error at its field, an event, and nothing typed comes back."""
    client, secret = server.add_client()
    tokens = tokens_of(server, browser, client, secret)
    other = signed_in(server)
    before = records(server)
    answer = change_password(server, browser, current, new, repeated)
    assert (answer.status_int, answer.content_type) == (400, "text/html")
    assert answer.html.title.get_text().startswith("Error: ")
    wrong = answer.html.find("input", {"aria-invalid": "true"})
    assert wrong["name"] == field
    problem = answer.html.find(id=wrong["aria-describedby"].split()[-1])
    assert problem.get_text() in answer.html.find(role="alert").get_text()
    typed = {text for text in (current, new, repeated) if text and len(text) > 3}
    assert not any(text in answer.text for text in typed)
    assert records(server) == before
    (event,) = server.events("password.refused")
    assert (event["reason"], event["user_id"]) == (reason, server.rows("users")[0]["user_id"])
    assert event["event_id"] in answer.text
    assert is_signed_in(server, browser) and is_signed_in(server, other)
    assert not is_dead(server, client, secret, tokens)


@pytest.mark.parametrize("length", [8, 1024])
def test_a_password_of_the_shortest_and_longest_length_is_taken(
    server: Server, browser: TestApp, length: int
) -> None:
    """T104: 8 to 1024 bytes, as when the user was added."""
    new = ("é" * 512)[: length // 2]
    assert change_password(server, browser, new=new).status_int == 303
    assert server.sign_in(server.browser(), password=new).status_int == 303


def test_who_has_no_password_here_has_none_to_change(server: Server, browser: TestApp) -> None:
    """T100: a sentence instead of the form; a form that is sent all the same is refused."""
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        engine.stores.users.set_password(user.user_id, None)
    page = page_of(server, browser, "password")
    assert "keeps no password for you" in page.text
    assert "new_password" not in page.text
    before = records(server)
    form = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    answer = post(server, browser, "password", **form)
    assert answer.status_int == 400
    assert server.events("password.refused")[0]["reason"] == "no-password-here"
    assert records(server) == before


def test_the_password_fields_say_what_they_are(server: Server, browser: TestApp) -> None:
    """E-01: password managers fill and keep them; nothing is shown while typing."""
    form = form_with(page_of(server, browser, "password"), "new_password")
    kinds = {
        name: (form[name].attrs["type"], form[name].attrs["autocomplete"])
        for name in ("current_password", "new_password", "repeated")
    }
    assert kinds == {
        "current_password": ("password", "current-password"),
        "new_password": ("password", "new-password"),
        "repeated": ("password", "new-password"),
    }
    page = page_of(server, browser, "password")
    assert page.html.find("input", autocomplete="username")["value"] == "ann"


def test_no_password_is_written_anywhere(
    server: Server, browser: TestApp, caplog: pytest.LogCaptureFixture
) -> None:
    """R-04: neither the old one nor the new one, changed or refused."""
    change_password(server, browser, current="a wrong password")
    change_password(server, browser)
    everything = caplog.text + repr(records(server)) + repr(server.events())
    for text in ("a wrong password", PASSWORD, NEW_PASSWORD):
        assert text not in everything
