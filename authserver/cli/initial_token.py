"""`authserver initial-token`: the initial access tokens with which clients may register themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.durations import duration
from authserver.cli.ending import confirm, yes_option
from authserver.cli.options import is_given
from authserver.cli.paging import after_option, limit_option, not_in_list, tell_next_page
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import operators
from authserver.engine.clients.initial_tokens import (
    MAXIMUM_USES,
    BadInitialToken,
    NoRegistrationPolicies,
    make,
    new_text,
    revoke,
)

if TYPE_CHECKING:
    pass

SHOWN_ONCE = "Keep the initial access token now: it is not stored readable and will not be shown again."
_COLUMNS = ("initial_token", "policy", "state", "used", "uses", "expires_at", "created_at", "made_by", "note")


@click.group("initial-token", cls=OneSentence)
def initial_token() -> None:
    """The initial access tokens with which clients may register themselves."""


@initial_token.command()
@click.option(
    "--policy",
    required=True,
    help="The registration policy that limits the clients; see the INI file.",
)
@click.option(
    "--uses",
    type=click.IntRange(1, MAXIMUM_USES),
    default=1,
    show_default=True,
    help="How many clients it may register.",
)
@click.option("--unlimited", is_flag=True, help="It may register any number of clients, until it expires.")
@click.option(
    "--expires",
    "lifetime",
    type=duration,
    default="30d",
    show_default=True,
    metavar="DURATION",
    help="How long it can be used, such as 24h, 30d or 4w.",
)
@click.option("--note", default="", help="Its purpose; only operators see it.")
@json_option
@click.pass_obj
def add(
    configuration: Configuration,
    policy: str,
    uses: int,
    unlimited: bool,
    lifetime: timedelta,
    note: str,
    as_json: bool,
) -> None:
    """Make an initial access token, shown once."""
    if unlimited and is_given("uses"):
        raise click.UsageError("--unlimited: not with --uses")
    if not lifetime:
        raise click.UsageError("--expires 0: it could never be used")
    with configuration.engine() as engine, _in_a_sentence():
        token, text = make(
            engine,
            policy=policy,
            uses=None if unlimited else uses,
            expires_at=engine.now + lifetime,
            note=note,
        )
        record = {**operators.initial_token(token, engine.now), "token": text}
    if as_json:
        print_json(record)
        return
    print_record(record)
    say(SHOWN_ONCE, err=True)


@initial_token.command()
@json_option
def generate(as_json: bool) -> None:
    """Print a fresh token that is not stored, for the place from which `authserver apply` reads it."""
    text = new_text()
    if as_json:
        print_json({"token": text})
    else:
        say(text)


@initial_token.command("list")
@limit_option("tokens")
@after_option("INITIAL_TOKEN", "this token")
@json_option
@click.pass_obj
def list_tokens(configuration: Configuration, limit: int, after: str, as_json: bool) -> None:
    """List initial access tokens that were made here, newest first; the tokens themselves are not stored readable."""
    with configuration.engine(Plugins.UNUSED) as engine:
        stored, now = engine.stores.initial_tokens, engine.now
        last = stored.find_by_id(after) if after else None
        if after and last is None:
            raise not_in_list(after)
        found = stored.page(after=(last.created_at, last.token_id) if last else None, limit=limit + 1)
    rows = [operators.initial_token(token, now) for token in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        none = "There are none; make one with `authserver initial-token add --policy NAME`."
        print_rows(rows, _COLUMNS, empty="There are no more." if after else none)
    if len(found) > limit:
        tell_next_page(configuration, [], limit=limit, after=found[limit - 1].token_id, as_json=as_json)


@initial_token.command("revoke")
@click.argument("initial_token")
@yes_option
@json_option
@click.pass_obj
def revoke_token(configuration: Configuration, initial_token: str, yes: bool, as_json: bool) -> None:
    """Revoke the token that `initial-token list` calls INITIAL_TOKEN: no client registers with it any more.

    The clients that it registered stay.
    """
    confirm(f"Revoke {words(initial_token)}? No client registers with it any more.", yes=yes)
    with configuration.engine(Plugins.OBSERVE) as engine:
        if not revoke(engine, initial_token):
            raise click.ClickException(
                f"{initial_token}: no such token, or it is revoked already; see `authserver initial-token list`"
            )
    if as_json:
        print_json({"initial_token": initial_token, "revoked": True})
        return
    say(
        f"{words(initial_token)} is revoked. The clients that it registered stay; see `authserver client list`."
    )


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    try:
        yield
    except NoRegistrationPolicies as error:
        raise click.ClickException(str(error)) from error
    except BadInitialToken as error:
        raise click.UsageError(str(error)) from error
