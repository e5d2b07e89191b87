"""`authserver client`: the clients, which are applications that may ask for tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click

from authserver.cli import client_secrets
from authserver.cli.client_secrets import SHOWN_ONCE, print_secrets
from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.ending import carry_out, dry_run_option, tell, yes_option
from authserver.cli.options import MORE, PAIR, read_each, separated
from authserver.cli.paging import MAXIMUM_PAGE, after_option, limit_option, tell_next_page
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import operators
from authserver.engine.clients.client_metadata import read_members
from authserver.engine.clients.editing import (
    ChangedMeanwhile,
    ClientEdit,
    ClientUnchanged,
    Edited,
    ListEdit,
    edit,
    pin,
)
from authserver.engine.clients.registration import add_client, fitting_metadata
from authserver.engine.context import Engine
from authserver.engine.crypto import strict_json
from authserver.engine.ending import Act, Subject
from authserver.engine.errors import InvalidClient, InvalidRedirectUri, TemporarilyUnavailable
from authserver.engine.keys.ring import check_known
from authserver.engine.records import Client, ClientState, is_address
from authserver.explaining.remedies import remedy_of
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_LOGO

LINKS = ("client_uri", "policy_uri", "tos_uri")

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """These options, in this order."""

    def add_to(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add_to


def _list_options(
    name: str, variable: str, metavar: str, what: str, *, is_separated: bool = False
) -> Callable[[Command], Command]:
    """Three options that change a list; each may be given several times, and with several values if `is_separated`."""
    more = MORE if is_separated else "several times"

    def option(prefix: str, variable: str, text: str) -> Callable[[Command], Command]:
        return click.option(
            f"--{prefix}{name}",
            variable,
            multiple=True,
            callback=separated if is_separated else None,
            metavar=metavar,
            help=f"{text}; may be given {more}.",
        )

    return _options(
        option("", variable, f"{what} that replace the present ones"),
        option("add-", f"added_{variable}", "Add this one"),
        option("remove-", f"removed_{variable}", "Remove this one"),
    )


def _members_option(more: str = "") -> Callable[[Command], Command]:
    return click.option(
        "--metadata",
        "sent_members",
        type=PAIR,
        multiple=True,
        metavar="NAME=VALUE",
        help=f"A member that a plugin keeps; the value is JSON, or else text{more}. May be given several times.",
    )


_keys_option = click.option(
    "--jwks",
    "key_set",
    metavar="FILE|URL",
    help="Its public keys, for an --auth-method with keys: a JWK Set in a file, or the https address where it publishes one.",
)
_shown_options = _options(
    click.option("--client-uri", metavar="URL", help="Its web site, for a link on the consent page; https."),
    click.option("--policy-uri", metavar="URL", help="Its privacy policy, likewise."),
    click.option("--tos-uri", metavar="URL", help="Its terms of service, likewise."),
    click.option("--logo", metavar="FILE", help="Its logo on the consent page: an SVG or PNG file."),
)


@click.group(cls=OneSentence)
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
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    callback=separated,
    metavar="SCOPE",
    help=f"A scope it may have; {MORE}.",
)
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
@_keys_option
@_members_option()
@_shown_options
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
    key_set: str | None,
    sent_members: tuple[tuple[str, str], ...],
    client_uri: str | None,
    policy_uri: str | None,
    tos_uri: str | None,
    logo: str | None,
    first_party: bool,
    no_refresh_rotation: bool,
    as_json: bool,
) -> None:
    """Add an application; its secret is shown once."""
    links = _links(client_uri, policy_uri, tos_uri)
    if no_refresh_rotation and auth_method == "none":
        raise click.UsageError(
            "--no-refresh-rotation: not with --auth-method none, because only rotation protects the refresh tokens "
            "of such a client"
        )
    with configuration.engine() as engine, _in_a_sentence():
        check_known(engine)
        metadata = fitting_metadata(
            name=name,
            redirect_uris=redirect_uris,
            grant_types=grant_types,
            scopes=scopes,
            auth_method=auth_method,
            application_type=application_type,
            details={**_members(engine, sent_members, key_set), **links},
        )
        _known("--grant-type", metadata.grant_types, engine.grant_types)
        _known("--scope", scopes, engine.scopes)
        _known("--auth-method", [auth_method], engine.auth_methods)
        if "authorization_code" in metadata.grant_types and not scopes:
            raise click.UsageError(
                "--scope: a client with a redirect URI needs at least one; known: "
                + ", ".join(sorted(engine.scopes))
            )
        added, secret = add_client(
            engine,
            metadata,
            client_id=client_id,
            first_party=first_party,
            rotates_refresh_tokens=not no_refresh_rotation,
            logo=_file(logo) or b"",
        )
    record = operators.client(added, added.created_at)
    if secret is not None:
        record["client_secret"] = secret
    if as_json:
        print_json(record)
        return
    print_record(record)
    if secret is not None:
        say(SHOWN_ONCE, err=True)
    if not scopes:
        say(
            f"It has no scope, so it gets no tokens. That is right for a resource server that only introspects; for any other: "
            f"authserver client edit {words(added.client_id)} --add-scope SCOPE",
            err=True,
        )


@client.command("edit")
@click.argument("client_id")
@click.option("--name", help="The name that the consent page shows; after a change people are asked again.")
@_list_options("redirect-uri", "redirect_uris", "URI", "Redirect URIs")
@_list_options("grant-type", "grant_types", "TYPE", "Grant types")
@_list_options("scope", "scopes", "SCOPE", "Scopes", is_separated=True)
@click.option(
    "--auth-method",
    help="How it proves who it is. With `none` its secrets end and its grants are revoked; from `none` to a method "
    "with a secret it gets one, shown once.",
)
@click.option(
    "--application-type",
    type=click.Choice(["web", "native"]),
    help="Without it: as it was, unless the redirect URIs make it native.",
)
@_keys_option
@_members_option("; null takes it away")
@_shown_options
@click.option(
    "--first-party/--no-first-party", default=None, help="Whether it is our own, as in `client add`."
)
@click.option(
    "--refresh-rotation/--no-refresh-rotation",
    default=None,
    help="Whether each use of its refresh token gives a new one.",
)
@json_option
@click.pass_obj
def edit_client(configuration: Configuration, /, client_id: str, as_json: bool, **options: Any) -> None:
    """Change an application; members without an option stay the same. An empty link or logo removes it.

    A removed right is missing from the next request on. People are asked again when the name changes or a redirect URI is
    added.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if not given:
        names = [
            opt
            for option in click.get_current_context().command.params
            for opt in option.opts[:1]
            if option.name in options
        ]
        raise click.UsageError(
            f"nothing to change: give one or more of {', '.join(names)}; "
            f"`authserver client show {client_id}` shows how it is now"
        )
    links = _links(*(options[name] for name in LINKS))
    with configuration.engine() as engine, _in_a_sentence():
        check_known(engine)
        for prefix, variable in (("--", ""), ("--add-", "added_")):
            _known(f"{prefix}grant-type", options[f"{variable}grant_types"], engine.grant_types)
            _known(f"{prefix}scope", options[f"{variable}scopes"], engine.scopes)
        if options["auth_method"] is not None:
            _known("--auth-method", [options["auth_method"]], engine.auth_methods)
        wanted = ClientEdit(
            name=options["name"],
            redirect_uris=_list_edit(options, "redirect_uris"),
            grant_types=_list_edit(options, "grant_types"),
            scopes=_list_edit(options, "scopes"),
            auth_method=options["auth_method"],
            application_type=options["application_type"],
            first_party=options["first_party"],
            rotates_refresh_tokens=options["refresh_rotation"],
            details={**_members(engine, options["sent_members"], options["key_set"]), **links},
            logo=_file(options["logo"]),
        )
        edited = edit(engine, client_id, wanted)
    if as_json:
        print_json(_described_edit(edited, engine.now))
    else:
        _print_edit(edited)


@client.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in ClientState]),
    help="Only those that are new, used, idle or gone; may be given several times.",
)
@click.option(
    "--search", "text", default="", metavar="TEXT", help="Only those with this text in their id or name."
)
@limit_option("applications")
@after_option("CLIENT_ID", "this client id")
@json_option
@click.pass_obj
def list_clients(
    configuration: Configuration, states: tuple[str, ...], text: str, limit: int, after: str, as_json: bool
) -> None:
    """List applications by client id, one page at a time.

    An application is new until it gets its first code or token, or uses its secret, and then used; idle if it did not
    for 30 days; and gone if it was disabled.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        found = list(islice(_in_pages(engine, text, after, states), limit + 1))
        now = engine.now
    rows = [operators.client(item, now) for item in found[:limit]]
    added = dict.fromkeys(name for item in found[:limit] for name in item.details if name not in LINKS)
    if as_json:
        print_json(rows)
    else:
        columns = (
            "client_id",
            "client_name",
            "token_endpoint_auth_method",
            "grant_types",
            "registered_by",
            "state",
            "last_used_at",
            *added,
        )
        none = f"No client is {' or '.join(states)}." if states else ""
        if after or text:
            none = (
                "There are no more such clients."
                if after
                else f"No client has {words(text)} in its id or name."
            )
        print_rows(
            rows,
            columns,
            empty=none or "There are no clients; add one with `authserver client add --name NAME …`.",
        )
    if len(found) > limit:
        options = [*(("--state", state) for state in states), ("--search", text or None)]
        last = found[limit - 1].client_id
        tell_next_page(configuration, options, limit=limit, after=last, as_json=as_json)


def _in_pages(engine: Engine, text: str, after: str, states: tuple[str, ...]) -> Iterator[Client]:
    """The clients that fit, by id, read page by page as they are used."""
    clients = engine.stores.clients
    while True:
        page = (
            clients.search(engine.now, text, after=after, limit=MAXIMUM_PAGE)
            if text
            else clients.page(engine.now, after=after, limit=MAXIMUM_PAGE)
        )
        yield from (item for item in page if not states or item.state(engine.now) in states)
        if len(page) < MAXIMUM_PAGE:
            return
        after = page[-1].client_id


@client.command()
@click.argument("client_id")
@json_option
@click.pass_obj
def show(configuration: Configuration, client_id: str, as_json: bool) -> None:
    """Show one application, and its live secrets as `client secrets` does.

    An application whose id is its address, and that is not pinned, is shown as its document describes it now.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        found = engine.stores.clients.find(client_id, engine.now)
    if found is None and is_address(client_id):
        with configuration.engine() as engine, _with_its_cause():
            found = engine.find_client_elsewhere(client_id)
    if found is None:
        raise click.ClickException(f"{client_id}: no such client; see `authserver client list`")
    record, secrets = operators.client(found, engine.now), operators.secrets(found.secrets)
    if as_json:
        print_json({**record, "secrets": secrets})
        return
    print_record(record)
    if secrets:
        say()
        print_secrets(secrets)


@client.command("pin")
@click.argument("client_id", metavar="ADDRESS")
@json_option
@click.pass_obj
def pin_client(configuration: Configuration, client_id: str, as_json: bool) -> None:
    """Store an application whose id is its address, as its document describes it now.

    From then on the stored description counts, not the document; you vouch for it, so it is verified. To accept a changed
    document, pin the application again.
    """
    with configuration.engine() as engine, _in_a_sentence(), _with_its_cause():
        is_new = engine.find_kept_client(client_id) is None
        edited = pin(engine, client_id)
    if as_json:
        print_json(_described_edit(edited, engine.now))
    elif is_new:
        print_record(operators.client(edited.client, engine.now))
    else:
        _print_edit(edited)


@client.command()
@click.argument("client_id")
@dry_run_option
@yes_option
@json_option
@click.pass_obj
def disable(configuration: Configuration, client_id: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Disable an application for good: from the next request on it is refused, and all its access ends."""
    application = configuration.application(Plugins.OBSERVE)
    with closing(application):
        application.check_database()
        with application.begin() as engine:
            found = engine.stores.clients.find(client_id, engine.now)
        if found is None:
            raise click.ClickException(f"{client_id}: no such client; see `authserver client list`")
        act = Act(subject=Subject.client(client_id), for_good=True)
        ask = f"Disable {words(client_id)} for good?"
        ended = carry_out(application, act, dry_run=dry_run, yes=yes, quiet=as_json, ask=ask)
    if not found.is_enabled and not ended:
        raise click.ClickException(f"{client_id}: it is disabled already; see `authserver client list`")
    done = "" if dry_run else f"{words(client_id)} is disabled."
    tell(act, ended, done=done, dry_run=dry_run, as_json=as_json)


def _described_edit(edited: Edited, now: datetime) -> dict[str, Any]:
    record = operators.client(edited.client, now)
    if edited.secret is not None:
        record["client_secret"] = edited.secret
    return {
        **record,
        "changed": {name: {"from": was, "to": now} for name, (was, now) in edited.changed.items()},
        "asks_again": edited.asks_again,
        "grants_revoked": edited.revoked,
    }


def _print_edit(edited: Edited) -> None:
    if not edited.changed:
        say("Nothing was changed: it has these values already.")
        return
    rows = [
        {"changed": name.replace("_", " "), "from": was, "to": now}
        for name, (was, now) in edited.changed.items()
    ]
    print_rows(rows, ("changed", "from", "to"), empty="")
    if edited.secret is not None:
        print_record({"client_secret": edited.secret})
        say(SHOWN_ONCE, err=True)
    if edited.asks_again:
        say("People who agreed before are asked again.")
    if edited.revoked:
        say(f"Grants revoked: {edited.revoked}.")


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """The refusal of a change as a sentence: why, and what to do."""
    try:
        yield
    except ChangedMeanwhile as refused:
        raise click.ClickException(
            f"{refused}; look at it with `authserver client show` and try again"
        ) from None
    except ClientUnchanged as refused:
        raise click.ClickException(
            f"{refused}; see `authserver client list` and `authserver client show`"
        ) from None
    except InvalidRedirectUri as refused:
        remedy = f" ({remedy_of(refused.reason)})" if refused.reason != refused.code else ""
        raise click.ClickException(refused.description + remedy) from refused


@contextmanager
def _with_its_cause() -> Iterator[None]:
    """Why a client whose id is its address is not accepted, with more details than the client gets."""
    try:
        yield
    except (InvalidClient, TemporarilyUnavailable) as refused:
        facts = {"reason": refused.reason, **refused.facts}
        told = ", ".join(f"{name}: {value}" for name, value in facts.items())
        raise click.ClickException(f"{refused.description} ({told})") from refused


def _list_edit(options: dict[str, Any], name: str) -> ListEdit:
    return ListEdit(
        replaced_by=options[name], added=options[f"added_{name}"], removed=options[f"removed_{name}"]
    )


def _links(*given: str | None) -> dict[str, str | None]:
    """The given links by the names of their members; None for one that is taken away."""
    return {name: url or None for name, url in zip(LINKS, given, strict=True) if url is not None}


def _kept(details: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value is not None}


def _file(path: str | None) -> bytes | None:
    """The content of a file, as far as it can be a logo; empty without path, None where none was given."""
    if not path:
        return None if path is None else b""
    with Path(path).open("rb") as file:
        content = file.read(MAXIMUM_LOGO + 1)
    if not content:
        raise click.ClickException(f"{path}: the file is empty")
    return content


def _members(engine: Engine, given: Iterable[tuple[str, str]], key_set: str | None = None) -> dict[str, Any]:
    """The members that plugins keep, as they were given, and those of a key set; None for a member that they drop.

    Args:
        key_set: the file or the address of a key set; of the two members that name keys the other one is removed.

    Raises:
        click.UsageError, InvalidClientMetadata
    """
    sent = read_each("--metadata", given)
    _known("--metadata", sent, engine.client_metadata)
    if key_set is not None:
        if {"jwks", "jwks_uri"} & sent.keys():
            raise click.UsageError("--jwks: give the keys here or with --metadata, not both")
        if "jwks" not in engine.client_metadata:
            raise click.UsageError(
                "--jwks: no plugin here keeps keys of clients; list the one of their method in authserver.plugins"
            )
        sent |= _keys(key_set)
    read = read_members(_kept(sent), engine.client_metadata)
    return {name: read.get(name) for name in sent}


def _keys(source: str) -> dict[str, Any]:
    """The members that name the keys in this file, or at this address. Raises click.ClickException."""
    if "://" in source:
        return {"jwks": None, "jwks_uri": source}
    try:
        keys = strict_json.loads(Path(source).read_bytes())
    except OSError as error:
        raise click.ClickException(f"--jwks {source}: {error.strerror}") from None
    except ValueError as error:
        raise click.ClickException(f"--jwks {source}: this is no JWK Set: {error}") from None
    return {"jwks": keys, "jwks_uri": None}


def _known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for value in given:
        if value not in known:
            raise click.UsageError(f"{option} {value}: not offered here; {did_you_mean(value, known, '')}")
