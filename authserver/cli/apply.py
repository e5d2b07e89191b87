"""`authserver apply`: makes the server agree with declarations in files (R-17)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from authserver.cli.configuration import Configuration
from authserver.cli.durations import duration
from authserver.cli.ending import add_up, numbers
from authserver.cli.printing import json_option, print_json, print_rows, say, words
from authserver.declaring.reading import BadDeclarations, ReadFiles, read_files
from authserver.declaring.schema import schema
from authserver.engine.clients.editing import ChangedMeanwhile
from authserver.engine.declarations.apply import apply as bring_about
from authserver.engine.declarations.apply import ends_of, finish
from authserver.engine.declarations.plan import DEFAULT_SET, Action, Manner, Plan, Step
from authserver.engine.declarations.planning import plan_of
from authserver.engine.ending import Ended
from authserver.engine.setting_records import DeclaredKind
from authserver.explaining.ends import jwt_sentence, sentence

# The exit status when something is still different from its declaration.
DRIFT = 2
# At most this many problems are printed; the others are counted.
MAXIMUM_TOLD = 50
_NOUNS = {
    DeclaredKind.CLIENT: "client",
    DeclaredKind.RESOURCE: "resource",
    DeclaredKind.INITIAL_TOKEN: "initial access token",
    DeclaredKind.SCOPE: "scope",
    DeclaredKind.LIMIT: "limit",
    DeclaredKind.ISSUER: "issuer",
}


class WrongCall(click.UsageError):
    """A mistake in how this command is called."""

    exit_code = 1


class OneStatus(click.Command):
    """A command that ends with 1 for every wrong call, because 2 means a difference from the declaration."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _ending_with_one():
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        with _ending_with_one():
            return super().invoke(context)


@contextmanager
def _ending_with_one() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        raise WrongCall(error.format_message(), error.ctx) from None


def _set_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not (value.isascii() and value.replace("-", "").replace("_", "").isalnum() and len(value) <= 60):
        raise click.BadParameter("a name has up to 60 letters, digits, hyphens and underscores")
    return value


def _print_schema(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        print_json(schema())
        context.exit()


@click.command(cls=OneStatus)
@click.argument("path", metavar="FOLDER|FILE", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option(
    "--check",
    is_flag=True,
    help=f"Only show what would change, and end with status {DRIFT} if anything differs from its declaration.",
)
@click.option(
    "--prune", is_flag=True, help="Remove everything that was applied before and is not declared any more."
)
@click.option(
    "--adopt",
    is_flag=True,
    help="Things that exist already belong to the files from now on, also for --prune.",
)
@click.option(
    "--set",
    "of_set",
    default=DEFAULT_SET,
    show_default=True,
    metavar="NAME",
    callback=_set_name,
    help="The name of these files, if others are applied to this server as well.",
)
@click.option(
    "--overlap",
    type=duration,
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long a secret that is replaced is still accepted; 0 ends it at once.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of the files, for editors, and end.",
)
@click.pass_obj
def apply(
    configuration: Configuration,
    path: Path,
    dry_run: bool,
    check: bool,
    prune: bool,
    adopt: bool,
    of_set: str,
    overlap: timedelta,
    yes: bool,
    as_json: bool,
) -> None:
    """Create and change clients, resources, scopes, limits, issuers and initial access tokens as TOML files declare them.

    It shows the changes and asks. All of them are made, or none. Issuers and scopes that the INI names are only compared,
    because the INI sets them.

    The exit status is 0 if everything agrees with the files in the end (with --dry-run, if the changes could be shown), 2
    if something differs, and 1 if the files are wrong or nothing could be done.
    """
    only_shown = dry_run or check
    if as_json and not (yes or only_shown):
        raise click.UsageError("--json: with --yes, --dry-run or --check, because nobody can be asked")
    try:
        found = read_files(path)
    except BadDeclarations as error:
        raise _refused(error.problems) from None
    manner = Manner(of_set=of_set, prune=prune, adopt=adopt, overlap=overlap)
    with closing(configuration.application()) as application:
        application.check_database()
        plugins = {name: application.parts.policies.plugin(name) for name in application.parts.policies.names}
        with application.begin() as engine:
            plan = plan_of(engine, found.declared, manner, plugins=plugins)
        if plan.problems:
            raise _refused([found.told(problem.path, problem.text) for problem in plan.problems])
        ends = ends_of(application.begin, plan)
        if not as_json:
            _print_plan(plan, ends, found)
        applied, ended = False, Ended()
        if plan.steps and not only_shown:
            if not yes:
                click.confirm(f"Apply {_changes(plan.steps)}?", abort=True, err=True)
            try:
                with application.begin() as engine:
                    bring_about(engine, found.declared, manner, plan, plugins=plugins)
            except ChangedMeanwhile as error:
                raise click.ClickException(f"{error}: look at the plan again") from None
            ended = add_up("Ending", finish(application.begin, plan), quiet=as_json)
            applied = True
    if as_json:
        print_json(_described(plan, ends, found, applied=applied))
    elif applied:
        say(f"Applied: {_changes(plan.steps)}.{f' {sentence(ended)}' if ended else ''}")
    is_left = plan.elsewhere or (plan.steps and not applied)
    if is_left and not (dry_run and not check):
        raise click.exceptions.Exit(DRIFT)


def _refused(problems: Sequence[str]) -> click.ClickException:
    """The problems, one in each line; only the first ones if there are very many."""
    more = len(problems) - MAXIMUM_TOLD
    told = [*map(words, problems[:MAXIMUM_TOLD]), *([f"and {more} more"] if more > 0 else ())]
    return click.ClickException("\n       ".join(told))


def _changes(steps: Sequence[Step]) -> str:
    return f"{len(steps)} {'change' if len(steps) == 1 else 'changes'}"


def _print_plan(plan: Plan, ends: Sequence[Ended | None], found: ReadFiles) -> None:
    if plan.is_settled:
        say("Everything is as it is declared.")
    for step, end in zip(plan.steps, ends, strict=True):
        place = found.place(_path(step, found))
        say(f"{step.action} {_NOUNS[step.kind]} {words(step.name)}{f'  ({words(place)})' if place else ''}")
        rows = [
            {"member": name.replace("_", " "), "from": was, "to": now}
            for name, (was, now) in step.changes.items()
        ]
        if rows:
            columns = ("member", "to") if step.action is Action.ADD else ("member", "from", "to")
            print_rows(rows, columns, empty="", indent=2)
        if step.note:
            say(f"  {step.note}")
        if end is not None:
            for told in filter(None, (sentence(end, dry_run=True), jwt_sentence(end, dry_run=True))):
                say(f"  {told}")
        say()
    if plan.elsewhere:
        say("Only a change of the INI can do the rest; then restart the servers:")
        for difference in plan.elsewhere:
            place = found.place((difference.kind, difference.name))
            say(
                f"  {words(place)}: {words(difference.kind)}.{words(difference.name)}: {words(difference.remedy)}"
            )
    if plan.left:
        names = ", ".join(words(name) for _, name in plan.left)
        say(f"Applied before, and not declared any more: {names}. --prune removes it.")


def _path(step: Step, found: ReadFiles) -> tuple[str, str]:
    """The place of a step in the files; a resource is spelt as it is there."""
    if step.kind is DeclaredKind.RESOURCE and step.after is not None:
        return (step.kind, step.after.uri)
    return (step.kind, step.name)


def _described(
    plan: Plan, ends: Sequence[Ended | None], found: ReadFiles, *, applied: bool
) -> Mapping[str, Any]:
    return {
        "settled": plan.is_settled or (applied and not plan.elsewhere),
        "applied": applied,
        "changes": [
            {
                "kind": step.kind,
                "name": step.name,
                "action": step.action,
                "place": found.place(_path(step, found)) or None,
                "changes": {name: {"from": was, "to": now} for name, (was, now) in step.changes.items()},
                "note": step.note or None,
                "ends": None if end is None else numbers(end),
            }
            for step, end in zip(plan.steps, ends, strict=True)
        ],
        "in_the_ini": [
            {
                "kind": difference.kind,
                "name": difference.name,
                "place": found.place((difference.kind, difference.name)) or None,
                "from": difference.was,
                "to": difference.declared,
                "remedy": difference.remedy,
            }
            for difference in plan.elsewhere
        ],
        "not_declared": [{"kind": kind, "name": name} for kind, name in plan.left],
    }
