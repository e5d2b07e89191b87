"""How long access lasts, shown to clients and to users: `token_response` and `scopes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from authserver.api import OFFLINE_ACCESS, Grant, hookimpl


@dataclass(frozen=True)
class AuthorizationExpiry:
    """Add the end of the grant to token responses, so that clients ask the user in time (NEXT-01)."""

    members: ClassVar[frozenset[str]] = frozenset({"authorization_expires_in"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def token_response(self, grant: Grant, now: datetime) -> Mapping[str, int] | None:
        if grant.user_id is None:
            return None
        return {"authorization_expires_in": int((grant.expires_at - now).total_seconds())}


@dataclass(frozen=True)
class OfflineAccess:
    """Give refresh tokens only to clients to which the user granted the scope `offline_access`."""

    immediate: ClassVar[bool] = True

    sentence: str = "Stay connected while you are away"

    @hookimpl
    def scopes(self) -> Mapping[str, str]:
        return {OFFLINE_ACCESS: self.sentence}
