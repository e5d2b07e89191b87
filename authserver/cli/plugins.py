"""`authserver plugins`: lists the hooks and the plugins that each of them asks."""

from __future__ import annotations

from contextlib import closing

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import json_option, print_json, print_rows, say


@click.command()
@json_option
@click.pass_obj
def plugins(configuration: Configuration, as_json: bool) -> None:
    """Print who decides what: each hook, the plugins that it asks in order, and the meaning of their silence."""
    with closing(configuration.application()) as application:
        rows = application.parts.policies.table()
    if as_json:
        print_json(rows)
        return
    readable = [row | {"plugins": ", ".join(row["plugins"]) or "nobody"} for row in rows]
    print_rows(readable, ("hook", "kind", "plugins", "silence"), empty="There are no hooks.")
    # The setting of a client is also in the variant of each resource, but is printed once.
    lines = dict.fromkeys(
        (variant["plugin"], setting, value)
        for row in rows
        for variant in row["variants"]
        for setting, value in variant["settings"].items()
    )
    if lines:
        say("\nSettings for single clients and resources")
        columns = ("plugin", "setting", "value")
        print_rows([dict(zip(columns, line, strict=True)) for line in lines], columns, empty="")
    say(
        "\nAll are asked, in this order: any refusal refuses, every narrowing narrows, the first to allow gives the "
        "value."
    )
