"""`authserver issuer`: the issuers whose assertions about people and programs are accepted (RFC 7523)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.durations import duration
from authserver.cli.ending import carry_out, dry_run_option, tell, yes_option
from authserver.cli.options import MORE, PAIR, read_each, separated
from authserver.cli.paging import after_option, limit_option, page_of, tell_next_page
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import issuer_registry, issuers
from authserver.engine.context import Engine
from authserver.engine.documents import FetchFailed
from authserver.engine.ending import Act, Subject
from authserver.engine.issuers import LIFETIMES, MAXIMUM_SKEW, BadIssuer
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.tokens.assertions import TRUSTED_ALGORITHMS, TrustedKeys
from authserver.engine.tokens.issuer_keys import keys_of
from authserver.ini import did_you_mean

_COLUMNS = ("issuer", "profile", "is_enabled", "keys", "clients", "resources", "scopes", "source")


def _seconds(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        seconds = int(duration(text).total_seconds())
        if not least <= seconds <= most:
            raise click.BadParameter(f"{text}: it is {least}s to {timedelta(seconds=most)} long")
        return seconds

    return read


_members = (
    click.option(
        "--jwks",
        "keys",
        metavar="FILE|URL",
        help="Its keys: a JWK Set in a file, whose content is stored, or the https address where it publishes them.",
    ),
    click.option(
        "--algorithm",
        "algorithms",
        multiple=True,
        type=click.Choice(TRUSTED_ALGORITHMS),
        help="What it may sign with; several times.",
    ),
    click.option(
        "--lifetime",
        type=_seconds(*LIFETIMES),
        metavar="DURATION",
        help="The longest time from now to the end of an assertion; without it 5m.",
    ),
    click.option(
        "--skew",
        type=_seconds(0, MAXIMUM_SKEW),
        metavar="DURATION",
        help="The most by which its clock may differ from that of this server; without it 30s.",
    ),
    click.option(
        "--client",
        "clients",
        multiple=True,
        metavar="CLIENT_ID",
        help="A client that may present its assertions; several times. Without it: each that is registered for the grant type.",
    ),
    click.option(
        "--resource",
        "resources",
        multiple=True,
        callback=separated,
        metavar="URI",
        help=f"A resource that tokens may be for; {MORE}. Without it: each that policies allow.",
    ),
    click.option(
        "--scope",
        "scopes",
        multiple=True,
        callback=separated,
        metavar="SCOPE",
        help=f"A scope that tokens may have; {MORE}. Without it: whatever policies allow.",
    ),
    click.option(
        "--default-resource",
        metavar="URI",
        help="The resource of a token when neither the assertion nor the request names one.",
    ),
    click.option(
        "--option",
        "options",
        type=PAIR,
        multiple=True,
        metavar="NAME=VALUE",
        help="A further setting of its profile, a text or JSON; several times.",
    ),
)


def _with_members(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_members):
        command = option(command)
    return command


@click.group(cls=OneSentence)
def issuer() -> None:
    """The issuers whose assertions are accepted, with their limits.

    An issuer is in the database, or in a setting of the INI (authserver.trusted_issuers and others), where only an editor
    changes it. The INI takes precedence. The limits of one issuer do not apply to another.
    """


@issuer.command()
@click.argument("issuer")
@click.option("--profile", required=True, help="The profile of its assertions, by its name in a plugin.")
@_with_members
@json_option
@click.pass_obj
def add(configuration: Configuration, /, issuer: str, profile: str, as_json: bool, **given: Any) -> None:
    """Accept the assertions of ISSUER, which is its `iss`."""
    if given["keys"] is None:
        raise click.UsageError("--jwks: name its keys, a file or an https address")
    with configuration.engine() as engine, _in_a_sentence():
        members = {"algorithms": TRUSTED_ALGORITHMS, **_read(given)}
        added = TrustedIssuer(issuer=issuer, profile=profile, **members)
        issuers.add(engine, added)
        row = _row(added)
    _show(row, as_json)


@issuer.command("list")
@limit_option("issuers")
@after_option("ISSUER", "this issuer")
@json_option
@click.pass_obj
def list_issuers(configuration: Configuration, limit: int, after: str, as_json: bool) -> None:
    """List the issuers, those of the INI first."""
    with configuration.engine() as engine:
        known = issuer_registry.all_issuers(engine)
        found = page_of(known, lambda each: each.issuer, after=after, limit=limit)
        rows = [_row(each) for each in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        shown = [{**row, "keys": row["jwks_uri"] or row["keys"]} for row in rows]
        none = "There are none; `authserver issuer add ISSUER` makes the server trust one."
        print_rows(shown, _COLUMNS, empty="There are no more." if after else none)
    if len(found) > limit:
        tell_next_page(configuration, [], limit=limit, after=found[limit - 1].issuer, as_json=as_json)


@issuer.command()
@click.argument("issuer")
@json_option
@click.pass_obj
def show(configuration: Configuration, issuer: str, as_json: bool) -> None:
    """Show an issuer with its settings in the INI or the database."""
    with configuration.engine() as engine:
        row = _row(_found(engine, issuer))
    _show(row, as_json)


@issuer.command("edit")
@click.argument("issuer")
@click.option("--profile", help="The profile of its assertions.")
@_with_members
@click.option("--every-client", is_flag=True, help="Each client that is registered for the grant type.")
@click.option("--every-resource", is_flag=True, help="Each resource that policies allow.")
@click.option("--every-scope", is_flag=True, help="Whatever scopes policies allow.")
@json_option
@click.pass_obj
def edit_issuer(
    configuration: Configuration,
    /,
    issuer: str,
    profile: str | None,
    every_client: bool,
    every_resource: bool,
    every_scope: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Change an issuer of the database; settings without an option stay the same, and an empty value removes a setting.

    The change counts from the next assertion on.
    """
    members = _read(given)
    for name, every in (("clients", every_client), ("resources", every_resource), ("scopes", every_scope)):
        if every and name in members:
            raise click.UsageError(f"--every-{name[:-1]}: not with --{name[:-1]}")
        if every:
            members[name] = None
    if profile is not None:
        members["profile"] = profile
    if not members:
        raise click.UsageError(
            f"nothing to change: `authserver issuer edit --help` lists the options, and `authserver issuer show {issuer}` "
            "shows how it is now"
        )
    with configuration.engine() as engine, _in_a_sentence():
        before = _stored(engine, issuer)
        if "options" in members:
            merged = {**before.options, **members["options"]}
            members["options"] = {name: value for name, value in merged.items() if value != ""}
        after = replace(before, **members)
        issuers.change(engine, before, after)
        row = _row(after)
    _show(row, as_json)


@issuer.command()
@click.argument("issuer")
@json_option
@click.pass_obj
def enable(configuration: Configuration, issuer: str, as_json: bool) -> None:
    """Accept the assertions of a disabled issuer again; the grants by earlier ones have ended."""
    with configuration.engine() as engine, _in_a_sentence():
        before = _stored(engine, issuer)
        if before.is_enabled:
            raise click.ClickException(f"{issuer}: it is enabled")
        issuers.enable(engine, before)
        row = _row(replace(before, is_enabled=True))
    _show(row, as_json)


@issuer.command()
@click.argument("issuer")
@dry_run_option
@yes_option
@json_option
@click.pass_obj
def disable(configuration: Configuration, issuer: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Refuse all assertions of an issuer from now on, and end all grants that came from them (L-08).

    The next request is refused already, and so is the next use of a token of such a grant. `authserver issuer enable`
    accepts new assertions again. It is safe to run this again, also after an interruption.
    """
    _end(configuration, issuer, removes=False, dry_run=dry_run, yes=yes, as_json=as_json)


@issuer.command()
@click.argument("issuer")
@dry_run_option
@yes_option
@json_option
@click.pass_obj
def remove(configuration: Configuration, issuer: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Disable an issuer, end all grants that came from its assertions, and delete its entry."""
    _end(configuration, issuer, removes=True, dry_run=dry_run, yes=yes, as_json=as_json)


@issuer.command("test")
@click.argument("issuer")
@json_option
@click.pass_obj
def try_issuer(configuration: Configuration, issuer: str, as_json: bool) -> None:
    """Whether an assertion of ISSUER could be accepted now: fetch its keys, and check its entry.

    The exit status is 1 if anything is wrong. `authserver explain assertion` says what is wrong with one assertion.
    """
    with configuration.engine() as engine:
        found = _found(engine, issuer)
        problems = list(problems_of(engine, found))
        keys = present_keys(engine, found, problems)
    if as_json:
        print_json({"issuer": issuer, "keys": keys, "problems": problems})
    else:
        print_rows(keys, ("kid", "algorithm", "is_accepted"), empty="It has no keys that can be used.")
        for problem in problems:
            say(words(problem))
    if problems:
        raise click.exceptions.Exit(1)
    if not as_json:
        say("Its assertions are accepted.")


def _end(
    configuration: Configuration, issuer: str, *, removes: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    application = configuration.application(Plugins.OBSERVE)
    with closing(application):
        application.check_database()
        with application.begin() as engine:
            _stored(engine, issuer)
        act = Act(subject=Subject.issuer(issuer), for_good=True)
        verb = "Remove" if removes else "Disable"
        ended = carry_out(
            application, act, dry_run=dry_run, yes=yes, quiet=as_json, ask=f"{verb} {words(issuer)}?"
        )
        if removes and not dry_run:
            with application.begin() as engine, _in_a_sentence():
                issuers.remove(engine, issuer)
    done = "" if dry_run else f"{words(issuer)} is {'removed' if removes else 'disabled'}."
    tell(act, ended, done=done, dry_run=dry_run, as_json=as_json)


def problems_of(engine: Engine, found: TrustedIssuer) -> Iterator[str]:
    """The problems of an entry, apart from its keys."""
    if not found.is_enabled:
        yield f"it is disabled; `authserver issuer enable {found.issuer}` lets it in again"
    try:
        if found.is_stored:
            issuers.check(engine, found)
        else:
            issuers.check_listed(engine, found)
    except BadIssuer as bad:
        yield str(bad)


def present_keys(engine: Engine, found: TrustedIssuer, problems: list[str]) -> list[dict[str, Any]]:
    """Its present keys, fetched if it publishes them; their problems are added to `problems`.

    No transaction need be open meanwhile.
    """
    try:
        keys: TrustedKeys = keys_of(engine, found)
    except FetchFailed as failed:
        problems.append(f"{found.jwks_uri}: {failed.detail or failed.problem}")
        return []
    except ValueError as error:
        problems.append(str(error))
        return []
    rows = [
        {"kid": kid, "algorithm": key.algorithm, "is_accepted": key.algorithm in found.algorithms}
        for kid, key in keys.keys
    ]
    if not any(row["is_accepted"] for row in rows):
        problems.append(f"none of its keys is for {' or '.join(found.algorithms)}")
    return rows


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an issuer, from options."""
    members: dict[str, Any] = {}
    if (keys := given["keys"]) is not None:
        members |= _key_members(keys)
    for name in ("algorithms", "clients", "resources", "scopes"):
        if given[name]:
            members[name] = tuple(dict.fromkeys(given[name]))
    for name in ("lifetime", "skew", "default_resource"):
        if given[name] is not None:
            members[name] = given[name]
    if given["options"]:
        members["options"] = read_each("--option", given["options"])
    return members


def _key_members(source: str) -> dict[str, str]:
    """The members that say where the keys are. Raises click.ClickException."""
    if "://" in source:
        return {"jwks_uri": source, "jwks": ""}
    try:
        return {"jwks": Path(source).read_text("utf-8"), "jwks_uri": ""}
    except OSError as error:
        raise click.ClickException(f"--jwks {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"--jwks {source}: this is no JWK Set: it is not UTF-8") from None


def _row(found: TrustedIssuer) -> dict[str, Any]:
    return {**issuers.described(found), "source": "database" if found.is_stored else "INI"}


def _found(engine: Engine, issuer: str) -> TrustedIssuer:
    found = issuer_registry.find(engine, issuer)
    if found is None:
        known = [each.issuer for each in issuer_registry.all_issuers(engine)]
        raise click.ClickException(f"{issuer}: no such issuer; {did_you_mean(issuer, known, '')}")
    return found


def _stored(engine: Engine, issuer: str) -> TrustedIssuer:
    found = _found(engine, issuer)
    if not found.is_stored:
        raise click.ClickException(
            f"{issuer}: it is in the INI, in {found.setting}: take it out there and restart the "
            "servers; `authserver end issuer` then ends what came of its assertions"
        )
    return found


def _show(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        print_record(row)


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    try:
        yield
    except BadIssuer as error:
        raise click.ClickException(str(error)) from error
