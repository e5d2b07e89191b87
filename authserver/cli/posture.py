"""The checks of `authserver lint` of settings and plugins, without the database: RFC 9700 and OAuth 2.1."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy.engine import URL

from authserver import app
from authserver.cli.keys import new_ring_entry
from authserver.hooks import is_implemented
from authserver.ini import PLUGIN_PREFIX, PREFIX, resolve
from authserver.plugins.importing import CannotImport
from authserver.plugins.loading import class_of, name_of
from authserver.settings import SettingsError

if TYPE_CHECKING:
    from authserver.app import Application

PLUGINS = f"{PREFIX}plugins"
# The stand-in for a secret that is missing where lint runs, for example in CI. Nothing uses it.
STAND_INS = {
    f"{PREFIX}issuer": lambda: "https://stand-in.invalid",
    f"{PREFIX}database_url": lambda: "sqlite:///stand-in.db",
    f"{PREFIX}secret_keys": new_ring_entry,
}
# Names that belong to no server (RFC 2606, RFC 6761).
_PLACEHOLDERS = ("example", "invalid", "test", "localhost", "example.com", "example.net", "example.org")
_HOUR, _YEAR = 3600, 365 * 86400


class Severity(StrEnum):
    """ERROR always makes lint fail, WARNING with --strict, ADVICE never; UNKNOWN could not be judged here."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"
    UNKNOWN = "not judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A problem of a setting.

    Attributes:
        key: the key of the INI to change.
        remedy: what to do.
        clause: the section of the specification.
    """

    severity: Severity
    key: str
    problem: str
    remedy: str = ""
    clause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The hooks of a plugin.

    Attributes:
        hooks: the hooks at which it is asked or told.
        comes_from: the module of its code.
        is_ours: whether that is part of authserver.
    """

    plugin: str
    hooks: tuple[str, ...]
    comes_from: str
    is_ours: bool


def judge(
    ini: Mapping[str, str], folder: Path, *, offline: bool
) -> tuple[list[Remark], list[Power], Application | None]:
    """The remarks about this INI, the hooks of its plugins, and the application, or None if it could not be built.

    The database is not asked. The caller closes the application. Raises SettingsError where it could not start, unless this
    is `offline`: then its problems are among the remarks.
    """
    with TemporaryDirectory() as scratch:
        known, remarks, left_out = _without_what_is_elsewhere(ini, Path(scratch))
        try:
            application = app.build(known, folder=folder, shadow=False)
        except SettingsError as error:
            if not offline:
                raise
            return [*remarks, *map(_problem, error.problems)], [], None
    # A plugin that cannot be made here serves its hooks on the real server.
    kinds = {}
    for specification in left_out:
        try:
            kinds[name_of(specification)] = class_of(specification, folder)
        except CannotImport as error:
            remarks.append(_problem(f"{PLUGINS}: {specification}{error}"))

    def serves(hook: str) -> bool:
        return application.parts.policies.serves(hook) or any(
            is_implemented(kind, hook) for kind in kinds.values()
        )

    remarks += _of_settings(application, unknown={remark.key for remark in remarks})
    remarks += _of_plugins(serves, {*application.parts.policies.names, *kinds})
    return remarks, list(_powers(application, kinds)), application


def _without_what_is_elsewhere(
    ini: Mapping[str, str], scratch: Path
) -> tuple[dict[str, str], list[Remark], list[str]]:
    """The INI with stand-ins for missing values from elsewhere, without the plugins that need such values; and these."""
    known, remarks, plugins = dict(ini), [], set()
    for key, raw in ini.items():
        try:
            resolve(key, raw)
            continue
        except SettingsError as error:
            problem = error.problems[0].partition(": ")[2]
        remedy = "lint judges it where it is set"
        remarks.append(Remark(severity=Severity.UNKNOWN, key=key, problem=problem, remedy=remedy))
        del known[key]
        if key in STAND_INS:
            # In a file, because in production the INI itself must not contain secrets.
            file = scratch / key
            file.write_text(STAND_INS[key]())
            known[key] = f"file:{file}"
        elif key.startswith(PLUGIN_PREFIX):
            plugins.add(key.removeprefix(PLUGIN_PREFIX).partition(".")[0])
    for plugin in plugins:
        known = {key: text for key, text in known.items() if not key.startswith(f"{PLUGIN_PREFIX}{plugin}.")}
    listed = known.get(PLUGINS, "").split()
    known[PLUGINS] = "\n".join(one for one in listed if name_of(one) not in plugins)
    return known, remarks, [one for one in listed if name_of(one) in plugins]


def _problem(line: str) -> Remark:
    """A remark from a sentence that would stop the start, and that begins with its key."""
    key, colon, rest = line.partition(": ")
    if not colon or " " in key:
        key, rest = PLUGINS, line
    problem, _, remedy = rest.rpartition("; ")
    return Remark(severity=Severity.ERROR, key=key, problem=problem or rest, remedy=remedy if problem else "")


def _of_settings(application: Application, unknown: set[str]) -> Iterator[Remark]:
    settings = application.parts.settings
    for line in application.insecure:
        found = _problem(line)
        yield Remark(severity=Severity.WARNING, key=found.key, problem=found.problem, remedy=found.remedy)
    if not settings.is_production:
        yield Remark(
            severity=Severity.ADVICE,
            key=f"{PREFIX}environment",
            problem="development only warns of settings that production refuses",
            remedy="set it to production where people use it",
        )
    if f"{PREFIX}issuer" not in unknown:
        yield from _of_issuer(settings.issuer, is_production=settings.is_production)
    if f"{PREFIX}database_url" not in unknown:
        yield from _of_database(application.storage.engine.url)
    for name, most, clause in (
        ("access_token_lifetime", _HOUR, "RFC 9700, 2.2.1; RFC 6750, 5.3"),
        ("code_lifetime", 600, "OAuth 2.1, 4.1.2"),
        ("refresh_token_retry_window", 60, "RFC 9700, 4.14.2"),
        ("refresh_token_idle_lifetime", _YEAR, "RFC 9700, 4.14.2"),
        ("grant_lifetime", _YEAR, "RFC 9700, 4.14.2"),
    ):
        if (seconds := getattr(settings, name)) > most:
            yield Remark(
                severity=Severity.WARNING,
                key=PREFIX + name,
                problem=f"{seconds} seconds is long for whoever steals it",
                remedy=f"at most {most}",
                clause=clause,
            )


def _of_issuer(issuer: str, *, is_production: bool) -> Iterator[Remark]:
    host, key = urlsplit(issuer).hostname or "", f"{PREFIX}issuer"
    severity = Severity.ERROR if is_production else Severity.ADVICE
    if any(host == name or host.endswith(f".{name}") for name in _PLACEHOLDERS):
        yield Remark(severity=severity, key=key, problem=f"{host} is a placeholder", remedy="the address that clients use",
                     clause="RFC 8414, 2")  # fmt: skip
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    yield Remark(
        severity=Severity.WARNING,
        key=key,
        problem="an IP address cannot move to another machine",
        remedy="a host name of yours",
    )


def _of_database(url: URL) -> Iterator[Remark]:
    key, query = f"{PREFIX}database_url", url.normalized_query
    if url.get_backend_name() == "sqlite":
        yield Remark(severity=Severity.ADVICE, key=key, problem="SQLite is for one machine, and one writer at a time",
                     remedy="PostgreSQL, by `authserver db copy`, before there are more")  # fmt: skip
        return
    host = url.host or query.get("host", ("",))[0]
    if not host or host.startswith("/") or host in ("localhost", "127.0.0.1", "::1"):
        return
    if query.get("sslmode", ("",))[0] != "verify-full":
        yield Remark(severity=Severity.WARNING, key=key, problem=f"the connection to {host} may be unencrypted",
                     remedy="add sslmode=verify-full&sslrootcert=system", clause="RFC 9700, 2.6")  # fmt: skip


def _of_plugins(serves: Callable[[str], bool], listed: set[str]) -> Iterator[Remark]:
    """Remarks about hooks that no plugin serves; the INI decides which plugin does."""

    def unserved(severity: Severity, *hooks: str, problem: str, clause: str = "") -> Iterator[Remark]:
        if not any(map(serves, hooks)):
            remedy = f"list a plugin that serves {' or '.join(hooks)}"
            yield Remark(severity=severity, key=PLUGINS, problem=problem, remedy=remedy, clause=clause)

    yield from unserved(Severity.WARNING, "rate_decision", clause="RFC 9700, 2.5; OAuth 2.1, 2.4.1",
                        problem="no plugin limits how often passwords and secrets may be tried")  # fmt: skip
    if "registration_open" in listed:
        yield Remark(severity=Severity.WARNING, key=PLUGINS, problem="anybody can register a client",
                     remedy="registration_token, if that is not meant", clause="RFC 7591, 5")  # fmt: skip
    yield from unserved(Severity.WARNING, "resource_decision", clause="RFC 9700, 2.3; RFC 8707",
                        problem="no token can be restricted to a resource")  # fmt: skip
    yield from unserved(Severity.ADVICE, "token_binding", "client_proofs", clause="RFC 9700, 2.2.1, 2.5",
                        problem="no token and no client can be bound to a key")  # fmt: skip
    yield from unserved(Severity.ADVICE, "deliver", "observe",
                        problem="events are only in the database: a person who can write to it can hide what was done")  # fmt: skip


def _powers(application: Application, left_out: Mapping[str, Any]) -> Iterator[Power]:
    """The hooks of each plugin; for a plugin that could not be made here, the hooks that its class implements."""
    policies = application.parts.policies
    table: list[dict[str, Any]] = policies.table()
    kinds = {name: type(policies.plugin(name)) for name in policies.names}
    for name, kind in {**kinds, **left_out}.items():
        module = kind.__module__
        hooks = tuple(
            row["hook"]
            for row in table
            if name in row["plugins"] or (name in left_out and is_implemented(kind, row["hook"]))
        )
        yield Power(
            plugin=name,
            hooks=hooks,
            comes_from=module,
            is_ours=module == "authserver" or module.startswith("authserver."),
        )
