"""`authserver grant`: lists and ends live grants and remembered consents."""

from __future__ import annotations

from collections.abc import Sequence

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.ending import confirm, yes_option
from authserver.cli.paging import MAXIMUM_PAGE, after_option, limit_option, tell_next_page
from authserver.cli.printing import json_option, print_json, print_rows, say, words
from authserver.cli.user import find
from authserver.engine import operators
from authserver.engine.context import Engine
from authserver.engine.ending import Ended
from authserver.engine.people.account import disconnect, disconnect_all, revoke_grant
from authserver.engine.records import Consent, Grant, GrantFilter
from authserver.engine.upkeep_records import Place
from authserver.explaining.ends import sentence

user_option = click.option("--user", "username", metavar="NAME", help="Only those of this person.")
client_option = click.option("--client", "client_id", metavar="ID", help="Only those to this application.")


@click.group(cls=OneSentence)
def grant() -> None:
    """Grants and remembered consents: what people agreed to.

    Every code and token belongs to a grant, and ends with it. A remembered consent outlives its grants: with it an
    application may get access again without asking the person.
    """


@grant.command("list")
@user_option
@client_option
@limit_option("grants")
@after_option("GRANT_ID", "this grant")
@json_option
@click.pass_obj
def list_grants(
    configuration: Configuration,
    username: str | None,
    client_id: str | None,
    limit: int,
    after: str,
    as_json: bool,
) -> None:
    """List live grants, newest first, one page at a time."""
    with configuration.engine(Plugins.UNUSED) as engine:
        user_id = None if username is None else find(engine, username).user_id
        wanted = GrantFilter(user_id=user_id, client_id=client_id, live_at=engine.now, redeemed=True)
        # One more than is shown tells whether there is another page.
        found = engine.stores.grants.search(wanted, after=_place(engine, after), limit=limit + 1)
        names = _names(engine, found)
        remembered = engine.stores.consents.count(user_id=user_id, client_id=client_id)
    rows = [operators.grant(item, names) for item in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        columns = (
            "grant_id",
            "username",
            "client_id",
            "scope",
            "let_in_by",
            "derived_from",
            "created_at",
            "last_used_at",
            "expires_at",
        )
        none = "There are no more live grants." if after else "There are no live grants."
        print_rows(rows, columns, empty=none)
        say(f"\nRemembered consents: {remembered}. `authserver grant consents` lists them.")
    if len(found) > limit:
        options = [("--user", username), ("--client", client_id)]
        tell_next_page(configuration, options, limit=limit, after=found[limit - 1].grant_id, as_json=as_json)


@grant.command("consents")
@user_option
@client_option
@limit_option("consents")
@after_option("CURSOR", "the last one of the page before; its output has the value")
@json_option
@click.pass_obj
def list_consents(
    configuration: Configuration,
    username: str | None,
    client_id: str | None,
    limit: int,
    after: str,
    as_json: bool,
) -> None:
    """List remembered consents: with these an application may get access again without asking the person."""
    after_user, _, after_client = after.partition(",")
    with configuration.engine(Plugins.UNUSED) as engine:
        found = engine.stores.consents.page(
            after=(after_user, after_client),
            limit=limit + 1,
            user_id=None if username is None else find(engine, username).user_id,
            client_id=client_id,
        )
        names = _names(engine, found)
    rows = [operators.consent(item, names) for item in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        none = "There are no more remembered consents." if after else "There are no remembered consents."
        print_rows(rows, ("username", "client_id", "scope", "resources", "granted_at"), empty=none)
    if len(found) > limit:
        last, options = found[limit - 1], [("--user", username), ("--client", client_id)]
        cursor = f"{last.user_id},{last.client_id}"
        tell_next_page(configuration, options, limit=limit, after=cursor, as_json=as_json)


@grant.command()
@click.argument("grant_id", required=False)
@user_option
@client_option
@yes_option
@json_option
@click.pass_obj
def revoke(
    configuration: Configuration,
    grant_id: str | None,
    username: str | None,
    client_id: str | None,
    yes: bool,
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
    if not yes:
        with configuration.engine(Plugins.UNUSED) as engine:
            question = _question(engine, grant_id, username, client_id)
        confirm(question, yes=yes)
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
        print_json({"grants": ended.grants, "consents": ended.consents})
    else:
        say(sentence(ended))


def _question(engine: Engine, grant_id: str | None, username: str | None, client_id: str | None) -> str:
    """The question before grants are revoked, with their number."""
    if grant_id is not None:
        return f"Revoke {words(grant_id)}, with all its codes and tokens?"
    user = find(engine, username or "")
    wanted = GrantFilter(user_id=user.user_id, client_id=client_id, live_at=engine.now)
    grants = len(engine.stores.grants.search(wanted, limit=MAXIMUM_PAGE))
    consents = engine.stores.consents.count(user_id=user.user_id, client_id=client_id)
    told = sentence(Ended(grants=grants, consents=consents), dry_run=True)
    return (
        f"Revoke the grants of {words(user.username)}{f' to {words(client_id)}' if client_id else ''}? {told}"
    )


def _place(engine: Engine, after: str) -> Place | None:
    """The place at which the page begins. Raises click.UsageError."""
    if not after:
        return None
    found = engine.stores.grants.find(after)
    if found is None:
        raise click.UsageError(f"--after {after}: it is not stored any more; leave it out to begin again")
    return found.created_at, found.grant_id


def _names(engine: Engine, found: Sequence[Grant] | Sequence[Consent]) -> dict[str, str]:
    """The names of the users of these grants or consents."""
    user_ids = {each.user_id for each in found} - {None}
    users = engine.stores.users.find_all(sorted(filter(None, user_ids)))
    return {user.user_id: user.username for user in users}
