"""How long, as people write it: `90s`, `15m`, `24h`, `7d`, `2w`."""

from __future__ import annotations

import re
from datetime import timedelta

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
