"""Which scopes a token may have: `scope_decision`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Client, Decision, allow, deny, hookimpl


@dataclass(frozen=True)
class ScopesRegistered:
    """Allow the requested scopes if the client is registered for every one of them.

    Programs that register themselves often ask for scopes that this server may not have, such as `email`. At the
    authorization endpoint they get the scopes that they are registered for, if there is at least one.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"scopes-registered", "scopes-left-out", "scope-not-registered"}
    )
    immediate: ClassVar[bool] = True

    @hookimpl
    def scope_decision(
        self, client: Client, grant_type: str, requested: tuple[str, ...]
    ) -> Decision[tuple[str, ...]] | None:
        if not requested:
            return None
        registered = tuple(scope for scope in requested if scope in client.scopes)
        if registered == requested:
            return allow("scopes-registered", requested)
        if registered and client.is_self_registered and grant_type == "authorization_code":
            return allow("scopes-left-out", registered)
        return deny("scope-not-registered")


@dataclass(frozen=True)
class ScopesDefault:
    """Grant these scopes to a request that names none, if the client is registered for them."""

    reasons: ClassVar[frozenset[str]] = frozenset({"scopes-default"})
    immediate: ClassVar[bool] = True

    scopes: tuple[str, ...] = ()

    @hookimpl
    def scope_decision(self, client: Client, requested: tuple[str, ...]) -> Decision[tuple[str, ...]] | None:
        if requested:
            return None
        scopes = tuple(scope for scope in self.scopes if scope in client.scopes)
        return allow("scopes-default", scopes) if scopes else None
