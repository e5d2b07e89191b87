"""How long and since when, as people write it: `90s`, `15m`, `24h`, `7d`, `2w`; `2026-11-30T10:42`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MAXIMUM_DURATION = timedelta(days=3650)


def length_of(text: str) -> timedelta | None:
    """The duration in a whole number with its unit; None if the text is something else."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def duration(text: str) -> timedelta:
    """The type of an option that takes a duration; 0 needs no unit. Raises click.BadParameter."""
    length = timedelta() if text == "0" else length_of(text)
    if length is None:
        raise click.BadParameter(
            f"{text!r} is not a duration: write a whole number followed by s, m, h, d or w, such as 90s, 24h or 7d"
        )
    if length > _MAXIMUM_DURATION:
        raise click.BadParameter(f"{text} is longer than {_MAXIMUM_DURATION.days}d")
    return length


class Moment(click.ParamType[datetime]):
    """So long ago, as `7d`, `12h`, `30m`; or a time in ISO 8601, in UTC unless it has an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if (length := length_of(value)) is not None:
                return datetime.now(UTC) - length
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither like 7d, 12h or 30m nor a time in ISO 8601, such as 2026-11-30T10:42 (UTC) or "
                "2026-11-30T10:42+01:00",
                param,
                context,
            )
