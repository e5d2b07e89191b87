"""`authserver serve`: pserve, with a message of one line if the INI file is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from authserver.cli.configuration import Configuration
from authserver.cli.options import PAIR


@click.command()
@click.argument("variables", metavar="NAME=VALUE", type=PAIR, nargs=-1)
@click.pass_obj
def serve(configuration: Configuration, variables: Sequence[tuple[str, str]]) -> None:
    """Run the server, as `pserve` does; if the INI file is wrong, print the problem in one line.

    NAME=VALUE is a variable that the INI file uses, such as http_port=6643.
    """
    path = configuration.file()
    from authserver.web.starting import main

    # Further processes are started by it, too.
    sys.argv = ["pserve", str(path), *[f"{name}={text}" for name, text in variables]]
    sys.exit(main(sys.argv))
