"""The resources that tokens may be for (RFC 8707), from the INI and the store.

The INI takes precedence: a resource that it names is not looked up. So a server whose resources are all in the INI
reads nothing more from its database; `authserver lint` lists the resources that are in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from authserver.engine import uris
from authserver.engine.ports import Resources
from authserver.engine.records import Resource
from authserver.settings import AccessTokenFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenForm:
    """The format of access tokens, and their lifetime in seconds; None: not set here."""

    token_format: AccessTokenFormat | None = None
    token_lifetime: int | None = None


class Registry:
    """The resources of the INI and the store, for one request: each is looked up once, unless the request changes one.

    Args:
        listed: those of the INI, by their canonical form.
        stored: those of the store.
    """

    __slots__ = ("_found", "_listed", "_stored")

    def __init__(self, listed: Mapping[str, Resource], stored: Resources) -> None:
        self._listed = listed
        self._stored = stored
        self._found: dict[str | None, Resource | None] = {}

    def find(self, resource: str | None) -> Resource | None:
        """The resource of this URI in any spelling, or with None the default one. None if there is none."""
        form = None if resource is None else uris.resource_form(resource)
        if form is not None and form in self._listed:
            return self._listed[form]
        if form not in self._found:
            self._found[form] = self._default() if form is None else self._stored.find(form)
        return self._found[form]

    def look_again(self) -> None:
        """Forget what was looked up, because this request has changed a resource."""
        self._found.clear()

    def of(self, resources: Iterable[str]) -> tuple[Resource, ...]:
        """Those of these resources that are known."""
        found = map(self.find, resources)
        return tuple(resource for resource in found if resource is not None)

    def all(self) -> tuple[Resource, ...]:
        """All resources, those of the INI first; one that is in both only as the INI has it."""
        stored = (resource for resource in self._stored.list() if resource.form not in self._listed)
        return (*self._listed.values(), *stored)

    def page(self, *, after: str = "", limit: int) -> tuple[Resource, ...]:
        """The next resources in the order of `all`, beginning after the one of this canonical form."""
        listed = list(self._listed.values())
        if after in self._listed:
            listed = listed[list(self._listed).index(after) + 1 :]
            after = ""
        elif after:
            listed = []
        found = listed[:limit]
        while len(found) < limit and (batch := self._stored.page(after=after, limit=limit)):
            found += [resource for resource in batch if resource.form not in self._listed]
            after = batch[-1].form
        return tuple(found[:limit])

    def in_both(self) -> tuple[Resource, ...]:
        """The resources of the INI that are also in the store, where they have no effect."""
        forms = {resource.form for resource in self._stored.list()}
        return tuple(resource for form, resource in self._listed.items() if form in forms)

    def _default(self) -> Resource | None:
        listed = next((resource for resource in self._listed.values() if resource.is_default), None)
        default = listed or self._stored.default()
        # A resource of the store has no effect if the INI names it.
        return self._listed.get(default.form, default) if default else None


def described(resource: Resource) -> dict[str, object]:
    """Its members in events."""
    return {
        "resource": resource.uri,
        "name": resource.name,
        "scopes": None if resource.scopes is None else list(resource.scopes),
        "token_format": resource.token_format,
        "token_lifetime": resource.token_lifetime,
        "is_default": resource.is_default,
        "introspecting_clients": list(resource.introspecting_clients),
    }
