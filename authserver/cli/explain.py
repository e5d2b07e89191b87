"""`authserver explain`: explains a decision."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any, BinaryIO
from urllib.parse import urlencode

import click

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.explanation import print_explanation, tell_event
from authserver.cli.options import MORE, PAIR, separated
from authserver.cli.printing import json_option
from authserver.engine import authorization_request, origins
from authserver.engine.clients import authentication
from authserver.engine.context import Engine
from authserver.engine.parameters import Parameters
from authserver.engine.questions import AuthenticationStep
from authserver.engine.records import Session, TokenKind, User
from authserver.explaining import questions
from authserver.limits import MAXIMUM_TOKEN

scope_option = click.option(
    "--scope",
    "scopes",
    multiple=True,
    callback=separated,
    metavar="SCOPE",
    help=f"May be given {MORE}.",
)
resource_option = click.option(
    "--resource",
    "resources",
    multiple=True,
    callback=separated,
    metavar="URI",
    help=f"May be given {MORE}.",
)


@click.group(cls=OneSentence, invoke_without_command=True)
@click.option("--error-id", metavar="ID", help="The id that an error answer or page showed, or of any event.")
@json_option
@click.pass_context
def explain(context: click.Context, error_id: str | None, as_json: bool) -> None:
    """Explain a decision: every check in order, and what would change the outcome.

    Nothing is changed. `--error-id` explains an event that happened; the questions below explain what would happen now.
    """
    if context.invoked_subcommand is not None:
        if error_id or as_json:
            raise click.UsageError("give either --error-id or a question, and --json after the question")
        return
    if not error_id:
        raise click.UsageError(
            "ask a question (`authserver explain --help` lists them), or give --error-id ID"
        )
    tell_event(context.obj, error_id, as_json)


@explain.command("redirect-uri")
@click.argument("client_id")
@click.argument("redirect_uri")
@json_option
@click.pass_obj
def redirect_uri(configuration: Configuration, client_id: str, redirect_uri: str, as_json: bool) -> None:
    """Whether an authorization response may go to REDIRECT_URI."""
    _tell(configuration, as_json, lambda engine: questions.redirect_uri(engine, client_id, redirect_uri))


@explain.command()
@click.argument("client_id")
@scope_option
@resource_option
@click.option(
    "--user",
    "username",
    metavar="NAME",
    help="The user who would grant; without it the client asks for itself.",
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
    _tell(
        configuration,
        as_json,
        lambda engine: questions.scope(
            engine,
            client_id,
            scopes=scopes,
            resources=resources,
            username=username,
            grant_type=grant_type,
        ),
    )


@explain.command()
@click.argument("client_id")
@resource_option
@json_option
@click.pass_obj
def resource(configuration: Configuration, client_id: str, resources: tuple[str, ...], as_json: bool) -> None:
    """Which resources a client may ask for, and where they are registered; without --resource: the default resource."""
    _tell(
        configuration,
        as_json,
        lambda engine: questions.resource(engine, client_id, resources=resources),
        lambda engine: questions.registered(engine, resources),
    )


@explain.command()
@click.argument("client_id", required=False)
@click.option("--file", "file", type=click.File("rb"), required=True, help="The assertion; `-` is stdin.")
@scope_option
@resource_option
@click.option(
    "--as-issued",
    is_flag=True,
    help="Judge it as if it were presented at the time of its `iat`, and for the first time.",
)
@json_option
@click.pass_obj
def assertion(
    configuration: Configuration,
    client_id: str | None,
    file: BinaryIO,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    as_issued: bool,
    as_json: bool,
) -> None:
    """Explain what CLIENT_ID would get for the assertion of a trusted issuer, by which entry, or why not (RFC 7523).

    Without CLIENT_ID: the client that the assertion itself names, as the assertion of a program on a platform does. The
    assertion is neither stored nor printed nor used up.
    """
    text = file.read(MAXIMUM_TOKEN + 2).strip().decode("ascii", "replace")
    known: dict[str, Any] = {}

    def rule(engine: Engine) -> tuple[str, ...]:
        given = questions.assertion(
            engine, client_id, text, scopes=scopes, resources=resources, as_issued=as_issued
        )
        known.update(given)
        return tuple(given["scopes"])

    _tell(configuration, as_json, rule, lambda engine: known)


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
    _tell(
        configuration,
        as_json,
        lambda engine: questions.consent(
            engine,
            client_id,
            username,
            scopes=scopes,
            resources=resources,
            redirect_uri=redirect_uri,
        ),
    )


@explain.command()
@click.argument("client_id")
@click.argument("token_client_id", metavar="TOKEN_CLIENT_ID")
@scope_option
@resource_option
@click.option(
    "--user", "username", metavar="NAME", help="The user of the grant; without it the client's own grant."
)
@click.option("--refresh", is_flag=True, help="It is a refresh token.")
@json_option
@click.pass_obj
def introspection(
    configuration: Configuration,
    client_id: str,
    token_client_id: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    username: str | None,
    refresh: bool,
    as_json: bool,
) -> None:
    """Whether CLIENT_ID may read a token that was issued to TOKEN_CLIENT_ID."""
    _tell(
        configuration,
        as_json,
        lambda engine: questions.introspection(
            engine,
            client_id,
            token_client_id,
            scopes=scopes,
            resources=resources,
            username=username,
            kind=TokenKind.REFRESH if refresh else TokenKind.ACCESS,
        ),
    )


@explain.command("sign-in")
@click.argument("client_id")
@click.option("--user", "username", metavar="NAME", help="The user who is signed in; without it nobody is.")
@click.option(
    "--seconds-ago",
    default=0,
    type=click.IntRange(0, 365 * 86_400),
    show_default=True,
    help="How long ago NAME signed in.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="METHOD",
    help="How NAME signed in, as in `amr`; may be given several times. Without it: pwd.",
)
@click.option("--fresh", is_flag=True, help="NAME signed in for this very request.")
@click.option(
    "--parameter",
    "sent",
    type=PAIR,
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the authorization request; may be given several times.",
)
@json_option
@click.pass_obj
def sign_in(
    configuration: Configuration,
    client_id: str,
    username: str | None,
    seconds_ago: int,
    methods: tuple[str, ...],
    fresh: bool,
    sent: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Whether the sign-in is sufficient for an authorization request with these parameters."""
    if username is None and (methods or fresh):
        raise click.UsageError("--method and --fresh say how somebody signed in; give --user as well")

    def rule(engine: Engine) -> str:
        client, user = questions.client_of(engine, client_id), questions.user_of(engine, username)
        parameters = Parameters.parse(urlencode([("client_id", client_id), *sent]))
        parameters.refuse_repeated()
        parameters = authorization_request.complete(engine, client, parameters)
        session = _session(engine, user, seconds_ago, methods or ("pwd",)) if user else None
        found = authorization_request.required_sign_in(
            engine, client, parameters, user, session, is_fresh=fresh
        )
        if found.step is AuthenticationStep.SIGN_IN_AGAIN:
            return "the person must sign in again" + (f": {found.why}" if found.why else "")
        if user is None:
            return "the person must sign in"
        return "the sign-in suffices" + (f", at the level {found.acr}" if found.acr else "")

    _tell(configuration, as_json, rule)


@explain.command("client-auth")
@click.argument("client_id")
@click.option(
    "--method",
    type=click.Choice(["client_secret_basic", "client_secret_post", "none"]),
    help="Without it: the method that the client is registered for.",
)
@click.option(
    "--secret-stdin",
    is_flag=True,
    help="Read the client secret from stdin; without it, the secret counts as wrong.",
)
@click.option(
    "--form-stdin",
    is_flag=True,
    help="Read the form of a request from stdin, such as client_assertion=…&client_assertion_type=….",
)
@json_option
@click.pass_obj
def client_auth(
    configuration: Configuration,
    client_id: str,
    method: str | None,
    secret_stdin: bool,
    form_stdin: bool,
    as_json: bool,
) -> None:
    """Whether the client would be authenticated; without credentials, they count as wrong.

    A credential that works once is not used up.
    """
    if form_stdin and (secret_stdin or method):
        raise click.UsageError("the form has its own method: leave --secret-stdin and --method out")
    sent = sys.stdin.readline().rstrip("\r\n") if secret_stdin or form_stdin else ""

    def rule(engine: Engine) -> str:
        client = engine.find_client(client_id)
        engine.journal.client_id = client_id if client else None
        registered = client.auth_method if client else ""
        if form_stdin:
            form = Parameters.parse(sent)
            form.refuse_repeated()
            presented = authentication.read_credentials(None, form)
            if presented.client_id != client_id:
                raise click.ClickException("the form is of another client")
        else:
            usual = authentication.ASSERTION if registered in engine.client_proofs else "client_secret_basic"
            used = method or authentication.PRESENTATION.get(registered, usual)
            presented = authentication.Presented(
                used, client_id, sent if used.startswith("client_secret_") else None
            )
        if secret_stdin or form_stdin:
            authentication.refuse_malformed(presented)
        return authentication.judge(engine, presented).client.client_id

    _tell(configuration, as_json, rule)


@explain.command()
@click.argument("metadata", type=click.File("rb"))
@click.option("--bearer-stdin", is_flag=True, help="Read an initial access token from stdin.")
@click.option(
    "--initial-token",
    "token_id",
    metavar="ID",
    help="With this token; its name is in `authserver initial-token list`.",
)
@click.option("--source", default="127.0.0.1", show_default=True, help="The source address of the request.")
@json_option
@click.pass_obj
def registration(
    configuration: Configuration,
    metadata: BinaryIO,
    bearer_stdin: bool,
    token_id: str | None,
    source: str,
    as_json: bool,
) -> None:
    """Whether a client could register itself with the JSON in the file METADATA; `-` is stdin."""
    if bearer_stdin and token_id:
        raise click.UsageError("a request has one token: give --bearer-stdin or --initial-token")
    authorization = f"Bearer {sys.stdin.readline().strip()}" if bearer_stdin else None
    body = metadata.read()
    _tell(
        configuration,
        as_json,
        lambda engine: questions.registration(
            engine, body, source=source, authorization=authorization, token_id=token_id
        ),
    )


@explain.command()
@click.argument("origin")
@click.option("--endpoint", default="token", show_default=True, help="The name of the endpoint's route.")
@json_option
@click.pass_obj
def origin(configuration: Configuration, origin: str, endpoint: str, as_json: bool) -> None:
    """Whether scripts of the web origin ORIGIN could read the answers of an endpoint that clients call (CORS)."""

    def rule(engine: Engine) -> str:
        caller = replace(engine.caller, endpoint=endpoint)
        origins.require_readable(replace(engine, caller=caller), origin)
        return "scripts of this origin can read the answers"

    _tell(configuration, as_json, rule)


def _tell(
    configuration: Configuration,
    as_json: bool,
    rule: Callable[[Engine], Any],
    about: Callable[[Engine], Mapping[str, Any]] = lambda engine: {},
) -> None:
    from authserver.explaining.explain import explain as explain_rule

    application = configuration.application()
    # This is no real request, so shadow plugins are not asked: they would record their answers.
    application.parts.policies.end_shadow()
    try:
        with closing(application), application.begin() as engine:
            told = explain_rule(engine, application.parts.policies, lambda: rule(engine))
            known = about(engine)
    except questions.NotFound as error:
        raise click.ClickException(str(error)) from None
    print_explanation(configuration, told, as_json, known)


def _session(engine: Engine, user: User, seconds_ago: int, methods: tuple[str, ...]) -> Session:
    """A session as if this person had signed in with these methods at this time."""
    return Session(
        digest=b"",
        user_id=user.user_id,
        authenticated_at=engine.now - timedelta(seconds=seconds_ago),
        last_seen_at=engine.now,
        expires_at=engine.now + timedelta(seconds=engine.settings.session_lifetime),
        details={"amr": list(methods)},
    )
