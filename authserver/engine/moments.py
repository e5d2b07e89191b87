"""Durations and times as people write them: `90s`, `15m`, `24h`, `7d`, `2w`; `2026-11-30T10:42`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class BadMoment(ValueError):
    """A text is no time; the message says how one is written."""


def length_of(text: str) -> timedelta | None:
    """The duration in a whole number with its unit; None if the text is something else."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def moment_of(text: str, now: datetime) -> datetime:
    """A time as its age (`7d`, `12h`, `30m`), or in ISO 8601, in UTC unless it has an offset. Raises BadMoment."""
    try:
        if (length := length_of(text)) is not None:
            return now - length
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadMoment(
            f"{text!r} is neither like 7d, 12h or 30m nor a time in ISO 8601, such as 2026-11-30T10:42 (UTC) or "
            "2026-11-30T10:42+01:00"
        ) from None
