"""`authserver stats`: shows how many tokens were issued, refreshed and refused, by client and time."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from authserver import upkeep
from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.durations import Moment
from authserver.cli.printing import json_option, print_json, print_rows, say, width, words
from authserver.cli.progress import progress
from authserver.engine import counting, statistics
from authserver.engine.context import Engine
from authserver.engine.count_records import Gauge, Step
from authserver.engine.ports import StorageUnavailable
from authserver.engine.statistics import By, Figures, Measure, Totals, TotalsRow
from authserver.engine.upkeep_records import Disposable

if TYPE_CHECKING:
    from authserver.app import Application

# How many characters the longest bar has.
_BAR = 20
# How many reasons the overview names.
_REASONS = 5
# A character for each height of a bar; ASCII for terminals that may have no other characters.
_HEIGHTS, _PLAIN_HEIGHTS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


@click.command()
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="7d, 12h, or a time in ISO 8601, in UTC (by default 30d; by hour 1d, by month 365d).",
)
@click.option("--until", type=Moment(), metavar="TIME", help="The end, written as --since (by default now).")
@click.option("--by", type=click.Choice([by.value for by in By]), help="A row for each of these.")
@click.option("--client", "client_id", metavar="ID", help="Of this client alone.")
@click.option("--grant-type", metavar="TYPE", help="Of token requests for this grant type alone.")
@click.option(
    "--limit",
    type=click.IntRange(1, statistics.MAXIMUM_ROWS),
    default=20,
    show_default=True,
    help="How many clients, grant types or reasons are shown.",
)
@click.option("--rebuild", is_flag=True, help="Count again all events that are still stored.")
@json_option
@click.pass_obj
def stats(
    configuration: Configuration,
    since: datetime | None,
    until: datetime | None,
    by: str | None,
    client_id: str | None,
    grant_type: str | None,
    limit: int,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Show how much was issued, refreshed and refused, who signed in, and the present totals.

    Times are whole hours or days of UTC. --rebuild counts the events again, from --since on if that is given; servers can
    run meanwhile, and stopping it loses nothing.
    """
    if rebuild:
        if until or by or client_id or grant_type:
            raise click.UsageError("--rebuild takes no other option than --since and --json")
        _rebuild(configuration, since, as_json)
        return
    rows_of = By(by) if by else None
    with closing(configuration.application(Plugins.UNUSED)) as application:
        with application.begin() as engine:
            until = until or engine.now
            since = since or statistics.usual_since(until, rows_of)
            shown_by = rows_of or _steps_of(until - since)
            found = statistics.totals(
                engine, since, until, by=shown_by, client_id=client_id, grant_type=grant_type, limit=limit
            )
            waiting = statistics.counting_progress(engine)
            more = _overview(engine, found, shown_by, client_id, grant_type) if rows_of is None else {}
            names = _names(engine, found.rows) if rows_of is By.CLIENT and not as_json else {}
        if rows_of is None and client_id is None and grant_type is None:
            figures = _figures(application)
            more["now"] = {"at": figures.at, **figures.values} if figures else None
    if as_json:
        print_json(
            {
                "since": found.since,
                "until": found.until,
                "counts": found.counts,
                **({"by": by, "rows": [_described(row, rows_of) for row in found.rows]} if by else {}),
                **({"more": found.more} if by else {}),
                **more,
                "not_counted_yet": {"events": waiting.waiting, "since": waiting.since},
            }
        )
        return
    say(f"From {words(found.since)} until {words(found.until)}:\n")
    if rows_of is None:
        _print_overview(found, more)
    else:
        _print_table(found, rows_of, names)
    if waiting.since is not None:
        say(
            f"\nNot counted yet: about {waiting.waiting:,} events, the first of {words(waiting.since)}. Servers count them "
            "in the background while they run."
        )


def _steps_of(length: timedelta) -> By:
    """The step for a period of this length, so that there are about ten steps."""
    if length <= timedelta(days=2):
        return By.HOUR
    return By.DAY if length <= timedelta(days=92) else By.MONTH


def _overview(
    engine: Engine, found: Totals, by: By, client_id: str | None, grant_type: str | None
) -> dict[str, Any]:
    """Print the overview: each measure with a small chart, and the reasons of refusals."""
    more: dict[str, Any] = {
        "step": by.step,
        "series": {
            measure: [{"at": row.at, "count": row.counts[measure]} for row in found.rows]
            for measure in Measure
        },
    }
    if grant_type is None:
        refused = statistics.refusal_reasons(
            engine, found.since, found.until, client_id=client_id, limit=_REASONS
        )
        more["reasons"] = [
            {"event": each.type, "reason": each.reason, "count": each.count} for each in refused
        ]
    return more


def _figures(application: Application) -> Figures | None:
    """The present totals; the last stored ones if counting would take too long."""
    try:
        with application.begin() as engine:
            return statistics.current_figures(engine)
    except StorageUnavailable:
        with application.begin() as engine:
            return statistics.latest_figures(engine)


def _print_overview(found: Totals, more: Mapping[str, Any]) -> None:
    # The width that the other two columns leave.
    room = max(width() - 32, 10)
    rows = [
        {
            "what": _words(measure),
            "count": f"{count:,}",
            "over_time": _line([point["count"] for point in more["series"][measure]], room),
        }
        for measure, count in found.counts.items()
    ]
    print_rows(rows, ("what", "count", "over_time"), empty="", right=("count",), whole=("over_time",))
    if more.get("reasons"):
        say("\nRefused and revoked most often because of:\n")
        print_rows(
            [{**row, "count": f"{row['count']:,}"} for row in more["reasons"]],
            ("reason", "event", "count"),
            empty="",
            right=("count",),
        )
    if now := more.get("now"):
        there_are = ", ".join(f"{_words(gauge)} {now[gauge]:,}" for gauge in Gauge)
        say(f"\nAt {words(now['at'])}: {there_are}")


def _print_table(found: Totals, by: By, names: Mapping[str, str]) -> None:
    if not any(row.total for row in found.rows):
        say("Nothing was counted in this time.")
        return
    name = by.value.replace("-", "_") if by.step is None else "time"
    measures = [measure for measure in Measure if any(row.counts[measure] for row in found.rows)]
    highest = max(row.total for row in found.rows)
    rows: list[dict[str, Any]] = [
        {
            name: _key(row, by, names),
            **{_words(measure): f"{row.counts[measure]:,}" for measure in measures},
            "all": _bar(row.total, highest),
        }
        for row in found.rows
    ]
    columns = tuple(map(_words, measures))
    needed = sum(max(len(str(row[column])) for row in [*rows, {column: column}]) + 2 for column in rows[0])
    if needed > width():
        # In a terminal that is too narrow for one line, a row has several.
        rows = [
            {
                name: row[name],
                "how_much": [f"{column} {row[column]}" for column in columns if row[column] != "0"],
                "all": row["all"],
            }
            for row in rows
        ]
        print_rows(rows, (name, "how_much", "all"), empty="")
    else:
        print_rows(rows, (name, *columns, "all"), empty="", right=columns)
    if found.more:
        say("\nThere are more; show them with a higher --limit.")


def _key(row: TotalsRow, by: By, names: Mapping[str, str]) -> str:
    if row.at is not None:
        return row.at.strftime({By.HOUR: "%Y-%m-%d %H:%MZ", By.DAY: "%Y-%m-%d"}.get(by, "%Y-%m"))
    if row.key:
        name = names.get(row.key)
        return f"{words(row.key)} ({words(name)})" if name and name != row.key else row.key
    return "(others, or none)" if by is By.CLIENT else "(not known)"


def _described(row: TotalsRow, by: By | None) -> dict[str, Any]:
    key = row.at if row.at is not None else row.key or None
    return {(by or By.CLIENT).value.replace("-", "_"): key, "counts": row.counts}


def _names(engine: Engine, rows: Sequence[TotalsRow]) -> dict[str, str]:
    client_ids = [row.key for row in rows if row.key]
    return {
        client.client_id: client.name for client in engine.stores.clients.find_all(client_ids, engine.now)
    }


def _words(name: str) -> str:
    return name.replace("sign_ins", "sign-ins").replace("_", " ")


def _line(values: Sequence[int], room: int) -> str:
    """A small chart of one line: a character for each value, or for several values if there are many."""
    each = -(-len(values) // room) or 1
    sums = [sum(values[start : start + each]) for start in range(0, len(values), each)]
    heights = _HEIGHTS if _has_blocks() else _PLAIN_HEIGHTS
    highest = max(sums, default=0)
    if not highest:
        return ""
    # A value that is not 0 is visible, however small.
    steps = len(heights) - 1
    return "".join(heights[-(-value * steps // highest)] for value in sums)


def _bar(value: int, highest: int) -> str:
    return ("█" if _has_blocks() else "#") * (-(-value * _BAR // highest) if highest else 0)


def _has_blocks() -> bool:
    """Whether the encoding of the output has more characters than ASCII."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return os.environ.get("TERM") != "dumb" and encoding.startswith("utf")


def _rebuild(configuration: Configuration, since: datetime | None, as_json: bool) -> None:
    with closing(configuration.application(Plugins.UNUSED)) as application:
        application.check_database()
        now = datetime.now(UTC)
        if since is not None and since > now:
            raise click.ClickException("--since is in the future: there is nothing to count yet")
        deleted = upkeep.cutoffs(application.parts.settings, now)
        of_events = _later(
            since and counting.begin_of(Step.DAY, since),
            counting.whole_day_after(deleted.get(Disposable.EVENTS)),
        )
        of_refusals = _later(of_events, counting.whole_day_after(deleted.get(Disposable.REFUSALS)))
        days = counting.rebuild_counts(
            application.storage,
            now,
            since=of_events,
            refusals_since=of_refusals,
            hours_since=counting.whole_day_after(deleted.get(Disposable.HOURLY_COUNTS)),
        )
        done = list(progress("Counting days", days, quiet=as_json))
    events = sum(day.events for day in done)
    first = done[0].day if done else None
    refusals_since = _later(first, of_refusals) if done else None
    if as_json:
        print_json({"events": events, "days": len(done), "since": first, "refusals_since": refusals_since})
    elif first is None or refusals_since is None:
        say("Nothing was counted again: events are not kept long enough for a whole day.")
    else:
        but = f", and of refusals before {refusals_since:%Y-%m-%d}," if refusals_since > first else ""
        say(f"Counted {events:,} events again, from {first:%Y-%m-%d} on.")
        say(f"The counts of earlier days{but} stay the same.")


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((each for each in (one, other) if each is not None), default=None)
