"""`authserver limits`: how often what may be done, who has used that up, and lifting it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import cast

import click

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.printing import json_option, print_json, print_rows, say
from authserver.engine.rates import Limiter, Usage
from authserver.plugins.asking import PluginSet

_IN_MEMORY = (
    "The counts are in the memory of each server process, where no command sees or changes them; a restart begins anew. With "
    "a store that the processes share, this command shows and lifts them: set the storage of the plugin."
)


@click.group(cls=OneSentence, invoke_without_command=True)
@click.option("--all", "show_all", is_flag=True, help="Show also what is used by less than half.")
@json_option
@click.pass_context
def limits(context: click.Context, show_all: bool, as_json: bool) -> None:
    """Show how often clients, people and strangers may do what, and who has used up how much of it."""
    if context.invoked_subcommand is not None:
        if show_all or as_json:
            raise click.UsageError("give options after the command")
        return
    configuration: Configuration = context.obj
    with closing(configuration.application()) as application:
        found = _limiters(application.parts.policies)
        rows = [dict(row) for limiter in found for row in limiter.table()]
        used = _usage(found)
    shown = [] if used is None else [item for item in used if show_all or 2 * item.used >= item.allowed]
    if as_json:
        print_json({"limits": rows, "used": None if used is None else [asdict(item) for item in shown]})
        return
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    print_rows(rows, columns, empty="No plugin of authserver.plugins limits how often anything is done.")
    if not found:
        return
    say("")
    if used is None:
        say(_IN_MEMORY)
        return
    what = "is used" if show_all else "is used by half or more"
    print_rows(
        [asdict(item) for item in shown],
        ("limit", "who", "used", "allowed", "seconds"),
        empty=f"No limit {what} by anybody now.",
    )


@limits.command()
@click.argument("limit")
@click.argument("who", required=False)
@json_option
@click.pass_obj
def lift(configuration: Configuration, limit: str, who: str | None, as_json: bool) -> None:
    """Let WHO begin anew with LIMIT, both as `authserver limits` shows them; without WHO everybody."""
    with closing(configuration.application()) as application:
        found = _limiters(application.parts.policies)
        if not found:
            raise click.ClickException("no plugin of authserver.plugins limits how often anything is done")
        named = [item for item in found if any(row["limit"] == limit for row in item.table())]
        try:
            counts = [item.lift(limit, who) for item in named or found]
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    if None in counts:
        raise click.ClickException(f"nothing was lifted. {_IN_MEMORY}")
    lifted = sum(cast(list[int], counts))
    if as_json:
        print_json({"limit": limit, "lifted": lifted})
        return
    if not lifted:
        raise click.ClickException(
            f"nobody{f' called {who}' if who else ''} has used anything of {limit} now; `authserver limits --all` shows who has"
        )
    say(f"{limit} is lifted for {who or ('everybody' if lifted > 1 else 'the one who used it')}.")


def _limiters(policies: PluginSet) -> Sequence[Limiter]:
    """The plugins that limit something and can show it."""
    plugins = [policies.plugin(name) for name in policies.names]
    return [
        cast(Limiter, plugin)
        for plugin in plugins
        if all(callable(getattr(plugin, name, None)) for name in ("table", "usage", "lift"))
    ]


def _usage(limiters: Sequence[Limiter]) -> list[Usage] | None:
    """What is used of all that can be seen; None if nothing can."""
    try:
        told = [usage for limiter in limiters if (usage := limiter.usage()) is not None]
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    return [item for usage in told for item in usage] if told else None
