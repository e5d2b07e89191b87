"""`authserver user`: the people who sign in with a password kept here."""

from __future__ import annotations

import sys
from typing import Any

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import json_option, print_json, print_record, print_rows
from authserver.engine.login import add_user, disable_user
from authserver.engine.records import User


@click.group()
def user() -> None:
    """The people who sign in with a password kept here."""


@user.command()
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
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
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("there is no terminal to ask for a password: give it with --password-stdin")
    with configuration.engine() as engine:
        added = add_user(engine, name, password, display_name=display_name, is_admin=admin)
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
    """Lock a person out, and all that was granted in their name, from the next request on."""
    with configuration.engine() as engine:
        if not disable_user(engine, name):
            raise click.ClickException(
                f"{name}: no such user, or disabled before; see `authserver user list`"
            )
    click.echo(f"{name} is disabled.")


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
