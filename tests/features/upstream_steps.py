"""Signing in through a provider, as a browser goes: to this server, to the provider, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey
from webtest import TestApp, TestResponse

from authserver.api import Decision, Identity, allow, deny, hookimpl
from authserver.engine.records import NOTHING
from authserver.testing.live import live_server
from authserver.testing.origins import Origin, Reply, sending, serving
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


class Liar:
    """A provider that answers as a test says: what is in `configuration`, `claims`, `header` and `userinfo` is changed.

    Attributes:
        issuer: where it is.
        nonce: of the attempt that its next ID token answers.
        signs_with: the key; `publishes` are those in its key set.
        algorithm: of the signature; `token` is sent in place of what would be made.
        answers: what is answered in place of the whole reply, by path.
        asked: the forms that came to its token endpoint.
    """

    def __init__(self, origin: Origin) -> None:
        self.issuer = f"http://127.0.0.1:{origin.port}"
        self.configuration: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.answers: dict[str, Reply] = {}
        self.nonce = ""
        self.token: str | None = None
        self.algorithm = "ES256"
        self.signs_with = ECKey.generate_key("P-256", {"kid": "first", "use": "sig", "alg": "ES256"})
        self.publishes: list[Any] = [self.signs_with]
        self.origin = origin
        origin.reply = self._reply

    @property
    def asked(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(each.body.decode())) for each in self.origin.received if each.path == "/token"]

    def fetched(self, path: str) -> int:
        """How often this path was asked for."""
        return sum(each.path == path for each in self.origin.received)

    def id_token(self, **changes: Any) -> str:
        """Signed claims; those that are None are left out."""
        now = int(datetime.now(UTC).timestamp())
        claims = {
            "iss": self.issuer,
            "aud": "authserver",
            "sub": "248289761001",
            "nonce": self.nonce,
            "iat": now,
            "exp": now + 300,
            "preferred_username": "ann",
            "name": "Ann",
            **self.claims,
            **changes,
        }
        header = {"alg": self.algorithm, "kid": self.signs_with.kid, **self.header}
        return str(
            jwt.encode(
                {name: value for name, value in header.items() if value is not None},
                {name: value for name, value in claims.items() if value is not None},
                self.signs_with,
                algorithms=[self.algorithm],
            )
        )

    def _reply(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path in self.answers:
            self.answers[path](handler)
            return
        match path:
            case "/.well-known/openid-configuration":
                said: Any = {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/keys",
                    **self.configuration,
                }
            case "/keys":
                said = {"keys": [key.as_dict(private=False) for key in self.publishes]}
            case "/token":
                said = {"access_token": "there", "id_token": self.token or self.id_token()}
            case _:
                said = {"sub": "248289761001", **self.userinfo}
        sending(json.dumps(said).encode())(handler)


@contextmanager
def a_liar() -> Iterator[Liar]:
    with serving() as origin:
        yield Liar(origin)


def come_back(
    server: Server,
    liar: Liar,
    browser: TestApp | None = None,
    *,
    query: Mapping[str, str] = NOTHING,
    **answer: Any,
) -> TestResponse:
    """To the provider and back with a code; `answer` changes what the provider sends along, None leaves it out."""
    browser = browser or server.browser()
    sent = query_of(to_the_provider(browser, **query))
    liar.nonce = sent["nonce"]
    said = {"code": "a-code", "state": sent["state"], **answer}
    said = {name: value for name, value in said.items() if value is not None}
    return browser.get("/login/staff/callback", said, expect_errors=True)


def reasons(server: Server) -> list[str]:
    """Why people were refused, as the events have it."""
    return [row["reason"] for row in server.rows("events") if row["type"] == "sign_in.refused"]
