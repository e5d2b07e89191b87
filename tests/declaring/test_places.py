"""Where everything stands in a TOML text, compared with what `tomllib` reads."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.declaring.names import text_of
from authserver.declaring.places import MAXIMUM_PARTS, line_of_long_key, places_of

SAMPLE = '''# a comment = 1
a.b = 1.5
x = [1, 2979-05-27 07:32:00Z, { k = "v", 'l m'."n\\u0041" = [1,
 2] }]  # [ { "
[t."u.v"]
s = """a
"q" \\""" [x]
"""""
z = \'\'\' it's [ ] \'\'\'
"" = -1e+5
[[list]]
k = 1
[list.inner]
j = true
[[list]]
k = [[], [[3]],
  # nothing
]
'''
# Line and column, both from 1.
EXPECTED: dict[tuple[str | int, ...], tuple[int, int]] = {
    ("a",): (2, 1),
    ("a", "b"): (2, 3),
    ("x",): (3, 1),
    ("x", 0): (3, 6),
    ("x", 1): (3, 9),
    ("x", 2): (3, 31),
    ("x", 2, "k"): (3, 33),
    ("x", 2, "l m"): (3, 42),
    ("x", 2, "l m", "nA"): (3, 48),
    ("x", 2, "l m", "nA", 0): (3, 61),
    ("x", 2, "l m", "nA", 1): (4, 2),
    ("t",): (5, 2),
    ("t", "u.v"): (5, 4),
    ("t", "u.v", "s"): (6, 1),
    ("t", "u.v", "z"): (9, 1),
    ("t", "u.v", ""): (10, 1),
    ("list",): (11, 3),
    ("list", 0): (11, 3),
    ("list", 0, "k"): (12, 1),
    ("list", 0, "inner"): (13, 7),
    ("list", 0, "inner", "j"): (14, 1),
    ("list", 1): (15, 3),
    ("list", 1, "k"): (16, 1),
    ("list", 1, "k", 0): (16, 6),
    ("list", 1, "k", 1): (16, 10),
    ("list", 1, "k", 1, 0): (16, 11),
    ("list", 1, "k", 1, 0, 0): (16, 12),
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, inner in entries:
        yield from paths(inner, (*path, name))


def test_each_key_and_item_has_its_place() -> None:
    assert places_of(SAMPLE) == EXPECTED
    assert set(paths(tomllib.loads(SAMPLE))) == EXPECTED.keys()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), TEXTS.map(text_of))
PLAIN = st.one_of(
    TEXTS.map(text_of),
    st.from_regex(r"'[^'\x00-\x1f\x7f]{0,8}'", fullmatch=True),
    st.sampled_from(
        [
            "1",
            "-0.5e3",
            "inf",
            "true",
            "1979-05-27",
            "1979-05-27 07:32:00.5-08:00",
            "07:32:00",
            '"""a\n"b" \\""" # c"""""',
            "'''\n[x]\n''y'''''",
            "0xff_ff",
        ]
    ),
)
SPACE = st.sampled_from(["", " ", "\n", " # ] } , = [\n\t"])


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(st.tuples(SPACE, inner, SPACE).map("".join), max_size=3)
    return st.tuples(items, st.booleans()).map(
        lambda made: f"[{','.join(made[0])}{',' * (made[1] and bool(made[0]))}]"
    )


def tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.dictionaries(KEYS, inner, max_size=3)
    return members.map(
        lambda made: "{" + ", ".join(f"{name} = {value}" for name, value in made.items()) + "}"
    )


VALUES = st.recursive(PLAIN, lambda inner: st.one_of(arrays(inner), tables(inner)), max_leaves=6)
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
LINES = st.one_of(
    st.tuples(DOTTED, VALUES).map(lambda made: f"{made[0]} = {made[1]}"),
    DOTTED.map(lambda made: f"[{made}]"),
    DOTTED.map(lambda made: f"[[{made}]]"),
    st.sampled_from(["", "# [x] = '"]),
)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_whatever_is_read_has_a_place_for_everything(text: str) -> None:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = places_of(text)
    assert set(paths(read)) == found.keys()
    lines = text.split("\n")
    assert all(lines[line - 1][column - 1 :].strip() for line, column in found.values())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\n" + "a." * MAXIMUM_PARTS + "b = 1", 2),
        ("[" + '"a" . ' * 50_000 + "b]", 1),
        ("a." * (MAXIMUM_PARTS - 1) + "b = 1", None),
        (f"a = {json.dumps('a.' * 100)} # {'a.' * 100}", None),
        ("a = [" + "1.5, " * 100 + "]", None),
        # A string that does not end: `tomllib` refuses it at once.
        ('"""' + "a." * 100, None),
    ],
)
def test_a_key_of_very_many_parts_is_found_before_anything_is_read(text: str, line: int | None) -> None:
    """It would take minutes: the time grows with the square of the parts."""
    assert line_of_long_key(text) == line


@pytest.mark.parametrize("begin", ['"""', "'''", '"', "'"])
def test_a_string_that_does_not_end_is_read_once(begin: str) -> None:
    """T114: in steps that grow with the square of its length this would take minutes."""
    inner = r"\"" if begin.startswith('"') else "''x" if len(begin) == 3 else "x"
    began = time.process_time()
    assert line_of_long_key(f"x = {begin}{inner * 200_000}") is None
    assert time.process_time() - began < 10
