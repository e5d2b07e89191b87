"""How much happened: whatever is asked, the answer is that of the events of whole hours, days or months."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authserver.engine import statistics
from authserver.engine.audit import BadSearch
from authserver.engine.context import Engine
from authserver.engine.count_records import Count, Gauge, Step
from authserver.engine.counting import Counting, begin_of
from authserver.engine.records import REFUSALS, Event, EventType
from authserver.engine.statistics import By, Measure
from authserver.event_readers import Reading
from authserver.testing.records import a_user, an_event
from authserver.testing.rules import Rules

NOW = datetime(2026, 11, 30, 10, 36, 5, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ISSUED = {"type": EventType.TOKEN_ISSUED, "details": {"grant_type": "authorization_code"}}
REFRESHED = {"type": EventType.TOKEN_ISSUED, "details": {"grant_type": "refresh_token"}}
KINDS = [
    *[ISSUED, REFRESHED] * 3,
    {"type": EventType.TOKEN_ISSUED},
    {"type": EventType.CODE_ISSUED},
    {"type": EventType.SIGNED_IN, "client_id": None},
    {"type": EventType.SIGN_IN_REFUSED, "client_id": None, "reason": "password-wrong"},
    {
        "type": EventType.TOKEN_REFUSED,
        "reason": "code-claimed",
        "details": {"grant_type": "authorization_code"},
    },
    {"type": EventType.TOKEN_REFUSED, "reason": "no-room", "details": {"more": {"count": 8}}},
    {"type": EventType.GRANT_REVOKED, "reason": "code-claimed"},
    {"type": EventType.CLIENT_REGISTERED},
    {"type": EventType.USER_ADDED, "client_id": None},
]


class World:
    """Some events of a year, counted; and an engine at a time of ours."""

    def __init__(self, events: list[Event], **changes: str) -> None:
        self.events = events
        self.rules = Rules({f"authserver.{name}": value for name, value in changes.items()})
        with self.rules.stores.begin() as stores:
            for event in events:
                stores.events.add(event)
        reading = Reading(self.rules.stores, Counting(batch=10_000))
        while reading.work():
            pass

    @contextmanager
    def at(self, now: datetime = NOW) -> Iterator[Engine]:
        with self.rules.begin() as engine:
            yield replace(engine, now=now)


def a_year(number: int = 900, days: float = 400) -> list[Event]:
    chance = random.Random(number)
    return [
        an_event(
            at=NOW - chance.uniform(0, days) * DAY,
            **{"client_id": chance.choice(["notes", "reports", "gone", None])} | chance.choice(KINDS),
        )
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def world() -> World:
    return World(a_year())


def directly(
    events: list[Event], since: datetime, until: datetime, **about: str | None
) -> dict[Measure, int]:
    sums: Counter[Measure] = Counter()
    for event in events:
        if not since <= event.at < until:
            continue
        if any(
            value not in (event.client_id, event.details.get("grant_type"))
            for value in about.values()
            if value
        ):
            continue
        for measure in Measure:
            if measure.fits(event.type, str(event.details.get("grant_type", ""))):
                sums[measure] += 1 + event.details.get("more", {}).get("count", 0)
    return {measure: sums[measure] for measure in Measure}


@settings(deadline=None)
@given(
    ago=st.floats(0.001, 390),
    length=st.floats(0.001, 390),
    client_id=st.sampled_from([None, "notes", "nobody"]),
    grant_type=st.sampled_from([None, "refresh_token", "authorization_code"]),
)
@example(ago=390.0, length=390.0, client_id=None, grant_type=None)
def test_totals_are_those_of_the_events_of_that_time(
    world: World, ago: float, length: float, client_id: str | None, grant_type: str | None
) -> None:
    """Hours, days and months are put together so that nothing is missing or counted twice."""
    since = NOW - ago * DAY
    until = min(since + length * DAY, NOW)
    with world.at() as engine:
        found = statistics.totals(engine, since, until, client_id=client_id, grant_type=grant_type)
        assert found.since <= since
        assert until <= found.until
        longest = HOUR if until - since <= 7 * DAY and ago <= 89 else DAY
        assert since - found.since < longest
        assert found.until - until < longest
        events = [event for event in world.events if grant_type is None or "token." in event.type]
        expected = directly(events, found.since, found.until, client_id=client_id, grant_type=grant_type)
        if client_id is not None:
            # Each client registers once: that is counted for all together.
            expected[Measure.REGISTRATIONS] = 0
        assert found.counts == expected


@pytest.mark.parametrize("by", [By.HOUR, By.DAY, By.MONTH])
def test_rows_of_times_have_each_one(world: World, by: By) -> None:
    """Also those in which nothing happened."""
    since = NOW - (9 * DAY if by is By.HOUR else 300 * DAY)
    with world.at() as engine:
        found = statistics.totals(engine, since, NOW, by=by)
        assert found.rows[0].at == found.since == begin_of(Step(by.value), since)
        for row, following in zip(
            found.rows, [*(row.at for row in found.rows[1:]), found.until], strict=True
        ):
            assert row.at is not None
            assert row.counts == directly(world.events, row.at, following or NOW)
        assert found.counts == directly(world.events, found.since, found.until)
        assert all(row.key == row.at.strftime("%Y-%m-%dT%H:%M:%SZ") for row in found.rows if row.at)
        for measure in (Measure.ISSUED, Measure.REFUSED):
            chart = statistics.series(engine, measure, since, NOW, step=Step(by.value))
            assert chart.points == tuple((row.at, row.counts[measure]) for row in found.rows)


def test_clients_have_a_row_each_and_the_rest_has_one(world: World) -> None:
    with world.at() as engine:
        found = statistics.totals(engine, NOW - 60 * DAY, NOW, by=By.CLIENT)
        assert {row.key for row in found.rows} == {"notes", "reports", "gone", ""}
        assert not found.more
        *clients, rest = found.rows
        assert [row.total for row in clients] == sorted((row.total for row in clients), reverse=True)
        sums: Counter[Measure] = Counter()
        for row in found.rows:
            sums.update(row.counts)
        assert {measure: sums[measure] for measure in Measure} == found.counts
        assert rest.counts[Measure.SIGN_INS] == found.counts[Measure.SIGN_INS] > 0
        for row in clients:
            alone = statistics.totals(engine, NOW - 60 * DAY, NOW, client_id=row.key)
            assert alone.counts == row.counts


def test_clients_are_ordered_by_what_is_asked_for(world: World) -> None:
    with world.at() as engine:
        everything = statistics.totals(engine, NOW - 60 * DAY, NOW, by=By.CLIENT, order=Measure.REFUSED)
        refused = [row.counts[Measure.REFUSED] for row in everything.rows[:-1]]
        assert refused == sorted(refused, reverse=True)
        one = statistics.totals(engine, NOW - 60 * DAY, NOW, by=By.CLIENT, order=Measure.REFUSED, limit=1)
        assert one.rows[0] == everything.rows[0]
        assert one.more
        refreshing = statistics.totals(engine, NOW - 60 * DAY, NOW, by=By.CLIENT, grant_type="refresh_token")
        assert all(row.total == row.counts[Measure.REFRESHED] for row in refreshing.rows)


def test_reasons_and_grant_types(world: World) -> None:
    with world.at() as engine:
        found = statistics.totals(engine, NOW - 365 * DAY, NOW, by=By.REASON)
        assert {row.key for row in found.rows} == {"password-wrong", "code-claimed", "no-room"}
        assert sum(row.counts[Measure.REFUSED] for row in found.rows) == found.counts[Measure.REFUSED]
        # Nine each.
        assert found.rows[0].key == "no-room"
        cut = statistics.totals(engine, NOW - 365 * DAY, NOW, by=By.REASON, limit=2)
        assert cut.rows == found.rows[:2]
        assert cut.more
        by_type = statistics.totals(engine, NOW - 365 * DAY, NOW, by=By.GRANT_TYPE)
        assert {row.key for row in by_type.rows} == {"", "authorization_code", "refresh_token"}
        (refresh,) = (row for row in by_type.rows if row.key == "refresh_token")
        assert refresh.counts[Measure.REFRESHED] == by_type.counts[Measure.REFRESHED] == refresh.total
        reasons = statistics.refusal_reasons(engine, NOW - 365 * DAY, NOW)
        assert {(each.type, each.reason) for each in reasons} == {
            (EventType.TOKEN_REFUSED, "no-room"),
            (EventType.TOKEN_REFUSED, "code-claimed"),
            (EventType.GRANT_REVOKED, "code-claimed"),
            (EventType.SIGN_IN_REFUSED, "password-wrong"),
        }
        assert [each.count for each in reasons] == sorted((each.count for each in reasons), reverse=True)
        assert statistics.refusal_reasons(engine, NOW - 365 * DAY, NOW, limit=1) == reasons[:1]
        assert statistics.refusal_reasons(engine, NOW - 365 * DAY, NOW, client_id="nobody") == []


def test_every_refusal_is_in_one_measure() -> None:
    for type in EventType:
        fitting = [measure for measure in Measure if measure.fits(type, "authorization_code")]
        assert len(fitting) <= 1
        assert fitting or type not in REFUSALS


@pytest.mark.parametrize(
    ("since", "until", "by", "says"),
    [
        (0 * DAY, 0 * DAY, None, "not before its end"),
        (1 * DAY, 2 * DAY, By.DAY, "not before its end"),
        (4000 * DAY, 0 * DAY, None, "longer than 3660 days"),
        (51 * DAY, 0 * DAY, By.HOUR, "more than 1,200 hours: ask for days"),
        (3000 * DAY, 0 * DAY, By.DAY, "more than 1,200 days: ask for months"),
        (100 * DAY, 99 * DAY, By.HOUR, "hours are kept for 90 days"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(
    world: World, since: timedelta, until: timedelta, by: By | None, says: str
) -> None:
    with world.at() as engine, pytest.raises(BadSearch, match=says):
        statistics.totals(engine, NOW - since, NOW - until, by=by)


def test_bad_questions_about_clients(world: World) -> None:
    with world.at() as engine:
        for client_id in ("", "a\0b", "\ud800"):
            with pytest.raises(BadSearch, match="no client has such an id"):
                statistics.totals(engine, NOW - DAY, NOW, client_id=client_id)
        with pytest.raises(BadSearch, match="leave out one of the two"):
            statistics.totals(engine, NOW - DAY, NOW, by=By.CLIENT, client_id="notes")
        for limit in (0, 1001):
            with pytest.raises(BadSearch, match="1 to 1,000 rows"):
                statistics.totals(engine, NOW - DAY, NOW, limit=limit)
            with pytest.raises(BadSearch, match="1 to 1,000 rows"):
                statistics.refusal_reasons(engine, NOW - DAY, NOW, limit=limit)


def test_hours_that_are_kept_for_ever_can_always_be_asked_for() -> None:
    world = World([an_event(at=NOW - 200 * DAY)], hourly_statistics_lifetime="0")
    with world.at() as engine:
        found = statistics.totals(engine, NOW - 201 * DAY, NOW - 199 * DAY, by=By.HOUR)
        assert found.counts[Measure.ISSUED] == 1
        assert len(found.rows) == 49


def test_how_far_events_are_counted() -> None:
    world = World([an_event(at=NOW - DAY)])
    with world.at() as engine:
        assert statistics.counting_progress(engine) == statistics.CountingProgress()
        first = an_event(at=NOW - 7 * HOUR)
        for event in (first, an_event(at=NOW)):
            engine.stores.events.add(event)
        assert statistics.counting_progress(engine) == statistics.CountingProgress(waiting=2, since=first.at)


# ---- what there is -------------------------------------------------------------------------------------


def test_what_there_is_is_noted_once_an_hour() -> None:
    world = World([])
    begin = NOW.replace(minute=0, second=0)
    with world.at() as engine:
        assert statistics.latest_figures(engine) is None
        assert statistics.current_figures(engine).values[Gauge.PEOPLE] == 0
        parts = engine.stores, engine.settings
        statistics.take_sample(*parts, NOW)
        engine.stores.users.add(a_user())
        statistics.take_sample(*parts, NOW + timedelta(minutes=5))
        noted = statistics.latest_figures(engine)
        assert noted is not None
        assert (noted.at, noted.values[Gauge.PEOPLE]) == (begin, 0)
        statistics.take_sample(*parts, NOW + HOUR)
        hours = statistics.gauge_series(engine, Gauge.PEOPLE, NOW - DAY, NOW + 2 * HOUR, step=Step.HOUR)
        # Nothing is made up for hours that nobody noted.
        assert hours.points == ((begin, 0), (begin + HOUR, 1))
        days = statistics.gauge_series(engine, Gauge.PEOPLE, NOW - DAY, NOW + DAY, step=Step.DAY)
        assert days.points == ((begin.replace(hour=0), 0),)
    with world.at(NOW + HOUR) as engine:
        noted = statistics.latest_figures(engine)
        assert noted is not None
        assert noted.values == statistics.current_figures(engine).values
        assert set(noted.values) == set(Gauge)
    with world.at(NOW + 3 * DAY) as engine:
        assert statistics.latest_figures(engine) is None


# ---- what token requests leave in the events ------------------------------------------------------------


def test_events_of_token_requests_name_their_grant_type() -> None:
    rules = Rules()
    rules.add_user("ann")
    client, secret = rules.add_client()
    code = rules.code(client)
    answer = rules.redeem(client, secret, code)
    rules.refresh(client, secret, answer.json["refresh_token"])
    issued = [event["details"]["grant_type"] for event in rules.events("token.issued")]
    assert issued == ["authorization_code", "refresh_token"]


@pytest.mark.parametrize("by", [By.HOUR, By.DAY])
def test_what_was_counted_at_no_whole_hour_is_in_the_hour_that_it_is_in(by: By) -> None:
    """No server writes it, and it must not stop who reads."""
    rules = Rules()
    at = datetime.now(UTC) - timedelta(hours=30)
    step = by.step
    assert step
    with rules.stores.begin() as stores:
        stores.statistics.add([Count(step=step, at=at, type=EventType.SIGNED_IN, count=3)])
    with rules.begin() as engine:
        found = statistics.totals(engine, engine.now - timedelta(days=2), engine.now, by=by)
        rows = {row.at: row.counts[Measure.SIGN_INS] for row in found.rows}
        assert rows[begin_of(step, at)] == sum(rows.values()) == 3
        series = statistics.series(
            engine, Measure.SIGN_INS, engine.now - timedelta(days=2), engine.now, step=step
        )
        assert dict(series.points)[begin_of(step, at)] == 3
