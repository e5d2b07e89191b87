"""Reads the file of teams, and reads it again when it changes."""

from __future__ import annotations

import csv
import logging
import os
import re
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from authserver.api import normalise_username

log = logging.getLogger(__name__)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
COLUMNS = ("members", "scopes", "days", "hours", "timezone")
EVERYBODY = "*"

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749, 3.3
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team, and when its members have its scopes.

    Attributes:
        days: of the week, Monday is 0; empty for every day.
        windows: minutes of the day from and to (exclusive); where `to` is not later than `from` the window ends
            on the next day. Empty for the whole day.
        zone: the time zone of both.
    """

    name: str
    members: frozenset[str]
    scopes: tuple[str, ...]
    days: frozenset[int]
    windows: tuple[tuple[int, int], ...]
    zone: ZoneInfo

    def is_open(self, now: datetime) -> bool:
        """Whether this aware time is within the team's hours."""
        local = now.astimezone(self.zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        on_today = not self.days or today in self.days
        on_yesterday = not self.days or (today - 1) % 7 in self.days
        if not self.windows:
            return on_today
        for begin, end in self.windows:
            if begin < end:
                is_within = on_today and begin <= minute < end
            else:
                # Over midnight: the small hours belong to the day on which the window began.
                is_within = (on_today and minute >= begin) or (on_yesterday and minute < end)
            if is_within:
                return True
        return False


class Roster:
    """All teams of a file."""

    def __init__(self, teams: tuple[Team, ...]) -> None:
        self.teams = teams
        self._everybody = tuple(team for team in teams if EVERYBODY in team.members)
        members = {member for team in teams for member in team.members}
        self._by_member = {
            member: tuple(team for team in teams if {member, EVERYBODY} & team.members) for member in members
        }

    def teams_of(self, username: str) -> tuple[Team, ...]:
        """The teams of a person, in the order of the file."""
        return self._by_member.get(normalise_username(username), self._everybody)


class Watched:
    """The teams of a file that may change while the server runs.

    Raises:
        ValueError: the file cannot be read now, with its name, the place in it and what to do. Later a
            file that cannot be read is logged as an error, and the teams that were read before stay.
    """

    def __init__(self, path: Path, zone: ZoneInfo, check_seconds: float) -> None:
        self._path = path
        self._zone = zone
        self._check_seconds = check_seconds
        self._one_looks = threading.Lock()
        # Take the state of the file before reading it: a change during the reading is then found at the next check.
        self._seen = _look(path)
        self._roster = read(path, zone)
        self._looked_at = time.monotonic()

    def current(self) -> Roster:
        """The teams, from a file that was checked at most `check_seconds` ago."""
        if time.monotonic() - self._looked_at >= self._check_seconds and self._one_looks.acquire(
            blocking=False
        ):
            try:
                self._look_again()
            finally:
                self._one_looks.release()
        return self._roster

    def _look_again(self) -> None:
        seen = _look(self._path)
        self._looked_at = time.monotonic()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._roster = read(self._path, self._zone)
        except ValueError as error:
            log.error("%s; the teams that were read before stay in force until it is fixed", error)
        else:
            log.info("%s: read again, %d teams", self._path, len(self._roster.teams))


def read(path: Path, zone: ZoneInfo) -> Roster:
    """The teams of a file. Raises ValueError naming file, place and remedy."""
    readers = {".toml": _toml_tables, ".csv": _csv_tables}
    if path.suffix not in readers:
        raise ValueError(f"{path}: must be a .toml or a .csv file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    try:
        tables = list(readers[path.suffix](text))
    except (tomllib.TOMLDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    except _Wrong as wrong:
        raise ValueError(f"{path}: {wrong}") from None
    if not tables:
        raise ValueError(f"{path}: it has no team; without one nobody may have any scope")
    teams: dict[str, Team] = {}
    for place, name, table in tables:
        try:
            if name in teams:
                raise _Wrong(f"the team {name} is here a second time; join the two")
            teams[name] = _team(name, table, zone)
        except _Wrong as wrong:
            raise ValueError(f"{path}: {place}: {wrong}") from None
    return Roster(tuple(teams.values()))


def zone_named(name: str) -> ZoneInfo:
    """The time zone of this name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{name!r} is not a time zone; write one such as Europe/Oslo or UTC") from None


class _Wrong(Exception):
    """A problem at a place of the file, and the remedy."""


def _toml_tables(text: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, table in tomllib.loads(text).items():
        if not isinstance(table, dict):
            raise _Wrong(f"{name}: is outside a team; begin with a line [NAME-OF-THE-TEAM]")
        yield f"[{name}]", name, table


def _csv_tables(text: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    lines = csv.reader(text.splitlines(), strict=True)
    header = [name.strip() for name in next(lines, [])]
    if len(set(header)) < len(header) or not {"team", "members", "scopes"} <= set(header) <= {
        "team",
        *COLUMNS,
    }:
        raise _Wrong(
            f"line 1: must name the columns, each once: team,{','.join(COLUMNS)}; the last three are optional"
        )
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        place = f"line {lines.line_num}"
        if len(cells) != len(header):
            raise _Wrong(f"{place}: has {len(cells)} cells, and line 1 names {len(header)} columns")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        table: dict[str, Any] = {name: cell for name, cell in row.items() if cell and name != "team"}
        table |= {name: row.get(name, "").split() for name in ("members", "scopes")}
        if not row["team"]:
            raise _Wrong(f"{place}: team: is empty; give the team a name")
        yield place, row["team"], table


def _team(name: str, table: Mapping[str, Any], zone: ZoneInfo) -> Team:
    if unknown := sorted(table.keys() - set(COLUMNS)):
        raise _Wrong(f"{unknown[0]}: no such key; known: {', '.join(COLUMNS)}")
    scopes = _words(table, "scopes")
    if not scopes:
        raise _Wrong("scopes: is empty; name at least one scope, or remove the team")
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise _Wrong(f"scopes: {scope!r} is not a scope name (RFC 6749, 3.3); write each by itself")
    if "timezone" in table:
        try:
            zone = zone_named(_text(table, "timezone"))
        except ValueError as error:
            raise _Wrong(f"timezone: {error}") from None
    return Team(
        name=name,
        members=frozenset(_members(table)),
        scopes=tuple(dict.fromkeys(scopes)),
        days=_days(_text(table, "days")) if "days" in table else frozenset(),
        windows=_windows(_text(table, "hours")) if "hours" in table else (),
        zone=zone,
    )


def _members(table: Mapping[str, Any]) -> Iterator[str]:
    """User names in the form in which the server stores them."""
    for member in _words(table, "members"):
        try:
            yield normalise_username(member)
        except ValueError as error:
            raise _Wrong(f"members: {member!r}: {error}") from None


def _words(table: Mapping[str, Any], key: str) -> list[str]:
    words = table.get(key)
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise _Wrong(f'{key}: must be a list of names, such as {key} = ["one", "two"]')
    return words


def _text(table: Mapping[str, Any], key: str) -> str:
    text = table[key]
    if not isinstance(text, str) or not text.strip():
        raise _Wrong(f"{key}: must be a text in quotes; leave the line out for no limit")
    return text


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for word in text.lower().split():
        first, dash, last = word.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise _Wrong(f"days: {word!r} is not a day; write mon-fri, or mon wed sat, of {' '.join(DAYS)}")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 if dash else 0
        days |= {(begin + step) % 7 for step in range(length + 1)}
    return frozenset(days)


def _windows(text: str) -> tuple[tuple[int, int], ...]:
    windows = []
    for word in text.split():
        found = _WINDOW.fullmatch(word)
        if not found:
            raise _Wrong(
                f"hours: {word!r} is not a time of day; write 08:00-17:30, or 22:00-06:00 over midnight"
            )
        hour, minute, *end = (int(part) for part in found.groups() if part is not None)
        window = (hour * 60 + minute, end[0] * 60 + end[1])
        if window[0] == window[1]:
            raise _Wrong(f"hours: {word} begins when it ends; leave the line out for the whole day")
        windows.append(window)
    return tuple(windows)


def _look(path: Path) -> tuple[int, int, int] | None:
    """A value that changes when the file does; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
