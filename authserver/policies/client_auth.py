"""How a client proves who it is: `client_auth_decision`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Client, Credentials, Decision, allow, deny, hookimpl


@dataclass(frozen=True)
class ClientSecretBasic:
    """A client secret in the Authorization header (OAuth 2.1, 2.4.1)."""

    reasons: ClassVar[frozenset[str]] = frozenset({"secret-matches", "secret-wrong"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision[None] | None:
        return _by_secret("client_secret_basic", client, credentials)

    @hookimpl
    def server_metadata(self) -> Mapping[str, object]:
        return {"token_endpoint_auth_methods_supported": ["client_secret_basic"]}


@dataclass(frozen=True)
class ClientSecretPost:
    """A client secret in the form body (OAuth 2.1, 2.4.1)."""

    reasons: ClassVar[frozenset[str]] = frozenset({"secret-matches", "secret-wrong"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision[None] | None:
        return _by_secret("client_secret_post", client, credentials)

    @hookimpl
    def server_metadata(self) -> Mapping[str, object]:
        return {"token_endpoint_auth_methods_supported": ["client_secret_post"]}


@dataclass(frozen=True)
class PublicClient:
    """A client without a credential of its own, which PKCE protects (OAuth 2.1, 2.1)."""

    reasons: ClassVar[frozenset[str]] = frozenset({"public-client"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision[None] | None:
        if client.auth_method == credentials.method == "none":
            return allow("public-client")
        return None

    @hookimpl
    def server_metadata(self) -> Mapping[str, object]:
        return {"token_endpoint_auth_methods_supported": ["none"]}


def _by_secret(method: str, client: Client, credentials: Credentials) -> Decision[None] | None:
    if not client.auth_method == credentials.method == method:
        return None
    return allow("secret-matches") if credentials.secret_matches else deny("secret-wrong")
