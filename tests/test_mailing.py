"""Letters are sent in the background, and tried again."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver import mailing
from authserver.api import Mail, MailFailed, hookimpl
from authserver.engine.letters import Letter, LetterKind, mail_address_problem
from authserver.mailing import Mailer
from authserver.plugins.asking import PluginSet
from authserver.testing.records import a_user
from authserver.testing.rules import Rules
from authserver.testing.server import Server, with_plugin
from authserver.testing.threads import until

LINK = "https://server.example/set-password#user_ann.as_link_SECRET"


class Sends:
    """A plugin that fails so often, then keeps the mail."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.mails: list[Mail] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    @hookimpl
    def send_mail(self, mail: Mail) -> bool:
        assert self.goes_on.wait(10)
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.mails.append(mail)
        return True


def a_letter(**changes: Any) -> Letter:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "kind": LetterKind.NEW_PASSWORD,
        "user": a_user(),
        "recipient": "ann@people.example",
        "written_at": now,
        "link": LINK,
        "until": now + timedelta(hours=1),
    }
    return Letter(**(values | changes))


@pytest.fixture
def mailer_with() -> Iterator[Callable[..., tuple[Mailer, list[str]]]]:
    made: list[Mailer] = []

    def make(plugin: object, **options: Any) -> tuple[Mailer, list[str]]:
        failed: list[str] = []
        mailer = Mailer(
            PluginSet([("sends", plugin)]),
            Rules().parts.settings,
            failed=lambda letter, problem: failed.append(problem),
            **({"in_background": True, "retries": (0.01, 0.01)} | options),
        )
        made.append(mailer)
        return mailer, failed

    yield make
    for mailer in made:
        mailer.stop()


def test_whoever_puts_a_letter_does_not_wait(mailer_with: Callable[..., Any]) -> None:
    plugin = Sends()
    plugin.goes_on.clear()
    mailer, failed = mailer_with(plugin)
    mailer.put([a_letter(), a_letter()])
    assert not plugin.mails
    plugin.goes_on.set()
    assert until(lambda: len(plugin.mails) == 2, 10) and not failed


def test_what_fails_is_tried_again(mailer_with: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Also what a plugin did not expect; the log has nothing of the mail."""
    caplog.set_level(logging.DEBUG)
    plugin = Sends(MailFailed("the server is down"), ValueError("anything"))
    mailer, failed = mailer_with(plugin)
    mailer.put([a_letter()])
    assert until(lambda: bool(plugin.mails), 10)
    assert (plugin.calls, failed) == (3, [])
    assert "the server is down" in caplog.text
    assert "SECRET" not in caplog.text and "people.example" not in caplog.text


@pytest.mark.parametrize(
    ("failures", "calls"),
    [([MailFailed("no such address", is_final=True)], 1), ([MailFailed("the server is down")] * 3, 3)],
)
def test_in_the_end_it_is_given_up(
    mailer_with: Callable[..., Any], failures: list[Exception], calls: int
) -> None:
    plugin = Sends(*failures)
    mailer, failed = mailer_with(plugin)
    mailer.put([a_letter()])
    assert until(lambda: bool(failed), 10)
    assert (plugin.calls, failed) == (calls, [str(failures[0])])


def test_one_that_is_tried_again_holds_up_no_other(mailer_with: Callable[..., Any]) -> None:
    plugin = Sends(MailFailed("greylisted"))
    mailer, _failed = mailer_with(plugin, retries=(60,))
    mailer.put([a_letter(), a_letter(recipient="bob@people.example")])
    assert until(lambda: [mail.recipient for mail in plugin.mails] == ["bob@people.example"], 10)


def test_a_command_sends_at_once_and_says_what_failed(mailer_with: Callable[..., Any]) -> None:
    """But a change of a password has happened, whether the person can be told or not."""
    plugin = Sends(MailFailed("the server is down"), MailFailed("still down"))
    mailer, failed = mailer_with(plugin, in_background=False)
    with pytest.raises(MailFailed, match="the server is down"):
        mailer.put([a_letter()])
    mailer.put([a_letter(kind=LetterKind.PASSWORD_CHANGED, link="")])
    assert failed == ["the server is down", "still down"]
    mailer.put([a_letter()])
    assert len(plugin.mails) == 1


def test_a_mail_that_no_plugin_takes_is_not_sent(mailer_with: Callable[..., Any]) -> None:
    class NotMine:
        @hookimpl
        def send_mail(self) -> None:
            return None

    mailer, _failed = mailer_with(NotMine(), in_background=False)
    with pytest.raises(MailFailed, match="no plugin sends mail to this person"):
        mailer.put([a_letter()])


def test_what_waits_is_bounded(
    mailer_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T114."""
    monkeypatch.setattr(mailing, "MAXIMUM_WAITING", 3)
    plugin = Sends()
    plugin.goes_on.clear()
    mailer, failed = mailer_with(plugin)
    mailer.put([a_letter() for _ in range(10)])
    plugin.goes_on.set()
    assert until(lambda: mailer.is_idle, 10)
    assert 3 <= len(plugin.mails) <= 4
    # An operator who sent one learns of it, and so does whoever searches the events.
    assert failed == ["too much mail waits, or the process ends"] * (10 - len(plugin.mails))
    assert "too much mail waits" in caplog.text


def test_the_end_of_the_process_waits_for_no_mail_server(
    mailer_with: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Sends(MailFailed("the server is down"))
    mailer, _failed = mailer_with(plugin, retries=(60,))
    mailer.put([a_letter()])
    assert until(lambda: plugin.calls == 1, 10)
    mailer.stop()
    mailer.put([a_letter()])
    assert plugin.calls == 1 and "were not sent before the end of this process" in caplog.text


def test_a_mail_that_was_not_sent_leaves_an_event(sqlite_url: str) -> None:
    """Whoever asks why no mail came finds it (T145)."""
    server = Server(sqlite_url, with_plugin(Refuses, {}))
    try:
        user = server.add_user()
        server.application.mailer.put([a_letter(user=user)])
        assert until(lambda: bool(server.events("mail.failed")), 10)
        (event,) = server.events("mail.failed")
        assert (event["user_id"], json.loads(event["details"])) == (user.user_id, {"letter": "new-password"})
    finally:
        server.close()


@dataclass(frozen=True)
class Refuses:
    """A mail server that wants nothing."""

    @hookimpl
    def send_mail(self) -> bool:
        raise MailFailed("refused", is_final=True)


@pytest.mark.parametrize(
    ("text", "is_address"),
    [
        ("ann@people.example", True),
        ("ann.lee+tag@people.example", True),
        ("o'brien@people-of.example.com", True),
        ("ann@localhost", True),
        ("a" * 64 + "@people.example", True),
        ("a" * 65 + "@people.example", False),
        ("ann@" + "a." * 130 + "example", False),
        ("ann", False),
        ("@people.example", False),
        ("ann@", False),
        ("ann@people.example\n", False),
        ("ann@people.example\r\nBcc: eve@evil.example", False),
        ("ann@people.example,eve@evil.example", False),
        ("<ann@people.example>", False),
        ('"ann lee"@people.example', False),
        ("ann@@people.example", False),
        ("ann@[192.0.2.1]", False),
        ("änn@people.example", False),
        ("ann..lee@people.example", False),
    ],
)
def test_what_an_address_is(text: str, is_address: bool) -> None:
    assert (mail_address_problem(text) is None) is is_address
