"""`authserver policy`: shows what other policies would change, before they decide."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authserver import ini as ini_reader
from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.durations import Moment
from authserver.cli.explanation import flat
from authserver.cli.options import PAIR
from authserver.cli.printing import json_option, print_json, print_rows, say, words
from authserver.cli.progress import progress
from authserver.engine.context import Engine
from authserver.engine.records import EventType
from authserver.explaining.differences import EXAMPLES, Differences, meaning
from authserver.hookspecs import DECIDING, every_hook
from authserver.ini import PLUGIN_PREFIX, Resolved
from authserver.settings import SettingsError

if TYPE_CHECKING:
    from authserver.app import Application
    from authserver.explaining.replay import Tried
    from authserver.plugins.asking import PluginSet

# How many clients of each kind of difference are printed for people.
SHOWN = 10
# Exit statuses: an outcome would differ; the policy on trial fails.
FLIPPED = 3
FAILED = 4
# The most questions for a trial, and the most events in which they are searched.
MAXIMUM_QUESTIONS = 10_000
MAXIMUM_EVENTS = 100_000


since_option = click.option(
    "--since", type=Moment(), default="7d", show_default=True, help="7d, 12h, 30m, or a time in ISO 8601."
)


@click.group(cls=OneSentence)
def policy() -> None:
    """Show what other policies would change before they decide anything."""


@policy.command("shadow-report")
@since_option
@json_option
@click.pass_obj
def shadow_report(configuration: Configuration, since: datetime, as_json: bool) -> None:
    """Show the questions that the plugins of authserver.shadow_plugins would have decided differently."""
    from authserver.explaining.readable import readable

    application = configuration.application(Plugins.UNUSED)
    differences = Differences()
    dropped = 0
    with closing(application), application.begin() as engine:
        for event in engine.stores.events.since(since, type=EventType.POLICY_DIFFERED):
            event = readable(event)
            if len(event.decisions) != 2:
                continue  # Only an edit of the database by hand can have written this.
            was, would_be = event.decisions
            facts = was.get("facts") or {}
            example = {"event_id": event.event_id, "at": event.at, "asked": facts}
            differences.add(was["slot"], event.client_id, was, would_be, example)
            dropped += event.details.get("dropped", 0)
    if as_json:
        print_json({"since": since, "differences": differences.rows(), "not_recorded": dropped})
        return
    _print_differences(
        differences,
        empty="No shadow plugin would have decided otherwise (authserver.shadow_plugins lists them).",
    )
    if differences.count:
        say(f"{differences.count} questions would have had another outcome; one request asks several.")
    if dropped:
        say(f"{dropped} more questions were not compared or recorded: there were too many at once.")


@policy.command("replay")
@since_option
@click.option(
    "--config",
    "candidate",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The INI file with the other configuration; only its plugins are used, no database it names.",
)
@json_option
@click.pass_obj
@click.pass_context
def replay_command(
    context: click.Context, configuration: Configuration, since: datetime, candidate: Path, as_json: bool
) -> None:
    """Ask recorded questions again under another configuration, and print which decisions would flip.

    Nothing is changed. The exit status is 0 if no decision would flip, 3 if one would.
    """
    from authserver.explaining.replay import Result, replay

    application = configuration.application()
    differences = Differences()
    not_asked: Counter[tuple[str, str]] = Counter()
    asked = 0
    with (
        closing(application),
        closing(_plugins_of(candidate, configuration.folder())) as other,
        application.begin() as engine,
    ):
        events = engine.stores.events
        found = progress("Asking again", events.since(since), quiet=as_json, total=events.count(since))
        for item in replay(found, replace(engine, policies=other)):
            if item.result is Result.NOT_ASKED:
                not_asked[item.hook, item.would_be["reason"]] += 1
                continue
            asked += 1
            if item.result is Result.FLIPPED:
                example = {"event_id": item.event_id, "at": item.at, "asked": item.facts}
                differences.add(item.hook, item.client_id, item.was, item.would_be, example)
    summary = {
        "since": since,
        "asked": asked,
        "flipped": differences.count,
        "not_asked": [{"hook": hook, "why": why, "count": count} for (hook, why), count in not_asked.items()],
    }
    if as_json:
        print_json({**summary, "flips": differences.rows()})
    else:
        _print_differences(differences, empty="No decision would flip.")
        say(f"{asked} questions were asked again, {differences.count} would flip.")
        for (hook, why), count in not_asked.most_common():
            say(f"Not asked again: {count} x {words(hook)}, each because {words(why)}.")
    if differences.count:
        context.exit(FLIPPED)


class Setting(click.ParamType[tuple[str, Resolved]]):
    """`NAME=VALUE`, where the value may be `env:NAME` or `file:PATH`, as in the INI."""

    name = "setting"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, Resolved]:
        if isinstance(value, tuple):
            return value
        name, text = PAIR.convert(value, param, context)
        try:
            return name, ini_reader.resolve(f"--setting {name}", text)
        except SettingsError as error:
            self.fail(str(error), param, context)


@policy.command("try")
@click.argument("plugin", metavar="FILE")
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    type=Setting(),
    help="A setting of the plugin, as often as needed.",
)
@click.option(
    "--last",
    type=click.IntRange(1, MAXIMUM_QUESTIONS),
    default=100,
    show_default=True,
    help="How many recorded questions are asked again, counted from the newest.",
)
@json_option
@click.pass_obj
@click.pass_context
def try_command(
    context: click.Context,
    configuration: Configuration,
    plugin: str,
    settings: Sequence[tuple[str, Resolved]],
    last: int,
    as_json: bool,
) -> None:
    """Ask a policy that is not installed about recorded questions, beside the present policies.

    FILE is a Python file with one plugin, FILE:Class, module:Class, or the name of an installed plugin. Nothing is
    changed. The exit status is 0 when no outcome would differ, 3 when one would, 4 when the policy fails.
    """
    trial = Trial(last)
    application = configuration.application()
    with (
        closing(application),
        # Prints of the plugin are not the result, and its errors are shown once, not for each question.
        redirect_stdout(sys.stderr),
        _quiet(logging.getLogger("authserver.plugins.asking")),
        closing(_candidate(configuration, application, plugin, settings)) as found,
        application.begin() as engine,
    ):
        trial.ask(engine, application.parts.policies, found)
    if as_json:
        print_json(trial.summary())
    else:
        trial.say()
    if trial.faults:
        context.exit(FAILED)
    if trial.differences.count:
        context.exit(FLIPPED)


class Trial:
    """The answers of one policy to recorded questions.

    Args:
        last: how many questions it is asked at most.
    """

    def __init__(self, last: int) -> None:
        self.differences = Differences()
        self.faults: dict[tuple[str, str], dict[str, Any]] = {}
        self._last = last
        self._name = ""
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._not_asked: Counter[tuple[str, str]] = Counter()
        self._decided_since = 0
        self._asked = 0
        self._oldest: datetime | None = None

    def ask(self, engine: Engine, present: PluginSet, found: PluginSet) -> None:
        """Ask the policy. Raises click.ClickException when there is no question that it can be asked."""
        from authserver.explaining.replay import try_policy

        (self._name,) = found.names
        hooks = [hook for hook in DECIDING if found.serves(hook)]
        if not hooks:
            others = ", ".join(hook for hook in every_hook() if found.serves(hook))
            raise click.ClickException(
                f"{self._name} decides nothing, so there are no questions to ask it; it serves {others or 'no hook'}"
            )
        events = islice(engine.stores.events.latest(), MAXIMUM_EVENTS)
        items: list[Tried] = []
        asked = 0
        for item in try_policy(events, engine, present, found, hooks):
            items.append(item)
            asked += item.answer is not None
            if asked == self._last:
                break
        # The oldest first, so that the examples are the newest.
        for item in reversed(items):
            self._add(item)
        if not self._asked:
            raise click.ClickException(self._why_nothing_was_asked(engine, hooks))

    def _add(self, item: Tried) -> None:
        from authserver.explaining.replay import Result

        if item.answer is None:
            self._not_asked[item.hook, item.would_be["reason"]] += 1
            return
        self._asked += 1
        self._oldest = self._oldest or item.at
        self._decided_since += item.decided_since
        self._answers[item.hook, item.answer.verdict, item.answer.reason] += 1
        example = {"event_id": item.event_id, "at": item.at, "asked": item.facts}
        if item.result is Result.FAILED:
            fault = {"hook": item.hook, "fault": item.answer.fault, "count": 0, "examples": []}
            row = self.faults.setdefault((item.hook, item.answer.fault), fault)
            row["count"] += 1
            row["examples"] = [*row["examples"], example][:EXAMPLES]
        elif item.result is Result.FLIPPED:
            self.differences.add(item.hook, item.client_id, item.was, item.would_be, example)

    def _why_nothing_was_asked(self, engine: Engine, hooks: Sequence[str]) -> str:
        names = " or ".join(hooks)
        if self._not_asked:
            why = dict.fromkeys(why for _, why in self._not_asked)
            return f"no recorded question of {names} can be asked again: {', '.join(why)}"
        if next(engine.stores.events.latest(), None) is None:
            return (
                "nothing is recorded yet; send the server some requests first, or try the policy as a shadow"
            )
        return (
            f"no question of {names} is recorded in the last {MAXIMUM_EVENTS} events; send the server a request that asks "
            "it, or try the policy as a shadow"
        )

    def summary(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "plugin": self._name,
            "asked": self._asked,
            "since": self._oldest,
            "answers": self._rows(),
            "differs": self.differences.count,
            "differences": self.differences.rows(),
            "failed": sum(row["count"] for row in self.faults.values()),
            "faults": list(self.faults.values()),
            "not_asked": [
                {"hook": hook, "why": why, "count": count} for (hook, why), count in self._not_asked.items()
            ],
            "decided_since": self._decided_since,
        }

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"hook": hook, "answer": str(verdict), "reason": reason, "count": count}
            for (hook, verdict, reason), count in self._answers.most_common()
        ]

    def say(self) -> None:
        """Everything, for people."""
        say(
            f"What {words(self._name)} answers to {self._asked} recorded questions since {words(self._oldest)}:\n"
        )
        print_rows(self._rows(), ("hook", "answer", "reason", "count"), empty="", indent=3)
        say()
        for row in self.faults.values():
            say(f"{row['count']} x {words(row['hook'])} fails, which refuses: {words(row['fault'])}\n")
            _print_examples(row["examples"])
        if self.differences.count or not self.faults:
            _print_differences(self.differences, empty="No outcome would differ.")
        failed = sum(row["count"] for row in self.faults.values())
        say(
            f"{self._asked} questions asked, {self.differences.count} outcomes would differ, {failed} answers failed."
        )
        for (hook, why), count in self._not_asked.most_common():
            say(f"{count} of {words(hook)} were not asked: {words(why)}.")
        if self._decided_since:
            say(
                f"{self._decided_since} were decided otherwise at the time than the present policies decide; outcomes "
                "are compared with the present ones."
            )


def _candidate(
    configuration: Configuration,
    application: Application,
    plugin: str,
    settings: Sequence[tuple[str, Resolved]],
) -> PluginSet:
    """The plugin to try, with the settings that it has in the INI if it is listed there. Raises SettingsError."""
    from authserver.plugins import candidate, loading

    given = dict(settings)
    if len(given) < len(settings):
        raise click.BadParameter("a name occurs twice", param_hint="--setting")
    name, kind = candidate.find(plugin)
    texts = {}
    if name in application.parts.policies.names:
        texts = dict(ini_reader.load(configuration.ini()).plugin_settings.get(name, {}))
    live = application.parts.settings
    try:
        return loading.one(
            name,
            kind,
            texts | given,
            time_limit=live.policy_time_limit,
            fetching=live.fetch_time_limit,
        )
    except SettingsError as error:
        # Its settings come from the command line.
        told = [problem.replace(f"{PLUGIN_PREFIX}{name}.", "--setting ") for problem in error.problems]
        raise SettingsError(
            [problem.replace("add it to the INI file", "give it as NAME=VALUE") for problem in told]
        ) from error


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def _plugins_of(candidate: Path, present: Path) -> PluginSet:
    """The plugins of another INI file; its database and its shadow plugins are not used. Raises SettingsError.

    Args:
        present: the folder of the present INI file. The modules in it may be older copies of those beside the other.
    """
    from authserver.plugins import importing, loading

    if not candidate.is_file():
        raise click.BadParameter(f"{candidate}: no such file", param_hint="--config")
    configuration = Configuration(candidate)
    loaded = ini_reader.load(configuration.ini())
    if configuration.folder() != present:
        importing.forget(present)
    found, _ = loading.load(
        loaded.settings.plugins,
        loaded.plugin_settings,
        production=loaded.settings.is_production,
        time_limit=loaded.settings.policy_time_limit,
        fetching=loaded.settings.fetch_time_limit,
        others=loaded.settings.shadow_plugins,
        folder=configuration.folder(),
    )
    return found


def _print_differences(differences: Differences, *, empty: str) -> None:
    rows = differences.rows()
    if not rows:
        say(empty)
    for row in rows:
        hook = row["hook"]
        was, would_be = (words(meaning(hook, row[name])) for name in ("was", "would_be"))
        say(f"{row['count']} x {words(hook)}: {was} -> {would_be}")
        say(f"   {words(row['reason'])}, by {words(row['by'])}\n")
        # Sign-ins and registrations have no client.
        if any(client["client_id"] != "-" for client in row["clients"]):
            print_rows(row["clients"][:SHOWN], ("client_id", "count"), empty="", indent=3)
            say()
        if len(row["clients"]) > SHOWN:
            say(f"   and {len(row['clients']) - SHOWN} more clients, which --json names\n")
        _print_examples(row["examples"])


def _print_examples(examples: Sequence[Mapping[str, Any]]) -> None:
    say("   for example; `authserver explain --error-id ID` shows more")
    rows = [{**example, "asked": _asked(example["asked"])} for example in examples]
    print_rows(rows, ("event_id", "at", "asked"), empty="", indent=3)
    say()


def _asked(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {words(value)}"
        for name, value in flat(facts).items()
        if value not in (None, "", [], {})
    ]
