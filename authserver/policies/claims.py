"""Claims about the user: `token_claims` for access tokens, `person_claims` for clients that may ask about a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from authserver.api import User, hookimpl


@dataclass(frozen=True)
class ClaimsProfile:
    """Put the user's name into tokens that carry a certain scope, so that APIs need not look it up."""

    claims: ClassVar[frozenset[str]] = frozenset({"preferred_username", "name"})
    immediate: ClassVar[bool] = True

    scope: str = "profile"

    @hookimpl
    def token_claims(self, user: User | None, scopes: tuple[str, ...]) -> Mapping[str, str] | None:
        if user is None or self.scope not in scopes:
            return None
        # Absent values are left out, not null.
        name = {"name": user.display_name} if user.display_name else {}
        return {"preferred_username": user.username, **name}


@dataclass(frozen=True)
class ClaimsGroups:
    """Tell applications which groups a person is in, if a certain scope was granted."""

    person_claim_names: ClassVar[frozenset[str]] = frozenset({"groups"})
    immediate: ClassVar[bool] = True

    scope: str = "groups"
    sentence: str = "See which groups you are in"

    @hookimpl
    def scopes(self) -> Mapping[str, str]:
        return {self.scope: self.sentence}

    @hookimpl
    def person_claims(self, user: User, scopes: tuple[str, ...]) -> Mapping[str, Any] | None:
        return {"groups": list(user.groups)} if self.scope in scopes else None
