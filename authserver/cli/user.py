"""`authserver user`: the people who sign in with a password kept here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.printing import json_option, next_page, print_json, print_record, print_rows, say, words
from authserver.engine import operators
from authserver.engine.context import Engine
from authserver.engine.people.account import Ended, enable_user, set_password, sign_out_everywhere
from authserver.engine.people.attributes import change
from authserver.engine.people.login import add_user, disable_user
from authserver.engine.people.usernames import normalise_username
from authserver.engine.records import User

_SHOW = "see `authserver user show`"

password_stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


class Attribute(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`, as a pair."""

    name = "attribute"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not NAME=VALUE, such as department=sales", param, context)
        return name.strip(), text.strip()


attribute_option = click.option(
    "--attribute",
    "attributes",
    multiple=True,
    type=Attribute(),
    metavar="NAME=VALUE",
    help="A fact for policies. May be given several times, also with one name: that attribute then has several values.",
)


@click.group(cls=OneSentence)
def user() -> None:
    """The people who can sign in: their passwords, names, groups and attributes."""


@user.command()
@click.argument("name")
@password_stdin_option
@click.option("--display-name", default="", help="The name that pages and applications show.")
@click.option("--group", "groups", multiple=True, help="A group for policies. May be given several times.")
@attribute_option
@json_option
@click.pass_obj
def add(
    configuration: Configuration,
    name: str,
    password_stdin: bool,
    display_name: str,
    groups: tuple[str, ...],
    attributes: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Add a person; the password is asked for, or read from stdin."""
    chosen = read_password(password_stdin)
    with configuration.engine(Plugins.OBSERVE) as engine:
        added = add_user(
            engine, name, chosen, display_name=display_name, groups=groups, attributes=_by_name(attributes)
        )
    _print_user(added, as_json=as_json)


@user.command()
@click.argument("name")
@click.option("--display-name", help="The name that pages and applications show.")
@click.option(
    "--group", "groups", multiple=True, help="These groups and no others. May be given several times."
)
@click.option("--add-group", "added", multiple=True, metavar="GROUP", help="May be given several times.")
@click.option("--remove-group", "removed", multiple=True, metavar="GROUP", help="May be given several times.")
@attribute_option
@click.option("--remove-attribute", "gone", multiple=True, metavar="NAME", help="May be given several times.")
@json_option
@click.pass_obj
def edit(
    configuration: Configuration,
    name: str,
    display_name: str | None,
    groups: tuple[str, ...],
    added: tuple[str, ...],
    removed: tuple[str, ...],
    attributes: tuple[tuple[str, str], ...],
    gone: tuple[str, ...],
    as_json: bool,
) -> None:
    """Change the display name, groups or attributes of a person; what is not named stays as it is.

    Policies see the change from the next request on, also when an application refreshes its tokens. The next sign-in
    replaces it if a sign-in plugin brings groups or attributes along.
    """
    if display_name is None and not (groups or added or removed or attributes or gone):
        raise click.UsageError("nothing to change: give --display-name, a --group or an --attribute")
    if groups and (added or removed):
        raise click.UsageError("--group names all groups: give it alone, or --add-group and --remove-group")
    if both := (set(added) & set(removed)) | ({key for key, _ in attributes} & set(gone)):
        raise click.UsageError(f"{', '.join(sorted(both))} cannot be both given and removed")
    with configuration.engine(Plugins.OBSERVE) as engine:
        found = find(engine, name)
        if missing := [group for group in removed if group not in found.groups]:
            raise click.ClickException(f"{found.username} is not in {', '.join(missing)}: {_SHOW}")
        if missing := [key for key in gone if key not in found.attributes]:
            raise click.ClickException(f"{found.username} has no attribute {', '.join(missing)}: {_SHOW}")
        kept = {key: values for key, values in found.attributes.items() if key not in gone}
        changed = change(
            engine,
            found,
            display_name=display_name,
            groups=groups or (set(found.groups) | set(added)) - set(removed),
            attributes={**kept, **_by_name(attributes)},
        )
    _print_user(changed, as_json=as_json)


@user.command()
@click.argument("name")
@json_option
@click.pass_obj
def show(configuration: Configuration, name: str, as_json: bool) -> None:
    """Show a person, with groups and attributes."""
    with configuration.engine(Plugins.UNUSED) as engine:
        found = find(engine, name)
    _print_user(found, as_json=as_json)


@user.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="How many people are listed at most.",
)
@click.option("--after", default="", metavar="NAME", help="Begin after this user name.")
@json_option
@click.pass_obj
def list_users(configuration: Configuration, limit: int, after: str, as_json: bool) -> None:
    """List people by user name, so many at a time."""
    with configuration.engine(Plugins.UNUSED) as engine:
        # One more than is shown tells whether there is another page.
        found = engine.stores.users.page(after=after, limit=limit + 1)
    rows = [operators.user(item) for item in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        rows = [row | {"groups": ", ".join(row["groups"])} for row in rows]
        columns = ("username", "display_name", "user_id", "groups", "created_at", "disabled_at")
        nobody = "There are no users; add one with `authserver user add NAME`."
        print_rows(rows, columns, empty="There are no more users." if after else nobody)
    if len(found) > limit:
        options = [("--limit", limit), ("--json", as_json), ("--after", found[limit - 1].username)]
        next_page(f"{configuration.command} user list", options, err=as_json)


@user.command()
@click.argument("name")
@click.pass_obj
def disable(configuration: Configuration, name: str) -> None:
    """Disable a person: from the next request on they cannot sign in, and nothing granted in their name works."""
    with configuration.engine(Plugins.OBSERVE) as engine:
        if not disable_user(engine, name):
            raise click.ClickException(
                f"{name}: no such user, or disabled already; see `authserver user list`"
            )
    say(f"{words(name)} is disabled.")


@user.command()
@click.argument("name")
@json_option
@click.pass_obj
def enable(configuration: Configuration, name: str, as_json: bool) -> None:
    """Let a disabled person sign in again, with the password from before.

    They begin anew: their sessions, the access of all applications and all remembered consents from before have ended.
    """
    with configuration.engine(Plugins.OBSERVE) as engine:
        found = find(engine, name)
        ended = enable_user(engine, found)
        if ended is None:
            raise click.ClickException(f"{found.username} is not disabled; {_SHOW}")
    print_ended(f"{words(found.username)} can sign in again", found, ended, as_json=as_json)


@user.command()
@click.argument("name")
@password_stdin_option
@json_option
@click.pass_obj
def password(configuration: Configuration, name: str, password_stdin: bool, as_json: bool) -> None:
    """Give a person another password; it is asked for, or read from stdin.

    All their sessions end, the access of all applications, and all remembered consents.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        # Before a password is typed for a user that does not exist.
        found = find(engine, name)
    chosen = read_password(password_stdin)
    with configuration.engine(Plugins.OBSERVE) as engine:
        ended = set_password(engine, found, chosen)
    print_ended(f"{words(found.username)} has another password", found, ended, as_json=as_json)


@user.command("sign-out")
@click.argument("name")
@json_option
@click.pass_obj
def sign_out(configuration: Configuration, name: str, as_json: bool) -> None:
    """Sign a person out everywhere: all their sessions end, the access of all applications, and remembered consents."""
    with configuration.engine(Plugins.OBSERVE) as engine:
        found = find(engine, name)
        ended = sign_out_everywhere(engine, found)
    print_ended(f"{words(found.username)} is signed out", found, ended, as_json=as_json)


def find(engine: Engine, name: str) -> User:
    """The user of this name.

    Raises:
        BadUsername: it cannot be a user name.
        click.ClickException: there is no such user.
    """
    found = engine.stores.users.find_by_name(normalise_username(name))
    if found is None:
        raise click.ClickException(f"{name}: no such user; see `authserver user list`")
    return found


def read_password(from_stdin: bool) -> str:
    """A password, typed twice or from the first line of stdin. Raises click.UsageError without a terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for a password: give it with --password-stdin")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return typed


def print_ended(done: str, user: User, ended: Ended, *, as_json: bool) -> None:
    """Say what was done, and what ended with it."""
    if as_json:
        print_json(
            {
                "username": user.username,
                "sessions_ended": ended.sessions,
                "grants_revoked": ended.grants,
                "consents_ended": ended.consents,
            }
        )
    else:
        say(
            f"{done}. Sessions ended: {ended.sessions}. Grants revoked: {ended.grants}. "
            f"Consents ended: {ended.consents}."
        )


def _print_user(user: User, *, as_json: bool) -> None:
    found = operators.user(user)
    if as_json:
        print_json(found)
    else:
        values = [f"{name} = {value}" for name, values in user.attributes.items() for value in values]
        print_record(found | {"attributes": values})


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each attribute, by name."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
