"""`authserver db`: the database, its migrations above all."""

from __future__ import annotations

import click

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.printing import json_option, print_json, say, words
from authserver.cli.purge import purge
from authserver.cli.reencrypt import reencrypt
from authserver.cli.restored import restored
from authserver.storage import migrate


@click.group(cls=OneSentence)
def db() -> None:
    """The database: its tables, its expired rows, and what to do after a restore or with another key ring."""


db.add_command(purge)
db.add_command(reencrypt)
db.add_command(restored)


@db.command()
@click.pass_obj
def upgrade(configuration: Configuration) -> None:
    """Bring the database to the state this version expects; safe to run twice."""
    url = configuration.settings().database_url.value
    before = migrate.current(url)
    migrate.upgrade(url)
    after = migrate.current(url)
    say(
        f"The database is at {words(after)}"
        + (", as it was." if before == after else f"; it was {words(before or 'empty')}.")
    )


@db.command()
@json_option
@click.pass_obj
def current(configuration: Configuration, as_json: bool) -> None:
    """Say which migration the database is at; exit status 1 when one is missing."""
    found, newest = migrate.current(configuration.settings().database_url.value), migrate.head()
    if as_json:
        print_json({"current": found, "head": newest, "is_current": found == newest})
    elif found == newest:
        say(f"{words(found)}: this is the newest.")
    else:
        say(f"{words(found or 'empty')}: run `authserver db upgrade` to reach {newest}.")
    if found != newest:
        raise click.exceptions.Exit(1)
