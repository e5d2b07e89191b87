"""Lists are printed a page at a time, and each page ends with the command for the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import next_page

MAXIMUM_PAGE = 1000
T = TypeVar("T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def limit_option(what: str) -> Decorator:
    """--limit; `what` is listed."""
    return click.option(
        "--limit",
        type=click.IntRange(1, MAXIMUM_PAGE),
        default=100,
        show_default=True,
        help=f"How many {what} are listed at most.",
    )


def after_option(metavar: str, which: str) -> Decorator:
    """--after; `which` names the last one of the previous page."""
    return click.option("--after", default="", metavar=metavar, help=f"Begin after {which}.")


def page_of(found: Sequence[T], identifier: Callable[[T], str], *, after: str, limit: int) -> Sequence[T]:
    """The part of a short list that is the page, and one more if there are more.

    Raises:
        click.UsageError: the list has nothing with this name.
    """
    if not after:
        return found[: limit + 1]
    names = [identifier(each) for each in found]
    if after not in names:
        raise not_in_list(after)
    begin = names.index(after) + 1
    return found[begin : begin + limit + 1]


def not_in_list(after: str) -> click.UsageError:
    """The refusal of a page that begins after something that is not in the list."""
    return click.UsageError(f"--after {after}: it is not in the list; leave it out to begin again")


def tell_next_page(
    configuration: Configuration,
    options: Iterable[tuple[str, object]],
    *,
    limit: int,
    after: str,
    as_json: bool,
) -> None:
    """Print the command for the next page.

    Args:
        options: the options of this list, without those that all lists have.
        after: the last one of this page.
    """
    words = click.get_current_context().command_path.partition(" ")[2]
    given = [*options, ("--limit", limit), ("--json", as_json), ("--after", after)]
    next_page(f"{configuration.command} {words}", given, err=as_json)
