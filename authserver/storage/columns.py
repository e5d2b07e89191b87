"""Column types: the form of a record's members in tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy import JSON, DateTime, Dialect, Enum, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

from authserver.engine.records import UNREADABLE, EventType, UnknownEventType

Json = JSON().with_variant(JSONB(), "postgresql")
_EVENT_TYPES = {type.value: type for type in EventType}


def choice(kind: type[StrEnum]) -> Enum:
    """A member of an enumeration, stored as its value in plain text."""
    return Enum(
        kind, native_enum=False, length=40, values_callable=lambda each: [item.value for item in each]
    )


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. Naive values are refused; values that are read are aware and in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Raises ValueError for a naive datetime, because it does not say which instant it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected a datetime with a time zone, got the naive {value!r}")
        # SQLite keeps text without an offset, so it must be UTC before it gets there.
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EventTime(UtcDateTime):
    """The time of an event. Somebody may have changed it by hand: a value that is no time is read as `datetime.min`."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        read = super().result_processor(dialect, coltype)
        assert read is not None  # it has `process_result_value`

        def process(value: Any) -> datetime | None:
            try:
                return read(value)
            except (TypeError, ValueError):
                return datetime.min.replace(tzinfo=UTC)

        return process


class EventText(TypeDecorator[str]):
    """A text of an event. Somebody may have changed it by hand to bytes, because SQLite stores any type in any column."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value if value is None or isinstance(value, str) else repr(value)


class EventTypeName(TypeDecorator[str]):
    """The type of an event; one that this version does not know is an `UnknownEventType`."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return _EVENT_TYPES.get(value) or UnknownEventType(value)


class EventDetails(TypeDecorator[Mapping[str, Any]]):
    """A JSON object of an event. Somebody may have changed it by hand: other values are put under `unreadable`."""

    impl = Json
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return value if self.fits(value) else self.unreadable(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        read = super().result_processor(dialect, coltype)
        assert read is not None  # it has `process_result_value`

        def process(value: Any) -> Any:
            try:
                return read(value)
            except (TypeError, ValueError):
                return self.unreadable(value)

        return process

    def fits(self, value: Any) -> bool:
        """Whether the value that was read is of the type of the column."""
        return isinstance(value, dict)

    def unreadable(self, value: Any) -> Any:
        """A value of that type, which contains the value that was read."""
        return {UNREADABLE: value if isinstance(value, str) else repr(value)}


class EventDecisions(EventDetails):
    """The recorded decisions of an event, a list of JSON objects; other values are put into one under `unreadable`."""

    cache_ok = True

    def fits(self, value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)

    def unreadable(self, value: Any) -> Any:
        return [super().unreadable(value)]


class SpaceSeparated(TypeDecorator[tuple[str, ...]]):
    """Scopes, resources or URIs in their order: none of them contains a space (RFC 6749, 3.3; RFC 3986, 2)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> str | None:
        """Raises ValueError for an item that would come back as another: empty, or with a space."""
        if value is None:
            return None
        text = " ".join(value)
        if text.count(" ") != max(len(value) - 1, 0) or "" in value:
            raise ValueError(f"expected items without spaces, got {value!r}")
        return text

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        if value is None:
            return None
        return tuple(value.split(" ")) if value else ()


class Texts(TypeDecorator[tuple[str, ...]]):
    """Texts of any characters, in order."""

    impl = Json
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> list[str] | None:
        return None if value is None else list(value)

    def process_result_value(self, value: list[str] | None, dialect: Dialect) -> tuple[str, ...] | None:
        return None if value is None else tuple(value)


class TextsByName(TypeDecorator[Mapping[str, tuple[str, ...]]]):
    """One or several texts under each name; the mapping that is read is immutable."""

    impl = Json
    cache_ok = True

    def process_bind_param(
        self, value: Mapping[str, Sequence[str]] | None, dialect: Dialect
    ) -> dict[str, list[str]] | None:
        return None if value is None else {name: list(texts) for name, texts in value.items()}

    def process_result_value(
        self, value: dict[str, list[str]] | None, dialect: Dialect
    ) -> Mapping[str, tuple[str, ...]] | None:
        if value is None:
            return None
        return MappingProxyType({name: tuple(texts) for name, texts in value.items()})


def plain(value: Any) -> Any:
    """Encodes the values that msgspec cannot encode itself: read-only mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


# The text of a JSON value as it is stored, in UTF-8.
encode_json: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=plain).encode
