"""Column types keep a value or refuse it; they never change it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from authserver.storage.columns import SpaceSeparated
from authserver.storage.database import Database
from authserver.testing.records import a_grant

DIALECT = sa.create_engine("sqlite://").dialect


@given(st.lists(st.text(), max_size=5).map(tuple))
def test_a_list_comes_back_as_it_was_or_is_refused(items: tuple[str, ...]) -> None:
    column = SpaceSeparated()
    try:
        text = column.process_bind_param(items, DIALECT)
    except ValueError:
        assert any(not item or " " in item for item in items)
    else:
        assert column.process_result_value(text, DIALECT) == items


def test_a_naive_time_is_refused(database: Database) -> None:
    """R-11: as the type itself refuses it."""
    with pytest.raises(ValueError, match="time zone"), database.begin() as stores:
        stores.grants.add(a_grant(expires_at=datetime(2026, 3, 1, 12)))  # noqa: DTZ001  # naive is the point


def test_a_time_of_another_zone_comes_back_in_utc(database: Database) -> None:
    """R-11: the same instant, with its microseconds."""
    oslo = datetime(2026, 7, 1, 0, 30, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    with database.begin() as stores:
        stores.grants.add(a_grant(expires_at=oslo))
        found = stores.grants.find("grant_1")
    assert found is not None
    assert found.expires_at == oslo
    assert found.expires_at.tzinfo is UTC
    assert found.expires_at.hour == 22
