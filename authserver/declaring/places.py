"""Finds the line and column of everything in a TOML text, because `tomllib` gives only the values."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping

# The path of a value in the parsed TOML, such as ("clients", "billing", "scopes", 1).
Path = tuple[str | int, ...]

# A string without an end is one token, too. Otherwise each quotation mark in it would be tried as the beginning of a
# string, which takes very long.
_TOKEN = re.compile(
    r'''
    (?P<skipped> [ \t]+ | \#[^\n]* )
  | (?P<line> \n )
  | (?P<string>
        """ (?: \\. | (?!""") [^\\] )* (?: "{3,5} )?
      | \'\'\' (?: (?!\'\'\') . )* (?: \'{3,5} )?
      | " (?: \\. | [^"\\\n] )* "?
      | ' [^'\n]* '?
    )
  | (?P<sign> [\[\]{},=.] )
  | (?P<bare> [^\s\[\]{},=.\#"']+ )
  | (?P<other> . )
    ''',
    re.VERBOSE | re.DOTALL,
)


# The most parts of a dotted key. The forms need four; `tomllib` takes minutes for a key with thousands.
MAXIMUM_PARTS = 32


def line_of_long_key(text: str) -> int | None:
    """The line of a dotted key with more than `MAXIMUM_PARTS` parts, from 1, in any text; None if there is none."""
    parts = 0
    for found in _TOKEN.finditer(text):
        if found.group() == ".":
            parts += 1
            if parts >= MAXIMUM_PARTS:
                return text.count("\n", 0, found.start()) + 1
        elif found.lastgroup in ("line", "sign", "other"):
            parts = 0
    return None


def places_of(text: str) -> Mapping[Path, tuple[int, int]]:
    """Line and column of each key and of each item of an array, both from 1, in a text that `tomllib` reads.

    A table that only headers name has the place of its first header.
    """
    return _Scan(text).run()


class _Scan:
    """One pass over the tokens of a text."""

    def __init__(self, text: str) -> None:
        self.words = [
            (str(found.lastgroup), found.group(), found.start())
            for found in _TOKEN.finditer(text)
            if found.lastgroup != "skipped"
        ]
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.at = 0
        self.found: dict[Path, tuple[int, int]] = {}
        # How many tables each array of tables has so far.
        self.counts: dict[Path, int] = {}

    def run(self) -> Mapping[Path, tuple[int, int]]:
        prefix: Path = ()
        # The arrays and inline tables that are open: the path of each, and the number of the next item of an array.
        opened: list[tuple[Path, int | None]] = []
        while self.at < len(self.words):
            kind, word, offset = self.words[self.at]
            if kind == "line" or (opened and word == ","):
                self.at += 1
            elif opened and kind == "sign" and word in "]}":
                opened.pop()
                self.at += 1
            elif opened and (number := opened[-1][1]) is not None:
                path = opened[-1][0]
                opened[-1] = (path, number + 1)
                self._note((*path, number), offset)
                self._value((*path, number), opened)
            elif not opened and word == "[":
                prefix = self._header()
            else:
                path = self._key(opened[-1][0] if opened else prefix)
                self.at += 1  # the sign =
                self._value(path, opened)
        return self.found

    def _header(self) -> Path:
        """Read the header of a table, and return its path."""
        self.at += 1
        is_array = self.words[self.at][1] == "[" and self.words[self.at][0] == "sign"
        self.at += is_array
        path = self._key((), through_arrays=True)
        self.at += 1 + is_array
        if not is_array:
            return path
        number = self.counts.get(path, 0)
        self.counts[path] = number + 1
        self._note((*path, number), self.words[self.at - 3][2])
        return (*path, number)

    def _key(self, prefix: Path, *, through_arrays: bool = False) -> Path:
        """Read a dotted key, and note each part of it that is not known yet."""
        path = prefix
        while True:
            kind, word, offset = self.words[self.at]
            self.at += 1
            if kind == "sign":
                self.at -= 1
                return path
            if through_arrays and path in self.counts:
                path = (*path, self.counts[path] - 1)
            path = (*path, _name(kind, word))
            self._note(path, offset)
            if self.at >= len(self.words) or self.words[self.at][1] != ".":
                return path
            self.at += 1

    def _value(self, path: Path, opened: list[tuple[Path, int | None]]) -> None:
        """Go past a simple value, or open an array or inline table."""
        kind, word, _ = self.words[self.at]
        self.at += 1
        if kind == "sign" and word in "[{":
            opened.append((path, 0 if word == "[" else None))
            return
        # Numbers and times have points and spaces in them.
        while kind != "string" and self.at < len(self.words):
            kind, word, _ = self.words[self.at]
            if kind != "bare" and word != ".":
                return
            self.at += 1

    def _note(self, path: Path, offset: int) -> None:
        line = bisect_right(self.lines, offset)
        self.found.setdefault(path, (line, offset - self.lines[line - 1] + 1))


def _name(kind: str, word: str) -> str:
    """The name that a part of a key stands for."""
    return next(iter(tomllib.loads(f"{word} = 0"))) if kind == "string" else word
