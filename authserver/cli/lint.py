"""`authserver lint`: finds bad settings, and clients whose registered rights a stricter policy would refuse."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authserver.cli import posture
from authserver.cli.configuration import Configuration
from authserver.cli.posture import Power, Remark, Severity
from authserver.cli.printing import json_option, print_json, print_rows, say
from authserver.cli.progress import progress
from authserver.engine import authorization_request, issuers, token, uris
from authserver.engine.context import Engine, Journal
from authserver.engine.errors import OAuthError
from authserver.engine.records import Client, is_address
from authserver.explaining.remedies import remedy_of
from authserver.hookspecs import DECIDING
from authserver.ini import PLUGIN_PREFIX, PREFIX
from authserver.plugins.listed_resources import MEMBERS
from authserver.plugins.variants import CLIENTS

if TYPE_CHECKING:
    from authserver.app import Application
    from authserver.plugins.asking import PluginSet

# How many clients are read at once.
PAGE = 1000
# The port in the checks of a program that registered none, because its system gives it any port (RFC 8252, 7.3).
PORT = 49152

SILENT = "nobody-answered"
# The plugin that allows the resources of the database.
REGISTERED = "resources_registered"
_LIST_EXACT = "list redirect_exact in authserver.plugins: it accepts what is registered"
_LIST_LOOPBACK = (
    "the URI is refused with a port, and a program on a device uses any port: list redirect_loopback in "
    "authserver.plugins, and the host in authserver.plugin.redirect_loopback.hosts"
)
_LIST_SCOPE = "list the scope in authserver.scopes, or the plugin that adds it"
_EXPLAIN = "`authserver explain redirect-uri CLIENT_ID URI` shows which plugin refuses it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A registered value of a client that would be refused.

    Attributes:
        member: where it is in the client's metadata, by its name in RFC 7591.
        reason: the reason of the refusal.
        remedy: what would change it.
    """

    client_id: str
    client_name: str
    member: str
    value: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A setting for a client that does not exist.

    Attributes:
        setting: its key in the INI.
        remedy: what to do about it.
    """

    setting: str
    client_id: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceFinding:
    """A problem of a resource.

    Attributes:
        member: of the resource.
        remedy: what to do about it.
    """

    resource: str
    member: str
    value: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerFinding:
    """A fact about a trusted issuer that operators should know.

    Attributes:
        remedy: the setting to change, or the command that changes the entry.
    """

    issuer: str
    problem: str
    remedy: str


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--offline",
    is_flag=True,
    help="Leave out the checks that need the database: clients, resources, and named clients.",
)
@click.option("--strict", is_flag=True, help="Exit status 1 for warnings, too.")
@json_option
@click.pass_obj
@click.pass_context
def lint(
    context: click.Context,
    configuration: Configuration,
    file: Path | None,
    offline: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Check the settings and plugins of a server, and list the clients that would be refused something.

    FILE is its INI file, as for -c. Lint lists settings that are insecure, that RFC 9700 and OAuth 2.1 advise against, or
    that are still placeholders, with the key to change. A value that comes from the environment or a file that is missing
    here is not judged; thus lint works in CI, where there are no secrets.

    Run it also after a policy or a setting was tightened. It checks for every enabled client in the database whether its
    redirect URIs are still accepted, and whether its grant types, scopes and authentication method are still offered.
    It also lists the settings for single clients (`…@clients`) that name a client which does not exist, and resources that
    are in the INI and in the database, or name a scope or client that does not exist. It warns of trusted issuers with
    rules for programs by a name that another program can get later, and of entries that let every client and resource in,
    with the key or command to change.
    Nothing is changed. The exit status is 0 when there is no error and no client or setting to list, else 1.
    """
    if file is not None:
        configuration = Configuration(file)
    remarks, powers, application = posture.judge(configuration.ini(), configuration.folder(), offline=offline)
    looked = Looked()
    if application is not None:
        # This is no real request, so shadow plugins are not asked: they would record their answers.
        with closing(application):
            if not offline:
                if missing := [remark.key for remark in remarks if remark.severity is Severity.UNKNOWN]:
                    raise click.ClickException(
                        f"not set here: {', '.join(missing)}; set them, or judge the others with --offline"
                    )
                looked = look(application, quiet=as_json)
    if as_json:
        listed = {
            "posture": [asdict(remark) for remark in remarks],
            "plugins": [asdict(power) for power in powers],
            "findings": [asdict(finding) for finding in looked.found],
            "settings": [asdict(one) for one in looked.unused],
            "resources": [asdict(one) for one in looked.resources],
            "issuers": [asdict(one) for one in looked.issuers],
        }
        print_json({"checked": looked.checked, **listed})
    else:
        _print_posture(remarks, powers)
        if not offline and application is not None:
            _print_looked(looked)
    failing = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    if (
        looked.is_something
        or (strict and looked.issuers)
        or any(remark.severity in failing for remark in remarks)
    ):
        context.exit(1)


@dataclass
class Looked:
    """The findings in the database."""

    checked: int = 0
    found: list[Finding] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    resources: list[ResourceFinding] = field(default_factory=list)
    issuers: list[IssuerFinding] = field(default_factory=list)

    @property
    def is_something(self) -> bool:
        """Whether anything was found that an operator has to change."""
        return bool(self.found or self.unused or self.resources)


def look(application: Application, *, quiet: bool) -> Looked:
    """Check every client and resource of the database."""
    looked = Looked()
    for engine, client in progress("Checking clients", enabled_clients(application), quiet=quiet):
        looked.checked += 1
        looked.found += findings(engine, client)
    with application.begin() as engine:
        looked.unused = list(unused_settings(engine, application.parts.policies))
        looked.resources = list(resource_findings(engine, application.parts.policies))
        looked.issuers = [
            IssuerFinding(
                issuer=issuer.issuer,
                problem=problem,
                remedy=issuer.setting or f"`authserver issuer edit {issuer.issuer}`",
            )
            for issuer, problem in issuers.warnings(engine)
        ]
    return looked


def _print_posture(remarks: list[Remark], powers: list[Power]) -> None:
    if foreign := [power for power in powers if not power.is_ours]:
        say("Plugins of others, and their hooks")
        rows = [
            {"plugin": power.plugin, "from": power.comes_from, "hooks": ", ".join(power.hooks)}
            for power in foreign
        ]
        print_rows(rows, ("plugin", "from", "hooks"), empty="")
        say("")
    order = list(Severity)
    rows = [asdict(one) for one in sorted(remarks, key=lambda remark: order.index(remark.severity))]
    print_rows(
        rows,
        ("severity", "key", "problem", "remedy", "clause"),
        empty="The settings are as they should be.",
    )
    say("")


def _print_looked(looked: Looked) -> None:
    if looked.found:
        _print(looked.found, looked.checked)
    else:
        say(f"None of {looked.checked} clients would be refused anything that it is registered for.")
    if looked.unused:
        say("\nSettings for clients that do not exist")
        print_rows(map(asdict, looked.unused), ("setting", "client_id", "remedy"), empty="")
    if looked.resources:
        say("\nResources")
        print_rows(map(asdict, looked.resources), ("resource", "member", "value", "remedy"), empty="")
    if looked.issuers:
        say("\nTrusted issuers")
        print_rows(map(asdict, looked.issuers), ("issuer", "problem", "remedy"), empty="")


def unused_settings(engine: Engine, plugins: PluginSet) -> Iterator[Unused]:
    """The settings for single clients that name a client which does not exist."""
    named = [
        (f"{PLUGIN_PREFIX}{name}.{setting}@{CLIENTS}", client_id)
        for name in plugins.names
        for client_id, variant in {each.client: each for each in plugins.variants(name)}.items()
        for setting, kind in variant.settings.items()
        if client_id and kind == CLIENTS
    ]
    named += [
        (f"{PREFIX}{setting}@{CLIENTS}", client_id)
        for client_id, form in engine.client_forms.items()
        for setting, member in MEMBERS.items()
        if getattr(form, member) is not None
    ]
    for setting, client_id in named:
        if is_address(client_id) or engine.find_client(client_id) is not None:
            continue
        known = [client.client_id for client in engine.stores.clients.page(engine.now, after="", limit=PAGE)]
        close = difflib.get_close_matches(client_id, known, n=3)
        remedy = f"did you mean {', '.join(close)}" if close else "remove the line, or add the client"
        yield Unused(setting=setting, client_id=client_id, remedy=remedy)


def resource_findings(engine: Engine, plugins: PluginSet) -> Iterator[ResourceFinding]:
    """The problems of the resources of the INI and of the database."""
    for listed in engine.resources.in_both():
        yield ResourceFinding(
            resource=listed.uri,
            member="source",
            value=", ".join(listed.settings),
            remedy="it is also in the database, where it has no effect: take it out of one of them",
        )
    for resource in engine.resources.all():
        if resource.is_stored and REGISTERED not in plugins.names:
            yield ResourceFinding(
                resource=resource.uri,
                member="source",
                value="database",
                remedy=f"no plugin allows it: list {REGISTERED} in authserver.plugins",
            )
        for scope in resource.scopes or ():
            if scope not in engine.scopes:
                yield ResourceFinding(resource=resource.uri, member="scopes", value=scope, remedy=_LIST_SCOPE)
        for client_id in resource.introspecting_clients:
            client = engine.find_client(client_id)
            if client is None or not client.is_enabled:
                yield ResourceFinding(
                    resource=resource.uri,
                    member="introspecting_clients",
                    value=client_id,
                    remedy="there is no such client, or it is disabled: name another, or add it",
                )


def findings(engine: Engine, client: Client) -> Iterator[Finding]:
    """Everything that the client is registered for and would be refused, in the order of its metadata."""
    for member, value, reason, remedy in (
        *_redirect_uris(engine, client),
        *_grant_types(engine, client),
        *_scopes(engine, client),
        *_auth_method(engine, client),
    ):
        yield Finding(
            client_id=client.client_id,
            client_name=client.name,
            member=member,
            value=value,
            reason=reason,
            remedy=remedy,
        )


_Refused = Iterator[tuple[str, str, str, str]]


def _redirect_uris(engine: Engine, client: Client) -> _Refused:
    for uri in client.redirect_uris:
        with_port = uris.at_loopback_port(uri, PORT)
        if reason := _refusal_of(engine, client, uri):
            remedy = _LIST_EXACT if reason == SILENT else remedy_of(reason)
        elif with_port and (reason := _refusal_of(engine, client, with_port)):
            remedy = _LIST_LOOPBACK if reason == SILENT else remedy_of(reason)
        else:
            continue
        yield "redirect_uris", uri, reason, remedy or _EXPLAIN


def _refusal_of(engine: Engine, client: Client, redirect_uri: str) -> str:
    """Why the authorization endpoint would refuse the URI; "" when it would not."""
    try:
        authorization_request.accept_redirect_uri(engine, client, redirect_uri)
    except OAuthError as error:
        return error.reason
    return ""


def _grant_types(engine: Engine, client: Client) -> _Refused:
    for grant_type in client.grant_types:
        try:
            token.allowed_grant_type(engine, client, grant_type)
        except OAuthError as error:
            yield "grant_types", grant_type, error.reason, remedy_of(error.reason)


def _scopes(engine: Engine, client: Client) -> _Refused:
    """A scope that does not exist is never granted, so a request for it alone is refused."""
    for scope in client.scopes:
        if scope not in engine.scopes:
            yield "scope", scope, "nothing-left", _LIST_SCOPE


def _auth_method(engine: Engine, client: Client) -> _Refused:
    if client.auth_method not in engine.auth_methods:
        yield (
            "token_endpoint_auth_method",
            client.auth_method,
            SILENT,
            DECIDING["client_auth_decision"].remedy,
        )


def enabled_clients(application: Application) -> Iterator[tuple[Engine, Client]]:
    """Each client comes with an engine that has a new journal; a single journal would collect all questions."""
    last = ""
    while True:
        with application.begin() as engine:
            page = engine.stores.clients.page(engine.now, after=last, limit=PAGE)
            for client in page:
                if client.is_enabled:
                    yield replace(engine, journal=Journal()), client
        if not page:
            return
        last = page[-1].client_id


def _print(found: list[Finding], checked: int) -> None:
    """A line for each finding. What to do is printed only once, because one change of a policy causes many findings."""
    columns = ("client_id", "client_name", "member", "value", "reason")
    print_rows(map(asdict, found), columns, empty="")
    say("\nWhat to do")
    kinds = dict.fromkeys((finding.member, finding.reason, finding.remedy) for finding in found)
    rows = [dict(zip(("member", "reason", "remedy"), kind, strict=True)) for kind in kinds]
    print_rows(rows, ("member", "reason", "remedy"), empty="")
    hit = len({finding.client_id for finding in found})
    say(f"\n{hit} of {checked} clients would be refused something that they are registered for.")
