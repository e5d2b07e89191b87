"""`authserver policy`: what other policies would change, seen before they decide anything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.printing import json_option, print_json, print_rows
from authserver.engine.decisions import Verdict
from authserver.engine.records import Event, EventType
from authserver.replay import Replayed, Result, replay

EXAMPLES = 3
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Since(click.ParamType[datetime]):
    """`7d`, `12h`, `30m`, or a time in ISO 8601."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if found := re.fullmatch(r"(\d{1,6})([smhdw])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither like 7d, 12h or 30m nor a time in ISO 8601", param, context)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


since_option = click.option(
    "--since", type=Since(), default="7d", show_default=True, help="7d, 12h, 30m, or a time in ISO 8601."
)


@click.group(cls=OneSentence)
def policy() -> None:
    """See what other policies would change before they decide anything."""


@policy.command("shadow-report")
@since_option
@json_option
@click.pass_obj
def shadow_report(configuration: Configuration, since: datetime, as_json: bool) -> None:
    """Where the plugins of authserver.shadow_plugins would have decided otherwise."""
    application = configuration.application()
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    dropped = 0
    with application.begin() as engine:
        for event in engine.stores.events.since(since, type=EventType.POLICY_DIFFERED):
            _count(groups, event)
            dropped += event.details.get("dropped", 0)
    rows = sorted(groups.values(), key=lambda row: -row["count"])
    if as_json:
        print_json({"since": since, "differences": rows, "not_recorded": dropped})
        return
    columns = ("hook", "was", "would_be", "reason", "by", "count", "latest")
    print_rows(rows, columns, empty="The shadow plugins would have changed nothing.")
    for row in rows:
        click.echo(f"\n{row['hook']}, {row['reason']}: for example")
        print_rows(row["examples"], tuple(row["examples"][0]), empty="")
    if dropped:
        click.echo(f"\n{dropped} more questions were not compared or recorded: there were too many at once.")


@policy.command("replay")
@since_option
@click.option(
    "--config",
    "candidate",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The INI file with the other configuration.",
)
@json_option
@click.pass_obj
@click.pass_context
def replay_command(
    context: click.Context, configuration: Configuration, since: datetime, candidate: Path, as_json: bool
) -> None:
    """Ask recorded questions again under another configuration, and print which would flip.

    Nothing is changed. The exit status is 0 when nothing flips, 3 when something does.
    """
    application = configuration.application()
    other = Configuration(candidate).application().plugins
    with application.begin() as engine:
        events = engine.stores.events
        found = track(
            events.since(since),
            total=events.count(since),
            description="Asking again",
            console=Console(stderr=True),
            disable=as_json,
        )
        results = list(_kept(replay(found, engine.stores, other)))
    _print_replay(results, since, as_json)
    if any(isinstance(item, Replayed) and item.result is Result.FLIPPED for item in results):
        context.exit(3)


def _kept(results: Iterator[Replayed]) -> Iterator[Replayed | Result]:
    """Of what stays the same only that it does: there may be millions."""
    for item in results:
        yield item.result if item.result is Result.SAME else item


def _print_replay(results: list[Replayed | Result], since: datetime, as_json: bool) -> None:
    told = [item for item in results if isinstance(item, Replayed)]
    flipped = [item for item in told if item.result is Result.FLIPPED]
    not_asked = Counter(
        (item.slot, item.would_be["reason"]) for item in told if item.result is Result.NOT_ASKED
    )
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for item in flipped:
        row = _row(groups, item.slot, item.client_id, item.was, item.would_be)
        _add_example(row, item.at, item.event_id, item.facts)
    rows = sorted(groups.values(), key=lambda row: -row["count"])
    summary: dict[str, Any] = {
        "since": since,
        "asked": len(results) - sum(not_asked.values()),
        "flipped": len(flipped),
        "not_asked": [{"hook": slot, "why": why, "count": count} for (slot, why), count in not_asked.items()],
    }
    if as_json:
        print_json({**summary, "flips": rows})
        return
    columns = ("hook", "client", "was", "would_be", "reason", "by", "count", "latest")
    print_rows(rows, columns, empty="Nothing would flip.")
    for row in rows[:10]:
        click.echo(f"\n{row['hook']}, {row['reason']}, client {row['client']}: for example")
        print_rows(row["examples"], tuple(row["examples"][0]), empty="")
    click.echo(f"\n{summary['asked']} questions asked again, {len(flipped)} would flip.")
    for entry in summary["not_asked"]:
        click.echo(f"{entry['count']} of {entry['hook']} could not be asked again: {entry['why']}.")


def _count(groups: dict[tuple[str, ...], dict[str, Any]], event: Event) -> None:
    was, would_be = event.decisions
    row = _row(groups, was["slot"], None, was, would_be)
    _add_example(row, event.at, event.event_id, was.get("facts") or {})


def _row(
    groups: dict[tuple[str, ...], dict[str, Any]],
    slot: str,
    client: str | None,
    was: Mapping[str, Any],
    would_be: Mapping[str, Any],
) -> dict[str, Any]:
    """The group of this difference, made at its first."""
    row = {
        "hook": slot,
        "client": client or "-",
        "was": _said(was),
        "would_be": _said(would_be),
        "reason": would_be["reason"],
        "by": would_be.get("decided_by") or "nobody",
    }
    kept = groups.setdefault(tuple(row.values()), {**row, "count": 0, "latest": None, "examples": []})
    kept["count"] += 1
    return kept


def _add_example(row: dict[str, Any], at: datetime, event_id: str, facts: Mapping[str, Any]) -> None:
    """Keep the latest few."""
    row["latest"] = at
    row["examples"] = [*row["examples"], {"event_id": event_id, "at": at, **facts}][-EXAMPLES:]


def _said(decision: Mapping[str, Any]) -> str:
    outcome = decision.get("outcome")
    if decision["verdict"] != Verdict.ALLOW or outcome is None:
        return str(decision["verdict"])
    return f"allow {' '.join(outcome) if isinstance(outcome, list) else outcome}"
