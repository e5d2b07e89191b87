"""`authserver resource`: the APIs that tokens may be for (RFC 8707)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.durations import duration
from authserver.cli.ending import carry_out, dry_run_option, tell, yes_option
from authserver.cli.options import MORE, is_given, separated
from authserver.cli.paging import after_option, limit_option, not_in_list, tell_next_page
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import operators, resources, uris
from authserver.engine.context import Engine
from authserver.engine.ending import Act, Subject
from authserver.engine.errors import InvalidTarget
from authserver.engine.records import Resource
from authserver.engine.resources import MINIMUM_LIFETIME, BadResource
from authserver.ini import did_you_mean
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME, AccessTokenFormat

if TYPE_CHECKING:
    from authserver.plugins.asking import PluginSet

# The value of an option that gives a resource the setting of the server.
SERVER = "server"
POLICY = "resources_registered"
_COLUMNS = (
    "resource",
    "name",
    "scopes",
    "token_format",
    "token_lifetime",
    "default",
    "introspecting_clients",
    "source",
)


def _lifetime(text: str) -> timedelta | None:
    """The type of --token-lifetime. Raises click.BadParameter."""
    if text == SERVER:
        return None
    lifetime = duration(text)
    if not MINIMUM_LIFETIME <= lifetime.total_seconds() <= MAXIMUM_ACCESS_TOKEN_LIFETIME:
        raise click.BadParameter(
            f"{text}: an access token is valid for {MINIMUM_LIFETIME}s to {MAXIMUM_ACCESS_TOKEN_LIFETIME}s; or write "
            f"`{SERVER}`, for as long as all others"
        )
    return lifetime


name_option = click.option("--name", help="The name that people see beside the URI.")
scope_option = click.option(
    "--scope",
    "scopes",
    multiple=True,
    callback=separated,
    metavar="SCOPE",
    help=f"A scope that makes sense there; {MORE}.",
)
format_option = click.option(
    "--token-format",
    type=click.Choice([*map(str, AccessTokenFormat), SERVER]),
    help=f"The format of its access tokens; `{SERVER}`: as of all others.",
)
lifetime_option = click.option(
    "--token-lifetime",
    "lifetime",
    type=_lifetime,
    metavar="DURATION",
    help=f"How long its access tokens are valid, such as 5m; `{SERVER}`: as long as all others.",
)
introspecting_option = click.option(
    "--introspecting-client",
    "introspecting_clients",
    multiple=True,
    metavar="CLIENT_ID",
    help="A client that may introspect its access tokens, such as that of the API itself; several times.",
)


@click.group(cls=OneSentence)
def resource() -> None:
    """The resources that tokens may be for, such as APIs.

    A resource is in the database, or in the INI (authserver.plugin.resources_listed.resources and others), where only an
    editor changes it. The INI takes precedence.
    """


@resource.command()
@click.argument("uri")
@name_option
@scope_option
@format_option
@lifetime_option
@introspecting_option
@click.option(
    "--default", "is_default", is_flag=True, help="It is the resource of a request that names none."
)
@json_option
@click.pass_obj
def add(configuration: Configuration, /, uri: str, is_default: bool, as_json: bool, **options: Any) -> None:
    """Register the resource URI; without --scope, every scope makes sense there.

    The URI is the audience of its tokens, as it is written here.
    """
    with configuration.engine() as engine, _in_a_sentence():
        added = Resource(
            form=form_of(uri),
            uri=uri,
            is_default=is_default,
            created_at=engine.now,
            **_members(engine, options),
        )
        resources.add(engine, added)
        row, is_asked = operators.resource(engine, added), POLICY in cast("PluginSet", engine.policies).names
    _show(row, as_json)
    if not is_asked:
        say(f"No plugin allows it yet: list {POLICY} in authserver.plugins.", err=True)


@resource.command("list")
@limit_option("resources")
@after_option("URI", "this resource")
@json_option
@click.pass_obj
def list_resources(configuration: Configuration, limit: int, after: str, as_json: bool) -> None:
    """List resources, those of the INI first."""
    with configuration.engine() as engine:
        form = after and form_of(after)
        if form and engine.resources.find(form) is None:
            raise not_in_list(after)
        found = engine.resources.page(after=form, limit=limit + 1)
        rows = [operators.resource(engine, each) for each in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        none = "There are none; register one with `authserver resource add URI`."
        print_rows(rows, _COLUMNS, empty="There are no more." if after else none)
    if len(found) > limit:
        tell_next_page(configuration, [], limit=limit, after=found[limit - 1].uri, as_json=as_json)


@resource.command()
@click.argument("uri")
@json_option
@click.pass_obj
def show(configuration: Configuration, uri: str, as_json: bool) -> None:
    """Show a resource with its settings in the INI or the database."""
    with configuration.engine() as engine:
        found = engine.resources.find(form_of(uri))
        if found is None:
            raise _unknown(engine, uri)
        row = operators.resource(engine, found)
    _show(row, as_json)


@resource.command("edit")
@click.argument("uri")
@click.option("--uri", "spelling", metavar="URI", help="Another spelling of the same URI, for the audience.")
@name_option
@scope_option
@click.option("--every-scope", is_flag=True, help="Every scope makes sense there.")
@format_option
@lifetime_option
@introspecting_option
@click.option(
    "--default/--no-default",
    "is_default",
    default=None,
    help="Whether it is the resource of a request that names none.",
)
@json_option
@click.pass_obj
def edit_resource(
    configuration: Configuration,
    /,
    uri: str,
    spelling: str | None,
    every_scope: bool,
    is_default: bool | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Change a resource of the database; settings without an option stay the same. An empty name or client removes it.

    The change counts for tokens that are issued from now on.
    """
    if every_scope and options["scopes"]:
        raise click.UsageError("--every-scope: not with --scope")
    with configuration.engine() as engine, _in_a_sentence():
        before = engine.stores.resources.find(form_of(uri))
        if before is None:
            known = engine.resources.find(form_of(uri))
            raise _in_the_ini(known) if known else _unknown(engine, uri)
        members = _members(engine, options)
        if every_scope:
            members["scopes"] = None
        if is_default is not None:
            members["is_default"] = is_default
        if spelling is not None:
            if form_of(spelling) != before.form:
                raise click.UsageError(
                    f"--uri {spelling}: this is another resource; add it, and remove the present one"
                )
            members["uri"] = spelling
        if not members:
            raise click.UsageError(
                f"nothing to change: `authserver resource edit --help` lists the options, and `authserver resource "
                f"show {uri}` shows how it is now"
            )
        after = replace(before, **members)
        resources.change(engine, before, after)
        row = operators.resource(engine, after)
    _show(row, as_json)


@resource.command()
@click.argument("uri")
@dry_run_option
@yes_option
@json_option
@click.pass_obj
def remove(configuration: Configuration, uri: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove a resource, and end everything that was granted for it.

    Grants for it alone end, with all their tokens; other grants lose it, and the opaque tokens for it end. It is safe to
    run this again, also after an interruption. For a resource of the INI, take it out there and restart the servers first.
    """
    form = form_of(uri)
    application = configuration.application(Plugins.OBSERVE)
    with closing(application):
        application.check_database()
        with application.begin() as engine:
            known = engine.resources.find(form)
            if known is not None and not known.is_stored and not dry_run:
                raise _in_the_ini(known)
        act = Act(subject=Subject.resource(form, known.uri if known else uri), for_good=known is not None)
        ask = f"Remove {words(act.subject.name)}?"
        ended = carry_out(application, act, dry_run=dry_run, yes=yes, quiet=as_json, ask=ask)
        if known is None and not ended:
            with application.begin() as engine:
                raise _unknown(engine, uri)
    done = "" if dry_run else f"{words(act.subject.name)} is removed."
    tell(act, ended, done=done, dry_run=dry_run, as_json=as_json)


def _show(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        print_record(row)


def _members(engine: Engine, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a resource, from options."""
    members: dict[str, Any] = {}
    if (name := options["name"]) is not None:
        members["name"] = name.strip()
    if scopes := options["scopes"]:
        for scope in scopes:
            if scope not in engine.scopes:
                raise click.UsageError(
                    f"--scope {scope}: no such scope; {did_you_mean(scope, engine.scopes, '')}"
                )
        members["scopes"] = tuple(dict.fromkeys(scopes))
    if (token_format := options["token_format"]) is not None:
        members["token_format"] = None if token_format == SERVER else AccessTokenFormat(token_format)
    if is_given("lifetime"):
        lifetime = options["lifetime"]
        members["token_lifetime"] = None if lifetime is None else int(lifetime.total_seconds())
    if clients := options["introspecting_clients"]:
        members["introspecting_clients"] = tuple(dict.fromkeys(filter(None, clients)))
    return members


def form_of(uri: str) -> str:
    """The canonical form of a resource that was named. Raises click.UsageError."""
    try:
        return uris.canonical_resource(uri)
    except InvalidTarget:
        raise click.UsageError(
            f"{uri}: expected an absolute URI without a fragment, such as https://api.example.com/"
        ) from None


def _unknown(engine: Engine, uri: str) -> click.ClickException:
    known = [each.uri for each in engine.resources.all()]
    return click.ClickException(f"{uri}: no such resource; {did_you_mean(uri, known, '')}")


def _in_the_ini(known: Resource) -> click.ClickException:
    return click.ClickException(
        f"{known.uri}: it is in the INI, in {', '.join(known.settings)}: change it or take it out there and restart the "
        "servers; `authserver resource remove` then ends what was granted for it"
    )


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    try:
        yield
    except BadResource as error:
        raise click.ClickException(str(error)) from error
