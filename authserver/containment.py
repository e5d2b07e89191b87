"""A plugin runs in this process but must not end it: all that it raises reaches its caller as an `Exception`.

`sys.exit()`, a `KeyboardInterrupt` or a `GeneratorExit` would otherwise pass every `except Exception` between the
plugin and the server, and leave a request without an answer.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import FrameType
from typing import Any

MAXIMUM_TEXT = 500


class Escaped(Exception):
    """A plugin raised something that is not an `Exception`; the message names it."""


class Interrupted(KeyboardInterrupt):
    """The operator pressed Ctrl-C (`interruptible`). It is not caused by a plugin, so it is not contained."""


def contained(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function. Raises its exceptions, and Escaped instead of what is not an `Exception`."""
    try:
        return function(*arguments)
    except (Exception, Interrupted):
        raise
    except BaseException as error:
        raise Escaped(f"it raised {type(error).__name__}, which is not an Exception") from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this, Ctrl-C in the main thread comes from the operator, and ends the call of a plugin.

    A process that ignores Ctrl-C, such as one that a shell runs in the background, still ignores it.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def text_of(error: BaseException) -> str:
    """The text of an exception: one printable line of limited length, whatever its `__str__` does."""
    try:
        text = str(contained(str, error))
    except Exception:
        return type(error).__name__
    line = "".join(character if character.isprintable() else " " for character in text[: MAXIMUM_TEXT + 1])
    return line if len(line) <= MAXIMUM_TEXT else line[:MAXIMUM_TEXT] + "…"


def described(error: BaseException) -> str:
    """What a plugin raised, and the line of the plugin: `KeyError: 'team' (quiet.py, line 14)`; one printable line."""
    while isinstance(error, Escaped) and error.__cause__ is not None:
        error = error.__cause__
    text = text_of(error)
    name = type(error).__name__
    said = name if text in ("", name) else f"{name}: {text}"
    if isinstance(error, BaseExceptionGroup):
        said += f" [{', '.join(type(each).__name__ for each in error.exceptions[:3])}]"
    place = _place(error)
    return f"{said} ({place})" if place else said


def _place(error: BaseException) -> str:
    """The last line of the plugin's own code that ran; "" if none did."""
    root, place = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        ours = owner == "authserver" or owner in sys.stdlib_module_names
        if not ours and owner == (root or owner):
            root, place = owner, f"{PurePath(frame.f_code.co_filename).name}, line {line}"
    return place


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted
