"""`authserver db reencrypt`: seals again, under the first key of the ring, the values that older keys sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import click

from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.printing import json_option, print_json, print_rows, say, words
from authserver.cli.progress import progress
from authserver.engine.event_seals import recode
from authserver.engine.keys import ring
from authserver.engine.keys.signing_keys import erase_ended

# How many clients of each key are printed for people.
SHOWN = 10


@click.command()
@json_option
@click.pass_obj
def reencrypt(configuration: Configuration, as_json: bool) -> None:
    """Seal all values again under the first key of authserver.secret_keys, and list the other keys that can be removed.

    It may be stopped at any time and run again, while servers run.
    """
    application = configuration.application(Plugins.UNUSED)
    key_ring = application.parts.ring
    with closing(application):
        with application.begin() as engine:
            ring.check(engine)
            erase_ended(engine.stores, engine.now)
            kids = [key.kid for key in ring.outdated(engine.stores, key_ring)]
        resealed = ring.reseal(application.storage, key_ring, kids)
        answers = progress("Sealing again", resealed, quiet=as_json or not kids, total=len(kids))
        told = dict(zip(kids, answers, strict=True))
        problems = [problem for problem in told.values() if problem]
        recoded = recode(application.storage, key_ring)
        with application.begin() as engine:
            ring.record_resealed(engine, [kid for kid, problem in told.items() if not problem])
            older = [key for key in ring.standings(engine) if key.is_present and not key.seals]
            needed = {key.key_id for key in older if not key.may_leave}
            clients = ring.clients_of(engine.stores, needed, engine.now)
    summary = {
        "key_id": key_ring.key_ids[0],
        "sealed_again": len(kids) - len(problems) + recoded,
        "problems": problems,
        "older_keys": [
            {
                "key_id": key.key_id,
                "signing_keys": key.needed_by.signing_keys,
                "client_secrets": key.needed_by.client_secrets,
                "clients": clients.get(key.key_id, []),
                "may_leave": key.may_leave,
            }
            for key in older
        ],
    }
    if as_json:
        print_json(summary)
    else:
        _print(summary)
    if problems:
        raise click.exceptions.Exit(1)


def _print(summary: Mapping[str, Any]) -> None:
    """Print what was done, and the next steps."""
    count, first = summary["sealed_again"], summary["key_id"]
    if count or summary["problems"]:
        say(f"{count} {'value was' if count == 1 else 'values were'} sealed again under {first}.")
    else:
        say(f"Everything that is sealed is sealed under {first} already.")
    for problem in summary["problems"]:
        say(f"Error: {words(problem)}", err=True)
    older = summary["older_keys"]
    if older:
        say()
        print_rows(older, ("key_id", "signing_keys", "client_secrets", "may_leave"), empty="")
    for line in advice(older):
        say(line)


def advice(older: list[Mapping[str, Any]]) -> Iterator[str]:
    """The steps before an older key can be removed, and the effects of its removal."""
    if any(row["client_secrets"] for row in older):
        yield ""
        yield "A client secret moves to the first key when it is next used. If it is not used any more, replace it with"
        yield "`authserver client rotate-secret`, or disable its client with `authserver client disable`."
    for row in older:
        clients = row["clients"]
        if clients:
            more = f" and {len(clients) - SHOWN} more (--json names them)" if len(clients) > SHOWN else ""
            yield f"{row['key_id']} has those of {', '.join(map(words, clients[:SHOWN]))}{more}."
    if any(row["may_leave"] for row in older):
        yield ""
        yield "When a key is removed from the ring, browser sessions that began under it end: people sign in again."
