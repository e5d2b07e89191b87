"""`authserver db`: the database and its migrations."""

from __future__ import annotations

import click

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.copy import copy
from authserver.cli.printing import json_option, print_json, say, words
from authserver.cli.purge import purge
from authserver.cli.reencrypt import reencrypt
from authserver.cli.restored import restored
from authserver.storage import migrate
from authserver.storage.database import Database


@click.group(cls=OneSentence)
def db() -> None:
    """The database: its tables, its expired rows, and what to do after a restore or with another key ring."""


db.add_command(copy)
db.add_command(purge)
db.add_command(reencrypt)
db.add_command(restored)


@db.command()
@click.pass_obj
def upgrade(configuration: Configuration) -> None:
    """Bring the database to the state this version expects; safe to run twice, and while servers run.

    Servers of this version and of the one before go on meanwhile. Each migration that an earlier version can work with is
    committed by itself; one that waits for a lock for a second gives way to requests and tries again.
    """
    url = configuration.settings().database_url.value
    before = migrate.current(url)
    try:
        migrate.upgrade(url)
    except migrate.TooNew as error:
        raise click.ClickException(f"nothing was changed: {error}") from None
    after = migrate.current(url)
    if before == after and after != migrate.head():
        say(f"The database is at {words(after or '')}, ahead of this version, which can work with it.")
        return
    say(
        f"The database is at {words(after)}"
        + (", as it was." if before == after else f"; it was {words(before or 'empty')}.")
    )


@db.command()
@json_option
@click.pass_obj
def current(configuration: Configuration, as_json: bool) -> None:
    """Say which migration the database is at; exit status 1 when this version cannot work with it."""
    database = Database(configuration.settings().database_url.value)
    try:
        found, schema = database.revision(), migrate.schema(database)
    finally:
        database.close()
    newest = migrate.head()
    if as_json:
        print_json(
            {
                "current": found,
                "head": newest,
                "is_current": schema is migrate.Schema.CURRENT,
                "schema": schema.value,
            }
        )
    else:
        say(f"{words(found or 'empty')}: {_TOLD[schema].format(newest=newest)}")
    if not schema.is_usable:
        raise click.exceptions.Exit(1)


_TOLD = {
    migrate.Schema.CURRENT: "this is the newest.",
    migrate.Schema.BEHIND: "run `authserver db upgrade` to reach {newest}.",
    migrate.Schema.AHEAD: "a newer version has migrated it, and this one, at {newest}, can work with it.",
    migrate.Schema.TOO_NEW: "a newer version has migrated it, and this one, at {newest}, cannot work with it.",
}
