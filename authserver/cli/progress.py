"""A bar for long work that is done in batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progress(what: str, batches: Iterable[T], *, quiet: bool, total: int | None = None) -> Iterable[T]:
    """The batches, with a bar on stderr that moves with each; `total` is how many there are, if that is known."""
    return track(batches, what, total=total, console=Console(stderr=True), disable=quiet)
