"""Settings of a plugin for single clients and resources: a variant of the plugin is made for each at start.

`authserver.plugin.NAME.SETTING@clients` has lines `client_id = value`, and `…@resources` has lines `URI = value`. A plugin
needs no code for this: a variant is the plugin with other values, and the question decides which variant is asked.
A setting for a client counts before a setting for a resource. If a request names several resources, the first line of the
INI counts, so that a client cannot choose by the order in its request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from itertools import product
from typing import Any

from authserver.engine import uris
from authserver.engine.errors import InvalidTarget
from authserver.hooks import Hook
from authserver.ini import PLUGIN_PREFIX, Resolved, did_you_mean, entry_kind, resolve, types_of
from authserver.limits import MAXIMUM_CLIENT_ID
from authserver.settings import Secret, SettingsError

# The most variants of one plugin. Each is a plugin of its own, which may open files or connections.
MAXIMUM_VARIANTS = 1000

CLIENTS, RESOURCES = "clients", "resources"
KINDS = (CLIENTS, RESOURCES)
# Arguments of hooks that say which client or resource a question is about.
_CLIENT_ARGUMENTS = frozenset({"client", "caller", "client_id"})
_RESOURCE_ARGUMENTS = frozenset({"resource", "resources"})
# An id may contain `=`, so the sign that ends it may have spaces around it.
_LINE = re.compile(r"(\S+)\s+=(?:\s+(.*))?|([^\s=]+)=(.*)")
_CLIENT_ID = re.compile(r"[\x21-\x7e]+")

Texts = Mapping[str, Resolved]
# The texts of settings by kind, then by client id or canonical resource, in the order of the INI.
Overrides = dict[str, dict[str, dict[str, Resolved]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A plugin with the settings for one client, one resource, or one client at one resource.

    Attributes:
        client, resource: the client and the resource that it is for; None for any. A resource is in canonical form.
        plugin: the plugin with these settings.
        settings: for each setting with its own value here, the kind of line that it comes from: CLIENTS or RESOURCES.
    """

    client: str | None
    resource: str | None
    plugin: object
    settings: Mapping[str, str]

    @property
    def label(self) -> str:
        """The client and the resource that it is for, in words."""
        return label_of(self.client, self.resource)

    def shown(self, name: str) -> dict[str, str]:
        """The settings that differ, as lines of the INI; secrets hidden."""
        ids = {CLIENTS: self.client, RESOURCES: self.resource}
        return {
            f"{PLUGIN_PREFIX}{name}.{setting}@{kind}": f"{ids[kind]} = {shown(getattr(self.plugin, setting))}"
            for setting, kind in self.settings.items()
        }


class Variants:
    """All variants of one plugin."""

    def __init__(self, variants: Sequence[Variant] = ()) -> None:
        self._all = {(variant.client, variant.resource): variant for variant in variants}
        self._clients = frozenset(variant.client for variant in variants if variant.client)
        self._resources = tuple(dict.fromkeys(variant.resource for variant in variants if variant.resource))

    def __iter__(self) -> Iterator[Variant]:
        return iter(self._all.values())

    def __bool__(self) -> bool:
        return bool(self._all)

    def at(self, question: Callable[[str], Any]) -> tuple[str | None, str | None]:
        """Client and resource of the variant that is asked.

        Args:
            question: returns the argument of this name, None if the question has none.
        """
        client = question("client") or question("caller")
        client_id = question("client_id") if client is None else client.client_id
        resource = None
        if self._resources:
            named = question("resources")
            about = _canonical((question("resource"),) if named is None else named)
            resource = next((item for item in self._resources if item in about), None)
        return (client_id if client_id in self._clients else None, resource)


def split(texts: Texts, prefix: str) -> tuple[dict[str, Resolved], Overrides]:
    """The settings for all, and those for single clients and resources; all their keys begin with `prefix`.

    Raises:
        SettingsError: a line or id cannot be used; the message lists every problem.
    """
    own = {key: text for key, text in texts.items() if "@" not in key}
    overrides: Overrides = {kind: {} for kind in KINDS}
    problems: list[str] = []
    for key, text in texts.items():
        setting, at, kind = key.partition("@")
        if not at:
            continue
        full = f"{prefix}{key}"
        if kind not in KINDS:
            problems.append(f"{full}: expected {setting}@clients or {setting}@resources")
            continue
        try:
            for one, value in _lines(full, kind, text).items():
                overrides[kind].setdefault(one, {})[setting] = value
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    return own, overrides


def made(
    name: str,
    kind: Any,
    own: Texts,
    overrides: Overrides,
    make: Callable[[Texts], tuple[object, list[str], list[str]]],
    known: Sequence[str],
) -> tuple[Variants, list[str], list[str]]:
    """The variants of a plugin; their problems, and their insecure values.

    Args:
        make: makes a plugin from its settings.
        known: the insecure values of the plugin for all, which are not repeated.
    """
    problems = list(_unknown(name, kind, overrides))
    places = [
        place for place in product((None, *overrides[CLIENTS]), (None, *overrides[RESOURCES])) if any(place)
    ]
    if len(places) > MAXIMUM_VARIANTS:
        problems.append(
            f"{PLUGIN_PREFIX}{name}: the clients and resources with settings of their own make {len(places)} variants; "
            f"there may be {MAXIMUM_VARIANTS}: let the plugin read such settings from a file or a database"
        )
    if problems:
        return Variants(), problems, []
    insecure: list[str] = []
    variants = []
    for client, resource in places:
        for_resource = overrides[RESOURCES].get(resource or "", {})
        for_client = overrides[CLIENTS].get(client or "", {})
        plugin, found, announced = make({**own, **for_resource, **for_client})
        suffix = f" (for the {label_of(client, resource)})"
        problems += [f"{line}{suffix}" for line in found]
        insecure += [f"{line}{suffix}" for line in announced if line not in known]
        settings = dict.fromkeys(for_resource, RESOURCES) | dict.fromkeys(for_client, CLIENTS)
        variants.append(Variant(client=client, resource=resource, plugin=plugin, settings=settings))
    return Variants([] if problems else variants), problems, insecure


def kinds_of(hook: Hook) -> frozenset[str]:
    """Which of CLIENTS and RESOURCES a question of this hook is about."""
    arguments = signature(hook.function).parameters.keys()
    about = {CLIENTS: _CLIENT_ARGUMENTS, RESOURCES: _RESOURCE_ARGUMENTS}
    return frozenset(kind for kind, names in about.items() if not names.isdisjoint(arguments))


def label_of(client: str | None, resource: str | None) -> str:
    """Client and resource in words."""
    named = (f"client {client}" if client else "", f"resource {resource}" if resource else "")
    return ", ".join(filter(None, named))


def shown(value: Any) -> str:
    """A setting as it is written in the INI; a secret is hidden."""
    if isinstance(value, Secret):
        return "(secret)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        pairs = any(isinstance(item, tuple) for item in value)
        return ("; " if pairs else " ").join(
            " = ".join(map(shown, item)) if isinstance(item, tuple) else shown(item) for item in value
        )
    return str(value)


def settings_of(plugin: Any) -> dict[str, str]:
    """The settings of a plugin as the INI has them, by the part of the key after the plugin's name; secrets are hidden."""
    owner: type = type(plugin)
    hints = types_of(owner)
    found: dict[str, str] = {}
    for item in fields(plugin):
        if not item.init:
            continue
        value: Any = getattr(plugin, item.name)
        if entry_kind(hints[item.name]) is None:
            found[item.name] = shown(value)
            continue
        for entry in value:
            found |= {
                f"{item.name}.{entry.name}.{key}": text
                for key, text in settings_of(entry).items()
                if key != "name"
            }
    return found


def _lines(key: str, kind: str, text: Resolved) -> dict[str, Resolved]:
    """The value for each client or resource; several lines for the same one become one text with several lines."""
    found: dict[str, list[Resolved]] = {}
    problems: list[str] = []
    for number, line in enumerate(filter(None, map(str.strip, text.text.splitlines())), 1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            # It is not shown, because it may be a secret.
            wanted = "client_id" if kind == CLIENTS else "URI"
            problems.append(
                f"{key}: expected `{wanted} = value` on each line, but line {number} has another form"
            )
            continue
        one = parts[1] or parts[3]
        try:
            value = resolve(f"{key}: {one}", (parts[2] if parts[1] else parts[4]) or "")
            found.setdefault(_checked(kind, one), []).append(
                Resolved(value.text, inline=text.inline and value.inline)
            )
        except SettingsError as error:
            problems += error.problems
        except ValueError as error:
            problems.append(f"{key}: {one}: {error}")
    if not found and not problems:
        problems.append(f"{key}: names none of the {kind}; add a line for each, or remove the setting")
    if problems:
        raise SettingsError(problems)
    return {
        one: Resolved("\n".join(value.text for value in values), inline=any(value.inline for value in values))
        for one, values in found.items()
    }


def _checked(kind: str, one: str) -> str:
    """The client id, or the canonical form of the resource. Raises ValueError."""
    if kind == CLIENTS:
        if len(one) > MAXIMUM_CLIENT_ID or not _CLIENT_ID.fullmatch(one):
            raise ValueError(f"a client_id has up to {MAXIMUM_CLIENT_ID} visible ASCII characters")
        return one
    try:
        return uris.canonical_resource(one)
    except InvalidTarget as error:
        raise ValueError(error.description) from None


def _unknown(name: str, kind: Any, overrides: Overrides) -> Iterator[str]:
    """Settings that the plugin does not have."""
    known = [item.name for item in fields(kind) if item.init]
    for which, by_id in overrides.items():
        for setting in dict.fromkeys(setting for texts in by_id.values() for setting in texts):
            if setting not in known:
                prefix = f"{PLUGIN_PREFIX}{name}."
                yield f"{prefix}{setting}@{which}: no such setting; {did_you_mean(setting, known, prefix)}"


def _canonical(resources: Iterable[str | None]) -> set[str]:
    found = set()
    for resource in resources:
        try:
            found.add(uris.canonical_resource(resource or ""))
        except InvalidTarget:
            continue
    return found
