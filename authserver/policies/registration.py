"""Who may register a client: `registration_decision` (RFC 7591)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from authserver.api import (
    INITIAL_ACCESS_TOKEN_REQUIRED,
    Client,
    ClientMetadata,
    Decision,
    Secret,
    allow,
    deny,
    equal,
    hookimpl,
)

PRESENTED = "initial-access-token"


@dataclass(frozen=True)
class RegistrationToken:
    """Let clients register that present one of the operator's initial access tokens, limited like `RegistrationOpen`.

    A client that registered so may change its registration within the same limits, without that token.

    Attributes:
        tokens: the initial access tokens, each of at least 32 random characters.
        scopes: all that such a client may have.
        grant_types: all that it may use.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {PRESENTED, INITIAL_ACCESS_TOKEN_REQUIRED, "grant-type-not-open", "scope-not-open"}
    )
    immediate: ClassVar[bool] = True

    tokens: tuple[Secret, ...] = field(default=(), repr=False)
    scopes: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")

    def __post_init__(self) -> None:
        if any(len(token.value) < 32 for token in self.tokens):
            raise ValueError("tokens: a token has at least 32 random characters")

    @hookimpl
    def registration_decision(
        self, metadata: ClientMetadata, bearer: Secret | None, client: Client | None = None
    ) -> Decision[ClientMetadata] | None:
        if bearer is not None and any([equal(token.value, bearer.value) for token in self.tokens]):
            return _confined(PRESENTED, metadata, self.scopes, self.grant_types)
        if client is not None and PRESENTED in client.registration_reasons:
            return _confined(PRESENTED, metadata, self.scopes, self.grant_types)
        return deny(INITIAL_ACCESS_TOKEN_REQUIRED)


@dataclass(frozen=True)
class RegistrationOpen:
    """Let every client register, limited to these scopes and grant types.

    Other scopes and grant types that a client asks for are left out. A client that asks for none of these scopes gets
    all of them, and one that asks for none of these grant types is refused.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"open-registration", "grant-type-not-open", "scope-not-open"}
    )
    immediate: ClassVar[bool] = True

    scopes: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision[ClientMetadata] | None:
        return _confined("open-registration", metadata, self.scopes, self.grant_types)


def _confined(
    reason: str, metadata: ClientMetadata, most_scopes: tuple[str, ...], grant_types: tuple[str, ...]
) -> Decision[ClientMetadata]:
    """The metadata without what is beyond these limits; a client that could then do nothing is refused."""
    given = tuple(grant_type for grant_type in metadata.grant_types if grant_type in grant_types)
    if not given:
        return deny("grant-type-not-open")
    if not most_scopes:
        return deny("scope-not-open")
    scopes = tuple(scope for scope in metadata.scopes if scope in most_scopes) or most_scopes
    return allow(reason, replace(metadata, scopes=scopes, grant_types=given))
