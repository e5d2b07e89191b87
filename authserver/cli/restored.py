"""`authserver db restored`: makes a restored backup safe, before the servers start again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.ending import confirm, yes_option
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say
from authserver.cli.progress import progress
from authserver.engine.keys import ring
from authserver.engine.keys.signing_keys import CannotChange
from authserver.engine.records import EventType
from authserver.engine.restore import generation, lost_events
from authserver.engine.restore.lost_events import LoggedEvent, Redone, RedoOutcome

if TYPE_CHECKING:
    from authserver.app import Application

# At most this many line numbers are printed; `--json` has all.
MAXIMUM_NUMBERS = 20

_WARNING = "This revokes every grant, signs everybody out and replaces the signing keys. Continue?"
_BY_HAND = """\
The backup does not contain later changes. Make these again before the servers start:
  - disable the clients and people that were disabled
  - end the client secrets that were ended
  - replace the passwords that were changed
  - change the groups and attributes of people that were changed
  - remove the resources that were removed
  - change the clients and resources that were changed
  - add the clients, people and resources that were added
The log of the plugin log_events has them: `authserver db restored --events FILE` does the first five, as far as it can, and
lists the rest."""


@click.command()
@click.option(
    "--events",
    "log",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="The log that the plugin log_events wrote into; `-` is stdin. Its changes after the backup are made again.",
)
@yes_option
@json_option
@click.pass_obj
def restored(configuration: Configuration, log: str | None, yes: bool, as_json: bool) -> None:
    """End everything that a restored backup made valid again; it is safe to run this again, also after an interruption.

    Stop every server first, restore the database, run this, and start the servers.
    """
    confirm(_WARNING, yes=yes)
    application = configuration.application(Plugins.OBSERVE)
    with closing(application):
        application.check_database()
        logged, bad = _read(log)
        try:
            done = _begin_again(application, quiet=as_json)
        except CannotChange as error:
            raise click.ClickException(f"{error}; is every server stopped?") from error
        redone = _redo(application, logged)
        with application.begin() as engine:
            engine.record(EventType.DATABASE_RESTORED, details={**done, "redone": len(redone)})
    if as_json:
        rows = [_row(item) for item in redone]
        print_json({**done, "redone": rows, "lines_without_event": bad, "events_were_read": log is not None})
    else:
        _print(done, redone, bad, by_hand=log is None)


def _read(log: str | None) -> tuple[Sequence[LoggedEvent], Sequence[int]]:
    if log is None:
        return [], []
    with click.open_file(log, "rb") as lines:
        return lost_events.read_log(lines)


def _begin_again(application: Application, *, quiet: bool) -> dict[str, Any]:
    """Each step has its own transactions; to repeat a failed step, run the command again."""
    with application.begin() as engine:
        ring.check_known(engine)
        engine.stores.generations.begin(engine.now)
        began_at, grants = engine.now, engine.stores.grants.count()
    batches = generation.revoke_grants(application.begin)
    revoked = sum(progress("Revoking grants", batches, quiet=quiet, total=-(-grants // generation.BATCH)))
    ended = generation.end_sessions(application.begin)
    forgotten = generation.forget_consents(application.begin)
    sessions = sum(progress("Ending sessions", ended, quiet=quiet))
    consents = sum(progress("Deleting consents", forgotten, quiet=quiet))
    with application.begin() as engine:
        keys = generation.replace_signing_keys(engine)
    return {
        "began_at": began_at.isoformat(),
        "grants_revoked": revoked,
        "sessions_ended": sessions,
        "consents_forgotten": consents,
        "signing_keys_ended": list(keys.ended),
        "signing_keys": list(keys.fresh),
    }


def _redo(application: Application, logged: Sequence[LoggedEvent]) -> list[Redone]:
    """Make the changes of the log again, each in a separate transaction: a client or person gets its state in the log."""
    with application.begin() as engine:
        lost = lost_events.lost(engine, logged)
    redone = []
    for event in lost:
        with application.begin() as engine:
            redone.append(lost_events.redo(engine, event))
    return [item for item in redone if item.outcome is not RedoOutcome.ALREADY or item.todo]


def _row(item: Redone) -> Mapping[str, Any]:
    return {
        "at": item.event.at,
        "type": str(item.event.type),
        "about": item.subject,
        "outcome": str(item.outcome),
        "todo": item.todo,
    }


def _print(done: Mapping[str, Any], redone: Sequence[Redone], bad: Sequence[int], *, by_hand: bool) -> None:
    say("Nothing that was issued before is valid any more. This has ended:")
    print_record(done, indent=2)
    if by_hand:
        say(f"\n{_BY_HAND}")
        return
    say("\nChanges after the backup, made again from the log:")
    print_rows(
        [_row(item) for item in redone],
        ("at", "type", "about", "outcome", "todo"),
        empty="  none: the log has no such change",
        indent=2,
    )
    if bad:
        numbers = ", ".join(map(str, bad[:MAXIMUM_NUMBERS])) + (", …" if len(bad) > MAXIMUM_NUMBERS else "")
        say(f"\nLines of the log that are not events ({len(bad)}): {numbers}")
