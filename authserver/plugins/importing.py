"""Imports the class of a plugin: from an installed package, or from a module beside the INI file.

An import runs code that may fail in any way, end the process or never return. Each of these becomes one sentence here.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import stat
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from authserver.containment import Interrupted, named_text_of, raised_by_plugin
from authserver.ini import did_you_mean, near
from authserver.plugins.time_limit import LOADING_SECONDS, TimeLimit, TooSlow


class CannotImport(Exception):
    """The class cannot be imported; the message says why and what to do, without the name of the plugin."""


def plugin_class(
    module_name: str, class_name: str, *, folder: Path | None = None, seconds: float = LOADING_SECONDS
) -> Any:
    """The class of this name in this module.

    The import runs in a thread, because nothing else can end the wait for a module that hangs.

    Args:
        folder: the folder of the INI file. Modules in it are found as well, after all installed ones, unless everybody
            can write to it. None for a plugin that is installed.
        seconds: how long the import may take.

    Raises:
        CannotImport: there is no such module or class, the import failed or took too long, or there are two such modules.
        Interrupted: somebody pressed Ctrl-C during the import; the message names the module.
    """
    if not all(part.isidentifier() for part in (*module_name.split("."), *class_name.split("."))):
        raise CannotImport(": expected the name of a plugin, or module:Class")
    try:
        if folder is not None:
            _search(folder)
            _refuse_doubtful(module_name, folder)
        if (imported := _imported(module_name, class_name)) is not None:
            return imported
        found, module = TimeLimit(seconds, threads=1).call(_attribute, module_name, class_name)
    except CannotImport:
        raise
    except TooSlow:
        raise CannotImport(
            f" cannot be imported: {module_name} takes longer than {seconds:g} seconds; a module must not wait for "
            "anything while it is imported, `prepare` may"
        ) from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted while the plugin {module_name}:{class_name} was being imported"
        ) from None
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise CannotImport(_no_module(missing, class_name, folder)) from error
        raise CannotImport(
            f" cannot be imported: it needs the module {missing}, which is not installed{_at(error)}"
        ) from error
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise CannotImport(f" cannot be imported: {error.filename}{line}: {error.msg}") from error
    except Exception as error:
        raised = raised_by_plugin(error)
        raise CannotImport(f" cannot be imported: {named_text_of(raised)}{_at(raised)}") from error
    if found is None:
        raise CannotImport(_no_class(module, class_name))
    return found


def forget(folder: Path) -> None:
    """Import nothing from this folder any more: the plugins of another folder may have modules of the same names."""
    place = folder.resolve()
    sys.path[:] = [entry for entry in sys.path if entry != str(place)]
    for top in {name.partition(".")[0] for name in sys.modules} - {"authserver"}:
        file = getattr(sys.modules.get(top), "__file__", None)
        if file in (f"{place}/{top}.py", f"{place}/{top}/__init__.py"):
            for name in [name for name in sys.modules if f"{name}.".startswith(f"{top}.")]:
                del sys.modules[name]


def _imported(module_name: str, class_name: str) -> Any:
    """The class from a module that is imported already; None if it is not, or if code of the module had to run for it."""
    module = sys.modules.get(module_name)
    is_complete = not getattr(getattr(module, "__spec__", None), "_initializing", False)
    return vars(module).get(class_name) if module is not None and is_complete else None


def _attribute(module_name: str, class_name: str) -> tuple[Any, ModuleType]:
    """The attribute of this name in the module, None if there is none; and the module."""
    found: Any = importlib.import_module(module_name)
    module = sys.modules[module_name]
    for part in class_name.split("."):
        found = getattr(found, part, None)
    return found, module


def _search(folder: Path) -> None:
    """Let Python search the folder, after everything else, so that no file in it replaces another module."""
    place = str(folder.resolve())
    if place not in sys.path and not _is_open(folder):
        sys.path.append(place)
    importlib.invalidate_caches()


def _refuse_doubtful(module_name: str, folder: Path) -> None:
    """Raises CannotImport if there are two modules of this name, or if everybody can change the one beside the INI file."""
    top = module_name.partition(".")[0]
    beside = next(filter(Path.is_file, (folder / f"{top}.py", folder / top / "__init__.py")), None)
    if beside is None:
        return
    taken = _origin(top)
    if taken is not None and (not Path(taken).is_file() or not beside.samefile(taken)):
        raise CannotImport(
            f": there are two modules {top}: {taken}, which Python takes, and {beside} beside the INI file; rename one"
        )
    # The modules that it imports may be there, too.
    inside = () if beside.parent == folder else beside.parent.rglob("*")
    code = (path for path in (*folder.glob("*.py"), *inside) if path.is_dir() or path.suffix == ".py")
    for path in (folder, beside.parent, *code):
        if _is_open(path):
            raise CannotImport(
                f": everybody can write to {path}, so nothing beside the INI file is imported; chmod o-w it"
            )


def _origin(top: str) -> str | None:
    """The file from which Python imports a module of this name; None if there is none."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that was made by hand, such as `__main__`
        return getattr(sys.modules[top], "__file__", None)
    return None if spec is None else spec.origin or "a part of Python"


def _is_open(path: Path) -> bool:
    """Whether everybody can write to this path: then anybody on this machine could add code to the server."""
    return path.exists() and bool(path.stat().st_mode & stat.S_IWOTH)


def _no_module(missing: str, class_name: str, folder: Path | None) -> str:
    if folder is None:
        return f" cannot be imported: there is no module {missing}; install it"
    names = [path.stem for path in folder.glob("*.py")]
    close = near(missing, names)
    hint = f"did you mean {close[0]}:{class_name}" if close else f"install it, or put {missing}.py there"
    return f": there is no module {missing}, neither installed nor in {folder}, beside the INI file; {hint}"


def _no_class(module: ModuleType, class_name: str) -> str:
    kinds = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and dataclasses.is_dataclass(value)
    ]
    hint = did_you_mean(class_name, kinds, f"{module.__name__}:") if kinds else "it defines no dataclass"
    return f": {module.__file__ or module.__name__} has no {class_name}; {hint}"


def _at(error: BaseException) -> str:
    place = _place(error)
    return f" ({place})" if place else ""


def _place(error: BaseException) -> str:
    """The file and line of the plugin where the error was raised; "" if it was not raised in a file.

    It is the last frame in the folder of the module that was imported first; frames after it are in libraries.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    ours = [index for index, frame in enumerate(frames) if frame.filename == __file__]
    frames = [
        frame
        for frame in frames[ours[-1] + 1 if ours else 0 :]
        if not frame.filename.startswith("<") and frame.filename != importlib.__file__
    ]
    if not frames:
        return ""
    home = Path(frames[0].filename).parent
    last = [frame for frame in frames if Path(frame.filename).is_relative_to(home)][-1]
    return f"{last.filename}, line {last.lineno}"
