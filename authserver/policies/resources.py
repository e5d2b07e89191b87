"""Which resources tokens are for: `resource_decision`, and the scopes that make sense there."""

from __future__ import annotations

from dataclasses import dataclass

from authserver.api import Decision, allow, canonical_resource, deny, hookimpl, narrow


@dataclass(frozen=True)
class ResourcesListed:
    """Allow the listed resources (RFC 8707), each with its own scopes.

    Attributes:
        resources: a line each, `URI = scope scope …`, or `URI = *` for every scope.
        default: the resource of a request that names none; without it such a request is refused.
    """

    resources: tuple[tuple[str, str], ...] = ()
    default: str = ""

    def __post_init__(self) -> None:
        for resource, _ in self.resources:
            try:
                canonical = canonical_resource(resource)
            except Exception as error:
                raise ValueError(f"resources: {resource}: {error}") from None
            if canonical != resource:
                raise ValueError(f"resources: {resource}: write it as {canonical}")
        if self.default and self.default not in dict(self.resources):
            raise ValueError(f"default: {self.default} is not among resources")

    @hookimpl
    def resource_decision(self, resource: str | None) -> Decision | None:
        if resource is None:
            return allow("resource-default", self.default) if self.default else deny("resource-missing")
        if resource in dict(self.resources):
            return allow("resource-listed", resource)
        return None

    @hookimpl
    def scope_decision(self, resources: tuple[str, ...]) -> Decision | None:
        """Narrow to the scopes of the resources (RFC 8707, 2.2)."""
        texts = [text for resource, text in self.resources if resource in resources]
        if not texts or "*" in texts:
            return None
        return narrow("scopes-of-resource", tuple(scope for text in texts for scope in text.split()))
