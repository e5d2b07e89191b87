"""Finds one plugin in a file or a module, without the INI, to try it before it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from authserver.containment import described
from authserver.hooks import is_implemented
from authserver.hookspecs import every_hook
from authserver.ini import did_you_mean
from authserver.plugins import loading
from authserver.plugins.time_limit import LOADING_SECONDS, TimeLimit, TooSlow
from authserver.settings import SettingsError


def find(text: str) -> tuple[str, type]:
    """The class of the plugin that this text names, and the name that it has in the INI.

    Args:
        text: `FILE`, `FILE:Class`, `module:Class`, or the name of an installed plugin. A folder stands for the package
            in it.

    Raises:
        SettingsError: there is no such plugin, there are several, or it cannot be imported.
    """
    source, colon, class_name = text.rpartition(":")
    if _is_file(text):
        kind = _only_plugin(_from_file(text), text)
    elif colon and _is_file(source):
        kind = _class(_from_file(source), class_name, text)
    elif colon:
        kind = _class(_imported(text, importlib.import_module, source), class_name, text)
    else:
        installed = {point.name: point for point in entry_points(group=loading.GROUP)}
        if text not in installed:
            hint = did_you_mean(text, installed, "")
            raise SettingsError([f"{text} is neither a file, module:Class nor an installed plugin; {hint}"])
        kind = _imported(text, installed[text].load)
        if not isinstance(kind, type):
            raise SettingsError([f"{text}: {installed[text].value} is not a class"])
        return text, kind
    return loading.name_of(f"{kind.__module__}:{kind.__name__}"), kind


def _is_file(text: str) -> bool:
    return text.endswith(".py") or (text != "" and Path(text).exists())


def _from_file(text: str) -> ModuleType:
    """The module in this file; modules beside it can be imported."""
    path = Path(text)
    if path.is_dir():
        path /= "__init__.py"
    if not path.is_file():
        raise SettingsError([f"{path}: no such file"])
    package = path.name == "__init__.py"
    folder = path.resolve().parent
    name = folder.name if package else path.stem
    # The module gets another name, because its own may be that of a module of Python or of this server.
    specification = importlib.util.spec_from_file_location(
        f"tried_{name}", path, submodule_search_locations=[str(folder)] if package else None
    )
    if specification is None or specification.loader is None:
        raise SettingsError([f"{text}: it is not a Python module; its name must end in .py"])
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    beside = str(folder.parent if package else folder)
    if beside not in sys.path:
        # At the end, as for modules beside an INI file: so no file here replaces another module.
        sys.path.append(beside)
    _imported(text, specification.loader.exec_module, module)
    return module


def _imported(text: str, load: Callable[..., Any], *arguments: object) -> Any:
    try:
        return TimeLimit(LOADING_SECONDS, threads=1).call(load, *arguments)
    except TooSlow:
        raise SettingsError(
            [
                f"{text} cannot be imported: it takes longer than {LOADING_SECONDS:g} seconds; `prepare` may wait"
            ]
        ) from None
    except Exception as error:
        raise SettingsError([f"{text} cannot be imported: {described(error)}"]) from error


def _class(module: object, name: str, text: str) -> type:
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        plugins = [kind.__name__ for kind in _plugins(module)]
        hint = did_you_mean(name, plugins, "") if plugins else "there is no plugin in it at all"
        raise SettingsError([f"{text}: there is no class {name}; {hint}"])
    return kind


def _only_plugin(module: ModuleType, text: str) -> type:
    found = _plugins(module)
    if not found:
        raise SettingsError(
            [f"{text} has no plugin: a class with a method that is marked @hookimpl of authserver.api"]
        )
    if len(found) > 1:
        names = ", ".join(f"{text}:{kind.__name__}" for kind in found)
        raise SettingsError([f"{text} has {len(found)} plugins; name one of them: {names}"])
    return found[0]


def _plugins(module: object) -> list[type]:
    """The classes of this module that have a method of a hook, marked or not; mistakes in them are found later."""
    hooks = every_hook()
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and kind.__module__ == getattr(module, "__name__", "")
        and any(is_implemented(kind, name) or inspect.isfunction(vars(kind).get(name)) for name in hooks)
    ]
