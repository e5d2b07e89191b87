"""Reads TOML into forms. Each unknown, missing, malformed or repeated key is named with its file, line and column."""

from __future__ import annotations

import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import msgspec

from authserver.declaring.files import BadFile, files_at, read
from authserver.declaring.names import name_of
from authserver.declaring.places import MAXIMUM_PARTS, Path, line_of_long_key, places_of
from authserver.engine.crypto import strict_json
from authserver.engine.declarations.forms import Forms, Reference
from authserver.engine.declarations.plan import Declared
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_LOGO
from authserver.settings import Secret

MAXIMUM_SECRET_FILE = 65_536
MAXIMUM_TOTAL = 16_777_216
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
# The members of clients and initial access tokens that are secrets.
_SECRETS = frozenset({"secret", "token"})


class BadDeclarations(Exception):
    """The files cannot be used; the message has one line for each problem, with its file, line and column."""

    def __init__(self, problems: typing.Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFiles:
    """What the files declare, with the place of each value.

    Attributes:
        places: file, line and column of each value, such as `clients.toml:3:1`, by its path in the forms.
    """

    declared: Declared
    places: Mapping[Path, str] = field(repr=False)

    def place(self, path: Path) -> str:
        """The place of this value, or of the smallest table or array around it; empty if it is in no file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")

    def told(self, path: Path, text: str) -> str:
        """A problem with its place and its name."""
        place = self.place(path)
        return f"{place}: {name_of(path)}: {text}" if place else text


def read_files(path: FilePath) -> ReadFiles:
    """Read the file, or all files of the folder together.

    Raises:
        BadDeclarations: something is wrong with the files, or with a secret or file that they refer to.
    """
    reading = _Reading()
    try:
        files = files_at(path)
    except BadFile as error:
        raise BadDeclarations([str(error)]) from None
    total = 0
    for file in files:
        try:
            content = read(file)
            total += len(content)
            if total > MAXIMUM_TOTAL:
                raise BadFile(f"{path}: the files have more than {MAXIMUM_TOTAL} bytes together")
        except BadFile as error:
            reading.problems.append(str(error))
            if total > MAXIMUM_TOTAL:
                break
            continue
        reading.file(file, content)
    if reading.problems:
        raise BadDeclarations(reading.problems)
    return ReadFiles(
        declared=Declared(forms=Forms(**reading.values), secrets=reading.secrets, files=reading.files),
        places=reading.places,
    )


class _Reading:
    """What was read so far from all files."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.places: dict[Path, str] = {}
        self.values: dict[str, dict[str, Any]] = {}
        self.secrets: dict[Path, Secret] = {}
        self.files: dict[Path, bytes] = {}

    def file(self, file: FilePath, content: bytes) -> None:
        """Read one file."""
        _File(self, file).read(content)


class _File:
    """One file while it is read."""

    def __init__(self, reading: _Reading, file: FilePath) -> None:
        self.reading = reading
        self.name = file
        self.lines: Mapping[Path, tuple[int, int]] = {}

    def read(self, content: bytes) -> None:
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
            if line := line_of_long_key(text):
                self._say(f"{self.name}:{line}: a key has more than {MAXIMUM_PARTS} parts")
                return
            table = tomllib.loads(text)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self._say(f"{self.name}:{line}: this is not UTF-8")
            return
        except tomllib.TOMLDecodeError as error:
            self._say(_located(self.name, str(error), text))
            return
        except ValueError:
            # Python refuses numbers with very many digits, and gives no place.
            self._say(f"{self.name}: a number in it has too many digits")
            return
        except RecursionError:
            self._say(f"{self.name}: arrays or tables are nested too deeply in it")
            return
        self.lines = places_of(text)
        hints = _hints(Forms)
        for kind, entries in table.items():
            if kind not in hints:
                self._problem((kind,), f"no such key; {did_you_mean(kind, hints, '')}")
            elif not isinstance(entries, dict):
                self._problem((kind,), f"must be a table, such as [{kind}.NAME]")
            else:
                self._entries(kind, entries, typing.get_args(hints[kind]))

    def _entries(self, kind: str, entries: Mapping[str, Any], annotation: tuple[Any, ...]) -> None:
        """Read the entries of one kind."""
        entry_type = typing.get_args(annotation[0])[1]
        values = self.reading.values.setdefault(kind, {})
        for name, entry in entries.items():
            path: Path = (kind, name)
            if path in self.reading.places:
                self._problem(path, f"is declared in {self.reading.places[path]} already")
                continue
            self._note(path, entry)
            value = self._value(path, entry, entry_type)
            if value is not None:
                values[name] = value

    def _value(self, path: Path, given: Any, annotation: Any) -> Any:
        """The given value in this type; None if it is not valid, and then the problem is noted."""
        form = _form_of(annotation)
        if form is Reference:
            return self._reference(path, given)
        if form is not None:
            return self._form(path, given, form)
        if path[-1] in ("metadata", "options") and not strict_json.comes_back(given):
            self._problem(path, "must be what JSON can say: no dates, and not nested too deeply")
            return None
        if isinstance(given, date | time) and not isinstance(given, datetime):
            self._problem(path, "must be a date and a time with an offset, such as 2027-01-31T12:00:00Z")
            return None
        if isinstance(given, datetime) and not _is_in_utc(given):
            self._problem(path, "must be a time of the years 1 to 9999 in UTC")
            return None
        try:
            return msgspec.convert(given, annotation)
        except msgspec.ValidationError as error:
            text, _, inner = str(error).partition(" - at `$")
            item = re.match(r"\[(\d+)\]", inner)
            self._problem((*path, int(item[1])) if item else path, text)
            return None

    def _form(self, path: Path, given: Any, form: type) -> Any:
        if not isinstance(given, dict):
            self._problem(path, f"must be a table, such as [{name_of((path[0], 'NAME'))}]")
            return None
        hints = _hints(form)
        before = len(self.reading.problems)
        values: dict[str, Any] = {}
        meant: set[str] = set()
        for name, value in given.items():
            if name in hints:
                values[name] = self._value((*path, name), value, hints[name])
            else:
                self._problem((*path, name), f"no such key; {did_you_mean(name, hints, '')}")
                meant.add(name)
        for item in fields(form):
            is_required = item.default is MISSING and item.default_factory is MISSING
            if is_required and item.name not in given and not meant:
                self._problem(path, f"{item.name} is missing")
        return form(**values) if len(self.reading.problems) == before else None

    def _reference(self, path: Path, given: Any) -> Reference | None:
        """A reference to a secret or a file, whose content is read now."""
        member, forms = path[-1], '{ env = "NAME" } or { file = "PATH" }'
        if not isinstance(given, dict):
            what = "a secret is never written here" if member in _SECRETS else "must be a table"
            self._problem(path, f"{what}: name the place where it is, {member} = {forms}")
            return None
        reference: Reference | None = self._form(path, given, Reference)
        if reference is None:
            return None
        if not reference.is_whole:
            self._problem(path, f"must name one place, {forms}")
            return None
        try:
            if member not in _SECRETS:
                self.reading.files[path] = self._content(reference)
            else:
                self.reading.secrets[path] = self._secret(reference)
        except BadFile as error:
            self._problem(path, str(error))
            return None
        return reference

    def _content(self, reference: Reference) -> bytes:
        if reference.file is None:
            raise BadFile('must be a file, { file = "PATH" }')
        content = read(self.name.parent / reference.file, maximum=MAXIMUM_LOGO)
        if not content:
            raise BadFile(f"{reference.file}: the file is empty")
        return content

    def _secret(self, reference: Reference) -> Secret:
        if reference.env is not None:
            if reference.env not in os.environ:
                raise BadFile(f"the environment variable {reference.env} is not set")
            text = os.environ[reference.env].strip()
        else:
            assert reference.file is not None  # it is whole
            content = read(self.name.parent / reference.file, maximum=MAXIMUM_SECRET_FILE, private=True)
            try:
                text = content.decode().strip()
            except UnicodeDecodeError:
                raise BadFile(f"{reference.file}: this is not UTF-8") from None
        if not text:
            raise BadFile(f"there is nothing at {reference}")
        return Secret(text)

    # ---- Places

    def _note(self, path: Path, value: Any) -> None:
        """Keep the place of this value, and of everything in it."""
        for inner in _paths(path, value):
            if inner in self.lines:
                self.reading.places[inner] = self._place(inner)

    def _place(self, path: Path) -> str:
        while path and path not in self.lines:
            path = path[:-1]
        line, column = self.lines.get(path, (1, 1))
        return f"{self.name}:{line}:{column}"

    def _problem(self, path: Path, text: str) -> None:
        self._say(f"{self._place(path)}: {name_of(path)}: {text}")

    def _say(self, problem: str) -> None:
        self.reading.problems.append(problem)


@cache
def _hints(form: type) -> Mapping[str, Any]:
    """The types of the fields of a form, with their annotations."""
    return typing.get_type_hints(form, include_extras=True)


def _paths(path: Path, value: Any) -> Iterator[Path]:
    """The path of this value and of everything in it."""
    pending = [(path, value)]
    while pending:
        at, found = pending.pop()
        yield at
        if isinstance(found, dict):
            pending += [((*at, name), inner) for name, inner in found.items()]
        elif isinstance(found, list):
            pending += [((*at, number), inner) for number, inner in enumerate(found)]


def _is_in_utc(given: datetime) -> bool:
    """Whether a time can be given in UTC. True for a time without an offset, which is refused later for that reason."""
    try:
        return given.tzinfo is None or bool(given.astimezone(UTC))
    except OverflowError:
        return False


@cache
def _form_of(annotation: Any) -> type | None:
    """The form class in this type, which may be optional; None if the type is a plain value."""
    candidates = [annotation]
    while candidates:
        candidate = candidates.pop()
        if isinstance(candidate, type) and candidate.__module__ == Forms.__module__:
            return candidate
        if typing.get_origin(candidate) is typing.Annotated or type(None) in typing.get_args(candidate):
            candidates += typing.get_args(candidate)[
                : 1 if typing.get_origin(candidate) is typing.Annotated else 2
            ]
    return None


def _located(file: FilePath, message: str, text: str) -> str:
    """A syntax error with its place at the beginning, as in all other problems."""
    found = _PLACE.search(message)
    if found is None:
        return f"{file}: {message}"
    if found["line"]:
        line, column = int(found["line"]), int(found["column"])
    else:
        line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    return f"{file}:{line}:{column}: {message[: found.start()]}"
