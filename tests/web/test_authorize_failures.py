"""What happens at the authorization endpoint when something of ours fails, or nobody vouches for the client."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from authserver.api import Client, Decision, allow, hookimpl
from authserver.storage import database as storage
from authserver.testing.server import ISSUER, REDIRECT_URI, SETTINGS, Server
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    assert_redirect_error,
    records,
    register,
    sign_in_at,
    signed_in,
)


@dataclass(frozen=True)
class BrokenRedirect:
    @hookimpl
    def redirect_uri_decision(self, client: Client) -> Decision | None:
        raise RuntimeError(client.client_id)


@dataclass(frozen=True)
class BrokenResource:
    @hookimpl
    def resource_decision(self) -> Decision | None:
        raise RuntimeError("broken")


@dataclass(frozen=True)
class BrokenScope:
    @hookimpl
    def scope_decision(self) -> Decision | None:
        raise RuntimeError("broken")


@dataclass(frozen=True)
class WrongScope:
    @hookimpl
    def scope_decision(self) -> Decision | None:
        return allow("wrong-type", "profile")


@dataclass(frozen=True)
class BrokenConsent:
    @hookimpl
    def consent_decision(self) -> Decision | None:
        raise RuntimeError("broken")


def with_plugin(make_server: Callable[..., Server], plugin: type) -> Server:
    server = make_server(
        {"authserver.plugins": f"{SETTINGS['authserver.plugins']}\n{__name__}:{plugin.__name__}"}
    )
    server.add_user("ann")
    return server


@pytest.mark.parametrize("plugin", [BrokenResource, BrokenScope, WrongScope, BrokenConsent])
def test_a_failing_policy_is_a_server_error_for_the_client(make_server, plugin: type) -> None:
    """B-19, R-14: after the redirect URI was accepted the client is told; nothing is granted."""
    server = with_plugin(make_server, plugin)
    client, _ = server.add_client()
    browser = signed_in(server)
    before = records(server)
    assert_redirect_error(browser.get(server.authorization_url(client)), "server_error")
    assert records(server) == before
    assert server.events()[-1]["type"] == "authorization.refused"
    assert server.events()[-1]["reason"] in ("plugin-raised", "wrong-value")


def test_a_failing_redirect_uri_policy_is_a_page(make_server) -> None:
    """B-06, R-14: nobody could say whether the URI is right, so nothing goes there."""
    server = with_plugin(make_server, BrokenRedirect)
    client, _ = server.add_client()
    for browser in (signed_in(server), server.browser()):
        before = records(server)
        answer = browser.get(server.authorization_url(client), status="*")
        assert_page_error(answer, "server_error", status=500, supplied=REDIRECT_URI)
        assert records(server) == before


def test_a_stranger_learns_of_no_failure(make_server) -> None:
    """B-16: what fails later is not even asked before somebody is signed in."""
    server = with_plugin(make_server, BrokenScope)
    client, _ = server.add_client()
    answer = server.browser().get(server.authorization_url(client))
    assert answer.location.startswith(f"{ISSUER}/login?")


def test_a_failure_nobody_foresaw_is_a_server_error_for_the_client(server: Server, sqlite_url: str) -> None:
    """B-19: a table is gone; the client gets an error, not a bare 500."""
    client, _ = server.add_client()
    browser = signed_in(server)
    page = browser.get(server.authorization_url(client))
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("ALTER TABLE grants RENAME TO gone")
    assert_redirect_error(server.consent(page), "server_error")
    assert server.rows("consents") == []


@contextmanager
def locked(sqlite_url: str) -> Iterator[None]:
    """Somebody else writes and does not finish."""
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, make_server) -> Server:
    """A server that waits a moment for the database, not seconds."""
    monkeypatch.setattr(storage, "SQLITE_BUSY_TIMEOUT", 0.02)
    server = make_server()
    server.add_user("ann")
    return server


def test_a_locked_database_is_temporarily_unavailable_for_the_client(
    impatient: Server, sqlite_url: str
) -> None:
    """B-19: the client may try again; once the lock is gone the very same form works."""
    client, _ = impatient.add_client()
    page = signed_in(impatient).get(impatient.authorization_url(client))
    with locked(sqlite_url):
        assert_redirect_error(impatient.consent(page), "temporarily_unavailable")
    assert (impatient.rows("tokens"), impatient.rows("consents")) == ([], [])
    assert_code(impatient.consent(page))


def test_a_refusal_that_cannot_be_recorded_is_temporarily_unavailable(
    impatient: Server, sqlite_url: str
) -> None:
    """B-19, R-08: by redirect where one is possible, else by a page."""
    client, _ = impatient.add_client()
    browser = signed_in(impatient)
    with locked(sqlite_url):
        wrong = browser.get(impatient.authorization_url(client, response_type="token"), status="*")
        unknown = browser.get(impatient.authorization_url(client, client_id="nobody"), status="*")
    assert_redirect_error(wrong, "temporarily_unavailable")
    assert_page_error(unknown, "temporarily_unavailable", status=503, supplied=REDIRECT_URI)


def test_a_page_that_cannot_be_recorded_does_not_become_a_redirect(
    impatient: Server, sqlite_url: str
) -> None:
    """E-04.b: bob answers with a form that was shown to ann; the client hears nothing of that."""
    client, _ = impatient.add_client()
    impatient.add_user("bob")
    browser = signed_in(impatient)
    page = browser.get(impatient.authorization_url(client))
    impatient.sign_in(browser, "bob")
    with locked(sqlite_url):
        answer = impatient.consent(page)
    assert_page_error(answer, "temporarily_unavailable", status=503, supplied=REDIRECT_URI)


def assert_leave_page(answer, redirect_uri: str, code: str) -> None:
    assert answer.status_int == 200
    assert "Location" not in answer.headers
    assert "Refresh" not in answer.headers
    assert f'<p class="host"><bdi dir="ltr">{urlsplit(redirect_uri).hostname}</bdi></p>' in answer.text
    (link,) = [link for link in answer.html.find_all("a") if redirect_uri in link["href"]]
    assert link["href"].startswith(f"{redirect_uri}?error={code}&")
    assert link["rel"] == ["noopener", "noreferrer", "nofollow"]


def test_nobody_is_sent_unasked_to_a_uri_that_nobody_vouches_for(server: Server) -> None:
    """B-17: a client that registered itself, on first use: an interstitial names the host."""
    client = register(server)
    browser = signed_in(server)
    before = records(server)
    answer = browser.get(server.authorization_url(client, response_type="token"))
    assert_leave_page(answer, REDIRECT_URI, "unsupported_response_type")
    assert records(server) == before


def test_the_interstitial_follows_sign_in_too(server: Server) -> None:
    """B-16, B-17: phishing through the error redirect of a self-made client needs a click on a named host."""
    client = register(server)
    page = server.browser().get(server.authorization_url(client, scope="nope")).follow()
    assert_leave_page(sign_in_at(page).follow(), REDIRECT_URI, "invalid_scope")


def test_a_failure_does_not_open_the_way_either(make_server) -> None:
    """B-17, B-19: server_error, with the same interstitial."""
    server = with_plugin(make_server, BrokenConsent)
    answer = signed_in(server).get(server.authorization_url(register(server)))
    assert_leave_page(answer, REDIRECT_URI, "server_error")


def test_after_a_first_consent_errors_are_redirected(server: Server) -> None:
    """B-17: the user has decided about this client before; for everybody else it is still the first use."""
    client = register(server)
    ann = signed_in(server)
    assert_code(server.consent(ann.get(server.authorization_url(client))))
    assert_redirect_error(
        ann.get(server.authorization_url(client, response_type="token")), "unsupported_response_type"
    )
    server.add_user("bob")
    answer = signed_in(server, "bob").get(server.authorization_url(client, response_type="token"))
    assert_leave_page(answer, REDIRECT_URI, "unsupported_response_type")


def test_declining_a_stranger_redirects(server: Server) -> None:
    """E-07, B-17: the user saw the host on the consent page and pressed a button."""
    answer = signed_in(server).get(server.authorization_url(register(server)))
    assert_redirect_error(server.consent(answer, "deny"), "access_denied")
