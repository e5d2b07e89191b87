"""The types of options that take a duration or a time (`engine.moments`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from authserver.engine.moments import BadMoment, length_of, moment_of

_MAXIMUM_DURATION = timedelta(days=3650)


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
    """A time as a duration before now, such as `7d`, `12h` or `30m`; or in ISO 8601, in UTC unless it has an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return moment_of(value, datetime.now(UTC))
        except BadMoment as problem:
            self.fail(str(problem), param, context)
