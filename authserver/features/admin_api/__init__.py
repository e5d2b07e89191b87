"""An API for operators, which does over HTTP what the commands do. Its access tokens are those of this server.

Its resource identifier is the issuer followed by `/admin/api`. A token must be for that resource alone, have scopes that
begin with `authserver:`, and belong to a client that an operator registered. If it stands for a person, the person must be
in one of the groups of the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from pyramid.config import Configurator

from authserver.api import (
    OFFLINE_ACCESS,
    Client,
    Decision,
    Operation,
    Parameter,
    Resource,
    User,
    allow,
    deny,
    hookimpl,
    json_response,
    narrow,
)
from authserver.features.admin_api.collected import ENTRIES, SCOPES
from authserver.features.admin_api.entries import PREFIX

PATH = "/admin/api"
NAME = "Administration of this server"
SETTING = "authserver.plugins"
METADATA = Operation(
    summary="The metadata of the admin API as a protected resource (RFC 9728, 3.2).",
    answer={
        "resource": Parameter(description="The identifier of the API.", required=True),
        "authorization_servers": Parameter(
            description="This issuer.", schema={"type": "array", "items": {"type": "string"}}, required=True
        ),
        "scopes_supported": Parameter(
            description="The scopes of the API.", schema={"type": "array", "items": {"type": "string"}}
        ),
    },
)


@dataclass(frozen=True)
class AdminApi:
    """Serve `/admin/api`: clients, people, grants, resources, keys and events for programs of operators.

    Attributes:
        groups: groups whose members may use it, through a client that acts for them. Without groups, only clients that act
            on their own behalf (`client_credentials`) can use it.
    """

    immediate: ClassVar[bool] = True
    own_resources: ClassVar[Mapping[str, Resource]] = {
        PATH: Resource(form="", uri="", name=NAME, scopes=tuple(SCOPES), settings=(SETTING,))
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "admin-api": "",
        "admin-api-alone": "a token for the admin API must be for no other resource: the client must ask for two tokens",
        "admin-api-scopes": "",
        "client-registered-itself": "only a client that an operator registered may administer: `authserver client add`",
        "no-admin-scope": (
            "register the client for scopes of the admin API (`authserver client edit --add-scope`), and let it ask for them"
        ),
        "not-in-admin-groups": (
            "put the person into one of authserver.plugin.admin_api.groups (`authserver user edit --add-group`)"
        ),
        "verifier-unavailable": "",
    }

    groups: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Check that the verifier of access tokens is installed. Raises ValueError."""
        if find_spec("authserver_resource") is None:
            raise ValueError(
                "it verifies access tokens with authserver-resource, which is not installed: "
                "pip install 'authserver[admin-api]'"
            )

    @property
    def operator_groups(self) -> Mapping[str, str]:
        """The groups whose members may administer this server, each with what they may do."""
        return dict.fromkeys(self.groups, "use the admin API in their own name")

    @hookimpl
    def scopes(self) -> Mapping[str, str]:
        return SCOPES

    @hookimpl
    def resource_decision(self, client: Client, registered: Resource | None) -> Decision[str] | None:
        """Allow the API as a resource, but only to clients that an operator registered."""
        if registered is None or not _is_own(registered):
            return None
        if client.is_self_registered or client.is_known_by_address:
            return deny("client-registered-itself")
        return allow("admin-api", registered.uri)

    @hookimpl
    def scope_decision(
        self,
        client: Client,
        user: User | None,
        requested: tuple[str, ...],
        resources: tuple[str, ...],
        registered: tuple[Resource, ...],
    ) -> Decision[tuple[str, ...]] | None:
        """Give scopes of the API only in tokens for the API, and only to clients and people that may administer."""
        asked = requested or client.scopes
        if not any(map(_is_own, registered)):
            others = tuple(scope for scope in asked if not scope.startswith(PREFIX))
            return None if others == asked else narrow("admin-api-scopes", others)
        if client.is_self_registered or client.is_known_by_address:
            return deny("client-registered-itself")
        if len(resources) > 1:
            return deny("admin-api-alone")
        if user is not None and not set(self.groups) & set(user.groups):
            return deny("not-in-admin-groups")
        return narrow(
            "admin-api-scopes",
            tuple(scope for scope in asked if scope.startswith(PREFIX) or scope == OFFLINE_ACCESS),
        )

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        # These modules import the verifier, which is an optional dependency.
        from authserver.features.admin_api.access import Guard
        from authserver.features.admin_api.serving import add_entries

        parts = config.registry.application.parts
        guard = Guard(
            issuer=parts.settings.issuer,
            url=parts.settings.issuer + PATH,
            name=NAME,
            scopes=SCOPES,
            groups=frozenset(self.groups),
            operator_groups=frozenset(parts.policies.all_declared("operator_groups")),
            token_types=parts.token_types.values(),
        )
        add_entries(config, PATH, ENTRIES, guard)
        metadata = json_response(guard.protected.metadata_body, cache_control="public, max-age=300")
        config.add_well_known(
            "oauth-protected-resource",
            lambda request: metadata.copy(),
            below=PATH,
            administers=True,
            operation=METADATA,
        )


def _is_own(resource: Resource) -> bool:
    return SETTING in resource.settings and resource.uri.endswith(PATH)
