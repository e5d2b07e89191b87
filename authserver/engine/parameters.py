"""The parameters of a request, read once and strictly, so that all parts of the server see the same values.

Refusals here happen before the client is known; therefore descriptions never repeat what was sent, except for a
parameter name of plain lower-case letters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote_to_bytes, urlencode

from authserver.engine.errors import InvalidRequest, InvalidScope
from authserver.limits import MAXIMUM_PARAMETER, MAXIMUM_PARAMETERS, MAXIMUM_SCOPE
from authserver.settings import SCOPE_NAME

_PRINTABLE_NAME = re.compile(r"[a-z_]{1,40}")
_SCOPE = re.compile(rf"{SCOPE_NAME}(?: {SCOPE_NAME})*")

# RFC 8707, 2; and at the token endpoint RFC 8693, 2.1, too.
MAY_REPEAT = frozenset({"resource"})
MAY_REPEAT_FOR_TOKENS = MAY_REPEAT | {"audience"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Names and values as sent, in order. An empty value counts as not sent (OAuth 2.1, 3.1).

    Its repr shows nothing: among the values are client secrets, codes and passwords.
    """

    _pairs: tuple[tuple[str, str], ...] = field(repr=False)
    _values: Mapping[str, str] = field(repr=False, compare=False)
    _repeated: frozenset[str] = field(repr=False, compare=False)
    _unreadable: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(
        cls,
        encoded: bytes | str,
        *,
        maximum: int = MAXIMUM_PARAMETER,
        maximum_count: int = MAXIMUM_PARAMETERS,
    ) -> Self:
        """Read application/x-www-form-urlencoded text: a raw query string or a request body.

        Only `&` separates: if `;` did, too, a proxy and this server could read different parameters. Bytes must be
        UTF-8, before and after percent-decoding.

        Args:
            maximum: characters of a name or value.
            maximum_count: parameters.

        Raises:
            InvalidRequest: for anything else, for NUL, and for what is longer.
        """
        parameters = cls.parse_readable(encoded, maximum=maximum, maximum_count=maximum_count)
        parameters.refuse_unreadable()
        return parameters

    @classmethod
    def parse_readable(
        cls,
        encoded: bytes | str,
        *,
        maximum: int = MAXIMUM_PARAMETER,
        maximum_count: int = MAXIMUM_PARAMETERS,
    ) -> Self:
        """As `parse`, but a value that cannot be read is an error only when its parameter is read.

        So an answer that needs only other parameters can be made; `refuse_unreadable` is called after that.

        Raises:
            InvalidRequest: a name cannot be read, or there are too many.
        """
        try:
            # It fails for lone surrogates, which a decoded string may contain.
            text = encoded if isinstance(encoded, bytes) else encoded.encode()
        except UnicodeEncodeError:
            raise InvalidRequest("the parameters are not valid UTF-8") from None
        if text.count(b"&") >= maximum_count:
            raise InvalidRequest("too many parameters")
        pairs, names, unreadable = [], [], {}
        for part in filter(None, text.split(b"&")):
            encoded_name, _, encoded_value = part.partition(b"=")
            name = _decoded(encoded_name, maximum)
            names.append(name)
            try:
                pairs.append((name, _decoded(encoded_value, maximum)))
            except InvalidRequest as problem:
                unreadable[name] = problem.description
        return cls._of(pairs, names, unreadable)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """These names and values."""
        pairs = tuple(pairs)
        return cls._of(pairs, (name for name, _ in pairs), {})

    @classmethod
    def _of(
        cls, pairs: Iterable[tuple[str, str]], names: Iterable[str], unreadable: Mapping[str, str]
    ) -> Self:
        pairs, names = tuple(pairs), tuple(names)
        values = dict(pairs)
        repeated: frozenset[str] = frozenset()
        if len(values) != len(names):
            repeated = frozenset(name for name, count in Counter(names).items() if count > 1)
        return cls(pairs, values, repeated, unreadable)

    def get(self, name: str) -> str | None:
        """The one value of `name`, or None when it was not sent or is empty.

        Raises InvalidRequest when it was sent more than once, even if empty, or cannot be read.
        """
        if name in self._repeated:
            raise InvalidRequest(_repeated_text(name))
        if name in self._unreadable:
            raise InvalidRequest(self._unreadable[name])
        return self._values.get(name) or None

    def require(self, name: str) -> str:
        """The one value of `name`. Raises InvalidRequest when it is missing, empty or repeated."""
        value = self.get(name)
        if value is None:
            raise InvalidRequest(f"{name} is missing")
        return value

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a parameter that may repeat, such as `resource`, without empty ones."""
        return tuple(value for sent, value in self._pairs if sent == name and value)

    def refuse_repeated(self, *, allowed: frozenset[str] = MAY_REPEAT) -> None:
        """Raise InvalidRequest when a name outside `allowed` was sent more than once (OAuth 2.1, 3.1)."""
        for name in self._repeated:
            if name not in allowed:
                raise InvalidRequest(_repeated_text(name))

    def refuse_unreadable(self) -> None:
        """Raise InvalidRequest when a value cannot be read."""
        for problem in self._unreadable.values():
            raise InvalidRequest(problem)

    def without(self, *names: str) -> Self:
        """The same without these parameters."""
        return self._where(lambda name: name not in names)

    def with_defaults(self, defaults: Mapping[str, str]) -> Self:
        """The same with those of these parameters that were not sent, or are empty."""
        missing = {name: value for name, value in defaults.items() if not any(self.all(name))}
        if not missing:
            return self
        kept = self.without(*missing)
        return self._of(
            (*kept._pairs, *missing.items()), (*(n for n, _ in kept._pairs), *missing), kept._unreadable
        )

    def only(self, *names: str) -> Self:
        """The same without all other parameters."""
        return self._where(lambda name: name in names)

    def _where(self, holds: Callable[[str], bool]) -> Self:
        pairs = tuple(pair for pair in self._pairs if holds(pair[0]))
        values = {name: value for name, value in self._values.items() if holds(name)}
        unreadable = {name: problem for name, problem in self._unreadable.items() if holds(name)}
        return type(self)(pairs, values, frozenset(filter(holds, self._repeated)), unreadable)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Names and values as sent, in order, without unreadable ones."""
        return self._pairs

    def names(self) -> frozenset[str]:
        """All names that were sent, also without a value."""
        return frozenset(self._unreadable).union(name for name, _ in self._pairs)

    def encoded(self) -> str:
        """Text that `parse` reads as the same parameters, without unreadable ones."""
        return urlencode(self._pairs)

    def __contains__(self, name: str) -> bool:
        """Whether `name` was sent with a value, once or more often, readable or not."""
        return (
            bool(self._values.get(name))
            or name in self._unreadable
            or (name in self._repeated and bool(self.all(name)))
        )


def scope_set(text: str) -> tuple[str, ...]:
    """The scope tokens of a `scope` value, in order, each once (RFC 6749, 3.3).

    Raises InvalidScope unless the tokens are of the RFC's characters with single spaces between them, and together
    not longer than all the scopes that a server may have.
    """
    if len(text) > MAXIMUM_SCOPE:
        raise InvalidScope("the scope is too long")
    if not _SCOPE.fullmatch(text):
        raise InvalidScope("the scope is malformed")
    return tuple(dict.fromkeys(text.split(" ")))


def _decoded(part: bytes, maximum: int) -> str:
    """A name or value. Raises InvalidRequest."""
    return checked_text(unquote_to_bytes(part.replace(b"+", b" ")), maximum)


def checked_text(sent: bytes, maximum: int) -> str:
    """A name or value that was sent as these bytes, of at most `maximum` characters. Raises InvalidRequest."""
    try:
        text = sent.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the parameters are not valid UTF-8") from None
    if "\0" in text:
        raise InvalidRequest("a parameter holds a NUL character")
    if len(text) > maximum:
        raise InvalidRequest("a parameter is too long")
    return text


def _repeated_text(name: str) -> str:
    shown = name if _PRINTABLE_NAME.fullmatch(name) else "a parameter"
    return f"{shown} occurs more than once"
