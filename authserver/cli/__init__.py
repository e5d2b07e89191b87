"""The command line: `authserver -c FILE …`. One file a command group; this one only joins them."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from authserver.cli.client import client
from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.db import db
from authserver.cli.demo import demo
from authserver.cli.explain import explain
from authserver.cli.keys import keys
from authserver.cli.plugin import plugin
from authserver.cli.plugins import plugins
from authserver.cli.policy import policy
from authserver.cli.user import user


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"]})
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
    """Look after an authorization server: its database, its users, its clients, its keys."""
    # Pyramid 2.1 imports it, and setuptools is kept below 82 for that: no news to whoever types a command.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    context.obj = Configuration(config)


for command in (db, user, client, keys, plugin, plugins, explain, policy, demo):
    main.add_command(command)
