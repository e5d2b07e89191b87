"""Claims about the user in access tokens: `token_claims`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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
