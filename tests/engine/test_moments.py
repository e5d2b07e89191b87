"""Times as operators write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from authserver.engine.moments import BadMoment, length_of, moment_of

NOW = datetime(2026, 11, 30, 10, 42, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta()),
        ("7", None),
        ("7 d", None),
        ("-1h", None),
        ("1000000s", None),
        ("1h30m", None),
    ],
)
def test_a_length_is_a_whole_number_and_a_unit(text: str, length: timedelta | None) -> None:
    assert length_of(text) == length


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12h", NOW - timedelta(hours=12)),
        ("2026-11-30", datetime(2026, 11, 30, tzinfo=UTC)),
        ("2026-11-30T10:42", NOW),
        ("2026-11-30T11:42+01:00", NOW),
        ("2026-11-30T10:42:00Z", NOW),
    ],
)
def test_a_moment_is_so_long_ago_or_a_time_in_iso_8601(text: str, moment: datetime) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "999999w", "0001-01-01T00:00+23:59", "\u202e7d"]
)
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadMoment, match="neither like 7d, 12h or 30m nor a time in ISO 8601"):
        moment_of(text, NOW)
