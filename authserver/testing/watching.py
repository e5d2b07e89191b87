"""Finds the side effects of a policy: what it reads besides the question, what it waits for, what it changes.

A question runs under `watched`; Python then reports each clock, environment variable, file and connection that is used.
`prepare()` is not watched: there a policy may use all of these.
"""

from __future__ import annotations

import inspect
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from types import FrameType, ModuleType
from typing import Any


class Kind(StrEnum):
    """A kind of side effect, and how the author of the policy can avoid it."""

    CLOCK = (
        "so its answer changes by itself; if that is intended, say policy_contract(..., reads=('clock',)), and test both "
        "answers with a clock that the test sets"
    )
    CHANCE = "so nobody can explain its answer; decide by a digest of what is asked, such as the client_id"
    ENVIRONMENT = "make it a setting: a field of the policy, which the INI sets, also with `env:NAME`"
    FILE = (
        "read it in prepare(); if it changes while the server runs, say policy_contract(..., reads=('file',))"
    )
    SERVICE = "but `immediate` is true, so the server sets no time limit; remove `immediate`"
    THREAD = "which neither a time limit nor close() ends; start it in prepare()"


# The names that a policy may list as read on purpose.
READABLE = {"clock": Kind.CLOCK, "chance": Kind.CHANCE, "environment": Kind.ENVIRONMENT, "file": Kind.FILE}


@dataclass(frozen=True, slots=True)
class Deed:
    """One side effect of a policy.

    Attributes:
        words: its description, with the line of the policy.
    """

    kind: Kind
    words: str

    def __str__(self) -> str:
        return f"{self.words}: {self.kind}"


# Modules of Python that read a clock or variable or open a file for their own purposes; the threads of `concurrent` are
# its own, too.
_FOR_THEMSELVES = frozenset(
    {
        "asyncio",
        "concurrent",
        "email",
        "encodings",
        "http",
        "importlib",
        "linecache",
        "logging",
        "socket",
        "ssl",
    }
    | {"subprocess", "tempfile", "threading", "traceback", "urllib", "warnings", "zoneinfo"}
)
# Without the clocks that measure durations, for example for a timeout or the age of a cached answer.
_CLOCKS = frozenset({"time", "time_ns", "localtime", "gmtime", "ctime"})
_SERVICES = frozenset(
    {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
    | {"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"}
)
_READ_VARIABLE = type(os.environ).__getitem__.__code__


class _Watch(threading.local):
    """The list and the policy of the `watched` block in which this thread is."""

    note: Callable[[Kind, str], None] | None = None


_watch = _Watch()
# Whether Python reports to `_audit`; an audit hook cannot be removed again.
_audited = threading.Event()


@contextmanager
def watched(policy: object) -> Iterator[list[Deed]]:
    """Collect in a list the side effects of this policy in this thread, without those of the packages that it uses.

    A connection is collected also if a package opens it for the policy. Blocks cannot be nested.
    """
    deeds: list[Deed] = []
    package = type(policy).__module__.partition(".")[0]

    def note(kind: Kind, what: str) -> None:
        owners, place = _behind(sys._getframe(2), package)
        for_themselves = {"concurrent"} if kind is Kind.THREAD else _FOR_THEMSELVES
        if kind is Kind.SERVICE or (place and owners.isdisjoint(for_themselves)):
            deeds.append(Deed(kind, f"it {what}{place}"))

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            if (found := _builtin(argument, frame)) is not None:
                note(*found)
        elif event == "call" and frame.f_code is _READ_VARIABLE:
            note(Kind.ENVIRONMENT, f"reads the environment variable {frame.f_locals.get('key')}")

    if not _audited.is_set():
        _audited.set()
        sys.addaudithook(_audit)
    before = sys.getprofile()
    _watch.note = note
    sys.setprofile(profile)
    try:
        yield deeds
    finally:
        sys.setprofile(before)
        _watch.note = None


def _builtin(function: Any, caller: FrameType) -> tuple[Kind, str] | None:
    """The side effect of a call of this built-in function. Random bytes are not chance: they make salts and keys."""
    name = getattr(function, "__qualname__", "")
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or getattr(owner, "__module__", None)
    if name.rpartition(".")[2] in ("now", "utcnow", "today") and isinstance(owner, type):
        name = f"{'datetime' if name.rpartition('.')[2] != 'today' else 'date'}.{name.rpartition('.')[2]}"
        return Kind.CLOCK, f"reads the clock ({name})"
    if module == "time" and name in _CLOCKS:
        return Kind.CLOCK, f"reads the clock (time.{name})"
    if module == "time" and name == "sleep":
        return Kind.SERVICE, "sleeps"
    if name in ("start_new_thread", "start_joinable_thread"):
        return Kind.THREAD, "starts a thread"
    by_chance = name == "urandom" and caller.f_code.co_name in ("random", "getrandbits")
    if by_chance or owner is random._inst:
        return Kind.CHANCE, "draws a random number"
    return None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if (note := _watch.note) is None:
        return
    if event in _SERVICES:
        note(Kind.SERVICE, f"calls another service ({event})")
    elif event == "open" and not isinstance(arguments[0], int):
        note(Kind.FILE, f"opens the file {PurePath(os.fsdecode(arguments[0])).name}")


def _behind(frame: FrameType | None, package: str) -> tuple[set[str], str]:
    """The modules of Python through which a call went, and the line of the policy that began it.

    The line is "" if the call was made by another package, or by none.
    """
    owners: set[str] = set()
    while frame is not None:
        owner = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if owner == package:
            return owners, f" ({PurePath(frame.f_code.co_filename).name}, line {frame.f_lineno})"
        if owner not in sys.stdlib_module_names:
            break
        owners.add(owner)
        frame = frame.f_back
    return owners, ""


def state_of_the_process(policy: object) -> Mapping[str, object]:
    """The state that all code in this process shares, and that of the policy's module and classes, by name."""
    return {
        "the working directory": Path.cwd(),
        "the environment variables": {
            name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")
        },
        "the recursion limit": sys.getrecursionlimit(),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the handlers of signals": tuple(signal.getsignal(number) for number in signal.valid_signals()),
        "the logging of everybody": (
            logging.root.level,
            tuple(item for item in logging.root.handlers if not type(item).__module__.startswith("_pytest.")),
            logging.root.manager.disable,
        ),
        "the filters of warnings": tuple(warnings.filters),
        "the paths of imports": tuple(sys.path),
        **_server_code(),
        **_kept_outside(policy),
    }


def _server_code() -> dict[str, object]:
    """The values of the names in the server's modules: a policy that replaces one changes the server."""
    return {
        f"{module.__name__}.{name}": id(value)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] == "authserver"
        if not module.__name__.startswith("authserver.testing.")
        for name, value in list(vars(module).items())
        if inspect.isfunction(value) or inspect.isclass(value)
    }


def _kept_outside(policy: object) -> dict[str, object]:
    """The collections that outlive the policy: in its classes, in their modules, and as default values of its methods."""
    kept: dict[str, object] = {}
    for name, value in _outside(policy):
        if isinstance(value, list | dict | set):
            kept[name] = len(value), repr(value)
    return kept


def caches_of(policy: object) -> Mapping[str, Callable[[], None]]:
    """By name of the function, how to empty each `functools.cache` in the policy's classes and their modules."""
    return {name: value.cache_clear for name, value in _outside(policy) if hasattr(value, "cache_clear")}


def _outside(policy: object) -> Iterator[tuple[str, Any]]:
    for kind in type(policy).__mro__:
        module = sys.modules.get(kind.__module__)
        if kind is object or module is None or kind.__module__.partition(".")[0] in ("authserver", "typing"):
            continue
        for name, value in list(vars(kind).items()):
            if not name.startswith("__"):
                yield f"{kind.__name__}.{name}", value
            for default in getattr(getattr(value, "__func__", value), "__defaults__", None) or ():
                yield f"the default of {kind.__name__}.{name}", default
        for name, value in list(vars(module).items()):
            if not name.startswith(("__", "@")):
                yield name, value
