"""Sends requests to an authorization server in a test as clients and users do, over HTTP (`Server`) or not (`Rules`)."""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

from authserver.engine.clients.registration import add_client
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.people.login import add_user
from authserver.engine.records import Client, ClientMetadata, User

ISSUER = "https://as.example"
RESOURCE = "https://api.example/"
PASSWORD = "correct horse battery staple"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT_URI = "https://client.example/cb"

Answered = TypeVar("Answered")


class Service(ABC, Generic[Answered]):
    """An authorization server at which a test registers clients and users, and to which it sends requests."""

    __test__ = False

    @abstractmethod
    def begin(self) -> AbstractContextManager[Engine]:
        """An engine in a new transaction."""

    @abstractmethod
    def post(
        self,
        path: str,
        body: str | bytes,
        *,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """Send exactly this form to an endpoint for clients, and return its response."""

    @abstractmethod
    def code(self, client: Client, **changes: Any) -> str:
        """A fresh authorization code, to which user `ann` agreed."""

    @abstractmethod
    def rows(self, table: str) -> list[dict[str, Any]]:
        """All stored rows of this table."""

    @abstractmethod
    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a JWT access token, verified with the keys of this server."""

    def add_client(
        self, *, client_id: str | None = None, first_party: bool = False, **metadata: Any
    ) -> tuple[Client, str | None]:
        """A client registered by an operator; by default a confidential web client with the code grant."""
        values: dict[str, Any] = {
            "client_name": "Example",
            "redirect_uris": (REDIRECT_URI,),
            "grant_types": ("authorization_code", "refresh_token"),
            "scopes": ("profile", "files.read"),
            **metadata,
        }
        if "authorization_code" not in values["grant_types"]:
            values |= {"redirect_uris": (), "response_types": ()}
        with self.begin() as engine:
            return add_client(engine, ClientMetadata(**values), client_id=client_id, first_party=first_party)

    def add_user(self, username: str = "ann", password: str | None = PASSWORD, **others: Any) -> User:
        """A person with a password."""
        with self.begin() as engine:
            return add_user(engine, username, password, display_name=username.title(), **others)

    def token(self, client: Client, secret: str | None = None, **form: Any) -> Answered:
        """A token request, with the authentication method for which the client is registered."""
        return self.ask("/oauth/token", client, secret, **form)

    def ask(
        self,
        path: str,
        client: Client,
        secret: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **form: Any,
    ) -> Answered:
        """Send a form to an endpoint for clients, with the authentication method for which this client is registered."""
        authorization = None
        if client.auth_method == "client_secret_basic":
            authorization = basic(client.client_id, secret or "")
        else:
            form = {"client_id": client.client_id, **form}
            if secret is not None:
                form["client_secret"] = secret
        return self.post(path, urlencode(form, doseq=True), authorization=authorization, headers=headers)

    def redeem(self, client: Client, secret: str | None, code: str, **form: Any) -> Answered:
        """Redeem a code with the verifier of `CHALLENGE`."""
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, **form}
        return self.token(client, secret, **form)

    def refresh(self, client: Client, secret: str | None, token: str, **form: Any) -> Answered:
        """Present a refresh token."""
        return self.token(client, secret, grant_type="refresh_token", refresh_token=token, **form)

    def introspect(self, client: Client, secret: str | None, token: str, **form: Any) -> Answered:
        """Introspect a token."""
        return self.ask("/oauth/introspect", client, secret, token=token, **form)

    def revoke(self, client: Client, secret: str | None, token: str, **form: Any) -> Answered:
        """Revoke a token."""
        return self.ask("/oauth/revoke", client, secret, token=token, **form)

    def events(self, type: str | None = None) -> list[dict[str, Any]]:
        """The events so far, or those of one type."""
        return [row for row in self.rows("events") if type in (None, row["type"])]


def authorization_query(client: Client, **changes: Any) -> str:
    """A correct authorization request, with these parameters changed; None removes one."""
    parameters: dict[str, Any] = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uris[0] if client.redirect_uris else REDIRECT_URI,
        "scope": "profile",
        "state": "xyz",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)


def self_registration(**metadata: Any) -> dict[str, Any]:
    """The metadata with which a public client registers itself; by default with one https redirect URI."""
    return {
        "client_name": "Stranger",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
        "scope": "profile files.read",
        **metadata,
    }


def response_at(location: str, *, redirect_uri: str, state: str | None) -> dict[str, str]:
    """The parameters of an authorization response, each exactly once, without those of the redirect URI itself."""
    separator = "&" if "?" in redirect_uri else "?"
    assert location.startswith(redirect_uri + separator), location
    pairs = parse_qsl(
        location.removeprefix(redirect_uri + separator), keep_blank_values=True, strict_parsing=True
    )
    values = dict(pairs)
    assert len(values) == len(pairs)
    assert values.get("state") == state
    assert values["iss"] == ISSUER
    return values


def basic(client_id: str, secret: str) -> str:
    """The Authorization header of HTTP Basic, with form-encoded client id and secret (OAuth 2.1, 2.4.1)."""
    halves = ":".join(urlencode({"": half})[1:] for half in (client_id, secret))
    return "Basic " + base64.b64encode(halves.encode()).decode()


def forged(prefix: str) -> str:
    """A well-formed credential that was never issued; always the same, so that the names of tests do not change."""
    text = prefix + "A" * 43
    return text + digests.checksum(text)
