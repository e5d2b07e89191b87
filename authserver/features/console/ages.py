"""Says in words how far a time is from now."""

from __future__ import annotations

from datetime import datetime, timedelta

_UNITS = (
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"),
    (timedelta(minutes=1), "minute"),
    (timedelta(seconds=1), "second"),
)


def length(time: timedelta) -> str:
    """A length of time in the largest unit that it has at least twice, such as `3 days`, `36 hours` or `90 seconds`."""
    for unit, name in _UNITS:
        count = time // unit
        if count >= 2 or (count and unit == _UNITS[-1][0]):
            return f"{count:,} {name}{'s' * (count != 1)}"
    return "less than a second"


def distance(time: datetime | None, now: datetime) -> str:
    """Such as `3 days ago` or `in 12 minutes`; "" for no time."""
    if time is None:
        return ""
    return f"in {length(time - now)}" if time > now else f"{length(now - time)} ago"
