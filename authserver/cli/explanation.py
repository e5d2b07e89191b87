"""Prints the explanation of a decision, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.printing import print_json, print_record, print_rows, say, words
from authserver.engine import audit
from authserver.engine.decisions import Verdict, labelled

_COMMAND = ": `authserver "

if TYPE_CHECKING:
    from authserver.explaining.explain import Check, Explanation


def tell_event(configuration: Configuration, event_id: str, as_json: bool) -> None:
    """Print one whole event: time, subjects, every check in order, and what would change the outcome.

    Raises:
        click.ClickException: there is no event of this id.
    """
    from authserver.explaining.explain import explain_event

    application = configuration.application(Plugins.EXPLAIN)
    with closing(application), application.begin() as engine:
        event = audit.find(engine.stores.events, event_id)
        if event is None:
            raise click.ClickException(
                f"no event has the id {event_id}: it is mistyped or from another server, its event was deleted "
                "(authserver.refusal_lifetime), or the database could not be written at that time. In a flood the event is "
                "stored at the end of the minute. The log has a line with this id; `authserver audit search` finds events by their "
                "subjects"
            )
        told = explain_event(engine, event, application.parts.policies)
    about = {
        "event_id": event.event_id,
        "at": event.at,
        "actor": event.actor,
        "source": event.source,
        "client_id": event.client_id,
        "user_id": event.user_id,
        "grant_id": event.grant_id,
    }
    print_explanation(configuration, told, as_json, about)


def print_explanation(
    configuration: Configuration, told: Explanation, as_json: bool, about: Mapping[str, Any]
) -> None:
    """Print every check in order, and the outcome.

    Args:
        configuration: the server; the printed commands are for it.
        about: the facts of the event; none for a question.
    """
    if as_json:
        print_json({**about, **asdict(told)})
        return
    for number, check in enumerate(told.checks, 1):
        _print_check(number, check, configuration.command)
    if not told.checks and not told.left_out:
        say("Nothing was checked.\n")
    for hook, number in told.left_out.items():
        say(f"{number} more of {words(hook)} were left out, because the event would have been too long.\n")
    if told.more:
        say(f"{_more(told)}\n")
    outcome = told.outcome if isinstance(told.outcome, dict) else {"outcome": told.outcome}
    known = {
        **about,
        "verdict": told.verdict,
        "reason": told.reason,
        "description": told.description,
        **outcome,
    }
    print_record({name: value for name, value in known.items() if words(value) != "-"})


def _more(told: Explanation) -> str:
    """The sentence about the other events that were counted with this one."""
    count, sources = told.more["count"], told.more["sources"]
    several = "refusals of several kinds" if told.more.get("several_kinds") else "refusals of this kind"
    until = datetime.fromisoformat(told.more["until"])
    addresses = f"{sources} {'address' if sources == 1 else 'addresses'}"
    return (
        f"{count:,} more {several} were counted with this one, from {addresses} in all, until {words(until)}: "
        "there were too many to store each (authserver.refusals_per_minute)."
    )


def _print_check(number: int, check: Check, program: str) -> None:
    outcome = ""
    if isinstance(check.outcome, list):
        outcome = f" {' '.join(map(words, check.outcome))}"
    elif check.verdict == Verdict.DENY and check.outcome:
        outcome = f" {words(check.outcome)}"
    why = f": {words(check.reason)}" if check.reason else ""
    note = f" ({check.note})" if check.note else ""
    by = "" if check.by == check.hook else f", by {words(check.by)}"
    say(f"{number}. {check.hook}: {check.verdict}{outcome}{by}{why}{note}")
    if check.facts:
        print_record(flat(check.facts), indent=3)
    if check.cut:
        say("\n   cut, because the event would have been too long")
        print_record(
            {path.removeprefix("facts."): f"of {length}" for path, length in check.cut.items()}, indent=3
        )
    if check.answers:
        say()
        rows = [
            {
                **asdict(answer),
                "by": labelled(answer.by, answer.variant),
                "µs": answer.microseconds,
            }
            for answer in check.answers
        ]
        print_rows(rows, ("by", "verdict", "reason", "µs"), empty="", indent=3)
    if check.remedies:
        say("\n   what would change it")
    for remedy in check.remedies:
        sentence, colon, command = remedy.partition(_COMMAND) if remedy.endswith("`") else (remedy, "", "")
        print_record({"-": sentence + colon[:1]}, indent=3)
        if command:
            # In one line even in a narrow terminal, so that it can be copied.
            say(f"      {words(program)} {words(command[:-1])}")
    if check.settings:
        say("\n   the present setting")
    for key, value in check.settings.items():
        print_record({"-": f"{key} = {value}".rstrip()}, indent=3)
    say()


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, with the members of a mapping as facts of their own."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in flat.items()
    }
