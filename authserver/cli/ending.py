"""Shared by all commands that end something: they count, ask, end it with a progress bar, and print the numbers (L-08)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from authserver.cli.printing import print_json, say, words
from authserver.cli.progress import progress
from authserver.engine import ending
from authserver.engine.ending import Act, Ended, SubjectKind
from authserver.explaining.ends import jwt_sentence, sentence

if TYPE_CHECKING:
    from authserver.app import Application

dry_run_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--dry-run", is_flag=True, help="Only print how much would end."
)
yes_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--yes", is_flag=True, help="Do not ask."
)
# The names in other records.
_NAMES = {SubjectKind.USER: "username", SubjectKind.CLIENT: "client_id"}


def is_interactive() -> bool:
    """Whether a person is at the terminal."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person at a terminal, unless they said --yes; a script is not asked. Raises click.Abort."""
    if not yes and is_interactive():
        click.confirm(question, abort=True, err=True)


def carry_out(
    application: Application,
    act: Act,
    *,
    dry_run: bool = False,
    yes: bool = False,
    quiet: bool,
    ask: str = "",
) -> Ended:
    """Count what ends, ask, and end it, with a bar on stderr while that takes long.

    Args:
        quiet: without a bar.
        ask: the question if the command does more than end: "Disable ada?".
    """
    counted = Ended()
    if dry_run or not yes:
        total = None
        if not act.subject.owns_grants:
            with application.begin() as engine:
                total = -(-engine.stores.grants.count() // ending.BATCH) or None
        counted = add_up("Counting", ending.plan(application.begin, act), quiet=quiet, total=total)
    if dry_run:
        return counted
    confirm(f"{ask or f'End this of {words(act.subject.name)}?'} {sentence(counted, dry_run=True)}", yes=yes)
    return add_up("Ending", ending.end(application.begin, act), quiet=quiet)


def add_up(what: str, batches: Generator[Ended], *, quiet: bool, total: int | None = None) -> Ended:
    """The sum of the batches; with a bar if there are several."""
    with closing(batches):
        # A page of grants, one of consents and one of clients are fast.
        begun = list(islice(batches, 3))
        if len(begun) < 3:
            return sum(begun, Ended())
        return sum(progress(what, chain(begun, batches), quiet=quiet, total=total), Ended())


def described(act: Act, ended: Ended, *, dry_run: bool = False) -> dict[str, Any]:
    """The JSON of a command that ends something."""
    return {
        _NAMES.get(act.subject.kind, str(act.subject.kind)): act.subject.name,
        "dry_run": dry_run,
        **numbers(ended),
    }


def numbers(ended: Ended) -> dict[str, Any]:
    """The numbers of what ended, or would end, as in the JSON of all commands."""
    return {**ended.counts, "has_more_jwts": ended.has_more_jwts, "jwts_until": ended.jwts_until}


def tell(act: Act, ended: Ended, *, done: str = "", dry_run: bool = False, as_json: bool) -> None:
    """Print what ended, or would end.

    Args:
        done: a sentence about what else was done.
    """
    if as_json:
        print_json(described(act, ended, dry_run=dry_run))
        return
    say(" ".join(filter(None, (done, sentence(ended, dry_run=dry_run)))))
    if told := jwt_sentence(ended, dry_run=dry_run):
        say(told)
