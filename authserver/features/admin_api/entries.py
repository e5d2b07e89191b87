"""The parts of the API: an `Entry` for each operation, the `Call` that its function gets, and its `Answer`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from authserver.api import (
    Client,
    Engine,
    Kind,
    NothingThere,
    Parameter,
    Parameters,
    Problem,
    Unsealable,
    User,
    from_text,
    to_text,
)
from authserver.features.admin_api import problems

# The beginning of all scopes of the API.
PREFIX = "authserver:"
NOTHING: Mapping[str, Any] = MappingProxyType({})
# An id of this form is written unchanged in an address; any other id is written as `~` and the base64url of its UTF-8.
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]+")
TIME = {"type": "string", "format": "date-time"}
NULL_OR_TIME = {"type": ["string", "null"], "format": "date-time"}
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """The caller of the API.

    Attributes:
        client: the client of the access token.
        user: the person for whom the client acts; None if it acts on its own behalf.
        scopes: the scopes that count now.
    """

    client: Client
    user: User | None
    scopes: frozenset[str]

    def refuse_beyond(self, scopes: Iterable[str]) -> None:
        """Refuse to give somebody these scopes, unless this administrator has those of the API among them.

        Otherwise an administrator who may write clients could make a client that may do everything. Raises Problem.
        """
        beyond = sorted({scope for scope in scopes if scope.startswith(PREFIX)} - self.scopes)
        if beyond:
            raise Problem(
                problems.BEYOND_OWN_SCOPES,
                f"It has or would get {' '.join(beyond)}, which your access token does not have: ask for a token with that.",
            )

    @property
    def actor(self) -> str:
        """The name of the administrator in events."""
        return f"user:{self.user.user_id}" if self.user else f"client:{self.client.client_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authorized request.

    Attributes:
        engine: the engine of the request, in its transaction.
        administrator: the caller.
        url: the URL of the API.
        path: the path of the request, below that URL.
        ids: the decoded ids from the address, by their placeholders.
        query: the parameters of the address; all of them are known.
        sent: the members of the body; all of them are known.
        if_match: the ETags of the `If-Match` header; None if every ETag is accepted.
        operator_groups: groups whose members administer this server, by this API or in another way.
    """

    engine: Engine
    administrator: Administrator
    url: str
    path: str
    ids: Mapping[str, str]
    query: Parameters
    sent: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    if_match: frozenset[str] | None = None
    operator_groups: frozenset[str] = frozenset()

    def named(self, placeholder: str) -> str:
        """An id from the address. Raises NothingThere for a text that cannot be an id."""
        return read_id(self.ids[placeholder])

    def flag(self, name: str) -> bool:
        """Whether a parameter of the address is `true`. Raises Problem for another value than true or false."""
        text = self.query.get(name) or "false"
        if text not in ("true", "false"):
            raise invalid_parameter(name, "expected true or false")
        return text == "true"

    def is_unchanged(self, etag: str) -> None:
        """Refuse the request unless its `If-Match` names this ETag. Raises Problem."""
        if self.if_match is not None and etag not in self.if_match:
            raise Problem(
                problems.PRECONDITION_FAILED,
                "It changed after you read it. Get it again, and repeat the change with its new ETag.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of an operation.

    Attributes:
        body: the members; None for no content.
        etag: the ETag of the object, without quotes; "" for none.
        location: the path of the new object, below that of the API; "" for none.
        after: the cursor of the next page; "" for none.
    """

    body: Mapping[str, Any] | None = None
    etag: str = ""
    location: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One operation of the API.

    Attributes:
        method: the HTTP method.
        path: the path below that of the API, with placeholders.
        scope: the scope that an access token needs; "" if any scope of the API is enough.
        summary: what it does; the first sentence can stand alone.
        act: the function that does it.
        query: the parameters of its address.
        body: the members of its JSON body; None if it has no body.
        open_body: a function that says which other members may be in the body; only the engine of the request knows them.
        answer: the members of a successful answer; for a list, those of each item.
        status: the status of a successful answer.
        problems: the problems that it may answer, beside those of every operation.
        conditional: whether it reads `If-Match`, which PATCH requires, or `If-None-Match`, which avoids a repeated answer.
        listed: whether it answers a list.
        paged: whether the list comes in pages.
    """

    method: str
    path: str
    scope: str
    summary: str
    act: Callable[[Call], Answer]
    query: Mapping[str, Parameter] = field(default_factory=lambda: NOTHING)
    body: Mapping[str, Parameter] | None = None
    open_body: Callable[[Engine], Iterable[str]] | None = None
    answer: Mapping[str, Parameter] = field(default_factory=lambda: NOTHING)
    status: int = 200
    problems: tuple[Kind, ...] = ()
    conditional: bool = False
    listed: bool = False
    paged: bool = False


def write_id(text: str) -> str:
    """An id as a segment of an address."""
    return text if _PLAIN_ID.fullmatch(text) else "~" + to_text(text.encode())


def read_id(segment: str) -> str:
    """The id in a segment of an address. Raises NothingThere if there is none."""
    if _PLAIN_ID.fullmatch(segment):
        return segment
    try:
        text = from_text(segment.removeprefix("~")).decode()
    except (Unsealable, UnicodeDecodeError, ValueError):
        text = ""
    # No id has control characters, and some databases would not even compare them.
    if not text or not text.isprintable() or segment != write_id(text):
        raise nothing_there()
    return text


def nothing_there(
    detail: str = "There is nothing at this address. The list shows what exists.",
) -> NothingThere:
    """The refusal of a request that names a missing record: 404."""
    return NothingThere(detail)


def there(found: Found | None) -> Found:
    """The record itself. Raises NothingThere for None."""
    if found is None:
        raise nothing_there()
    return found


def sentence(text: str) -> str:
    """A message of the engine as a sentence with a full stop; an id at its beginning stays as it is written."""
    return text if text.endswith((".", "?")) else f"{text}."


def invalid(**errors: str) -> Problem:
    """The refusal of members, by their names, with what each must be."""
    errors = {name: sentence(text) for name, text in errors.items()}
    found = [{"pointer": _pointer(name), "detail": text} for name, text in errors.items()]
    return Problem(
        problems.INVALID_MEMBERS,
        " ".join(f"{name}: {text}" if name else text for name, text in errors.items()),
        errors=found,
    )


def _pointer(name: str) -> str:
    """A JSON Pointer to a member, as a fragment (RFC 6901, 6); to the whole body for no name."""
    return "#/" + quote(name.replace("~", "~0").replace("/", "~1"), safe="~") if name else "#"


def invalid_parameter(name: str, text: str) -> Problem:
    """The refusal of a parameter of the address, with what it must be."""
    return Problem(problems.INVALID_PARAMETER, f"{name}: {text}.")


def conflict(detail: str) -> Problem:
    """The refusal of an operation that the present state does not allow: 409."""
    return Problem(problems.CONFLICT, detail)


class Sent:
    """Reads members of a body; `end` refuses all wrong members together."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members
        self._errors: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def is_null(self, name: str) -> bool:
        """Whether it was sent as null, which removes it (RFC 7396)."""
        return name in self._members and self._members[name] is None

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        """A text, or `default` if it is not sent.

        Args:
            required: whether it is an error if the text is not sent, or has only white space.
        """
        value = self._members.get(name)
        if value is None:
            if required:
                self._errors[name] = "It is required."
            return default
        if not isinstance(value, str) or (required and not value.strip()):
            self._errors[name] = "It must be a text."
            return default
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false, or `default` if it is not sent."""
        value = self._members.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._errors[name] = "It must be true or false."
            return default
        return value

    def number(self, name: str, default: int | None, *, least: int, most: int) -> int | None:
        """A whole number from `least` to `most`, or `default` if it is not sent."""
        value = self._members.get(name)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            self._errors[name] = f"It must be a whole number from {least} to {most}."
            return default
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts without repetitions; empty if it is not sent."""
        value = self._members.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._errors[name] = "It must be a list of texts."
            return ()
        return tuple(dict.fromkeys(value))

    def lists(self, name: str) -> dict[str, tuple[str, ...]]:
        """Lists of texts by name; a list that is null is empty."""
        value = self._members.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(
            item is None or (isinstance(item, list) and all(isinstance(text, str) for text in item))
            for item in value.values()
        ):
            self._errors[name] = "It must be an object with a list of texts, or null, for each name."
            return {}
        return {each: tuple(dict.fromkeys(texts or ())) for each, texts in value.items()}

    def words(self, name: str) -> tuple[str, ...]:
        """The words of a text with spaces between them, such as `scope`, without repetitions."""
        return tuple(dict.fromkeys(self.text(name).split()))

    def wrong(self, name: str, text: str) -> None:
        """Note that a member is wrong; the text says what it must be."""
        self._errors.setdefault(name, text)

    def end(self) -> None:
        """Raise Problem if a member is wrong."""
        if self._errors:
            raise invalid(**self._errors)


def moment(text: str | None, name: str) -> datetime | None:
    """A time of the address in ISO 8601, in UTC unless it says otherwise. Raises Problem."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(
            problems.INVALID_PARAMETER, f"{name}: expected a time in ISO 8601, such as 2026-01-31T12:00:00Z."
        ) from None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise Problem(problems.INVALID_PARAMETER, f"{name}: there is no such time in UTC.") from None
