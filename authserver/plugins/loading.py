"""Finds the plugins that the INI names, checks them, and makes them from their settings.

Only what the INI names is loaded, and its order is the order in which plugins are asked.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from authserver.containment import contained, described
from authserver.ini import PLUGIN_PREFIX, Resolved, did_you_mean, read_fields, value_at
from authserver.plugins.asking import PluginSet
from authserver.plugins.copying import is_third_party_class
from authserver.plugins.importing import CannotImport, plugin_class
from authserver.plugins.time_limit import LOADING_SECONDS, TimeLimit, TooSlow
from authserver.plugins.variants import Variants, made, split
from authserver.settings import POLICY_TIME_LIMIT, Secret, SettingsError

GROUP = "authserver.plugins"
_NOT_FROZEN = (
    "{} is not a frozen dataclass; a plugin is a frozen value, or, if it keeps something that changes, a "
    "dataclass(eq=False)"
)


def load(
    specifications: Sequence[str],
    settings: Mapping[str, Mapping[str, Resolved]],
    *,
    production: bool,
    time_limit: float = POLICY_TIME_LIMIT,
    fetching: float = 0.0,
    trace: bool = False,
    others: Collection[str] = (),
    key: str = "authserver.plugins",
    folder: Path | None = None,
    patience: float = LOADING_SECONDS,
) -> tuple[PluginSet, list[str]]:
    """Find every plugin of the INI, make it from its settings and prepare it. The caller must close them at the end.

    Args:
        specifications: entry point names or `module:Class`, in order.
        settings: raw texts by plugin name and field.
        production: whether insecure plugins and settings are refused.
        time_limit: seconds a plugin has for a decision.
        fetching: additional seconds for a plugin that can fetch.
        trace: whether each call of a plugin is written to the log.
        others: specifications of plugins that have settings too but are loaded elsewhere.
        key: the setting that lists them.
        folder: the folder of the INI file, where modules of plugins are found, too.
        patience: how many seconds each plugin may take for its import, for its construction and for its `prepare`.

    Returns:
        The plugins, and a line about each insecure value, which a development server logs.

    Raises:
        SettingsError: the message lists every unknown plugin, unknown setting and other problem.
    """
    available = _installed()
    plugins: list[tuple[str, object]] = []
    variants: dict[str, Variants] = {}
    problems: list[str] = []
    insecure: list[str] = []
    named: dict[str, str] = {}
    complete = True
    for specification in specifications:
        name = name_of(specification)
        try:
            kind = _find(specification, available, folder, patience)
        except CannotImport as error:
            problems.append(f"{key}: {specification}{error}")
            complete = False
            continue
        if name in named:
            problems.append(f"{key}: {specification} and {named[name]} are both called {name}; keep one")
            continue
        named[name] = specification
        if not _is_plugin(kind):
            problems.append(f"{key}: {_NOT_FROZEN.format(specification)}")
            continue
        plugin, variants[name], found, found_insecure = _with_variants(
            name, kind, settings.get(name, {}), patience
        )
        plugins.append((name, plugin))
        problems += found
        insecure += found_insecure
    elsewhere = {name_of(specification) for specification in others}
    # If a plugin could not be imported, its name may be misspelt, so settings without a plugin are not a second problem.
    problems += _misplaced(named, settings if complete else (), elsewhere)
    if production:
        problems += [f"{line} (refused in production)" for line in insecure]
    if problems:
        raise SettingsError(problems)
    loaded = _joined(
        plugins, partial(PluginSet, variants=variants, time_limit=time_limit, fetching=fetching, trace=trace)
    )
    loaded.prepare(patience)
    return loaded, insecure


def class_of(specification: str, folder: Path | None) -> Any:
    """The class of a plugin that the INI names; nothing is made of it. Raises CannotImport."""
    return _find(specification, _installed(), folder, LOADING_SECONDS)


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """The plugins of all installed distributions, by name; read only once, because it takes a quarter of the start."""
    return {point.name: point for point in entry_points(group=GROUP)}


def one(
    name: str,
    kind: type,
    texts: Mapping[str, Resolved],
    *,
    time_limit: float = POLICY_TIME_LIMIT,
    fetching: float = 0.0,
) -> PluginSet:
    """A plugin that is not in the INI, made from these settings and prepared, as the only one of a set.

    Raises:
        SettingsError: it is not a plugin, or its settings cannot be used.
    """
    if not _is_plugin(kind):
        raise SettingsError([_NOT_FROZEN.format(kind.__name__)])
    plugin, variants, problems, _ = _with_variants(name, kind, texts, LOADING_SECONDS)
    if problems:
        raise SettingsError(problems)
    loaded = _joined(
        [(name, plugin)],
        partial(PluginSet, variants={name: variants}, time_limit=time_limit, fetching=fetching),
    )
    loaded.prepare()
    return loaded


def _find(
    specification: str, available: Mapping[str, EntryPoint], folder: Path | None, seconds: float
) -> Any:
    """The class of a plugin. Raises CannotImport."""
    module_name, colon, class_name = specification.partition(":")
    if colon:
        return plugin_class(module_name, class_name, folder=folder, seconds=seconds)
    if specification in available:
        point = available[specification]
        try:
            return plugin_class(point.module, point.attr, seconds=seconds)
        except CannotImport as error:
            if isinstance(error.__cause__, ModuleNotFoundError) and (extra := _extra_of(point)):
                raise CannotImport(f"{error}; install it: pip install '{extra}'") from error
            raise
    if folder is not None and (folder / f"{specification}.py").is_file():
        raise CannotImport(f": a module beside the INI file is listed with its class: {specification}:CLASS")
    raise CannotImport(f": no such plugin; {did_you_mean(specification, available, '')}")


def _extra_of(point: EntryPoint) -> str:
    """The distribution of a plugin with its extra of the same name, as pip reads them; "" without such an extra."""
    name = point.name.replace("_", "-")
    if point.dist is None or name not in (point.dist.metadata.get_all("Provides-Extra") or ()):
        return ""
    return f"{point.dist.name}[{name}]"


def _with_variants(
    name: str, kind: Any, texts: Mapping[str, Resolved], seconds: float
) -> tuple[object, Variants, list[str], list[str]]:
    """A plugin and its variants for single clients and resources; their problems, and their insecure values."""
    try:
        own, overrides = split(texts, f"{PLUGIN_PREFIX}{name}.")
        plugin, problems, insecure = _made(name, kind, seconds, own)
        if problems:
            return None, Variants(), problems, insecure
        make = partial(_made, name, kind, seconds)
        variants, problems, announced = made(name, kind, own, overrides, make, insecure)
    except SettingsError as error:
        return None, Variants(), list(error.problems), []
    return plugin, variants, problems, insecure + announced


def _made(
    name: str, kind: Any, seconds: float, texts: Mapping[str, Resolved]
) -> tuple[object, list[str], list[str]]:
    """A plugin that is made from its settings, None if there are problems; its problems, and its insecure values.

    Raises:
        SettingsError: its code fails or hangs, for a reason other than these settings.
    """
    prefix = f"{PLUGIN_PREFIX}{name}."
    try:
        values, problems = read_fields(kind, texts, prefix)
    except Exception as error:
        # One cause is the name of a type that is imported only for type checkers.
        raise SettingsError(
            [f"{PLUGIN_PREFIX}{name}: the types of its settings cannot be read: {described(error)}"]
        ) from error
    insecure = [
        f"{prefix}{field}: a secret is in the INI file; give it as env:NAME or file:PATH"
        for field, text in texts.items()
        if text.inline and _holds_secret(value_at(values, field))
    ]
    if getattr(kind, "development_only", False):
        insecure.append(f"authserver.plugins: {name} is for development; remove the line")
    if problems:
        return None, problems, insecure
    try:
        # Plugins that come with the server are made without a thread, because starting one takes longer than making them.
        call = TimeLimit(seconds, threads=1).call if is_third_party_class(kind) else contained
        plugin, announced = call(_constructed, kind, values)
    except TooSlow:
        raise SettingsError(
            [
                f"{PLUGIN_PREFIX}{name}: it takes longer than {seconds:g} seconds to be made; `prepare` may wait"
            ]
        ) from None
    except (TypeError, ValueError) as error:
        return None, [f"{PLUGIN_PREFIX}{name}: {error}"], insecure
    except Exception as error:
        raise SettingsError([f"{PLUGIN_PREFIX}{name}: it cannot be made: {described(error)}"]) from error
    return plugin, [], insecure + [f"{prefix}{line}" for line in announced]


def _constructed(kind: Any, values: Mapping[str, Any]) -> tuple[object, tuple[str, ...]]:
    """A plugin with these settings, and what it declares as `insecure`."""
    plugin = kind(**values)
    return plugin, tuple(getattr(plugin, "insecure", ()))


def _joined(plugins: Sequence[tuple[str, object]], join: Callable[..., PluginSet]) -> PluginSet:
    """The plugins as a set. Raises SettingsError, also if a declaration of a plugin has a wrong type or fails."""
    try:
        joined: PluginSet = contained(join, plugins)
    except SettingsError:
        raise
    except Exception as error:
        told = described(error)
        guilty = [name for name, plugin in plugins if not _can_be_used(name, plugin, join)]
        raise SettingsError(
            [f"plugin {' or '.join(guilty)}: what it declares cannot be used: {told}"]
        ) from error
    return joined


def _can_be_used(name: str, plugin: object, join: Callable[..., PluginSet]) -> bool:
    """Whether the declarations of a plugin have the right types. Other problems of the plugin do not count here."""
    try:
        contained(join, [(name, plugin)])
    except SettingsError:
        return True
    except Exception:
        return False
    return True


def _misplaced(named: Collection[str], settings: Collection[str], elsewhere: Collection[str]) -> list[str]:
    """Problems: plugins that are listed twice, and settings of plugins that are listed nowhere."""
    twice = [
        f"authserver.shadow_plugins: {name} is listed in authserver.plugins too; leave it in one of them"
        for name in named
        if name in elsewhere
    ]
    nowhere = [
        f"{PLUGIN_PREFIX}{name}: no such plugin is listed in authserver.plugins; "
        + (
            f"list {name} there, or remove its settings"
            if name in _installed()
            else did_you_mean(name, named, PLUGIN_PREFIX)
        )
        for name in settings
        if name not in named and name not in elsewhere
    ]
    return twice + nowhere


def name_of(specification: str) -> str:
    """The name of the plugin: that of the entry point, or `quiet_hours` for `module:QuietHours`."""
    class_name = specification.rpartition(":")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()


def _is_plugin(kind: object) -> bool:
    """Whether it is a dataclass that is frozen or, because it keeps something that changes, compared by identity."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return False
    parameters = cast(Any, kind).__dataclass_params__
    return bool(parameters.frozen or not parameters.eq)


def _holds_secret(value: object) -> bool:
    return isinstance(value, Secret) or (isinstance(value, tuple) and any(map(_holds_secret, value)))
