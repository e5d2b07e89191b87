"""All commands of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import click

from authserver.cli import main


def commands(words: str = "", command: click.Command = main) -> Iterator[tuple[str, click.Command]]:
    """The words of each command with the command; a group that can be called alone is one, too."""
    if not isinstance(command, click.Group) or (words and command.invoke_without_command):
        yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(f"{words} {name}".strip(), found)
