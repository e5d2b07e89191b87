"""Searching in the events, whoever asks: pages, cursors and what is wrong with a search."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine import audit
from authserver.engine.audit import BadSearch, cursor_of, place_of
from authserver.engine.records import EventFilter, EventType
from authserver.testing.records import NOW, an_event
from authserver.testing.stores import MemoryStores

IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
TIMES = st.datetimes(min_value=NOW.replace(year=1970, tzinfo=None), timezones=st.just(UTC))
SAFE = set(string.ascii_letters + string.digits + "._-")


@given(IDS, TIMES)
def test_a_cursor_names_the_place_of_its_event(event_id: str, at: datetime) -> None:
    """T146: to the microsecond, whatever the id is."""
    assert place_of(cursor_of(an_event(event_id=event_id, at=at))) == (at, event_id)


def test_a_cursor_needs_no_quotes_in_a_shell_or_a_url() -> None:
    assert set(cursor_of(an_event())) <= SAFE


@given(st.text(max_size=50))
def test_any_other_text_is_no_cursor(text: str) -> None:
    """T146: it is refused with a sentence, and never reaches the database as something else."""
    with pytest.raises(BadSearch, match="is not a cursor"):
        place_of(text)


def test_pages_are_bounded_and_together_everything(memory_stores: MemoryStores) -> None:
    """T146: each event is on one page, and the last one says that there is no other."""
    stored = [
        an_event(event_id=f"{number:03}", at=NOW + timedelta(seconds=number // 7)) for number in range(250)
    ]
    for event in stored:
        memory_stores.events.add(event)
    found, after = [], None
    while True:
        page = audit.search(memory_stores.events, EventFilter(), after=after, limit=audit.MAXIMUM_PAGE)
        assert len(page.events) <= audit.MAXIMUM_PAGE
        found += page.events
        if (after := page.next) is None:
            break
    assert found == stored[::-1]
    assert list(audit.export(memory_stores.events, EventFilter())) == stored
    for limit in (0, -1, audit.MAXIMUM_PAGE + 1):
        with pytest.raises(BadSearch, match="1 to 100"):
            audit.search(memory_stores.events, EventFilter(), limit=limit)


@pytest.mark.parametrize(
    "wide",
    [{"actor": "x"}, {"source": "x"}, {"request_id": "x"}, {"reason": ""}],
    ids=lambda wide: str(*wide),
)
def test_what_no_index_finds_needs_a_time_or_something_else(
    memory_stores: MemoryStores, wide: dict[str, str]
) -> None:
    """T146: nobody makes the database read everything by mistake."""
    with pytest.raises(BadSearch, match=f"to search by {next(iter(wide))} alone"):
        audit.search(memory_stores.events, EventFilter(**wide), limit=1)
    for narrow in ({"since": NOW}, {"client_id": "a"}, {"types": frozenset({EventType.KEY_REVOKED})}):
        assert audit.search(memory_stores.events, EventFilter(**wide, **narrow), limit=1).events == ()


def test_a_reason_is_searched_for_alone(memory_stores: MemoryStores) -> None:
    """It has an index."""
    for number, reason in enumerate(("", "key-lost", "operator")):
        memory_stores.events.add(an_event(event_id=str(number), reason=reason))
    (found,) = audit.search(memory_stores.events, EventFilter(reason="key-lost"), limit=9).events
    assert found.reason == "key-lost"


def test_an_address_is_searched_for_as_events_have_it() -> None:
    assert audit.source_of("2001:DB8:0::7") == "2001:db8::7"
    with pytest.raises(BadSearch, match="not a network address"):
        audit.source_of("localhost")
