"""`authserver client …-secret`: the secrets of an application, replaced with an overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.durations import duration
from authserver.cli.ending import confirm, yes_option
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import operators
from authserver.engine.clients.secrets import (
    LastSecret,
    SecretsUnchanged,
    TwoLiveSecrets,
    client_with_secrets,
    end_secret,
    live_secrets,
    rotate_secret,
)
from authserver.engine.context import Engine
from authserver.engine.keys.ring import check_known

SHOWN_ONCE = "Keep the client secret now: it is not stored readable and will not be shown again."

_COLUMNS = ("secret", "created_at", "last_used_at", "ends_at")


@click.command("rotate-secret")
@click.argument("client_id")
@click.option(
    "--overlap",
    type=duration,
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long the present secret is still accepted, such as 90s, 24h or 7d; 0 ends all older ones at once.",
)
@json_option
@click.pass_obj
def rotate(configuration: Configuration, client_id: str, overlap: timedelta, as_json: bool) -> None:
    """Give an application a new secret, shown once; the present one is still accepted for a while."""
    with configuration.engine(Plugins.OBSERVE) as engine, _in_a_sentence(client_id):
        check_known(engine)
        secret = rotate_secret(engine, client_id, overlap)
        rows = _rows(engine, client_id)
    if as_json:
        print_json({"client_id": client_id, "client_secret": secret, "secrets": rows})
        return
    print_record({"client_id": client_id, "client_secret": secret})
    say()
    print_secrets(rows)
    say(SHOWN_ONCE, err=True)


@click.command("secrets")
@click.argument("client_id")
@json_option
@click.pass_obj
def list_secrets(configuration: Configuration, client_id: str, as_json: bool) -> None:
    """List the live secrets of an application, oldest first; the secrets themselves are not stored readable."""
    with configuration.engine(Plugins.UNUSED) as engine, _in_a_sentence(client_id):
        rows = _rows(engine, client_id)
    if as_json:
        print_json(rows)
    else:
        print_secrets(rows)


@click.command("end-secret")
@click.argument("client_id")
@click.argument("secret")
@click.option("--force", is_flag=True, help="End it even if it is the last one.")
@yes_option
@json_option
@click.pass_obj
def end(
    configuration: Configuration, client_id: str, secret: str, force: bool, yes: bool, as_json: bool
) -> None:
    """End the secret that `client secrets` calls SECRET, from the next request on."""
    confirm(f"End the secret {words(secret)} of {words(client_id)}?", yes=yes)
    with configuration.engine(Plugins.OBSERVE) as engine, _in_a_sentence(client_id):
        end_secret(engine, client_id, secret, last_too=force)
        rows = _rows(engine, client_id)
    if as_json:
        print_json({"client_id": client_id, "ended": secret, "secrets": rows})
        return
    say(f"{words(secret)} of {words(client_id)} has ended. The other secrets:")
    print_secrets(rows)


def print_secrets(rows: Iterable[dict[str, Any]]) -> None:
    """A table of `operators.secrets`."""
    print_rows(rows, _COLUMNS, empty="No secret: make one with `authserver client rotate-secret`.")


def _rows(engine: Engine, client_id: str) -> list[dict[str, Any]]:
    return operators.secrets(live_secrets(client_with_secrets(engine, client_id), engine.now))


@contextmanager
def _in_a_sentence(client_id: str) -> Iterator[None]:
    """The refusal of a change as a sentence: why, and what to do."""
    try:
        yield
    except TwoLiveSecrets as refused:
        each = "".join(
            f"\n  {row['secret']}: made {words(row['created_at'])}, last used {words(row['last_used_at'])}, "
            f"ends {words(row['ends_at'])}"
            for row in operators.secrets(refused.live)
        )
        ends = min((secret.expires_at for secret in refused.live if secret.expires_at), default=None)
        wait = f"wait until {words(ends)}" if ends else "end one with `authserver client end-secret`"
        raise click.ClickException(
            f"{refused}:{each}\n{wait}, or end both at once with --overlap 0"
        ) from None
    except LastSecret as refused:
        raise click.ClickException(
            f"{refused}, and without it the application cannot authenticate: give it another one first "
            f"(`authserver client rotate-secret {client_id}`), or end it anyway with --force"
        ) from None
    except SecretsUnchanged as refused:
        raise click.ClickException(
            f"{refused}; see `authserver client list` and `authserver client secrets`"
        ) from None
