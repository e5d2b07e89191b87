"""Tables and sentences for people, JSON for machines; stored text is made safe for a terminal."""

from __future__ import annotations

import codecs
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

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
    """Print sentences for people. Stored text must be given as its `words`, so that it adds no line break."""
    click.echo(safe(text), err=err)


def safe(text: str) -> str:
    """A text of several lines, with escapes for all other characters that are not visible."""
    return "\n".join(map(made_visible, text.split("\n")))


def print_json(value: object) -> None:
    """Print one JSON document, and nothing else, on stdout; times in ISO 8601."""
    text = json.dumps(value, indent=2, ensure_ascii=_lacks_characters(sys.stdout), default=_plain)
    click.echo("\n".join(map(_escaped, text.split("\n"))))


def print_json_line(value: object, file: TextIO | None = None) -> None:
    """Print one JSON document as a line of JSON Lines, on stdout or in a file; as `print_json` does."""
    file = file or sys.stdout
    text = json.dumps(value, ensure_ascii=_lacks_characters(file), separators=(",", ":"), default=_plain)
    file.write(f"{_escaped(text)}\n")


def print_toml(text: str) -> None:
    """Print a TOML document on stdout; it is in UTF-8, whatever the encoding of the terminal is."""
    click.echo(safe(text.rstrip("\n")).encode())


def print_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    empty: str,
    indent: int = 0,
    whole: Sequence[str] = (),
    right: Sequence[str] = (),
) -> None:
    """Print a table with one line for each row; if there are none, the text `empty`.

    Args:
        whole: columns that are never folded, so that their values can be copied.
        right: columns of numbers, which end below each other.
    """
    found = list(rows)
    if not found:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.replace("_", " "),
            overflow="fold",
            no_wrap=column in whole,
            justify="right" if column in right else "left",
        )
    for row in found:
        table.add_row(*(Text(words(row.get(column))) for column in columns))
    _console().print(Padding(table, (0, 0, 0, indent), expand=False))


def print_record(record: Mapping[str, Any], *, indent: int = 0) -> None:
    """Print one record, a line for each member."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(Text(words(name).replace("_", " ")), Text(words(value)))
    _console().print(Padding(table, (0, 0, 0, indent), expand=False))


def width() -> int:
    """The number of columns of a line on stdout."""
    return _console().width


def next_page(command: str, options: Iterable[tuple[str, object]], *, err: bool = False) -> None:
    """Print how to get the next page of a list.

    Args:
        command: the program and the words of the command.
        options: each option with its value; those without one (None) are left out, and True is a flag.
    """
    given = [(name, value) for name, value in options if value not in (None, False)]
    told = [name if value is True else f"{name} {shlex.quote(_option(value))}" for name, value in given]
    say(f"\nThere are more. The next page:\n  {words(' '.join([command, *told]))}", err=err)


def _option(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def words(value: object) -> str:
    """A value for people, in one line; a list has one line for each value."""
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


def _lacks_characters(file: TextIO) -> bool:
    """Whether the encoding of a file is another than that of JSON (RFC 8259, 8.1), so that escapes are needed."""
    return codecs.lookup(file.encoding or "utf-8").name != "utf-8"


def _escaped(line: str) -> str:
    """A line of JSON with escapes for all invisible characters; the encoder escapes only the first 32."""
    return made_visible(line, lambda hidden: json.dumps(hidden)[1:-1])


def _console() -> Console:
    # Made for each print, because stdout may be redirected. Piped output is not wrapped at 80 columns.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
