"""The one JSON loader (T062)."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine.crypto import strict_json
from authserver.testing import forgeries

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('abc"\\[]{}', max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
REFUSALS = {
    "the JSON is not valid UTF-8",
    "the JSON is malformed",
    "the JSON is nested too deeply",
    "the JSON holds a name twice",
    "the JSON holds a number that is too large",
    "the JSON holds a number that is not finite",
    "the JSON holds a character that is not allowed",
}


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_ordinary_json_is_read_as_it_was_written(value: object) -> None:
    assert strict_json.loads(json.dumps(value).encode(), limit=100_000) == value
    assert strict_json.loads(strict_json.dumps(value), limit=100_000) == value


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"a": 1, "a": 2}', "a name twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "a name twice"),
        (b"[NaN]", "not finite"),
        (b"[Infinity]", "not finite"),
        (b"[-Infinity]", "not finite"),
        (b"[1e999]", "too large"),
        (b"[9223372036854775808]", "too large"),
        (b"9" * 5000, "too large"),
        (b"[" * 17 + b"]" * 17, "too deeply"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "too deeply"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'{"a": ["\\ud800"]}', "not allowed"),
        (b'{"\\u0000": 1}', "not allowed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b"{'a': 1}", "malformed"),
        (b'{"a": 1,}', "malformed"),
        (b'{"a": 1} x', "malformed"),
        (b'"\n"', "malformed"),
        (b'"', "malformed"),
        (b"]", "malformed"),
        (b"", "malformed"),
        (b'"' + b"a" * 16384 + b'"', "too large"),
    ],
)
def test_a_quirk_is_refused(body: bytes, problem: str) -> None:
    """T062: RFC 8259, 4 and 6"""
    with pytest.raises(ValueError, match=problem):
        strict_json.loads(body)


@pytest.mark.parametrize("name", forgeries.JSON)
def test_what_two_readers_could_read_differently_is_refused(name: str) -> None:
    """T062: the corpus that `authserver-resource` is tested with."""
    with pytest.raises(ValueError, match="the JSON"):
        strict_json.loads(forgeries.JSON[name])


def test_the_largest_integers_are_read() -> None:
    assert strict_json.loads(b"[9223372036854775807, -9223372036854775807]") == [2**63 - 1, 1 - 2**63]


def test_sixteen_levels_are_read() -> None:
    assert strict_json.loads(b"[" * 16 + b"]" * 16)
    # However many stand side by side.
    assert len(strict_json.loads(b"[" + b"[]," * 40 + b"[]]")) == 41


def test_brackets_in_strings_are_no_levels() -> None:
    assert strict_json.loads(b'["' + b"[{" * 50 + b'\\"[[[[", "\\\\"]') == ["[{" * 50 + '"[[[[', "\\"]


def test_an_escaped_pair_of_surrogates_is_one_character() -> None:
    assert strict_json.loads(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("piece", [b"[", b'{"a":', b'"', b'"\\', b'\\"', b"9", b'["'])
def test_hostile_bodies_cost_little_time(piece: bytes) -> None:
    """T062: a megabyte of nesting, quotes or digits is refused without recursion or quadratic work."""
    body = piece * (1_000_000 // len(piece))
    started = time.process_time()
    with pytest.raises(ValueError, match=r"^the JSON "):
        strict_json.loads(body, limit=2_000_000)
    assert time.process_time() - started < 2


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.text('{}[]",:\\u0d8ae+-1.tfn ', max_size=80).map(str.encode))
def test_any_other_failure_is_a_value_error_with_fixed_text(body: bytes) -> None:
    """T062, R-04: nothing of the body is repeated."""
    read = _read(body)
    if isinstance(read, ValueError):
        assert str(read) in REFUSALS
    else:
        assert strict_json.loads(strict_json.dumps(read)) == read


def _read(body: bytes) -> object:
    try:
        return strict_json.loads(body)
    except ValueError as refusal:
        return refusal
