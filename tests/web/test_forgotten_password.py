"""Somebody who forgot a password asks for a mail with a link; and the mail about a password that has changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from webtest import TestResponse

from authserver.engine.people.login import add_user, disable_user
from authserver.engine.people.password_links import make_link
from authserver.testing.plans import transcript_of
from authserver.testing.server import PASSWORD, Server, form_with, with_plugin
from authserver.testing.stories import sign_in_at, signed_in
from authserver.testing.threads import until
from tests.mail_servers import MailServer, mail_server
from tests.web.account_steps import NEW_PASSWORD, change_password
from tests.web.test_password_links import chosen, made, opened

PAGE = "/forgot-password"
ADDRESS = "ann@people.example"


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def server(make_server: Callable[..., Server], mails: MailServer) -> Server:
    """A server that sends mail, with ann, who has an address, and bob, who has none."""
    server = make_server(with_mail(mails))
    server.add_user("ann", attributes={"email": [ADDRESS]})
    server.add_user("bob")
    return server


def with_mail(mails: MailServer, **others: str) -> dict[str, str | None]:
    fields = {"host": "localhost", "port": str(mails.port), "tls": "none", "sender": "sign-in@server.example"}
    return with_plugin("smtp_mail", fields | others)


def asked(server: Server, username: str, language: str = "") -> TestResponse:
    """The page after somebody asked for a link."""
    browser = server.browser()
    headers = {"Accept-Language": language} if language else {}
    form = form_with(browser.get(server.path(PAGE), headers=headers), "username")
    form["username"] = username
    return form.submit(headers=headers, expect_errors=True)


def settled(server: Server) -> None:
    """Wait until nothing is left to be sent."""
    assert until(lambda: server.application.mailer.is_idle, 10)


def link_in(text: str) -> str:
    (link,) = re.findall(r"https://\S+#user_\S+", text)
    return link


def test_a_mail_brings_a_link_with_which_the_password_is_set(server: Server, mails: MailServer) -> None:
    """From the sign-in page to a session; then the person is told that the password has changed."""
    login = server.browser().get(server.path("/login"))
    assert login.click("Forgot your password?").request.path == PAGE
    answer = asked(server, "  ANN ")
    assert answer.status_int == 303
    assert "a mail with a link is on its way" in answer.follow().text
    (message,) = mails.messages()
    text = message.get_content()
    assert (message["To"], message["Subject"]) == (ADDRESS, "Set a new password for authserver")
    assert "Hello Ann," in text and "Your username is ann." in text and "If you did not ask for it" in text
    answer = chosen(opened(server, server.browser(), link_in(text)))
    assert sign_in_at(answer.follow(), password=NEW_PASSWORD).status_int == 303
    _, changed = mails.messages(2)
    assert (changed["To"], changed["Subject"]) == (ADDRESS, "Your password for authserver has changed")
    assert server.issuer + PAGE in changed.get_content() and "#" not in changed.get_content()
    made = server.events("password_link.made")
    assert [(event["actor"], event["source"]) for event in made] == [("stranger", "192.0.2.1")]


def test_the_mail_is_in_the_language_of_the_person(server: Server, mails: MailServer) -> None:
    asked(server, "ann", "de-AT, en;q=0.5")
    (message,) = mails.messages()
    assert message["Content-Language"] == "de"
    assert message["Subject"] != "Set a new password for authserver" and "Ann" in message.get_content()


@pytest.mark.parametrize("username", ["nobody", "bob", "dora", "disabled", "x" * 5000, "a b", "", "é"])
def test_the_answer_is_the_same_whoever_there_is(server: Server, mails: MailServer, username: str) -> None:
    """T100: for a name that nobody has, and for people without a mail address, a password here or an enabled account."""
    server.add_user("dora", None, attributes={"email": ["dora@people.example"]})
    server.add_user("disabled", attributes={"email": ["disabled@people.example"]})
    with server.application.begin() as engine:
        disable_user(engine, "disabled")
    answer, known = asked(server, username), asked(server, "ann")
    assert (answer.status_int, answer.location) == (known.status_int, known.location)
    assert answer.follow().text == known.follow().text
    assert [each["To"] for each in mails.messages()] == [ADDRESS]
    settled(server)
    assert len(mails.envelopes) == 1
    reasons = {"bob": "no-mail-address", "dora": "no-password-here", "disabled": "user-disabled"}
    refused = [event["reason"] for event in server.events("password.refused")]
    assert refused == ([reasons[username]] if username in reasons else [])


def test_nothing_is_looked_up_before_the_answer(server: Server) -> None:
    """T100: so it takes as long for every name."""
    statements = []
    for username in ("ann", "nobody"):
        browser = server.browser()
        form = form_with(browser.get(server.path(PAGE)), "username")
        form["username"] = username
        settled(server)
        server.application.mailer.stop()
        with transcript_of(server.application) as seen:
            form.submit()
        statements.append(list(seen))
    assert statements[0] == statements[1] and not any("users" in each for each in statements[0])


def test_without_a_plugin_that_sends_mail_there_is_no_such_page(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.add_user()
    assert server.browser().get(server.path(PAGE), status="*").status_int == 404
    login = server.browser().get(server.path("/login"))
    assert "Forgot your password?" not in login.text
    assert "Ask for a new link" not in opened(server, server.browser(), "nonsense").text


def test_a_link_that_does_not_work_leads_to_a_new_one(server: Server) -> None:
    refused = opened(server, server.browser(), "nonsense")
    assert refused.click("Ask for a new link").request.path == PAGE


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}])
def test_a_forged_form_sends_nothing(server: Server, mails: MailServer, headers: dict[str, str]) -> None:
    """E-03, T092."""
    browser = server.browser()
    form = {"username": "ann"}
    if headers:
        form["csrf_token"] = form_with(browser.get(server.path(PAGE)), "username")["csrf_token"].value
    assert browser.post(server.path(PAGE), form, headers=headers, status="*").status_int == 403
    settled(server)
    assert not mails.envelopes


def test_mails_are_limited_by_name_and_by_source(
    make_server: Callable[..., Server], mails: MailServer
) -> None:
    """T101: the same for a name that nobody has; no limit has the name itself."""
    limits = """
        names = forgotten_password, account, 2, hour
        sources = forgotten_password, source, 5, hour
    """
    server = make_server(
        {
            **with_mail(mails),
            **with_plugin("rate_limits", {"limits": limits}),
            "authserver.plugins": with_mail(mails)["authserver.plugins"] + "\nrate_limits",
        }
    )
    server.add_user("ann", attributes={"email": [ADDRESS]})
    for username in ("ann", "nobody"):
        assert [asked(server, username).status_int for _ in range(3)] == [303, 303, 429]
    assert asked(server, "x").status_int == 303
    assert asked(server, "y").status_int == 429
    used = server.application.parts.policies.plugin("rate_limits").usage()
    assert not any("nobody" in item.who or "ann" in item.who for item in used)


def test_a_newer_mail_makes_the_one_before_worthless(server: Server, mails: MailServer) -> None:
    asked(server, "ann")
    first = link_in(mails.messages()[0].get_content())
    asked(server, "ann")
    second = link_in(mails.messages(2)[1].get_content())
    assert opened(server, server.browser(), first).status_int == 400
    assert opened(server, server.browser(), second).status_int == 200


def test_whoever_asks_takes_no_link_of_an_operator_away(server: Server, mails: MailServer) -> None:
    """Or any stranger could. The first that is used makes the other one worthless."""
    link = made(server)
    asked(server, "ann")
    sent = link_in(mails.messages()[0].get_content())
    assert opened(server, server.browser(), sent).status_int == 200
    assert chosen(opened(server, server.browser(), link)).status_int == 303
    assert opened(server, server.browser(), sent).status_int == 400


def test_whoever_changes_the_password_is_told(server: Server, mails: MailServer) -> None:
    """By mail, so that the person learns of it if somebody else did."""
    assert change_password(server, signed_in(server), PASSWORD).status_int == 303
    (message,) = mails.messages()
    assert message["Subject"] == "Your password for authserver has changed"
    change_password(server, signed_in(server, "bob"), PASSWORD)
    settled(server)
    assert len(mails.envelopes) == 1


def test_a_first_password_is_no_news(server: Server, mails: MailServer) -> None:
    with server.application.begin() as engine:
        link = make_link(engine, add_user(engine, "new", None, attributes={"email": [ADDRESS]})).address
    assert chosen(opened(server, server.browser(), link)).status_int == 303
    settled(server)
    assert not mails.envelopes


def test_a_change_that_is_refused_is_no_news(server: Server, mails: MailServer) -> None:
    assert change_password(server, signed_in(server), "not this one").status_int == 400
    settled(server)
    assert not mails.envelopes


def test_a_link_lasts_as_long_as_the_page_says(make_server: Callable[..., Server], mails: MailServer) -> None:
    server = make_server({**with_mail(mails), "authserver.password_link_lifetime": "600"})
    server.add_user("ann", attributes={"email": [ADDRESS]})
    assert "within 10 min" in asked(server, "ann").follow().text
    mails.messages()
    (made,) = server.events("password_link.made")
    assert json.loads(made["details"])["seconds"] == 600


def test_another_attribute_may_hold_the_address(
    make_server: Callable[..., Server], mails: MailServer
) -> None:
    """As in a directory; the first of its values. One that is no address gets nothing."""
    server = make_server({**with_mail(mails), "authserver.mail_attribute": "mail"})
    server.add_user("ann", attributes={"mail": [ADDRESS, "b@people.example"], "email": ["c@people.example"]})
    server.add_user("eve", attributes={"mail": ["eve@evil.example, ann@people.example"]})
    asked(server, "eve")
    asked(server, "ann")
    assert [each["To"] for each in mails.messages()] == [ADDRESS]
    settled(server)
    assert [event["reason"] for event in server.events("password.refused")] == ["no-mail-address"]
