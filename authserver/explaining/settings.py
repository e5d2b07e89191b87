"""The settings in effect: the value of each, where it comes from, and what it means. Secrets are hidden."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from msgspec import Meta

from authserver.ini import PLUGIN_PREFIX, PREFIX, types_of
from authserver.plugins.asking import PluginSet
from authserver.plugins.variants import settings_of, shown
from authserver.settings import Settings

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting as it was read at start.

    Attributes:
        key: the name in the INI file.
        value: as it would be written there; `(secret)` for a secret, "" for nothing.
        origin: `default`, `INI file`, `env:NAME` or `file:PATH`.
        meaning: the description of the setting, if its declaration has one.
    """

    key: str
    value: str
    origin: str
    meaning: str = ""


def of_server(settings: Settings, origins: Mapping[str, str]) -> Sequence[Setting]:
    """The server's own settings, in the order in which they are declared."""
    hints = types_of(Settings)
    return [
        Setting(
            key=f"{PREFIX}{item.name}",
            value=shown(getattr(settings, item.name)),
            origin=origins.get(f"{PREFIX}{item.name}", DEFAULT),
            meaning=next(
                (
                    meta.description or ""
                    for meta in typing.get_args(hints[item.name])
                    if isinstance(meta, Meta)
                ),
                "",
            ),
        )
        for item in fields(settings)
    ]


def of_plugins(plugins: PluginSet, origins: Mapping[str, str]) -> Mapping[str, Sequence[Setting]]:
    """The settings of each plugin by its name, in the order of the INI file, and those for single clients and resources."""
    return {name: list(_of_plugin(name, plugins, origins)) for name in plugins.names}


def _of_plugin(name: str, plugins: PluginSet, origins: Mapping[str, str]) -> Iterator[Setting]:
    for setting, value in settings_of(plugins.plugin(name)).items():
        key = f"{PLUGIN_PREFIX}{name}.{setting}"
        yield Setting(key=key, value=value, origin=origins.get(key, DEFAULT))
    for variant in plugins.variants(name):
        for key, value in variant.shown(name).items():
            yield Setting(key=key, value=value, origin=origins.get(key, DEFAULT))
