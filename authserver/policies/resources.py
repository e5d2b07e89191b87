"""Which resources a token may be for, and which scopes it may have there: `resource_decision`, `scope_decision`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from authserver.api import (
    Decision,
    Resource,
    allow,
    canonical_resource,
    deny,
    hookimpl,
    narrow,
)

ONLY = "only"


@dataclass(frozen=True)
class ResourcesListed:
    """Allow the listed resources (RFC 8707), each with its own scopes.

    Attributes:
        resources: lines `URI = scope scope …`, or `URI = *` for every scope. A token's audience is the URI as it is
            written here; a request may spell scheme, host and empty path differently (O-09).
        default: the resource of a request that names none: a listed URI, or `only` for the one resource that is
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
                "the one that counts when a request names none, or remove the line to refuse such requests"
            )
        if self.default not in ("", ONLY, *dict(self.resources)):
            raise ValueError(f"default: {self.default} is not among resources")
        if len(self.known_resources) < len(self.resources):
            raise ValueError("resources: two lines name the same resource")

    @cached_property
    def known_resources(self) -> Mapping[str, Resource]:
        """The resources of the lines, by their canonical form."""
        default = self.resources[0][0] if self.default == ONLY else self.default
        return {
            canonical_resource(uri): Resource(
                form=canonical_resource(uri),
                uri=uri,
                scopes=None if text == "*" else tuple(text.split()),
                is_default=uri == default,
                settings=("authserver.plugin.resources_listed.resources",),
            )
            for uri, text in self.resources
        }

    @hookimpl
    def resource_decision(self, resource: str | None, registered: Resource | None) -> Decision[str] | None:
        if resource is not None:
            listed = self.known_resources.get(resource)
            return allow("resource-listed", listed.uri) if listed else None
        default = next((each for each in self.known_resources.values() if each.is_default), None)
        if default is not None:
            return allow("resource-default", default.uri)
        # If the default is in the database, `resources_registered` decides.
        return deny("resource-missing") if registered is None else None

    @hookimpl
    def scope_decision(
        self, resources: tuple[str, ...], registered: tuple[Resource, ...]
    ) -> Decision[tuple[str, ...]] | None:
        """Narrow to the scopes of the resources (RFC 8707, 2.2)."""
        listed = {each.form: each for each in self.known_resources.values() if each.uri in resources}
        if not listed:
            return None
        return _narrow(({each.form: each for each in registered} | listed).values())


@dataclass(frozen=True)
class ResourcesRegistered:
    """Allow the resources that operators registered in the database (`authserver resource`), each with its own scopes."""

    reasons: ClassVar[frozenset[str]] = frozenset(
        {
            "resource-default",
            "resource-registered",
            "scopes-of-resource",
        }
    )
    immediate: ClassVar[bool] = True

    @hookimpl
    def resource_decision(self, resource: str | None, registered: Resource | None) -> Decision[str] | None:
        if registered is not None and registered.is_stored:
            return allow("resource-registered" if resource else "resource-default", registered.uri)
        return None

    @hookimpl
    def scope_decision(self, registered: tuple[Resource, ...]) -> Decision[tuple[str, ...]] | None:
        """Narrow to the scopes of the resources (RFC 8707, 2.2)."""
        return _narrow(registered) if any(each.is_stored for each in registered) else None


def _narrow(resources: Iterable[Resource]) -> Decision[tuple[str, ...]] | None:
    """Narrow to the scopes of these resources together; None if one of them has every scope."""
    scopes: list[str] = []
    for resource in resources:
        if resource.scopes is None:
            return None
        scopes += resource.scopes
    return narrow("scopes-of-resource", tuple(scopes))
