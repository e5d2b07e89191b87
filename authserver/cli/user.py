"""`authserver user`: the people who sign in with a password kept here."""

from __future__ import annotations

import sys
from typing import Any

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine.context import Engine
from authserver.engine.people.account import Ended, set_password, sign_out_everywhere
from authserver.engine.people.login import add_user, disable_user
from authserver.engine.people.usernames import normalise_username
from authserver.engine.records import User

password_stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


@click.group()
def user() -> None:
    """The people who sign in with a password kept here."""


@user.command()
@click.argument("name")
@password_stdin_option
@click.option("--display-name", default="", help="The name that pages and applications show.")
@click.option("--admin", is_flag=True, help="Let this person administer the server.")
@json_option
@click.pass_obj
def add(
    configuration: Configuration,
    name: str,
    password_stdin: bool,
    display_name: str,
    admin: bool,
    as_json: bool,
) -> None:
    """Add a person; the password is asked for, or read from stdin."""
    chosen = read_password(password_stdin)
    with configuration.engine() as engine:
        added = add_user(engine, name, chosen, display_name=display_name, is_admin=admin)
    (print_json if as_json else print_record)(described(added))


@user.command("list")
@json_option
@click.pass_obj
def list_users(configuration: Configuration, as_json: bool) -> None:
    """List everybody."""
    with configuration.engine() as engine:
        rows = [described(item) for item in engine.stores.users.list()]
    if as_json:
        print_json(rows)
    else:
        columns = ("username", "display_name", "user_id", "is_admin", "created_at", "disabled_at")
        print_rows(rows, columns, empty="There are no users; add one with `authserver user add NAME`.")


@user.command()
@click.argument("name")
@click.pass_obj
def disable(configuration: Configuration, name: str) -> None:
    """Disable a person: from the next request on they cannot sign in, and nothing granted in their name works."""
    with configuration.engine() as engine:
        if not disable_user(engine, name):
            raise click.ClickException(
                f"{name}: no such user, or disabled already; see `authserver user list`"
            )
    say(f"{words(name)} is disabled.")


@user.command()
@click.argument("name")
@password_stdin_option
@json_option
@click.pass_obj
def password(configuration: Configuration, name: str, password_stdin: bool, as_json: bool) -> None:
    """Give a person another password; it is asked for, or read from stdin.

    All their sessions end, and all that they granted to applications.
    """
    with configuration.engine() as engine:
        # Before a password is typed for a user that does not exist.
        found = find(engine, name)
    chosen = read_password(password_stdin)
    with configuration.engine() as engine:
        ended = set_password(engine, found, chosen)
    print_ended(f"{words(found.username)} has another password", found, ended, as_json=as_json)


@user.command("sign-out")
@click.argument("name")
@json_option
@click.pass_obj
def sign_out(configuration: Configuration, name: str, as_json: bool) -> None:
    """Sign a person out everywhere: all their sessions end, and all that they granted to applications."""
    with configuration.engine() as engine:
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


def described(user: User) -> dict[str, Any]:
    """What may be shown of a user."""
    return {
        "user_id": user.user_id,
        "username": user.username,
        "display_name": user.display_name,
        "is_admin": user.is_admin,
        "created_at": user.created_at,
        "disabled_at": user.disabled_at,
    }
