"""The reader for all JSON from outside: it refuses texts that two readers could read differently (RFC 8259, 4 and 6)."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeGuard

MAXIMUM_DEPTH = 16
MAXIMUM_INTEGER = 2**63 - 1
# NUL and lone surrogates, which no text of a person has.
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


def json_object(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8.

    Raises ValueError, with text that repeats nothing of it, where a name is repeated, a number is not finite or beyond 64
    bits, a character is NUL or half of one, or more than 16 objects and lists are in each other.
    """
    try:
        decoded = text.decode("utf-8").strip(" \t\r\n")
        value, end = _QUICK.raw_decode(decoded)
        if end != len(decoded):
            raise ValueError("something comes after it")
        # Each member has one colon outside of texts, and most colons in texts belong to URLs. Without these, as many
        # as there are names: then no name was repeated. Comparing all names takes twice the time.
        if isinstance(value, dict) and text.count(b":") - text.count(b"://") != len(value):
            value = _STRICT.decode(decoded)
        if b"\\" in text or text.count(b"[") + text.count(b"{") > MAXIMUM_DEPTH:
            _check(value, MAXIMUM_DEPTH)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("no JSON that everybody reads alike") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number; true and false are none."""
    return type(value) in (int, float)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def _integer(digits: str) -> int:
    # The length first: converting thousands of digits takes quadratic time.
    if len(digits) < 19:
        return int(digits)
    if len(digits) > 20 or abs(number := int(digits)) > MAXIMUM_INTEGER:
        raise ValueError("a number is too large")
    return number


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number is too large")
    return number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _check(value: object, depth: int) -> None:
    """Raises ValueError for a text with forbidden characters, and for too deep nesting."""
    if isinstance(value, str):
        if _FORBIDDEN.search(value):
            raise ValueError("a text has a character that is none")
    elif isinstance(value, (dict, list)):
        if depth == 0:
            raise ValueError("nested too deeply")
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(part, depth - 1)


_QUICK = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_refuse)
_STRICT = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_integer, parse_float=_finite, parse_constant=_refuse
)
