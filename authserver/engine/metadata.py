"""The server metadata (RFC 8414), made from the features that are switched on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from authserver.engine.context import Parts
from authserver.engine.errors import QUERY
from authserver.engine.ports import Policies

SCOPES = "scopes_supported"
AUTH_METHODS = "token_endpoint_auth_methods_supported"
AUTH_ALGORITHMS = "token_endpoint_auth_signing_alg_values_supported"


class MetadataCollision(ValueError):
    """Two sources set the same single-valued member; the message names both."""


def server_metadata(parts: Parts, endpoints: Mapping[str, str]) -> dict[str, Any]:
    """The metadata document, with the scopes of the INI and of plugins. Members that would be empty are left out (A-17).

    Args:
        endpoints: the URL of each endpoint that is switched on, by the member that names it.

    Raises:
        MetadataCollision: a plugin or an endpoint sets a member that is set already.
    """
    issuer = parts.settings.issuer
    members: dict[str, Any] = {
        "issuer": issuer,
        SCOPES: scopes_supported(parts, parts.offered.listed_scopes),
        "response_types_supported": ["code"],
        "response_modes_supported": [QUERY, *parts.response_modes],
        "grant_types_supported": list(parts.grant_types),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "ui_locales_supported": list(parts.settings.languages),
    }
    if taken := endpoints.keys() & members.keys():
        raise MetadataCollision(f"an endpoint is called {min(taken)} in the metadata, which the core sets")
    members |= endpoints
    if "introspection_endpoint" in endpoints:
        # The algorithms of signed introspection answers (RFC 9701, 7).
        members["introspection_signing_alg_values_supported"] = [parts.settings.signing_algorithm]
    owners = dict.fromkeys(members, "the core")
    for plugin, added in parts.policies.contribute("server_metadata", issuer=issuer):
        for name, value in added.items():
            if name in members and isinstance(value, list) and isinstance(members[name], list):
                members[name] = list(dict.fromkeys([*members[name], *value]))
            elif name in members:
                raise MetadataCollision(
                    f"plugin {plugin}: server_metadata sets {name}, which {owners[name]} sets already; remove one"
                )
            else:
                members[name] = value
                owners[name] = f"plugin {plugin}"
    members |= _auth_of_other_endpoints(members)
    return {name: value for name, value in members.items() if value not in (None, [], "")}


def scopes_supported(parts: Parts, scopes: Iterable[str]) -> list[str]:
    """The names of the scopes that are published."""
    return [name for name in scopes if name not in parts.settings.hidden_scopes]


def _auth_of_other_endpoints(members: Mapping[str, Any]) -> dict[str, list[str]]:
    """The authentication methods at revocation and introspection; clients do not infer them from others (A-13)."""
    methods, algorithms = members.get(AUTH_METHODS, []), members.get(AUTH_ALGORITHMS, [])
    added = {
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
    }
    if "introspection_endpoint" in members:
        # Public clients cannot introspect (M-07).
        added["introspection_endpoint_auth_methods_supported"] = [name for name in methods if name != "none"]
        added["introspection_endpoint_auth_signing_alg_values_supported"] = algorithms
    return added


def auth_methods(policies: Policies, issuer: str) -> tuple[str, ...]:
    """The methods of client authentication that some plugin offers."""
    return tuple(
        dict.fromkeys(
            method
            for _, added in policies.contribute("server_metadata", issuer=issuer)
            for method in added.get(AUTH_METHODS, ())
        )
    )


def joined(
    what: str, own: Mapping[str, Any], policies: Policies, hook: str, *, reserved: Iterable[str] = ()
) -> Mapping[str, Any]:
    """The names of the core, and those that plugins add at a contributing hook; none of these may be `reserved`.

    Raises:
        MetadataCollision: a name is there already.
    """
    names = dict(own)
    owners = dict.fromkeys((*own, *reserved), "the core")
    for plugin, added in policies.contribute(hook):
        for name, value in added.items():
            if name in owners:
                raise MetadataCollision(
                    f"plugin {plugin}: {hook} adds the {what} {name}, which {owners[name]} adds already; remove one"
                )
            names[name], owners[name] = value, f"plugin {plugin}"
    return names
