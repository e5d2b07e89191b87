"""`authserver grant`: what people agreed to, and ending it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.printing import json_option, print_json, print_rows, say
from authserver.cli.user import find
from authserver.engine.people.account import disconnect, disconnect_all, let_in_by, revoke_grant
from authserver.engine.records import Grant

user_option = click.option("--user", "username", metavar="NAME", help="Only what this person agreed to.")
client_option = click.option("--client", "client_id", metavar="ID", help="Only what this application may do.")


@click.group()
def grant() -> None:
    """What people agreed to: every code and token belongs to a grant, and ends with it."""


@grant.command("list")
@user_option
@client_option
@json_option
@click.pass_obj
def list_grants(
    configuration: Configuration, username: str | None, client_id: str | None, as_json: bool
) -> None:
    """List the live grants, newest first."""
    with configuration.engine(Plugins.UNUSED) as engine:
        if username is None:
            user_id, names = None, {user.user_id: user.username for user in engine.stores.users.list()}
        else:
            user = find(engine, username)
            user_id, names = user.user_id, {user.user_id: user.username}
        found = engine.stores.grants.list(engine.now, user_id=user_id, client_id=client_id)
    rows = [described(item, names) for item in found]
    if as_json:
        print_json(rows)
    else:
        columns = (
            "grant_id",
            "username",
            "client_id",
            "scope",
            "let_in_by",
            "created_at",
            "last_used_at",
            "expires_at",
        )
        print_rows(rows, columns, empty="There are no live grants.")


@grant.command()
@click.argument("grant_id", required=False)
@user_option
@client_option
@json_option
@click.pass_obj
def revoke(
    configuration: Configuration,
    grant_id: str | None,
    username: str | None,
    client_id: str | None,
    as_json: bool,
) -> None:
    """Revoke one grant, or all of a person, or those of a person to one application.

    Its codes and tokens are dead from the next request on. With --user, what the person agreed to is forgotten,
    too, so that applications must ask again.
    """
    if (grant_id is None) == (username is None) or (client_id is not None and username is None):
        raise click.UsageError(
            "name one GRANT_ID, or a person: --user NAME, and --client ID for one application"
        )
    with configuration.engine(Plugins.OBSERVE) as engine:
        if grant_id is not None:
            if not revoke_grant(engine, grant_id):
                raise click.ClickException(
                    f"{grant_id}: no such grant, or revoked already; see `authserver grant list`"
                )
            revoked = 1
        else:
            assert username is not None  # or the usage was refused
            user = find(engine, username)
            revoked = disconnect(engine, user, client_id) if client_id else disconnect_all(engine, user)
    if as_json:
        print_json({"grants_revoked": revoked})
    else:
        say(f"Grants revoked: {revoked}.")


def described(grant: Grant, names: Mapping[str, str]) -> dict[str, Any]:
    """What may be shown of a grant; with the user name if it is known."""
    return {
        "grant_id": grant.grant_id,
        "user_id": grant.user_id,
        "username": names.get(grant.user_id or ""),
        "client_id": grant.client_id,
        "scope": " ".join(grant.scopes),
        "resources": list(grant.resources),
        "let_in_by": let_in_by(grant),
        "created_at": grant.created_at,
        "last_used_at": grant.last_used_at,
        "expires_at": grant.expires_at,
    }
