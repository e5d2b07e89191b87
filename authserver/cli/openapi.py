"""`authserver openapi`: the OpenAPI document of the endpoints that answer JSON."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import print_json, say


@click.command()
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file, replacing its content.",
)
@click.pass_obj
def openapi(configuration: Configuration, output: Path | None) -> None:
    """Print the OpenAPI document (3.1) of the endpoints that answer JSON, with the features that the INI file switches on.

    It is made from the code and the settings; the database is not used.
    """
    # Imported here, as `Configuration.application` does.
    from authserver.app import make_wsgi_app
    from authserver.web.openapi import document

    with closing(configuration.application()) as application:
        made = document(make_wsgi_app(application, configuration.ini()).registry)
    if output is None:
        print_json(made)
        return
    output.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    say(f"{output} is written.")
