"""Copies all values that the server and a third-party plugin exchange: neither can change a value of the other (T140).

In Python any code can change a frozen value. The floor under the policies compares what they allow with the registration
of the client. Therefore a plugin gets only copies, and cannot change the values of the engine. An answer is copied as
well: a value of a subclass of `str` becomes a `str`, a mapping becomes a `dict`, and the size is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from types import MappingProxyType, NoneType
from typing import Any

import msgspec

from authserver.engine.context import Engine
from authserver.engine.decisions import Decision
from authserver.settings import Secret

# The most characters and items in an answer: more than fits into a consent page, a token or a database row.
MAXIMUM_ANSWER = 65_536

# Types whose values cannot be changed.
_ATOMS = frozenset({NoneType, bool, float, datetime, timedelta})


class Unusable(Exception):
    """A plugin returned something that is not an answer; the message says why, and `reason` is recorded."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_third_party(plugin: object) -> bool:
    """Whether this plugin does not come with the server."""
    return is_third_party_class(type(plugin))


def is_third_party_class(kind: type) -> bool:
    """Whether plugins of this class do not come with the server."""
    return kind.__module__.partition(".")[0] != "authserver"


def with_copies(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function with copies of the arguments, and return a copy of its answer.

    Raises:
        Unusable: the answer is too large, or a record in it has a value of the wrong type.
        Exception: the function raises it.
    """
    answer = function(*map(copied, arguments))
    try:
        return _Copying(MAXIMUM_ANSWER).copied(answer)
    except RecursionError:
        raise Unusable("nested too deeply, or it contains itself", "answer-too-large") from None


def copied(value: Any) -> Any:
    """A deep copy of texts, numbers, collections, secrets, and the records of the engine.

    Anything else is returned as it is, in particular the engine: a plugin that gets the engine may change everything.
    """
    return _Copying(None).copied(value)


class _Copying:
    """Makes one copy. `left` is the size that remains; None: no limit."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    def copied(self, value: Any) -> Any:
        kind: Any = type(value)
        if kind in _ATOMS:
            self._spend(1)
            return value
        if kind is str:
            self._spend(len(value))
            return value
        if kind is tuple:
            self._spend(1)
            return tuple([self.copied(item) for item in value])
        if record := _record(kind):
            return self._record(record, value)
        return self._other(value)

    def _spend(self, size: int) -> None:
        if self._left is not None:
            # An empty value counts as one, because there may be many.
            self._left -= max(size, 1)
            if self._left < 0:
                raise Unusable(f"more than {MAXIMUM_ANSWER} characters and items", "answer-too-large")

    def _record(self, record: type, value: Any) -> Any:
        self._spend(1)
        members = {item.name: self.copied(getattr(value, item.name)) for item in fields(record)}
        # A decision is checked by `hooks`.
        if self._left is not None and record is not Decision:
            try:
                msgspec.convert(members, record, from_attributes=True)
            except msgspec.ValidationError as error:
                raise Unusable(f"{record.__name__}: {error}", "wrong-value") from None
        return record(**members)

    def _other(self, value: Any) -> Any:
        """Copy a value of a rare type, or of a subclass that a plugin defines."""
        if isinstance(value, Enum) and not is_third_party(value):
            return value
        if isinstance(value, Secret):
            return Secret(self.copied(value.value))
        if isinstance(value, str):
            return self.copied(str.__str__(value))
        if isinstance(value, bytes):
            self._spend(len(value))
            return bytes(value)
        if isinstance(value, int):
            self._spend(int.bit_length(value) // 8)
            return int.__int__(value)
        if isinstance(value, tuple):
            self._spend(1)
            return tuple([self.copied(item) for item in tuple.__iter__(value)])
        if isinstance(value, list):
            self._spend(1)
            return [self.copied(item) for item in list.__iter__(value)]
        if isinstance(value, Mapping):
            self._spend(1)
            members = {self.copied(name): self.copied(item) for name, item in value.items()}
            return MappingProxyType(members) if type(value) is MappingProxyType else members
        if isinstance(value, Set):
            self._spend(1)
            return frozenset([self.copied(item) for item in value])
        return value


@lru_cache(maxsize=256)
def _record(kind: Any) -> Any:
    """The record class of the engine that this class is or inherits from; None if it is not a record to copy."""
    if issubclass(kind, Engine):
        return None
    for base in kind.__mro__:
        if base.__module__.startswith("authserver.engine.") and is_dataclass(base):
            return base
    return None
