"""Which resources a token may be for, and which scopes it may have there: `resource_decision`, `scope_decision`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from authserver.api import Decision, allow, canonical_resource, deny, hookimpl, narrow

ONLY = "only"


@dataclass(frozen=True)
class ResourcesListed:
    """Allow the listed resources (RFC 8707), each with its own scopes.

    Attributes:
        resources: a line each, `URI = scope scope …`, or `URI = *` for every scope. A token's audience
            is the URI as written here, however a request spells scheme, host and empty path (O-09).
        default: the resource of a request that names none: a listed URI, or `only`, the one resource that is
            listed. With `only` and several resources the server does not start. Without a default, such a
            request is refused.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"resource-default", "resource-listed", "resource-missing", "scopes-of-resource"}
    )
    immediate: ClassVar[bool] = True

    resources: tuple[tuple[str, str], ...] = ()
    default: str = ""

    def __post_init__(self) -> None:
        for resource, _ in self.resources:
            try:
                canonical_resource(resource)
            except Exception as error:
                raise ValueError(f"resources: {resource}: {error}") from None
        if self.default == ONLY and len(self.resources) != 1:
            raise ValueError(
                f"default: `{ONLY}` is for exactly one resource, and resources lists {len(self.resources)}; name here "
                "the one that counts when a request names none, or take the line out to refuse such requests"
            )
        if self.default not in ("", ONLY, *dict(self.resources)):
            raise ValueError(f"default: {self.default} is not among resources")
        if len(self._by_form) < len(self.resources):
            raise ValueError("resources: two lines name the same resource")

    @cached_property
    def _by_form(self) -> Mapping[str, str]:
        """Each resource as it is listed, by its canonical form."""
        return {canonical_resource(resource): resource for resource, _ in self.resources}

    @hookimpl
    def resource_decision(self, resource: str | None) -> Decision[str] | None:
        if resource is None:
            default = self.resources[0][0] if self.default == ONLY else self.default
            return allow("resource-default", default) if default else deny("resource-missing")
        listed = self._by_form.get(resource)
        return allow("resource-listed", listed) if listed else None

    @hookimpl
    def scope_decision(self, resources: tuple[str, ...]) -> Decision[tuple[str, ...]] | None:
        """Narrow to the scopes of the resources (RFC 8707, 2.2)."""
        texts = [text for resource, text in self.resources if resource in resources]
        if not texts or "*" in texts:
            return None
        return narrow("scopes-of-resource", tuple(scope for text in texts for scope in text.split()))
