"""Where an authorization response may go: `redirect_uri_decision` and `private_use_redirect_uris`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from authserver.api import (
    LOOPBACK_HOSTS,
    Client,
    Decision,
    allow,
    hookimpl,
    redirect_uri_problem,
    same_loopback_redirect_uri,
)


@dataclass(frozen=True)
class RedirectExact:
    """Accept a registered redirect URI, character by character (OAuth 2.1, 2.3.1)."""

    reasons: ClassVar[frozenset[str]] = frozenset({"registered-exactly"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def redirect_uri_decision(self, client: Client, redirect_uri: str) -> Decision[None] | None:
        if redirect_uri in client.redirect_uris:
            return allow("registered-exactly")
        return None


@dataclass(frozen=True)
class RedirectLoopback:
    """Accept a registered loopback address on any port (RFC 8252, 7.3)."""

    reasons: ClassVar[frozenset[str]] = frozenset({"loopback-port"})
    immediate: ClassVar[bool] = True

    hosts: tuple[str, ...] = ("127.0.0.1", "[::1]")

    def __post_init__(self) -> None:
        if unknown := set(self.hosts) - LOOPBACK_HOSTS:
            known = " ".join(sorted(LOOPBACK_HOSTS))
            raise ValueError(f"hosts: {', '.join(sorted(unknown))}: not a loopback host; known: {known}")

    @hookimpl
    def redirect_uri_decision(self, client: Client, redirect_uri: str) -> Decision[None] | None:
        if any(
            same_loopback_redirect_uri(registered, redirect_uri, self.hosts)
            for registered in client.redirect_uris
        ):
            return allow("loopback-port")
        return None


@dataclass(frozen=True)
class RedirectPrivateUse:
    """Let clients register these URIs although their private-use scheme has no period (RFC 8252, 7.1).

    Attributes:
        uris: complete redirect URIs, compared as whole strings.
    """

    uris: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for uri in self.uris:
            if problem := redirect_uri_problem(uri, private_use=self.uris):
                raise ValueError(f"uris: {uri}: {problem}")

    @hookimpl
    def private_use_redirect_uris(self) -> tuple[str, ...]:
        return self.uris
