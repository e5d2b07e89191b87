"""`authserver db purge`: the clean-up of `authserver.upkeep`, at once and to the end."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from authserver import upkeep
from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.printing import json_option, print_json, print_rows
from authserver.cli.progress import stderr
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.event_seals import remove_old
from authserver.engine.ports import Storage, StorageUnavailable
from authserver.engine.upkeep_records import Batch, Disposable

# More rows than this are not counted before the start: that would take longer than a statement may.
MAXIMUM_COUNTED = 1_000_000
# How often, and after how many seconds, to try again if the remaining rows are locked or the database is busy.
TRIES = 10
WAIT = 1.0


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@json_option
@click.pass_obj
def purge(configuration: Configuration, dry_run: bool, as_json: bool) -> None:
    """Delete expired rows: tokens, small records, grants, sessions, ended secrets, idle clients, old events.

    Servers do this themselves, a little at a time, unless authserver.cleanup_interval is 0. It is safe while they
    run, and twice at once; stopping it loses nothing.
    """
    application = configuration.application(Plugins.UNUSED)
    with closing(application):
        application.check_database()
        now, ring = datetime.now(UTC), application.parts.ring
        before = upkeep.cutoffs(application.parts.settings, now)
        removed: Counter[Disposable] = Counter()
        dependents: Counter[Disposable] = Counter()
        left = upkeep.backlog(application.storage, before, MAXIMUM_COUNTED)
        with _stopped_by_interrupt() as stopped:
            if not dry_run:
                upkeep.erase_keys(application.storage, now)
                with _progress(left, quiet=as_json) as bar:
                    task = bar.add_task("Removing", total=_total(left))
                    for kind, batch in _until_nothing_is_left(application.storage, ring, before, stopped):
                        removed[kind] += batch.removed
                        dependents[kind] += batch.dependents
                        bar.advance(task, batch.removed)
                while removed.keys() & upkeep.EVENTS and remove_old(application.storage, ring):
                    pass
            left = upkeep.backlog(application.storage, before, MAXIMUM_COUNTED)
    rows = [
        {
            "kind": str(kind),
            "removed": removed[kind],
            "removed_with_them": dependents[kind],
            "left": left[kind],
        }
        for kind in before
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("kind", "removed", "removed_with_them", "left"), empty="")
    if stopped.is_set():
        raise click.Abort


@contextmanager
def _stopped_by_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the present batch is finished and counted; a second Ctrl-C interrupts at once."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stopped.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _until_nothing_is_left(
    storage: Storage, ring: KeyRing, before: Mapping[Disposable, datetime], stopped: threading.Event
) -> Iterator[tuple[Disposable, Batch]]:
    """The batches; rows that others have locked are tried again for some seconds, and then left."""
    tries = TRIES
    while tries:
        removed = 0
        try:
            for kind, batch in upkeep.remove_all(storage, ring, before, stopped.wait):
                removed += batch.removed + batch.dependents
                yield kind, batch
                if stopped.is_set():
                    return
            if not any(upkeep.backlog(storage, before, limit=1).values()):
                return
        except StorageUnavailable:
            if tries == 1:
                raise
        tries = TRIES if removed else tries - 1
        if not removed and stopped.wait(WAIT):
            return


def _total(left: Mapping[Disposable, int]) -> int | None:
    """How many rows there are to delete; None when there are too many to count."""
    return None if MAXIMUM_COUNTED in left.values() else sum(left.values())


def _progress(left: Mapping[Disposable, int], *, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr(quiet=quiet or not any(left.values())),
    )
