"""`authserver keys`: the signing keys and the key ring."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.ending import confirm, yes_option
from authserver.cli.paging import after_option, limit_option, page_of, tell_next_page
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import operators
from authserver.engine.context import Engine
from authserver.engine.crypto.jose import ALGORITHMS
from authserver.engine.keys import ring
from authserver.engine.keys import signing_keys as rules
from authserver.engine.records import KeyState, SigningKey

TIMES = {
    "published": "created_at",
    "signs_from": "activates_at",
    "signs_until": "retires_at",
    "ends": "ends_at",
}


@click.group(cls=OneSentence)
def keys() -> None:
    """The keys that sign tokens, and the key ring that seals."""


@keys.command("list")
@click.option("--all", "with_removed", is_flag=True, help="Also those that have ended.")
@limit_option("keys")
@after_option("KID", "this key")
@json_option
@click.pass_obj
def list_keys(
    configuration: Configuration, with_removed: bool, limit: int, after: str, as_json: bool
) -> None:
    """List the signing keys, oldest first; their private parts stay sealed."""
    with configuration.engine(Plugins.UNUSED) as engine:
        known, now = engine.stores.signing_keys.list(), engine.now
        signs = rules.signing_key(known, engine.settings.signing_algorithm, now)
    wanted = [key for key in known if with_removed or key.state(now) is not KeyState.REMOVED]
    found = page_of(wanted, attrgetter("kid"), after=after, limit=limit)
    rows = [operators.signing_key(key, now, signs) for key in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        shown = [{**row, **{title: row[name] for title, name in TIMES.items()}} for row in rows]
        columns = ("kid", "algorithm", "state", *TIMES)
        none = "There are no keys; the server makes one at start."
        print_rows(shown, columns, empty="There are no more." if after else none)
        if signs:
            say(f"\n{words(signs.kid)} signs new tokens.")
    if len(found) > limit:
        options = [("--all", with_removed)]
        tell_next_page(configuration, options, limit=limit, after=found[limit - 1].kid, as_json=as_json)


@keys.command()
@click.option(
    "--algorithm",
    type=click.Choice(ALGORITHMS),
    help="Of the new key; an algorithm without a key gets its first. By default authserver.signing_algorithm.",
)
@click.option(
    "--after",
    type=click.IntRange(0, 365 * 86_400),
    metavar="SECONDS",
    help="When the new key begins to sign; by default, and at the earliest, when all APIs can have read it.",
)
@json_option
@click.pass_obj
def rotate(configuration: Configuration, algorithm: str | None, after: int | None, as_json: bool) -> None:
    """Publish a new signing key, which signs as soon as all APIs can have read it.

    The previous key verifies until its last token has expired. No restart is needed.
    """
    with changing(configuration) as engine:
        ring.check(engine)
        rotation = rules.rotate(
            engine, algorithm=algorithm, after=None if after is None else timedelta(seconds=after)
        )
        now = engine.now
        signs = rules.signing_key(engine.stores.signing_keys.list(), engine.settings.signing_algorithm, now)
    new, old = rotation.new, rotation.old
    if as_json:
        print_json(
            {
                "new": operators.signing_key(new, now, signs),
                "old": None if old is None else operators.signing_key(old, now, signs),
            }
        )
        return
    print_record({"kid": new.kid, "algorithm": new.algorithm, "state": str(new.state(now))})
    say()
    if new.activates_at <= now:
        say("It signs from now on.")
    else:
        say(f"Every server publishes it within {rules.REFRESH_SECONDS} seconds.")
        say(f"It signs from {words(new.activates_at)} on.")
    if old is not None:
        say(f"{words(old.kid)}, which it replaces, verifies until {words(old.ends_at)}.")


# A key id may begin with a dash, and then looks like an option.
@keys.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("kid")
@click.option("--reason", default=rules.REVOKED_BY_OPERATOR, show_default=True, help="Why, for the events.")
@yes_option
@json_option
@click.pass_obj
def revoke(configuration: Configuration, kid: str, reason: str, yes: bool, as_json: bool) -> None:
    """Take a signing key out of use at once: an emergency removal. The first eight characters of its KID are enough.

    After ten seconds no server publishes it or accepts a token that it signed. Another key signs from now on.
    """
    confirm(
        f"Revoke the signing key {words(kid)}? Every token that it signed is refused from now on.", yes=yes
    )
    with changing(configuration) as engine:
        # The whole ring is not needed: after the loss of one of its keys, the signing keys under it are revoked here.
        ring.check_known(engine)
        revocation = rules.revoke(engine, kid, reason=reason)
        now, maximum_age = engine.now, engine.settings.jwks_maximum_age
        signs = rules.signing_key(engine.stores.signing_keys.list(), engine.settings.signing_algorithm, now)
    if as_json:
        print_json(
            {
                "revoked": operators.signing_key(revocation.revoked, now, signs),
                "was": str(revocation.was),
                "signs": None if signs is None else signs.kid,
            }
        )
        return
    say("\n".join(consequences(revocation, signs, maximum_age)))


@keys.command()
def secret() -> None:
    """Print a fresh entry for authserver.secret_keys; needs no INI file."""
    say(new_ring_entry())


def new_ring_entry() -> str:
    """An entry of the key ring: `id:base64` of 32 random bytes; the id holds the day on which it was made."""
    key_id = f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(2)}"
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(32)).decode('ascii')}"


@contextmanager
def changing(configuration: Configuration) -> Iterator[Engine]:
    """An engine to change keys with. Raises click.ClickException for what cannot be done."""
    try:
        with configuration.engine(Plugins.OBSERVE) as engine:
            yield engine
    except rules.CannotChange as error:
        raise click.ClickException(str(error)) from error


def consequences(revocation: rules.Revocation, signs: SigningKey | None, maximum_age: int) -> Iterator[str]:
    """The effects of a revocation on servers, APIs and clients."""
    revoked = revocation.revoked
    yield f"{revoked.kid} ({revoked.algorithm}) is out of use, and its private part is erased."
    yield f"Within {rules.REFRESH_SECONDS} seconds no server publishes it or accepts what it signed."
    if revocation.successor is not None:
        yield f"{revocation.successor.kid} ({revocation.successor.algorithm}) signs from now on."
    elif revocation.restored is not None:
        yield f"{revocation.restored.kid}, which it was to replace, continues to sign."
    elif signs is not None:
        yield f"{signs.kid} ({signs.algorithm}) signs, as before."
    if revocation.was is KeyState.STAGED:
        yield "It had not signed yet, so no client notices."
        return
    yield ""
    yield "What clients and APIs notice:"
    yield "- Access tokens that it signed are refused; clients get new ones with their refresh tokens."
    yield (
        f"- APIs that check tokens themselves use the keys that they have read: for up to {maximum_age} seconds "
        "they may still accept tokens of the old key"
        + (
            ", and refuse those of the new one unless they read the keys again when they meet an unknown `kid`."
            if revocation.successor is not None
            else "."
        )
    )
    yield "- APIs that ask the introspection endpoint refuse those tokens at once."
