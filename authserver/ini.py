"""INI text into frozen typed values. Settings that are unknown, missing, misspelt or insecure are named.

Any value may be `env:NAME` (an environment variable) or `file:PATH` (the text of a file). In place of the variable NAME
there may be one called NAME_FILE, with the path of a file: so containers and systemd hand over secrets.
"""

from __future__ import annotations

import base64
import configparser
import difflib
import os
import re
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from authserver.settings import Secret, Settings, SettingsError, contradictions, wide_networks

PREFIX = "authserver."
PLUGIN_PREFIX = "authserver.plugin."
# What may be another for single clients (`…@clients`) and resources (`…@resources`).
SINGLE = ("access_token_format", "access_token_lifetime")
# What may be set of Pyramid itself; `pyramid.tweens`, for one, would take our own tweens away.
PYRAMID_PREFIX = "pyramid."
PYRAMID = (
    "debug_all",
    "debug_authorization",
    "debug_notfound",
    "debug_routematch",
    "debug_templates",
    "includes",
    "reload_all",
    "reload_assets",
    "reload_templates",
)
# Variables that are there whatever the command line says.
_OF_PASTE = ("here", "__file__", "__script__")
_PASSWORD_IN_URL = re.compile(r"://[^/]*:.+@|[?&]password=")
# More known names than these are not all printed.
MAXIMUM_NAMED = 10
# What Pyramid takes for true.
_ON = ("t", "true", "y", "yes", "on", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What an INI section came to.

    Attributes:
        settings: the server's own settings.
        single: the raw texts of settings for single clients and resources, such as `access_token_lifetime@clients`.
        plugin_settings: the raw texts of `authserver.plugin.NAME.FIELD`, by plugin name and field.
        insecure: announced problems, empty in production (they stop the start there).
    """

    settings: Settings
    single: Mapping[str, Resolved]
    plugin_settings: Mapping[str, Mapping[str, Resolved]]
    insecure: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The text of a value, and whether it is written in the INI itself."""

    text: str = field(repr=False)
    inline: bool


def load(ini: Mapping[str, str]) -> Loaded:
    """Read the `[app:main]` section.

    Raises:
        SettingsError: with every problem found, each naming its key and what to do.
    """
    problems: list[str] = []
    unresolved: set[str] = set()
    own: dict[str, Resolved] = {}
    single: dict[str, Resolved] = {}
    plugin_settings: dict[str, dict[str, Resolved]] = {}
    known = [item.name for item in fields(Settings)]
    for key, raw in ini.items():
        if key.startswith(PYRAMID_PREFIX):
            if (name := key.removeprefix(PYRAMID_PREFIX)) not in PYRAMID:
                problems.append(f"{key}: no such setting; {did_you_mean(name, PYRAMID, PYRAMID_PREFIX)}")
            continue
        if not key.startswith(PREFIX):
            problems.append(f"{key}: no such setting; settings begin with `authserver.` or `pyramid.`")
            continue
        try:
            value = resolve(key, raw)
        except SettingsError as error:
            problems += error.problems
            unresolved.add(key)
            continue
        if key.startswith(PLUGIN_PREFIX):
            name, dot, option = key.removeprefix(PLUGIN_PREFIX).partition(".")
            if not dot:
                problems.append(f"{key}: expected authserver.plugin.NAME.SETTING")
                continue
            plugin_settings.setdefault(name, {})[option] = value
        elif (name := key.removeprefix(PREFIX)) in known:
            own[name] = value
        elif name.partition("@")[0] in SINGLE and "@" in name:
            single[name] = value
        else:
            problems.append(f"{key}: no such setting; {did_you_mean(name, known, PREFIX)}")

    values, found = read_fields(Settings, own, PREFIX)
    # What cannot be resolved is not missing.
    problems += [line for line in found if line.partition(":")[0] not in unresolved]
    if problems:
        raise SettingsError(problems)
    settings = Settings(**values)
    problems = contradictions(settings)
    insecure = _insecure(settings, own, ini)
    if settings.is_production:
        problems += [f"{line} (refused in production)" for line in insecure]
    if problems:
        raise SettingsError(problems)
    return Loaded(
        settings=settings,
        single=MappingProxyType(single),
        plugin_settings=MappingProxyType(plugin_settings),
        insecure=tuple(insecure),
    )


def origins(ini: Mapping[str, str]) -> Mapping[str, str]:
    """Where each value of the section comes from: `INI file`, `env:NAME` or `file:PATH`, by its key."""
    return {
        key: raw.strip() if raw.strip().startswith(("env:", "file:")) else "INI file"
        for key, raw in ini.items()
    }


def read_fields(owner: type, given: Mapping[str, Resolved], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Convert texts to the types of a dataclass's fields.

    A field of the type `tuple[Entry, ...]`, where `Entry` is a dataclass with a `name`, takes settings for each entry:
    `FIELD.NAME.SETTING`.

    Returns:
        The values by field name, and the problems: unknown, missing and malformed keys under `prefix`.
    """
    hints = types_of(owner)
    settable = {item.name: item for item in fields(owner) if item.init}
    given, sections = _sections(given, hints)
    values, problems = _entries(sections, hints, prefix)
    meant: set[str] = set()
    for name, value in given.items():
        if name not in settable:
            problems.append(f"{prefix}{name}: no such setting; {did_you_mean(name, settable, prefix)}")
            meant.update(near(name, settable))
            continue
        try:
            values[name] = convert(value.text, hints[name])
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{prefix}{name}: {error}")
    # A setting that was renamed or misspelt is named already.
    problems += [
        f"{prefix}{name}: missing; add it to the INI file"
        for name, item in settable.items()
        if name not in given and name not in sections and name not in meant and _is_required(item)
    ]
    return values, problems


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """The value of a setting, also of one of an entry (`read_fields`); None if there is none."""
    field, dot, rest = key.partition(".")
    if not dot:
        return values.get(field)
    name, _, setting = rest.partition(".")
    entry = next((entry for entry in values.get(field, ()) if entry.name == name), None)
    return getattr(entry, setting, None)


def entry_kind(annotation: Any) -> type | None:
    """The dataclass of the entries that a field has; None if it has none (`read_fields`)."""
    kind = next(iter(typing.get_args(annotation)), None) if typing.get_origin(annotation) is tuple else None
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def _sections(
    given: Mapping[str, Resolved], hints: Mapping[str, Any]
) -> tuple[dict[str, Resolved], dict[str, dict[str, dict[str, Resolved]]]]:
    """The settings that stand alone, and those of entries: by field, by the name of the entry, and by setting."""
    alone: dict[str, Resolved] = {}
    sections: dict[str, dict[str, dict[str, Resolved]]] = {}
    for key, value in given.items():
        field, dot, rest = key.partition(".")
        name, second, setting = rest.partition(".")
        if dot and second and entry_kind(hints.get(field)):
            sections.setdefault(field, {}).setdefault(name, {})[setting] = value
        else:
            alone[key] = value
    return alone, sections


def _entries(
    sections: Mapping[str, Mapping[str, Mapping[str, Resolved]]], hints: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Any], list[str]]:
    """The entries of each field, in the order in which they were given first, and what is wrong with them."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for owner, entries in sections.items():
        kind: Any = entry_kind(hints[owner])
        made = []
        for name, texts in entries.items():
            at = f"{prefix}{owner}.{name}."
            settings, found = read_fields(kind, {**texts, "name": Resolved(name, inline=True)}, at)
            if "name" in texts:
                found.append(f"{at}name: no such setting; the name is {name}, which is in the key")
            problems += found
            try:
                made += [] if found else [kind(**settings)]
            except ValueError as error:
                problems.append(f"{at}{error}")
        values[owner] = tuple(made)
    return values, problems


@cache
def types_of(owner: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields, by their names; read once, as that takes a quarter of a start."""
    return MappingProxyType(typing.get_type_hints(owner, include_extras=True))


def convert(text: str, annotation: Any) -> Any:
    """The text as a value of this type. Raises msgspec.ValidationError or ValueError saying what is wrong.

    Lists are separated by white space; a `tuple[tuple[str, str], ...]` takes a `name = text` line each.
    """
    kind = typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
    raw: Any = text.strip()
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        raw = _pairs(raw) if typing.get_origin(item) is tuple else raw.split()
    elif kind is bool:
        raw = {"true": True, "false": False}.get(raw.lower(), raw)
    return msgspec.convert(raw, annotation, strict=False, dec_hook=_decode)


def without_plugins(ini: Mapping[str, str]) -> dict[str, str]:
    """The section as that of a server without plugins: without their lists, their settings, and what names their scopes."""
    left_out = [f"{PREFIX}{name}" for name in ("plugins", "shadow_plugins", "scope_groups")]
    return {
        key: text for key, text in ini.items() if key not in left_out and not key.startswith(PLUGIN_PREFIX)
    }


def unused_variables(defaults: Mapping[str, str]) -> list[str]:
    """A problem for each variable of the command line (`pserve FILE name=value`) that the INI file does not use.

    Args:
        defaults: what PasteDeploy hands to every section: its own variables, those of the command line, and `[DEFAULT]`.
    """
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
    if "__file__" not in defaults or not parser.read(defaults["__file__"], encoding="utf-8"):
        return []
    own = parser.defaults()
    lines = [line for section in ("DEFAULT", *parser.sections()) for line in parser[section].items()]
    if any(name == "use" and text.startswith("config:") for name, text in lines):
        return []  # another file may use them
    used = set(re.findall(r"%\(([^)]+)\)s", "\n".join(text for _, text in lines)))
    used.update(text for name, text in lines if name.startswith("get "))
    return [
        f"{name}: given on the command line, but {Path(defaults['__file__']).name} has no %({name})s, so it would mean "
        "nothing; " + _instead(name, used - {"here"})
        for name, value in defaults.items()
        if name not in (*_OF_PASTE, *used)
        and (name not in own or (value != own[name] and "%(" not in own[name]))
    ]


def _instead(name: str, used: Collection[str]) -> str:
    if close := near(name, used):
        return "did you mean " + ", ".join(close)
    return f"write it where it belongs, such as `listen = 127.0.0.1:%({name})s` in [server:main]"


def unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    """Why an INI file cannot be read, where, and what to do; without the text of the line, which may be a secret.

    Args:
        error: what was raised when the file was opened or parsed, or when PasteDeploy looked for a section in it.
    """
    match error:
        case OSError():
            return f"{path}: {error.strerror}; name a file that this server may read"
        case UnicodeDecodeError():
            return f"{path}, line {_undecodable_line(path)}: is no UTF-8 text; save the file in that encoding"
        case configparser.MissingSectionHeaderError():
            return f"{path}, line {error.lineno}: is in no section; begin the file with [app:main]"
        case configparser.ParsingError():
            return (
                f"{path}, line {error.errors[0][0]}: is no `name = value`; write it so, begin a comment with #, or indent "
                "what continues the line before"
            )
        case configparser.DuplicateSectionError():
            return f"{path}, line {error.lineno}: [{error.section}] is there already; join the two sections"
        case configparser.DuplicateOptionError():
            return f"{path}, line {error.lineno}: {error.option} is in [{error.section}] already; remove one of the two"
        case configparser.InterpolationMissingOptionError():
            return (
                f"{path}: {error.option} in [{error.section}] refers to %({error.reference})s, which is not there; give it "
                f"on the command line ({error.reference}=…) or in [DEFAULT], or write %% for a percent sign"
            )
        case configparser.InterpolationError():
            return f"{path}: {error.option} in [{error.section}] has a % that begins no %(name)s; write %% for a percent sign"
        case ModuleNotFoundError():
            return (
                f"{path}: a section uses {error.name}, which is not installed; write `use = egg:authserver`"
            )
    return (
        f"{path}: {' '.join(str(error).split())}; the server needs [app:main] and [server:main], each with "
        "`use = egg:authserver`"
    )


def _undecodable_line(path: str | os.PathLike[str]) -> int:
    """The first line that is no UTF-8. An error that came of reading the file counts from the part that was read last."""
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return 1  # it was changed meanwhile


def resolve(key: str, raw: str) -> Resolved:
    """Follow `env:` and `file:`. Raises SettingsError when the variable or file is not there."""
    text = raw.strip()
    if text.startswith("env:") and (name := text.removeprefix("env:")) in os.environ:
        if f"{name}_FILE" in os.environ:
            raise SettingsError([f"{key}: {name} and {name}_FILE are both set; unset one of them"])
        return Resolved(os.environ[name], inline=False)
    if path := referred_file(text):
        try:
            return Resolved(path.read_text(encoding="utf-8").strip(), inline=False)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise SettingsError(
                [f"{key}: cannot read {path}: {why}; make the file readable for this server, or name another"]
            ) from None
    if text.startswith("env:"):
        raise SettingsError([f"{key}: the environment variable {text.removeprefix('env:')} is not set"])
    return Resolved(text, inline=True)


def referred_file(raw: str) -> Path | None:
    """The file that a value refers to: by `file:PATH`, or by `env:NAME` and the variable NAME_FILE; None if it does not."""
    text = raw.strip()
    if text.startswith("file:"):
        return Path(text.removeprefix("file:"))
    if text.startswith("env:") and (path := os.environ.get(f"{text.removeprefix('env:')}_FILE")):
        return Path(path)
    return None


def referred_files(defaults: Mapping[str, str]) -> list[Path]:
    """The files that values of the INI file refer to, whatever their section.

    Args:
        defaults: what PasteDeploy hands to every section.
    """
    parser = configparser.RawConfigParser(strict=False)
    if "__file__" not in defaults or not parser.read(defaults["__file__"], encoding="utf-8"):
        return []
    here = str(Path(defaults["__file__"]).parent)
    values = [
        text.replace("%(here)s", here) for name in parser.sections() for _, text in parser[name].items()
    ]
    return sorted({path for text in values if (path := referred_file(text))})


def did_you_mean(name: str, known: Iterable[str], prefix: str) -> str:
    """A hint: the nearest known names; all of them, if none is near and they are few."""
    known = sorted(known)
    if close := near(name, known):
        return "did you mean " + ", ".join(prefix + item for item in close)
    if not known:
        return "there are none"
    if len(known) <= MAXIMUM_NAMED:
        return "known: " + ", ".join(prefix + item for item in known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return f"the nearest of {len(known)} known: " + ", ".join(prefix + item for item in nearest)


def near(name: str, known: Iterable[str]) -> list[str]:
    """At most three of the known names that the name may have been meant for, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=3)


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _decode(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        if not value:
            raise ValueError("is empty")
        return Secret(value)
    raise ValueError(f"expected {kind.__name__}")


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"expected `name = text` on each line, found {line!r}")
        pairs.append((name.strip(), value.strip()))
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return pairs


def _insecure(settings: Settings, own: Mapping[str, Resolved], ini: Mapping[str, str]) -> list[str]:
    """What development announces and production refuses."""
    insecure = []
    if settings.issuer.startswith("http://"):
        insecure.append("authserver.issuer: plain http; give an https URL")
    if own["secret_keys"].inline:
        insecure.append("authserver.secret_keys: is in the INI file; give it as env:NAME or file:PATH")
    if any(_looks_made_up(entry.value) for entry in settings.secret_keys):
        insecure.append("authserver.secret_keys: not random; make a key with `authserver keys secret`")
    if own["database_url"].inline and _PASSWORD_IN_URL.search(settings.database_url.value):
        insecure.append(
            "authserver.database_url: a password is in the INI file; give it as env:NAME or file:PATH"
        )
    if settings.fetch_proxy_credentials and own["fetch_proxy_credentials"].inline:
        insecure.append(
            "authserver.fetch_proxy_credentials: is in the INI file; give it as env:NAME or file:PATH"
        )
    if settings.fetch_loopback:
        insecure.append(
            "authserver.fetch_loopback: strangers can make this machine ask itself; remove the line"
        )
    insecure += [
        f"authserver.trusted_proxies: {text} is much of the internet, where anybody could name any address and scheme; "
        "name your proxies"
        for text in wide_networks(settings.trusted_proxies)
    ]
    for key, value in ini.items():
        if key.startswith(("pyramid.debug", "pyramid.reload")) and value.strip().lower() in _ON:
            insecure.append(f"{key}: debugging is on; remove the line")
        if key == "pyramid.includes" and "debugtoolbar" in value:
            insecure.append("pyramid.includes: the debug toolbar is on; remove it")
    return insecure


def _looks_made_up(entry: str) -> bool:
    try:
        key = base64.b64decode(entry.partition(":")[2], validate=True)
    except ValueError:
        return False
    # 32 random bytes hold about 30 different values; text and repetition hold far fewer or only letters.
    return len(set(key)) < 20 or all(32 <= byte < 127 for byte in key)
