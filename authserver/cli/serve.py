"""`authserver serve`: pserve, with a message of one line if the INI file is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from authserver.cli.configuration import Configuration


@click.command()
@click.argument("variables", metavar="NAME=VALUE", nargs=-1)
@click.pass_obj
def serve(configuration: Configuration, variables: Sequence[str]) -> None:
    """Run the server, as `pserve` does; if the INI file is wrong, print the problem in one line.

    NAME=VALUE is a variable that the INI file uses, such as http_port=6643.
    """
    for variable in variables:
        if "=" not in variable:
            raise click.UsageError(f"{variable} is no variable; write NAME=VALUE")
    path = configuration.file()
    from authserver.web.starting import main

    # Further processes are started by it, too.
    sys.argv = ["pserve", str(path), *variables]
    sys.exit(main(sys.argv))
