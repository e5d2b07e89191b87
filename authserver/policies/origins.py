"""The web origins whose programs may read the answers that clients get (CORS): `origin_decision`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from authserver.api import Decision, allow, hookimpl, origin_problem


@dataclass(frozen=True)
class OriginsRegistered:
    """Allow the origins of the redirect URIs that clients registered."""

    reasons: ClassVar[frozenset[str]] = frozenset({"origin-registered"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def origin_decision(self, registered: bool) -> Decision[None] | None:
        return allow("origin-registered") if registered else None


@dataclass(frozen=True)
class OriginsListed:
    """Allow these origins, which no redirect URI has, such as those of browser extensions, web views and documentation.

    Attributes:
        origins: as browsers send them, such as `https://app.example.com`, `chrome-extension://` and the id of the
            extension, or `capacitor://localhost`. They are compared as whole strings.
    """

    reasons: ClassVar[frozenset[str]] = frozenset({"origin-listed"})
    immediate: ClassVar[bool] = True

    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.origins:
            if problem := origin_problem(origin):
                raise ValueError(f"origins: {origin}: {problem}")

    @cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.origins)

    @hookimpl
    def origin_decision(self, origin: str) -> Decision[None] | None:
        return allow("origin-listed") if origin in self._listed else None
