"""The requirement of a request, and the access of a token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A scope, or an acr value (RFC 6749, 3.3).
WORD = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """The requirement of a request beside a valid token.

    Attributes:
        scopes: the scopes that the token must have, all of them.
        acr_values: the accepted levels of sign-in, the best first (RFC 9470, 3).
        max_age: seconds since the person signed in, or None.
    """

    scopes: tuple[str, ...] = ()
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None

    def __post_init__(self) -> None:
        for text in (*self.scopes, *self.acr_values):
            if not WORD.fullmatch(text):
                raise ValueError(f"{text!r}: is no scope and no acr value: one word without quotation marks")
        if self.max_age is not None and self.max_age < 0:
            raise ValueError("max_age: must be 0 or more seconds")


NOTHING = Requirement()


def needs(*scopes: str, acr_values: Iterable[str] = (), max_age: int | None = None) -> Requirement:
    """A requirement: `needs("files.write", max_age=300)`."""
    return Requirement(scopes=scopes, acr_values=tuple(acr_values), max_age=max_age)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The access of a request: subject, client and scopes. It does not contain the token (OAuth 2.1, 7.1.4).

    Attributes:
        issuer: the issuer of the token.
        subject: the person, or the client itself; unique at the issuer only.
        client_id: the program that sent the request.
        scopes: the scopes of the token, and those that they imply.
        held: the scopes of the token alone.
        expires_at: the end of the token in Unix seconds, or None if the issuer does not state it.
        claims: the claims of the JWT, or the members of the introspection answer.
        scheme: `Bearer` or `DPoP`.
        headers: the headers to add to the response.
    """

    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    held: frozenset[str]
    expires_at: float | None
    claims: Mapping[str, Any] = field(repr=False)
    scheme: str = "Bearer"
    headers: tuple[tuple[str, str], ...] = ()

    def __contains__(self, scope: str) -> bool:
        """Whether the token allows a scope."""
        return scope in self.scopes
