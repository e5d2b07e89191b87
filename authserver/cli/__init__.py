"""The command line: `authserver -c FILE …`. Each command group is one file, imported when the command is called."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from authserver.cli.configuration import Configuration, OneSentence
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
    # A plugin that raises KeyboardInterrupt has failed; an operator who presses Ctrl-C ends the command.
    context.with_resource(interruptible())
    context.obj = Configuration(config)
