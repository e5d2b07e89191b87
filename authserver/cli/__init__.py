"""The command line: `authserver -c FILE …`. Each command group is one file, imported when the command is called."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.printing import safe
from authserver.containment import interruptible

# Each is in the module of the same name, with an underscore for a hyphen.
COMMANDS = (
    "apply",
    "audit",
    "client",
    "db",
    "demo",
    "doctor",
    "end",
    "explain",
    "export",
    "grant",
    "init",
    "initial-token",
    "issuer",
    "keys",
    "limits",
    "lint",
    "openapi",
    "plugin",
    "plugins",
    "policy",
    "resource",
    "serve",
    "stats",
    "user",
)


class Commands(OneSentence):
    """Command groups by name; a command imports its own group only."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        name = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"authserver.cli.{name}"), name)
        return command

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Refuse bytes that are no text, which nothing that is stored can equal; files may have such names."""
        for each in args:
            if each.encode("utf-8", "replace").decode() != each and not os.path.lexists(each):
                raise click.UsageError(f"{safe(each)}: is not valid UTF-8", context)
        return super().parse_args(context, args)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Only the names: for the help of each group click would import it, and completion must be fast."""
        if incomplete[:1] == "-":
            return super().shell_complete(context, incomplete)
        return [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    envvar="AUTHSERVER_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The INI file of the server.",
)
@click.version_option(package_name="authserver")
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """Manage an authorization server: its database, its users, its clients, its keys."""
    # A name that the encoding of the terminal lacks is escaped; no command ends because of it.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    # A plugin that raises KeyboardInterrupt has failed; an operator who presses Ctrl-C ends the command.
    context.with_resource(interruptible())
    context.obj = Configuration(config)
