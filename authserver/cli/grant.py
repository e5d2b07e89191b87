"""`authserver grant`: what people agreed to, live grants and remembered consents, and ending it."""

from __future__ import annotations

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.printing import json_option, print_json, print_rows, say
from authserver.cli.user import find
from authserver.engine import operators
from authserver.engine.people.account import disconnect, disconnect_all, revoke_grant

user_option = click.option("--user", "username", metavar="NAME", help="Only what this person agreed to.")
client_option = click.option("--client", "client_id", metavar="ID", help="Only what this application may do.")


@click.group(cls=OneSentence)
def grant() -> None:
    """What people agreed to.

    Every code and token belongs to a grant, and ends with it. A remembered consent outlives its grants: with it an
    application may get access again without asking the person.
    """


@grant.command("list")
@user_option
@client_option
@json_option
@click.pass_obj
def list_grants(
    configuration: Configuration, username: str | None, client_id: str | None, as_json: bool
) -> None:
    """List the live grants and the remembered consents, newest first."""
    with configuration.engine(Plugins.UNUSED) as engine:
        if username is None:
            user_id, names = None, {user.user_id: user.username for user in engine.stores.users.list()}
        else:
            user = find(engine, username)
            user_id, names = user.user_id, {user.user_id: user.username}
        grants = engine.stores.grants.list(engine.now, user_id=user_id, client_id=client_id)
        consents = engine.stores.consents.list(user_id=user_id, client_id=client_id)
    rows = [operators.grant(item, names) for item in grants]
    remembered = [operators.consent(item, names) for item in consents]
    if as_json:
        print_json({"grants": rows, "consents": remembered})
        return
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
    if remembered:
        say(
            "\nRemembered consents: with these an application may get access again without asking the person.\n"
        )
        print_rows(remembered, ("username", "client_id", "scope", "resources", "granted_at"), empty="")
    else:
        say("There are no remembered consents.")


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

    Its codes and tokens do not work from the next request on. With --user, the remembered consents end, too, so that
    applications must ask again; also where there is no live grant any more. With the last live grant of a person to
    an application, its remembered consent ends.
    """
    if (grant_id is None) == (username is None) or (client_id is not None and username is None):
        raise click.UsageError(
            "name one GRANT_ID, or a person: --user NAME, and --client ID for one application"
        )
    with configuration.engine(Plugins.OBSERVE) as engine:
        if grant_id is not None:
            ended = revoke_grant(engine, grant_id)
            if not ended.grants:
                raise click.ClickException(
                    f"{grant_id}: no such grant, or revoked already; see `authserver grant list`"
                )
        else:
            assert username is not None  # or the usage was refused
            user = find(engine, username)
            ended = disconnect(engine, user, client_id) if client_id else disconnect_all(engine, user)
    if as_json:
        print_json({"grants_revoked": ended.grants, "consents_ended": ended.consents})
    else:
        say(f"Grants revoked: {ended.grants}. Consents ended: {ended.consents}.")
