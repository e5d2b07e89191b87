"""Who is signing in: `login_decision`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Decision, Identity, Secret, User, allow, deny, hookimpl, verify_password


@dataclass(frozen=True)
class LoginPassword:
    """Check the password against the stored hash (Argon2id)."""

    reasons: ClassVar[frozenset[str]] = frozenset({"password-matches", "password-wrong"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def login_decision(self, password: Secret, user: User | None) -> Decision[Identity] | None:
        if not password.value:
            return None
        # Always hash, so that the time does not show which user names exist (T100).
        matches = verify_password(password.value, user.password_hash if user else None)
        if user is None or user.password_hash is None:
            return None
        if not matches:
            return deny("password-wrong")
        return allow("password-matches", Identity(username=user.username, display_name=user.display_name))
