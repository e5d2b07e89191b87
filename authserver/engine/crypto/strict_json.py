"""Reads JSON from outside; it refuses everything that two readers could understand differently."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import msgspec

from authserver.limits import MAXIMUM_DEPTH, MAXIMUM_INTEGER, MAXIMUM_JSON

# A string, ended or not (so the scan stays linear on any text), or one bracket.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|([\[{])|[\]}]', re.DOTALL)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def loads(body: bytes, *, limit: int = MAXIMUM_JSON) -> Any:
    """The value of a JSON text.

    Raises ValueError, with short fixed text that repeats nothing of `body`, unless it is UTF-8 JSON
    (RFC 8259) of at most `limit` bytes and depth 16, without duplicate names, non-finite or giant
    numbers, NUL or lone surrogates.
    """
    if len(body) > limit:
        raise ValueError("the JSON is too large")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the JSON is not valid UTF-8") from None
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise ValueError("the JSON is malformed") from None
    if "\\u" in text:  # lone surrogates and NUL can only come from escapes
        _check_text(value)
    return value


def object_of(body: bytes) -> dict[str, Any]:
    """The members of a JSON object, as `loads` reads it. Raises ValueError, also for another value."""
    value = loads(body)
    if not isinstance(value, dict):
        raise ValueError("the JSON is not an object")
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8; dataclasses, datetimes and enums are written as msgspec writes them."""
    return msgspec.json.encode(value)


def comes_back(value: Any) -> bool:
    """Whether it is a JSON value that can be stored: written and read again, it is the same."""
    try:
        return bool(loads(dumps(value)) == value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def _check_depth(text: str) -> None:
    """Count brackets before the decoder recurses into them."""
    if text.count("{") + text.count("[") <= MAXIMUM_DEPTH:
        # Even if all brackets were nested, it would not be too deep.
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[1]:
            depth += 1
            if depth > MAXIMUM_DEPTH:
                raise ValueError("the JSON is nested too deeply")
        elif found[0][0] != '"':
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("the JSON holds a name twice")
    return members


def _integer(digits: str) -> int:
    # The length is checked first, because converting thousands of digits takes quadratic time.
    if len(digits) > 20 or abs(number := int(digits)) > MAXIMUM_INTEGER:
        raise ValueError("the JSON holds a number that is too large")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("the JSON holds a number that is too large")
    return number


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("the JSON holds a number that is not finite")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
)


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise ValueError("the JSON holds a character that is not allowed")
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name)
            _check_text(item)
