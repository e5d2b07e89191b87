"""`authserver explain`: why a question is decided as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

import click

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.printing import json_option, print_json, print_record, print_rows
from authserver.engine import authorize, clients, register
from authserver.engine.asking import allowed_resources, allowed_scopes
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidClient
from authserver.engine.login import normalise_username
from authserver.engine.parameters import Parameters
from authserver.engine.records import Client, User
from authserver.explain import Explanation, explain_event
from authserver.explain import explain as explain_rule
from authserver.settings import Secret

scope_option = click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="May be given several times."
)
resource_option = click.option(
    "--resource", "resources", multiple=True, metavar="URI", help="May be given several times."
)


@click.group(cls=OneSentence, invoke_without_command=True)
@click.option("--error-id", metavar="ID", help="What led to the error with this id.")
@json_option
@click.pass_context
def explain(context: click.Context, error_id: str | None, as_json: bool) -> None:
    """Tell why a question is decided as it is: every check in order, and what would change it."""
    if context.invoked_subcommand is not None:
        if error_id:
            raise click.UsageError("--error-id goes without a question")
        return
    if not error_id:
        raise click.UsageError(
            "ask a question (`authserver explain --help` lists them), or give --error-id ID"
        )
    application = context.obj.application()
    with application.begin() as engine:
        event = engine.stores.events.find(error_id)
    if event is None:
        raise click.ClickException(f"no event has the id {error_id}; was it another server's, or mistyped?")
    told = explain_event(event, application.plugins)
    about = {
        "at": event.at,
        "client_id": event.client_id,
        "user_id": event.user_id,
        "grant_id": event.grant_id,
    }
    _print(told, as_json, about)


@explain.command("redirect-uri")
@click.argument("client_id")
@click.argument("redirect_uri")
@json_option
@click.pass_obj
def redirect_uri(configuration: Configuration, client_id: str, redirect_uri: str, as_json: bool) -> None:
    """Whether an authorization response may go to REDIRECT_URI."""
    parameters = Parameters.parse(urlencode({"client_id": client_id, "redirect_uri": redirect_uri}))
    _tell(configuration, as_json, lambda engine: authorize.accept_target(engine, parameters)[1])


@explain.command()
@click.argument("client_id")
@scope_option
@resource_option
@click.option(
    "--user", "username", metavar="NAME", help="Who would grant; without it the client asks for itself."
)
@click.option("--grant-type", help="Without it: authorization_code with a user, client_credentials without.")
@json_option
@click.pass_obj
def scope(
    configuration: Configuration,
    client_id: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    username: str | None,
    grant_type: str | None,
    as_json: bool,
) -> None:
    """Which of the scopes a client may have."""

    def rule(engine: Engine) -> tuple[str, ...]:
        client, user = _client(engine, client_id), _user(engine, username)
        kind = grant_type or ("authorization_code" if user else "client_credentials")
        allowed = allowed_resources(engine, client, resources)
        return allowed_scopes(engine, client, user, kind, scopes, allowed)

    _tell(configuration, as_json, rule)


@explain.command()
@click.argument("client_id")
@resource_option
@json_option
@click.pass_obj
def resource(configuration: Configuration, client_id: str, resources: tuple[str, ...], as_json: bool) -> None:
    """Which resources a client may ask for; without --resource, which is the default."""
    _tell(
        configuration,
        as_json,
        lambda engine: allowed_resources(engine, _client(engine, client_id), resources),
    )


@explain.command()
@click.argument("client_id")
@click.argument("username")
@scope_option
@resource_option
@click.option("--redirect-uri", help="Without it: the client's first.")
@json_option
@click.pass_obj
def consent(
    configuration: Configuration,
    client_id: str,
    username: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    redirect_uri: str | None,
    as_json: bool,
) -> None:
    """Whether USERNAME would be asked before the client gets a code."""

    def rule(engine: Engine) -> str:
        client, user = _client(engine, client_id), _user(engine, username)
        assert user is not None  # a name was given
        allowed = allowed_resources(engine, client, resources)
        checked = authorize.Checked(
            client=client,
            user=user,
            redirect_uri=redirect_uri or (client.redirect_uris or ("",))[0],
            state=None,
            code_challenge="",
            scopes=allowed_scopes(engine, client, user, "authorization_code", scopes, allowed),
            resources=allowed,
        )
        if not authorize.consents_already(engine, checked):
            return "the user is asked"
        if not authorize.silent_approval_is_safe(client, checked.redirect_uri):
            return "the user is asked all the same: nothing proves that it is this client"
        return "the user is not asked"

    _tell(configuration, as_json, rule)


@explain.command("client-auth")
@click.argument("client_id")
@click.option(
    "--method",
    type=click.Choice(["client_secret_basic", "client_secret_post", "none"]),
    default="client_secret_basic",
    show_default=True,
)
@click.option("--secret-stdin", is_flag=True, help="Read the client secret from stdin.")
@json_option
@click.pass_obj
def client_auth(
    configuration: Configuration, client_id: str, method: str, secret_stdin: bool, as_json: bool
) -> None:
    """Whether the client would be authenticated; without a secret, as with a wrong one."""
    secret = sys.stdin.readline().rstrip("\n") if secret_stdin else "no secret was given"
    presented = clients.Presented(method, client_id, None if method == "none" else secret)
    _tell(configuration, as_json, lambda engine: clients.judge(engine, presented, {}).client_id)


@explain.command()
@click.argument("metadata", type=click.File("rb"))
@click.option("--bearer-stdin", is_flag=True, help="Read an initial access token from stdin.")
@click.option("--source", default="127.0.0.1", show_default=True, help="The address it would come from.")
@json_option
@click.pass_obj
def registration(
    configuration: Configuration, metadata: Any, bearer_stdin: bool, source: str, as_json: bool
) -> None:
    """Whether a client could register itself with the JSON in the file METADATA; `-` is stdin."""
    bearer = Secret(sys.stdin.readline().strip()) if bearer_stdin else None
    body = metadata.read()

    def rule(engine: Engine) -> str:
        allowed = register.allowed_metadata(engine, body, bearer, source)
        return f"scope {' '.join(allowed.scopes) or '-'}; grant types {' '.join(allowed.grant_types)}"

    _tell(configuration, as_json, rule)


def _tell(configuration: Configuration, as_json: bool, rule: Callable[[Engine], Any]) -> None:
    application = configuration.application()
    with application.begin() as engine:
        told = explain_rule(engine, application.plugins, lambda: rule(engine))
    _print(told, as_json, {})


def _print(told: Explanation, as_json: bool, about: dict[str, Any]) -> None:
    if as_json:
        print_json({**about, **asdict(told)})
        return
    print_rows(
        [asdict(step) for step in told.steps],
        ("check", "by", "verdict", "reason", "remedy"),
        empty="No policy was asked.",
    )
    click.echo()
    facts = {
        f"{slot}.{name}": value for slot, asked in told.facts.items() for name, value in (asked or {}).items()
    }
    print_record({**about, "verdict": told.verdict, "reason": told.reason, "outcome": told.outcome, **facts})


def _client(engine: Engine, client_id: str) -> Client:
    client = engine.stores.clients.find(client_id)
    if client is None or not client.is_enabled:
        reason = "client-disabled" if client else "client-unknown"
        raise InvalidClient("There is no such client.", reason=reason)
    return client


def _user(engine: Engine, username: str | None) -> User | None:
    if username is None:
        return None
    user = engine.stores.users.find_by_name(normalise_username(username))
    if user is None:
        raise click.ClickException(f"there is no user {username}; `authserver user list` shows them")
    return user
