"""The parameters of a request, read once and strictly, so that no two readers see different values.

What is refused here is refused before anything knows the client; descriptions therefore never repeat
what was sent, except for a parameter name of plain lower-case letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlencode

from authserver.engine.errors import InvalidRequest, InvalidScope

MOST_PARAMETERS = 100
LONGEST_TEXT = 8192
MOST_SCOPES = 50
LONGEST_SCOPE = 100

_PRINTABLE_NAME = re.compile(r"[a-z_]{1,40}")
_SCOPE_NAME = r"[\x21\x23-\x5B\x5D-\x7E]+"
_SCOPE = re.compile(rf"{_SCOPE_NAME}(?: {_SCOPE_NAME})*")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Names and values as sent, in order. An empty value counts as not sent (OAuth 2.1, 3.1).

    Its repr shows nothing: among the values are client secrets, codes and passwords.
    """

    _pairs: tuple[tuple[str, str], ...] = field(repr=False)
    _values: dict[str, str] = field(repr=False, compare=False)
    _repeated: frozenset[str] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, encoded: bytes | str, *, longest: int = LONGEST_TEXT) -> Self:
        """Read application/x-www-form-urlencoded text: a raw query string or a request body.

        Only `&` separates: with `;` as well, a proxy and we would read different parameters. Bytes
        must be UTF-8, before and after percent-decoding. Raises InvalidRequest for anything else,
        for NUL, and beyond 100 parameters or `longest` characters in a name or value.
        """
        try:
            # Encoding is the check: it fails on the lone surrogates that a decoded string may hold.
            text = encoded.decode("utf-8") if isinstance(encoded, bytes) else encoded.encode("utf-8").decode()
        except UnicodeError:
            raise InvalidRequest("the parameters are not valid UTF-8") from None
        if "\0" in text or "%00" in text:
            raise InvalidRequest("a parameter holds a NUL character")
        if text.count("&") >= MOST_PARAMETERS:
            raise InvalidRequest("too many parameters")
        try:
            pairs = tuple(parse_qsl(text, keep_blank_values=True, errors="strict", separator="&"))
        except UnicodeError:
            raise InvalidRequest("the parameters are not valid UTF-8") from None
        # Decoding never lengthens, so a short whole has no long part.
        if len(text) > longest and any(len(part) > longest for pair in pairs for part in pair):
            raise InvalidRequest("a parameter is too long")
        values = dict(pairs)
        repeated: frozenset[str] = frozenset()
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = frozenset(name for name in values if names.count(name) > 1)
        return cls(pairs, values, repeated)

    def get(self, name: str) -> str | None:
        """The one value of `name`, or None when it was not sent or is empty.

        Raises InvalidRequest when it was sent more than once, be it empty.
        """
        if name in self._repeated:
            raise InvalidRequest(_repeated_text(name))
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

    def refuse_repeated(self, *, allowed: frozenset[str] = frozenset({"resource"})) -> None:
        """Raise InvalidRequest when a name outside `allowed` was sent more than once (OAuth 2.1, 3.1)."""
        for name in self._repeated:
            if name not in allowed:
                raise InvalidRequest(_repeated_text(name))

    def without(self, *names: str) -> Self:
        """The same without these parameters."""
        return self.parse(urlencode([(name, value) for name, value in self._pairs if name not in names]))

    def encoded(self) -> str:
        """Text that `parse` reads as these very parameters."""
        return urlencode(self._pairs)

    def __contains__(self, name: str) -> bool:
        """Whether `name` was sent with a value, once or more often."""
        return bool(self._values.get(name)) or (name in self._repeated and bool(self.all(name)))


def scope_set(text: str) -> tuple[str, ...]:
    """The scope tokens of a `scope` value, in order, each once (RFC 6749, 3.3).

    Raises InvalidScope unless the tokens are of the RFC's characters with single spaces between them,
    at most 50, each of at most 100 characters.
    """
    if not _SCOPE.fullmatch(text):
        raise InvalidScope("the scope is malformed")
    tokens = text.split(" ")
    if len(tokens) > MOST_SCOPES or max(map(len, tokens)) > LONGEST_SCOPE:
        raise InvalidScope("the scope is too long")
    return tuple(dict.fromkeys(tokens))


def _repeated_text(name: str) -> str:
    shown = name if _PRINTABLE_NAME.fullmatch(name) else "a parameter"
    return f"{shown} occurs more than once"
