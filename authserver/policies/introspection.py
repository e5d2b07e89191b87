"""Which clients may introspect a token: `introspection_decision` (RFC 7662)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from authserver.api import Client, Decision, IntrospectedToken, Resource, allow, canonical_resource, hookimpl


@dataclass(frozen=True)
class IntrospectOwn:
    """Let a client ask about the tokens that were issued to it."""

    reasons: ClassVar[frozenset[str]] = frozenset({"own-token"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def introspection_decision(self, caller: Client, token: IntrospectedToken) -> Decision[None] | None:
        return allow("own-token") if token.client_id == caller.client_id else None


@dataclass(frozen=True)
class IntrospectResourceServers:
    """Let a resource server ask about the access tokens that are meant for it (RFC 7662, 4).

    The clients that are registered with a resource in the database (`authserver resource`) may ask, too.

    Attributes:
        clients: lines `client_id = URI URI …`: each names a client that is a resource server, and the resources
            that it serves.
    """

    reasons: ClassVar[frozenset[str]] = frozenset({"in-audience", "introspecting-client"})
    immediate: ClassVar[bool] = True

    clients: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _ = self._served

    @cached_property
    def _served(self) -> Mapping[str, frozenset[str]]:
        """The canonical resources of each client. Raises ValueError."""
        served: dict[str, frozenset[str]] = {}
        for client_id, resources in self.clients:
            if client_id in served:
                raise ValueError(f"clients: two lines name the client {client_id}")
            if not resources.split():
                raise ValueError(f"clients: {client_id}: no resource is named")
            try:
                served[client_id] = frozenset(map(canonical_resource, resources.split()))
            except Exception as error:
                raise ValueError(f"clients: {client_id}: {error}") from None
        return served

    @cached_property
    def known_resources(self) -> Mapping[str, Resource]:
        """The resources of the lines, by their canonical form."""
        return {
            form: Resource(
                form=form,
                uri=form,
                scopes=(),
                introspecting_clients=tuple(name for name, served in self._served.items() if form in served),
                settings=("authserver.plugin.introspect_resource_servers.clients",),
            )
            for form in sorted(frozenset().union(*self._served.values()))
        }

    @hookimpl
    def introspection_decision(
        self, caller: Client, token: IntrospectedToken, registered: tuple[Resource, ...]
    ) -> Decision[None] | None:
        if token.kind != "access":
            return None
        served = self._served.get(caller.client_id, frozenset())
        if any(canonical_resource(resource) in served for resource in token.audience):
            return allow("in-audience")
        if any(each.is_stored and caller.client_id in each.introspecting_clients for each in registered):
            return allow("introspecting-client")
        return None
