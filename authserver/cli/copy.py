"""`authserver db copy`: copies all rows into another database, for example from SQLite to PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

import click
from rich.progress import Progress
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from authserver import ini
from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.printing import json_option, print_json, print_rows, say
from authserver.cli.progress import stderr
from authserver.engine import event_proof
from authserver.storage import migrate, transfer
from authserver.storage.database import Database


@click.command()
@click.option(
    "--to",
    "target",
    required=True,
    metavar="URL",
    help="An empty database: its URL as in authserver.database_url, or env:NAME or file:PATH to read the URL from there.",
)
@json_option
@click.pass_obj
def copy(configuration: Configuration, target: str, as_json: bool) -> None:
    """Copy all rows into another, empty database, and verify that they are equal.

    Stop all servers first. The tables are made there, every row is copied in one transaction, read again and compared, and
    the chain of the audit events is verified. An error leaves no row in the new database, and the old one is only
    read. Then set `authserver.database_url` to the new one and start the servers again, with the same key ring.
    """
    url = ini.resolve("--to", target).text
    with closing(configuration.application(Plugins.UNUSED)) as application:
        source = application.storage
        if migrate.schema(source) is not migrate.Schema.CURRENT:
            raise click.ClickException(
                "the database is not at this version's migration: run `authserver db upgrade` first"
            )
        with closing(_open(url)) as opened:
            try:
                migrate.upgrade(url)
                with Progress(console=stderr(quiet=as_json)) as progress:
                    task = progress.add_task("Copying", total=transfer.count(source))
                    copied = transfer.copy(source, opened, lambda table, rows: progress.advance(task, rows))
            except (transfer.NotCopied, migrate.TooNew) as error:
                raise click.ClickException(f"nothing was copied: {error}") from None
            proof = event_proof.verify(opened, application.parts.ring, now=datetime.now(UTC))
    if as_json:
        print_json({"tables": copied, "rows": sum(copied.values()), "events_are_proven": proof.whole})
    else:
        rows = [{"table": table, "rows": f"{count:,}"} for table, count in copied.items() if count]
        print_rows(rows, ("table", "rows"), empty="There was nothing to copy.")
        say(f"\n{sum(copied.values()):,} rows are the same in both databases. {_TOLD[proof.whole]}")
        say("Now set authserver.database_url to the new database, and start the servers.")
    if proof.whole is False:
        raise click.exceptions.Exit(1)


_TOLD = {
    True: "The chain of the audit events is whole.",
    False: "The chain of the audit events is broken, as it was before: `authserver audit verify` says where.",
    None: "The chain of the audit events cannot be verified; `authserver audit verify` says why.",
}


def _open(url: str) -> Database:
    """The URL is never repeated, because it may hold a password."""
    try:
        if make_url(url).drivername in ("sqlite", "postgresql+psycopg"):
            return Database(url)
    except (ArgumentError, TypeError, ValueError):
        pass
    expected = "sqlite:///path or postgresql+psycopg://user:password@host/name"
    raise click.BadParameter(f"expected {expected}", param_hint="--to")
