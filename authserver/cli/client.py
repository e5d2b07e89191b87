"""`authserver client`: the applications that may ask for tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from authserver.cli import client_secrets
from authserver.cli.client_secrets import SHOWN_ONCE, described_secrets, print_secrets
from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import uris
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.client_metadata import read_members
from authserver.engine.clients.registration import add_client
from authserver.engine.crypto import strict_json
from authserver.engine.errors import InvalidRedirectUri
from authserver.engine.keys.ring import check_known
from authserver.engine.records import Client, ClientMetadata
from authserver.explaining.remedies import remedy_of
from authserver.ini import did_you_mean


@click.group()
def client() -> None:
    """The applications that may ask for tokens."""


client.add_command(client_secrets.rotate)
client.add_command(client_secrets.list_secrets)
client.add_command(client_secrets.end)


@client.command()
@click.option("--name", required=True, help="The name that the consent page shows.")
@click.option(
    "--redirect-uri", "redirect_uris", multiple=True, metavar="URI", help="May be given several times."
)
@click.option(
    "--grant-type",
    "grant_types",
    multiple=True,
    metavar="TYPE",
    help="May be given several times. Without it: authorization_code and refresh_token with a redirect URI, "
    "client_credentials without.",
)
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="A scope it may have; several times.")
@click.option(
    "--auth-method",
    default="client_secret_basic",
    show_default=True,
    help="How it proves who it is; `none` for applications that cannot keep a secret.",
)
@click.option(
    "--application-type",
    type=click.Choice(["web", "native"]),
    help="Without it: native when a redirect URI is not https, or leads to this device; else web.",
)
@click.option("--client-id", help="Without it: a fresh one.")
@click.option(
    "--metadata",
    "members",
    multiple=True,
    metavar="NAME=VALUE",
    help="A member that a plugin keeps; the value is JSON, or else text. May be given several times.",
)
@click.option(
    "--first-party", is_flag=True, help="It is our own: `consent_first_party` allows it without asking."
)
@click.option(
    "--no-refresh-rotation",
    is_flag=True,
    help="It keeps its refresh token instead of getting a new one each time; it needs a credential of its own.",
)
@json_option
@click.pass_obj
def add(
    configuration: Configuration,
    name: str,
    redirect_uris: tuple[str, ...],
    grant_types: tuple[str, ...],
    scopes: tuple[str, ...],
    auth_method: str,
    application_type: str | None,
    client_id: str | None,
    members: tuple[str, ...],
    first_party: bool,
    no_refresh_rotation: bool,
    as_json: bool,
) -> None:
    """Add an application; its secret is shown once."""
    if no_refresh_rotation and auth_method == "none":
        raise click.UsageError(
            "--no-refresh-rotation: not with --auth-method none, because only rotation protects the refresh tokens "
            "of such a client"
        )
    if not grant_types:
        grant_types = ("authorization_code", "refresh_token") if redirect_uris else ("client_credentials",)
    with configuration.engine() as engine:
        check_known(engine)
        _known("--grant-type", grant_types, engine.grant_types)
        _known("--scope", scopes, engine.scopes)
        _known("--auth-method", [auth_method], engine.auth_methods)
        if "authorization_code" in grant_types and not scopes:
            raise click.UsageError(
                "--scope: a client with a redirect URI needs at least one; known: "
                + ", ".join(sorted(engine.scopes))
            )
        sent = _members(members)
        _known("--metadata", sent, engine.client_metadata)
        metadata = ClientMetadata(
            client_name=name,
            redirect_uris=redirect_uris,
            token_endpoint_auth_method=auth_method,
            grant_types=grant_types,
            response_types=("code",) if "authorization_code" in grant_types else (),
            scopes=scopes,
            application_type=application_type or uris.fitting_application_type(redirect_uris),
            details=read_members(sent, engine.client_metadata),
        )
        try:
            added, secret = add_client(
                engine,
                metadata,
                client_id=client_id,
                first_party=first_party,
                rotates_refresh_tokens=not no_refresh_rotation,
            )
        except InvalidRedirectUri as error:
            remedy = f" ({remedy_of(error.reason)})" if error.reason != error.code else ""
            raise click.ClickException(error.description + remedy) from error
    record = described(added)
    if secret is not None:
        record["client_secret"] = secret
    if as_json:
        print_json(record)
        return
    print_record(record)
    if secret is not None:
        say(SHOWN_ONCE, err=True)


@client.command("list")
@json_option
@click.pass_obj
def list_clients(configuration: Configuration, as_json: bool) -> None:
    """List all applications, oldest first."""
    with configuration.engine(Plugins.UNUSED) as engine:
        found = engine.stores.clients.list(engine.now)
    rows = [described(item) for item in found]
    members = dict.fromkeys(name for item in found for name in item.details)
    if as_json:
        print_json(rows)
    else:
        columns = (
            "client_id",
            "client_name",
            "token_endpoint_auth_method",
            "grant_types",
            "registered_by",
            "disabled_at",
            *members,
        )
        print_rows(
            rows, columns, empty="There are no clients; add one with `authserver client add --name NAME …`."
        )


@client.command()
@click.argument("client_id")
@json_option
@click.pass_obj
def show(configuration: Configuration, client_id: str, as_json: bool) -> None:
    """Show one application, and its live secrets as `client secrets` does."""
    with configuration.engine(Plugins.UNUSED) as engine:
        found = engine.stores.clients.find(client_id, engine.now)
    if found is None:
        raise click.ClickException(f"{client_id}: no such client; see `authserver client list`")
    record, secrets = described(found), described_secrets(found.secrets)
    if as_json:
        print_json({**record, "secrets": secrets})
        return
    print_record(record)
    if secrets:
        say()
        print_secrets(secrets)


@client.command()
@click.argument("client_id")
@click.pass_obj
def disable(configuration: Configuration, client_id: str) -> None:
    """Disable an application for good: from the next request on it gets nothing, and its tokens are inactive."""
    with configuration.engine(Plugins.OBSERVE) as engine:
        if not disable_client(engine, client_id):
            raise click.ClickException(
                f"{client_id}: no such client, or it is disabled already; see `authserver client list`"
            )
    say(f"{words(client_id)} is disabled.")


def described(client: Client) -> dict[str, Any]:
    """What may be shown of a client: the members of RFC 7591 by their names there, and our own. No secret."""
    return {
        "client_id": client.client_id,
        "client_name": client.name,
        "token_endpoint_auth_method": client.auth_method,
        "grant_types": list(client.grant_types),
        "redirect_uris": list(client.redirect_uris),
        "scope": " ".join(client.scopes),
        "resources": list(client.resources),
        "application_type": client.application_type,
        "first_party": client.first_party,
        "rotates_refresh_tokens": client.rotates_refresh_tokens or client.is_public,
        "registered_by": str(client.registered_by),
        "created_at": client.created_at,
        "disabled_at": client.disabled_at,
        **client.details,
    }


def _members(texts: Iterable[str]) -> dict[str, Any]:
    """The members of several `name=value`. Raises click.UsageError."""
    members: dict[str, Any] = {}
    for name, value in map(_member, texts):
        if name in members:
            raise click.UsageError(f"--metadata {name}: given twice")
        members[name] = value
    return members


def _member(text: str) -> tuple[str, Any]:
    """The name and the value of `name=value`. Raises click.UsageError."""
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"--metadata {text}: must be name=value")
    try:
        return name, strict_json.loads(value.encode())
    except ValueError:
        return name, value


def _known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for value in given:
        if value not in known:
            raise click.UsageError(f"{option} {value}: not offered here; {did_you_mean(value, known, '')}")
