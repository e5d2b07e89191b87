"""Tables and sentences for people, JSON for machines; stored text is made safe for a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from authserver.engine.printable import made_visible

json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="JSON on stdout, for machines."
)


def say(text: str = "", *, err: bool = False) -> None:
    """Print sentences for people. Stored text must be given as its `words`, so that every line break is our own."""
    click.echo(safe(text), err=err)


def safe(text: str) -> str:
    """A text of several lines, with escapes for all other characters that are not visible."""
    return "\n".join(map(made_visible, text.split("\n")))


def print_json(value: object) -> None:
    """One JSON document and nothing else on stdout; times in ISO 8601."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    # Of what may hide, JSON itself escapes only the first 32 characters.
    lines = (made_visible(line, lambda hidden: json.dumps(hidden)[1:-1]) for line in text.split("\n"))
    click.echo("\n".join(lines))


def print_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str, indent: int = 0
) -> None:
    """A table with one line for each row; if there are none, the text `empty`."""
    found = list(rows)
    if not found:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in found:
        table.add_row(*(Text(words(row.get(column))) for column in columns))
    _console().print(Padding(table, (0, 0, 0, indent), expand=False))


def print_record(record: Mapping[str, Any], *, indent: int = 0) -> None:
    """One record, a line for each member."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(Text(words(name).replace("_", " ")), Text(words(value)))
    _console().print(Padding(table, (0, 0, 0, indent), expand=False))


def words(value: object) -> str:
    """A value as people read it, in one line; a list has a line for each of its values."""
    match value:
        case None | "" | () | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%SZ")
        case list() | tuple():
            return "\n".join(map(words, value))
        case _:
            return made_visible(str(value))


def _console() -> Console:
    # Made for each print, so that a redirected stdout gets it. Piped output is not wrapped at 80 columns.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")
