"""What passes between the server and a plugin of others is copied, so that neither holds what the other can change (T140).

Python lets everybody write into a frozen value. The floor under the policies compares what they allow with what the
client is registered for: so a plugin is handed copies, and the engine keeps what it read. An answer is copied too: a
text becomes a plain text and a mapping a plain dict, whatever they said of themselves, and it has an end.
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

# Of an answer, with all that is in it: more than any consent page, token or row of the database has room for.
MAXIMUM_ANSWER = 65_536

# Nothing can be changed in these.
_ATOMS = frozenset({NoneType, bool, float, datetime, timedelta})


class Unusable(Exception):
    """What a plugin gave is no answer; the message says why, and `reason` is what is kept."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_third_party(plugin: object) -> bool:
    """Whether this plugin is none that comes with the server."""
    return type(plugin).__module__.partition(".")[0] != "authserver"


def with_copies(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function answers, copied, when it is called with copies.

    Raises:
        Unusable: the answer is too large, or a record has a value in it that is not of its type.
        Exception: the function raises it.
    """
    return _Copying(MAXIMUM_ANSWER).copied(function(*map(copied, arguments)))


def copied(value: Any) -> Any:
    """The same in values of their own: texts, numbers, collections, secrets, and the records of the engine.

    Anything else is handed on as it is, the engine itself above all: who is handed that may change everything.
    """
    return _Copying(None).copied(value)


class _Copying:
    """One copy, with what is left of its bound; None: no bound."""

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
            return tuple([self.copied(item) for item in value])
        if record := _record(kind):
            return self._record(record, value)
        return self._other(value)

    def _spend(self, size: int) -> None:
        if self._left is not None:
            # What is empty counts, too: there may be many of them.
            self._left -= max(size, 1)
            if self._left < 0:
                raise Unusable(f"more than {MAXIMUM_ANSWER} characters and items", "answer-too-large")

    def _record(self, record: type, value: Any) -> Any:
        self._spend(1)
        members = {item.name: self.copied(getattr(value, item.name)) for item in fields(record)}
        # Of a decision, `hooks` says what is wrong.
        if self._left is not None and record is not Decision:
            try:
                msgspec.convert(members, record, from_attributes=True)
            except msgspec.ValidationError as error:
                raise Unusable(f"{record.__name__}: {error}", "wrong-value") from None
        return record(**members)

    def _other(self, value: Any) -> Any:
        """What is seldom met, and what a plugin made a kind of its own of."""
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
    """The record of the engine that a value of this kind is; None where it is none that can be copied."""
    if issubclass(kind, Engine):
        return None
    for base in kind.__mro__:
        if base.__module__.startswith("authserver.engine.") and is_dataclass(base):
            return base
    return None
