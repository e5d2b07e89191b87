"""Reads the resources of the INI, and the form of the access tokens for them, from the settings of server and plugins.

Several settings have lines for resources: `authserver.resource_names`, `authserver.opaque_resources`,
`authserver.access_token_format@resources` and `authserver.access_token_lifetime@resources`. Plugins add resources in a
mapping `known_resources`, by their canonical form. A plugin that serves a resource itself has a mapping `own_resources`,
by the path below the issuer, because it does not know the issuer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec

from authserver.engine.errors import InvalidTarget
from authserver.engine.records import Resource
from authserver.engine.resource_registry import TokenForm
from authserver.engine.uris import canonical_resource
from authserver.ini import PREFIX, Loaded, convert, types_of
from authserver.plugins.asking import PluginSet
from authserver.plugins.variants import CLIENTS, RESOURCES, split
from authserver.settings import AccessTokenFormat, Settings, SettingsError

# The members of a `Resource` and of a `TokenForm`, by the name of the setting.
MEMBERS = {"access_token_format": "token_format", "access_token_lifetime": "token_lifetime"}


def read(loaded: Loaded, plugins: PluginSet) -> tuple[Mapping[str, Resource], Mapping[str, TokenForm]]:
    """The resources by their canonical form, and the settings for single clients by their ids.

    Raises:
        SettingsError: a line cannot be used, or two lines contradict each other; the message lists every problem.
    """
    _, overrides = split(loaded.single, PREFIX)
    problems: list[str] = []
    found: dict[str, Resource] = {}
    for declared in plugins.all_declared("known_resources").values():
        for resource in declared:
            found[resource.form] = _joined(found.get(resource.form), resource)
    for path, served in plugins.all_declared("own_resources").items():
        uri = loaded.settings.issuer + path
        form = canonical_resource(uri)
        for resource in served:
            found[form] = _joined(found.get(form), replace(resource, form=form, uri=uri))
    forms = {kind: dict(_forms(overrides[kind], kind, problems)) for kind in (CLIENTS, RESOURCES)}
    for setting, uri, members in _lines(loaded.settings, forms[RESOURCES]):
        try:
            form = canonical_resource(uri)
        except InvalidTarget as error:
            problems.append(f"{PREFIX}{setting}: {uri}: {error}")
            continue
        known = found.get(form) or Resource(form=form, uri=form, scopes=())
        for member, value in members.items():
            said = getattr(known, member)
            if member == "name" and said:
                problems.append(f"{PREFIX}{setting}: two lines name {uri}")
            elif said and said != value:
                problems.append(
                    f"{PREFIX}{setting}: {uri}: it is in authserver.opaque_resources, too, which contradicts this; remove it "
                    "from one of them"
                )
        found[form] = replace(
            known, **members, settings=tuple(dict.fromkeys((*known.settings, f"{PREFIX}{setting}")))
        )
    if problems:
        raise SettingsError(problems)
    return MappingProxyType(found), MappingProxyType(
        {client_id: TokenForm(**form) for client_id, form in forms[CLIENTS].items()}
    )


def _lines(
    settings: Settings, forms: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """For each line the setting, the URI, and the members that it sets."""
    for uri, name in settings.resource_names:
        yield "resource_names", uri, {"name": name}
    for uri in settings.opaque_resources:
        yield "opaque_resources", uri, {"token_format": AccessTokenFormat.OPAQUE}
    for setting, member in MEMBERS.items():
        for uri, form in forms.items():
            if member in form:
                yield f"{setting}@{RESOURCES}", uri, {member: form[member]}


def _forms(
    overrides: Mapping[str, Mapping[str, Any]], kind: str, problems: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The members that are set for each client or resource; problems are added to the list."""
    hints = types_of(Settings)
    for one, texts in overrides.items():
        form: dict[str, Any] = {}
        for setting, value in texts.items():
            try:
                form[MEMBERS[setting]] = convert(value.text, hints[setting])
            except (msgspec.ValidationError, ValueError) as error:
                problems.append(f"{PREFIX}{setting}@{kind}: {one}: {error}")
        yield one, form


def _joined(before: Resource | None, resource: Resource) -> Resource:
    """A resource that two plugins know, joined; where they differ, the first one counts."""
    if before is None:
        return resource
    return replace(
        before,
        uri=resource.uri if before.uri == before.form else before.uri,
        name=before.name or resource.name,
        scopes=resource.scopes if before.scopes == () else before.scopes,
        is_default=before.is_default or resource.is_default,
        introspecting_clients=(*before.introspecting_clients, *resource.introspecting_clients),
        settings=(*before.settings, *resource.settings),
    )
