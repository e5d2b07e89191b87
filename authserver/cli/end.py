"""`authserver end`: the kill switch (L-08)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.ending import carry_out, dry_run_option, tell, yes_option
from authserver.cli.printing import json_option, say, words
from authserver.cli.resource import form_of
from authserver.cli.user import find
from authserver.engine.context import Engine
from authserver.engine.ending import Act, Subject
from authserver.ini import did_you_mean

Name = Callable[[Engine], Act]


@click.group(cls=OneSentence)
def end() -> None:
    """End all access of a user, client, resource, scope or issuer at once, and say how much ended.

    Sessions, grants with their codes and tokens, and remembered consents end. Nobody is disabled: people may sign in
    again, and clients may ask for access again. To prevent that, use `user disable`, `client disable`, `resource remove`.
    """


def _ends(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (click.pass_obj, json_option, yes_option, dry_run_option):
        command = option(command)
    return command


@end.command("user")
@click.argument("name")
@_ends
def end_user(configuration: Configuration, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Sign a person out everywhere: their sessions, the access of all applications, and their remembered consents end."""
    _end(
        configuration,
        lambda engine: Act(subject=Subject.user(find(engine, name))),
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )


@end.command("client")
@click.argument("client_id")
@_ends
def end_client(configuration: Configuration, client_id: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """End all access of a client: grants of people to it, its own grants, and the consents that are remembered for it."""

    def act(engine: Engine) -> Act:
        return Act(subject=Subject.client(client_id))

    unknown = f"{client_id}: no such client, or nothing of it could end; see `authserver client list`"
    _end(configuration, act, dry_run=dry_run, yes=yes, as_json=as_json, unknown=unknown)


@end.command("resource")
@click.argument("uri")
@_ends
def end_resource(configuration: Configuration, uri: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """End what was granted for a resource: grants for it alone end, and others lose it.

    It stays registered; `authserver resource remove` removes it, too.
    """
    form = form_of(uri)

    def act(engine: Engine) -> Act:
        known = engine.resources.find(form)
        return Act(subject=Subject.resource(form, known.uri if known else uri))

    unknown = f"{uri}: nothing is granted for such a resource; see `authserver resource list`"
    _end(configuration, act, dry_run=dry_run, yes=yes, as_json=as_json, unknown=unknown)


@end.command("scope")
@click.argument("scope")
@click.option(
    "--from-clients",
    "registrations",
    is_flag=True,
    help="Remove it from the clients that are registered for it, too, so that none of them can ask for it again.",
)
@_ends
def end_scope(
    configuration: Configuration, scope: str, registrations: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove a scope from all grants and remembered consents; those with no other scope end.

    Opaque access tokens with it are not valid from then on; refresh tokens continue without it. Without --from-clients a
    client may ask people for it again.
    """

    def act(engine: Engine) -> Act:
        return Act(subject=Subject.scope(scope), registrations=registrations)

    def unknown(engine: Engine) -> str:
        return (
            ""
            if scope in engine.scopes
            else f"{scope}: no such scope; {did_you_mean(scope, engine.scopes, '')}"
        )

    _end(configuration, act, dry_run=dry_run, yes=yes, as_json=as_json, unknown=unknown)


@end.command("issuer")
@click.argument("issuer")
@_ends
def end_issuer(configuration: Configuration, issuer: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """End everything that came from an issuer: grants by its assertions (RFC 7523), and sessions and access of its people.

    ISSUER is its `iss`. Later assertions are still accepted: `authserver issuer disable` refuses them, too; an issuer of
    the INI must be removed there. People can sign in through it again until its entry in the INI is switched off.
    """
    _end(
        configuration,
        lambda engine: Act(subject=Subject.issuer(issuer)),
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    if not (dry_run or as_json):
        say(
            f"The next assertions of {words(issuer)} are accepted, if it is trusted still: `authserver issuer disable` refuses "
            "them, too; if the INI names it, take it out there, and restart the servers."
        )


def _end(
    configuration: Configuration,
    act_of: Callable[[Engine], Act],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    unknown: str | Callable[[Engine], str] = "",
) -> None:
    """Run the act, as all commands of the group do.

    Args:
        unknown: the error if there was nothing to end; None if that is no error.
    """
    application = configuration.application(Plugins.OBSERVE)
    with closing(application):
        application.check_database()
        with application.begin() as engine:
            act = act_of(engine)
        ended = carry_out(application, act, dry_run=dry_run, yes=yes, quiet=as_json)
        if not ended:
            with application.begin() as engine:
                problem = unknown if isinstance(unknown, str) else unknown(engine)
                if problem and not _is_known(engine, act.subject):
                    raise click.ClickException(problem)
    tell(act, ended, dry_run=dry_run, as_json=as_json)


def _is_known(engine: Engine, subject: Subject) -> bool:
    """Whether the client or resource exists, although nothing of it could end."""
    return (
        engine.stores.clients.find(subject.identifier, engine.now) is not None
        or engine.resources.find(subject.identifier) is not None
    )
