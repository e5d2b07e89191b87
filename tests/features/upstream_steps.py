"""Signing in through a provider, as a browser goes: to this server, to the provider, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from webtest import TestApp, TestResponse

from authserver.api import Decision, Identity, allow, deny, hookimpl
from authserver.testing.live import live_server
from authserver.testing.server import ISSUER, SETTINGS, Server


@dataclass(frozen=True)
class Sales:
    """Says who people of the provider are: those of the sales department, whatever the entry says."""

    reasons: ClassVar[frozenset[str]] = frozenset({"of-sales", "not-of-sales"})
    immediate: ClassVar[bool] = True

    refuses: bool = False

    @hookimpl
    def identity_decision(self, provider: str, claims: Mapping[str, Any]) -> Decision[Identity] | None:
        if self.refuses:
            return deny("not-of-sales")
        name = f"{provider}-{claims['preferred_username']}"
        return allow("of-sales", Identity(username=name, groups=("sales", "authserver-admins")))


CALLBACK = f"{ISSUER}/login/staff/callback"
PREFIX = "authserver.plugin.upstream.providers."
PROVIDER = {
    "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nopenid\nstep_up",
    "authserver.plugin.step_up.levels": "password = pwd",
    "authserver.plugin.step_up.wished_with": "openid",
}


def with_provider(issuer: str, client_id: str, secret: str, **changes: str) -> dict[str, str | None]:
    """INI keys of a server with this provider, which is called `staff`."""
    entry = {
        "issuer": issuer,
        "client_id": client_id,
        "client_secret": secret,
        "label": "Staff",
        "adds_people": "true",
        **changes,
    }
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nupstream",
        "authserver.fetch_loopback": "true",
        **{f"{PREFIX}staff.{name}": text for name, text in entry.items()},
    }


@contextmanager
def a_provider(database_url: str) -> Iterator[Server]:
    """This product in a process of its own, as a provider with the user Ann."""
    with live_server(database_url, PROVIDER) as provider:
        provider.add_user("ann", attributes={"email": ("ann@example.com",)})
        yield provider


def query_of(location: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(location).query, keep_blank_values=True))


def path_of(location: str) -> str:
    """Path and query: what a browser of the tests opens at the server of that address."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def to_the_provider(browser: TestApp, **query: str) -> str:
    """From the sign-in page by its button; the address at the provider."""
    page = browser.get("/login", query)
    there = browser.get(path_of(page.html.find("a", string="Staff")["href"]))
    assert there.status_int == 303, there
    return str(there.location)


def agree(provider: Server, browser: TestApp, address: str, username: str = "ann") -> str:
    """Sign in at the provider and agree there; the address that it sends the browser back to."""
    answer: Any = browser.get(path_of(address))
    if urlsplit(answer.location or "").path == "/login":
        provider.sign_in(browser, username)
        answer = browser.get(path_of(address))
    if answer.status_int == 200:
        answer = provider.consent(answer)
    return str(answer.location)


def walk(server: Server, provider: Server, browser: TestApp | None = None) -> TestResponse:
    """All of it: the answer to the callback."""
    browser = browser or server.browser()
    back = agree(provider, provider.browser(), to_the_provider(browser))
    return browser.get(path_of(back), expect_errors=True)
