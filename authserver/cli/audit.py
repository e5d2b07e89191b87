"""`authserver audit`: searches the events, explains one, exports them, and verifies that nobody changed them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from authserver import private_files
from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.durations import Moment
from authserver.cli.explanation import tell_event
from authserver.cli.printing import (
    json_option,
    next_page,
    print_json,
    print_json_line,
    print_rows,
    say,
    width,
    words,
)
from authserver.cli.progress import stderr
from authserver.engine import audit as trail
from authserver.engine import event_proof, operators
from authserver.engine.context import Engine
from authserver.engine.event_proof import Proof
from authserver.engine.people.account import user_id_of
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import Event, EventFilter, EventType

_COLUMNS = ("time", "event", "actor", "client", "user", "reason", "error_id")

# In a terminal narrower than this, an event has several lines.
_NARROW = ("time\nerror_id", "event\nreason", "who")
_WIDE = 110

since_option = click.option(
    "--since", type=Moment(), metavar="TIME", help="7d, 12h, 30m, or a time in ISO 8601, in UTC."
)
until_option = click.option(
    "--until",
    type=Moment(),
    metavar="TIME",
    help="The end, written as --since; an event at exactly this time is left out.",
)
after_option = click.option("--after", metavar="CURSOR", help="Begin after this place.")


@click.group(cls=OneSentence)
def audit() -> None:
    """Search and export the audit events, and verify that nobody changed them."""


@audit.command()
@click.option("--client", "client_id", metavar="ID", help="About this client.")
@click.option("--user", "username", metavar="NAME", help="About this person: the name or the user id.")
@click.option("--grant", "grant_id", metavar="ID", help="About this grant.")
@click.option(
    "--event",
    "names",
    multiple=True,
    shell_complete=lambda _context, _option, begun: [type for type in EventType if type.startswith(begun)],
    metavar="TYPE",
    help="Of this type, such as token.refused. May be given several times.",
)
@click.option("--refused", is_flag=True, help="Of the types for refused and failed requests.")
@click.option("--actor", help="Done by this actor, such as client:ID, user:ID or stranger.")
@click.option("--source", metavar="ADDRESS", help="From this network address.")
@click.option("--reason", help="For this reason, such as scope-not-registered.")
@click.option("--error-id", metavar="ID", help="The id that an error answer or page showed, or of any event.")
@click.option("--request-id", metavar="ID", help="Of the request with this id.")
@since_option
@until_option
@click.option(
    "--limit",
    type=click.IntRange(1, trail.MAXIMUM_PAGE),
    default=50,
    show_default=True,
    help="How many events a page has.",
)
@after_option
@json_option
@click.pass_obj
def search(
    configuration: Configuration,
    client_id: str | None,
    username: str | None,
    grant_id: str | None,
    names: tuple[str, ...],
    refused: bool,
    actor: str | None,
    source: str | None,
    reason: str | None,
    error_id: str | None,
    request_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List the events that fit all options, newest first.

    With --json each event is one line with all its members. `authserver audit show` explains one event.
    """
    types = trail.types_of(names)
    with configuration.engine(Plugins.UNUSED) as engine:
        wanted = EventFilter(
            event_id=error_id,
            request_id=request_id,
            types=trail.refused_types(types) if refused else types,
            client_id=client_id,
            user_id=None if username is None else _user_id(engine, username),
            grant_id=grant_id,
            actor=actor,
            source=None if source is None else trail.source_of(source),
            reason=reason,
            since=since,
            until=until,
        )
        page = trail.search(engine.stores.events, wanted, after=after, limit=limit)
        people = {} if as_json else _names(engine, page.events)
    if as_json:
        for event in page.events:
            print_json_line(operators.event(event))
    else:
        rows = [_row(event, people) for event in page.events]
        empty = "There are no more such events." if after else "There is no such event."
        if width() < _WIDE:
            print_rows(map(_stacked, rows), _NARROW, empty=empty, whole=_NARROW[:2])
        else:
            print_rows(rows, _COLUMNS, empty=empty, whole=("time", "error_id"))
        if rows:
            say(f"\nOne of them whole: {words(configuration.command)} audit show ERROR_ID")
    if page.next is None:
        return
    options = [
        ("--client", client_id),
        ("--user", username),
        ("--grant", grant_id),
        *(("--event", name) for name in names),
        ("--refused", refused),
        ("--actor", actor),
        ("--source", source),
        ("--reason", reason),
        ("--error-id", error_id),
        ("--request-id", request_id),
        ("--since", since),
        ("--until", until),
        ("--limit", limit),
        ("--json", as_json),
        ("--after", page.next),
    ]
    next_page(f"{configuration.command} audit search", options, err=as_json)


# An id may begin with a hyphen.
@audit.command(context_settings={"ignore_unknown_options": True})
@click.argument("event_id")
@json_option
@click.pass_obj
def show(configuration: Configuration, event_id: str, as_json: bool) -> None:
    """Explain one event: all its checks in order, who decided, and what would change the outcome.

    EVENT_ID is the error id that an answer or a page showed, or the id of any event.
    """
    tell_event(configuration, event_id, as_json)


@audit.command()
@since_option
@until_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A new file, which nobody else can read.",
)
@after_option
@click.pass_obj
def export(
    configuration: Configuration,
    since: datetime | None,
    until: datetime | None,
    output: Path | None,
    after: str | None,
) -> None:
    """Write events as JSON Lines, oldest first: each line has one whole event with its cursor.

    The cursor of the last line continues an export: --after CURSOR. Without --until the last five minutes are left out,
    because an event may be stored that much later than its time; therefore no event is missing between two exports.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        until = until or engine.now - trail.SETTLED
        found = trail.export(engine.stores.events, EventFilter(since=since, until=until), after=after)
        if output is None:
            _write(found, sys.stdout, until)
            return
        count, last = _write_file(found, output, until)
    say(f"{words(str(output))} has {count:,} {'event' if count == 1 else 'events'} until {words(until)}.")
    if last := last or after:
        say(f"The next export begins with --after {words(last)}")


@audit.command()
@json_option
@click.pass_obj
def readers(configuration: Configuration, as_json: bool) -> None:
    """Show the position of each reader of the events: the statistics, and plugins that deliver events.

    A plugin that is not listed any more keeps its position, and continues there if it is listed again. Events that a
    plugin never accepted are set aside and counted; the events `event.set_aside` name them.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        rows = [asdict(backlog) for backlog in trail.backlogs(engine.stores)]
    if as_json:
        print_json(rows)
        return
    print_rows(
        rows,
        ("reader", "waiting", "since", "set_aside"),
        empty="No reader has begun yet: readers begin when the server starts.",
    )


# The exit statuses.
WHOLE, BROKEN, UNKNOWN = 0, 1, 2


@audit.command()
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Begin with the events that were sealed from this time on: 7d, 12h, 30m, or a time in ISO 8601, in UTC.",
)
@click.option(
    "--head",
    metavar="HEAD",
    help="The head of the chain as it was noted before; it must still be in the chain.",
)
@json_option
@click.pass_obj
def verify(configuration: Configuration, since: datetime | None, head: str | None, as_json: bool) -> None:
    """Verify that no event was changed, deleted too early or added later, or name the first one that was.

    Servers seal events within about a minute, and may run meanwhile. The exit status is 0 if nothing is wrong, 1 if
    something is, and 2 if that cannot be determined.
    """
    application = configuration.application(Plugins.UNUSED)
    with closing(application):
        try:
            application.check_database()
            with _bar("Verifying", quiet=as_json) as bar:
                task = bar.add_task("", total=None)
                proof = event_proof.verify(
                    application.storage,
                    application.parts.ring,
                    now=datetime.now(UTC),
                    since=since,
                    head=head,
                    told=lambda done, total: bar.update(
                        task, description=f"{done:,} events", completed=done, total=total
                    ),
                )
        except event_proof.BadHead as error:
            raise click.BadParameter(str(error), param_hint="--head") from None
        except StorageUnavailable as error:
            say(f"Error: the database did not answer ({words(error)}); verify again.", err=True)
            raise click.exceptions.Exit(UNKNOWN) from None
    status = {True: WHOLE, False: BROKEN, None: UNKNOWN}[proof.whole]
    if as_json:
        print_json({**asdict(proof), "status": status})
    else:
        _tell_proof(proof, configuration.command)
    if status != WHOLE:
        raise click.exceptions.Exit(status)


def _tell_proof(proof: Proof, command: str) -> None:
    """Print the result of the verification, and the next step."""
    finding = proof.finding
    if finding is not None:
        outcome = "Broken" if proof.whole is False else "This cannot be determined"
        say(f"{outcome}: {words(finding.record)} {words(finding.problem)}.")
        if finding.event_id is not None:
            say(
                f"It is there as {words(finding.event_id)}: {words(command)} audit show {words(finding.event_id)}"
            )
        say(words(finding.advice))
        if proof.whole is False:
            say("Events that were sealed later are verified with --since and a time after that.")
    if proof.seals:
        whole = "Nothing was changed" if proof.whole else "Before that nothing was changed"
        deleted = f", and {proof.deleted:,} were deleted because they had expired" if proof.deleted else ""
        say(
            f"{whole}: {_counted(proof.events, 'event')} of {_counted(proof.seals, 'seal')} since {words(proof.since)} "
            f"{'is' if proof.events == 1 else 'are'} as sealed{deleted}."
        )
    elif finding is None and not proof.unsealed:
        say("There is no event yet.")
    if proof.unsealed:
        number = "The last event" if proof.unsealed == 1 else f"The last {proof.unsealed:,} events, at most,"
        is_not = "is" if proof.unsealed == 1 else "are"
        say(f"{number} since {words(proof.unsealed_since)} {is_not} not sealed yet.")
        if proof.seals and proof.is_late(datetime.now(UTC)):
            say("Servers seal events within a minute: is one running? Its log says so if it cannot.")
    if proof.head is not None and proof.whole:
        say(f"The head of the chain is {proof.head}")
        say("Note it on another machine: --head with it shows later that the end was not cut off.")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _row(event: Event, people: dict[str, str]) -> dict[str, Any]:
    """An event as a row for people: an actor that is the client or user of the same line is not repeated."""
    actor = {f"client:{event.client_id}": "client", f"user:{event.user_id}": "user"}
    return {
        "time": event.at,
        "event": event.type,
        "actor": actor.get(event.actor, event.actor),
        "client": event.client_id,
        "user": people.get(event.user_id or "", event.user_id),
        "reason": event.reason,
        "error_id": event.event_id,
    }


def _stacked(row: dict[str, Any]) -> dict[str, Any]:
    """A `_row` for a narrow terminal: few columns, with several lines in each."""
    time, event, who = _NARROW
    names = {"by": "actor", "client": "client", "user": "user"}
    return {
        time: [row["time"], row["error_id"]],
        event: [text for text in (row["event"], row["reason"]) if text],
        who: [f"{label} {row[name]}" for label, name in names.items() if row[name]],
    }


def _user_id(engine: Engine, name: str) -> str:
    """The id of a person (`account.user_id_of`). Raises click.ClickException."""
    user_id = user_id_of(engine, name)
    if user_id is not None:
        return user_id
    raise click.ClickException(
        f"{name}: no such user; see `authserver user list`. Sign-ins under a name that nobody has are found with "
        "--event sign_in.refused"
    )


def _names(engine: Engine, events: Iterable[Event]) -> dict[str, str]:
    """The names of the people in these events, by their ids."""
    user_ids = sorted({event.user_id for event in events if event.user_id})
    return {user.user_id: user.username for user in engine.stores.users.find_all(user_ids)}


def _write_file(events: Iterable[Event], path: Path, until: datetime) -> tuple[int, str | None]:
    """As `_write`, into a new file. An interruption leaves the written lines, but no empty file."""
    file = private_files.begin(path)
    try:
        with file:
            return _write(events, file, until)
    except BaseException:
        if path.stat().st_size:
            say(
                f"{words(str(path))} is not complete: export what is missing with --after and the cursor of its last whole "
                "line",
                err=True,
            )
        else:
            path.unlink()
        raise


def _write(events: Iterable[Event], file: TextIO, until: datetime) -> tuple[int, str | None]:
    """Write each event as a line. Returns the number of events, and the cursor of the last."""
    count = 0
    last: Event | None = None
    with _progress(until) as advance:
        for event in events:
            print_json_line(operators.event(event), file)
            count, last = count + 1, event
            advance(count, event.at)
    file.flush()
    return count, trail.cursor_of(last) if last else None


@contextmanager
def _progress(until: datetime) -> Iterator[Callable[[int, datetime], None]]:
    """A bar on stderr, if that is a terminal. It shows the progress in time, because the events were not counted."""
    with _bar("Exporting") as bar:
        task = bar.add_task("", total=None)
        began: datetime | None = None

        def advance(count: int, at: datetime) -> None:
            nonlocal began
            began = began or at
            if count % trail.BATCH == 0:
                done, total = (at - began).total_seconds(), (until - began).total_seconds()
                bar.update(task, description=f"{count:,} events", completed=done, total=total)

        yield advance
        if began is not None:
            total = (until - began).total_seconds()
            bar.update(task, completed=total, total=total)


def _bar(what: str, *, quiet: bool = False) -> Progress:
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    return Progress(*columns, TimeElapsedColumn(), console=stderr(quiet=quiet))
