"""A bar for long work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progress(what: str, items: Iterable[T], *, quiet: bool, total: int | None = None) -> Iterable[T]:
    """The items, with a bar on stderr that moves with each; `total` is how many there are, if that is known."""
    return track(items, what, total=total, console=stderr(quiet=quiet))


def stderr(*, quiet: bool) -> Console:
    """Where bars are shown. Nothing is written if that is a file or a log, where each bar would leave a line."""
    console = Console(stderr=True)
    console.quiet = quiet or not console.is_terminal
    return console
