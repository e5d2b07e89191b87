"""The numbers of issued, refreshed and refused tokens and so on, by client, grant type, reason and time.

Commands, pages and an API call this. It reads what `engine.counting` has counted. An impossible question is refused
with a sentence (`BadSearch`), and every answer has a limited length. Times are whole hours, days and months of UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from authserver.engine.audit import BadSearch
from authserver.engine.context import Engine
from authserver.engine.count_records import Gauge, Span, Step, Total
from authserver.engine.counting import READER, begin_of, end_of
from authserver.engine.ports import Stores
from authserver.engine.records import REFUSALS, EventType
from authserver.settings import Settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# The longest time that is counted by the hour; longer times are counted by whole days.
HOURS_OF = 7 * DAY
# The longest time of a question.
MAXIMUM_TIME = 3660 * DAY
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
# How many rows an answer has at most, and how many points a series.
MAXIMUM_ROWS = 1_000
MAXIMUM_POINTS = 1_200
REFRESH = "refresh_token"


class Measure(StrEnum):
    """What is counted.

    ISSUED are access tokens for anything but a refresh token, REFRESHED those for a refresh token. REFUSED are refused
    requests of clients and strangers; sign-ins, changes of a password and failures of the server (FAILED) are counted
    apart. GRANTS_REVOKED counts each grant, also if one act ended many.
    """

    CODES = "codes"
    ISSUED = "issued"
    REFRESHED = "refreshed"
    REFUSED = "refused"
    FAILED = "failed"
    SIGN_INS = "sign_ins"
    SIGN_INS_REFUSED = "sign_ins_refused"
    CONSENTS_GIVEN = "consents_given"
    CONSENTS_REFUSED = "consents_refused"
    GRANTS_REVOKED = "grants_revoked"
    REGISTRATIONS = "registrations"

    @property
    def types(self) -> frozenset[EventType]:
        """The types of the events that it counts."""
        return _TYPES[self]

    def fits(self, type: EventType, grant_type: str) -> bool:
        """Whether it counts events of this type and grant type."""
        if type is EventType.TOKEN_ISSUED:
            return self is (Measure.REFRESHED if grant_type == REFRESH else Measure.ISSUED)
        return type in _TYPES[self]


_TYPES: Mapping[Measure, frozenset[EventType]] = {
    Measure.CODES: frozenset({EventType.CODE_ISSUED}),
    Measure.ISSUED: frozenset({EventType.TOKEN_ISSUED}),
    Measure.REFRESHED: frozenset({EventType.TOKEN_ISSUED}),
    Measure.REFUSED: frozenset(
        {
            EventType.AUTHORIZATION_REFUSED,
            EventType.TOKEN_REFUSED,
            EventType.REGISTRATION_REFUSED,
            EventType.REQUEST_REFUSED,
        }
    ),
    Measure.FAILED: frozenset({EventType.REQUEST_FAILED}),
    Measure.SIGN_INS: frozenset({EventType.SIGNED_IN}),
    Measure.SIGN_INS_REFUSED: frozenset({EventType.SIGN_IN_REFUSED, EventType.PASSWORD_REFUSED}),
    Measure.CONSENTS_GIVEN: frozenset({EventType.CONSENT_GIVEN}),
    Measure.CONSENTS_REFUSED: frozenset({EventType.CONSENT_REFUSED}),
    Measure.GRANTS_REVOKED: frozenset({EventType.GRANT_REVOKED, EventType.GRANTS_REVOKED}),
    Measure.REGISTRATIONS: frozenset({EventType.CLIENT_REGISTERED}),
}
_OF_TYPE: Mapping[EventType, Measure] = {
    type: measure for measure, types in _TYPES.items() for type in types if measure is not Measure.REFRESHED
}
COUNTED = frozenset(_OF_TYPE)
_OF_A_GRANT_TYPE = frozenset({EventType.TOKEN_ISSUED, EventType.TOKEN_REFUSED})


class By(StrEnum):
    """What each row of `totals` is about."""

    CLIENT = "client"
    GRANT_TYPE = "grant-type"
    REASON = "reason"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    @property
    def step(self) -> Step | None:
        """The length of the time that each row is about, if it is a time."""
        return _STEPS.get(self)


_STEPS = {By.HOUR: Step.HOUR, By.DAY: Step.DAY, By.MONTH: Step.MONTH}
_USUAL: Mapping[By | None, timedelta] = {By.HOUR: DAY, By.MONTH: 365 * DAY}
Counts = Mapping[Measure, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalsRow:
    """One row: what it is about, and the count of each measure.

    `key` is a client id, a grant type, a reason or, in ISO 8601, the beginning of a time. It is empty for the rest: for
    clients without separate counts and events without a client, or for an unknown grant type or reason.
    """

    key: str
    at: datetime | None = None
    counts: Counts

    @property
    def total(self) -> int:
        """The sum of all counts of the row."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """An answer: its time in whole hours or days, the sums of that time, and the rows, if any were asked for.

    `more` says whether there are more rows than these.
    """

    since: datetime
    until: datetime
    counts: Counts
    rows: tuple[TotalsRow, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values for each hour, day or month in order; `points` has one for each, also where it is 0."""

    step: Step
    since: datetime
    until: datetime
    points: tuple[tuple[datetime, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFor:
    """The number of refused requests, or of revoked grants, for one reason."""

    type: EventType
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingProgress:
    """The progress of counting. About `waiting` events are not counted yet; `since` is the time of the first of them."""

    waiting: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The value of each `Gauge` at a time."""

    at: datetime
    values: Mapping[Gauge, int] = field(default_factory=dict)


def totals(
    engine: Engine,
    since: datetime,
    until: datetime,
    *,
    by: By | None = None,
    client_id: str | None = None,
    grant_type: str | None = None,
    order: Measure | None = None,
    limit: int = 20,
) -> Totals:
    """The sums of a time, and rows by something, the highest first; rows of times are in the order of time.

    The hour (in longer times, or where hours are not kept, the day) in which `since` and `until` lie counts as a whole.

    Args:
        client_id: only events of this client.
        grant_type: only token requests for this grant type.
        order: the measure by which clients are ordered; None for all measures together.
        limit: the most rows, 1 to MAXIMUM_ROWS; rows of times are not cut.

    Raises:
        BadSearch: a time that is empty, or too long in all or for such rows.
        StorageUnavailable: the storage did not answer.
    """
    if not 1 <= limit <= MAXIMUM_ROWS:
        raise BadSearch(f"a table has 1 to {MAXIMUM_ROWS:,} rows")
    _check_id(client_id)
    types = COUNTED if grant_type is None else _OF_A_GRANT_TYPE
    step = by.step if by else None
    if step is not None:
        span = _span(engine, step, since, until)
        found = engine.stores.statistics.series(span, types, client_id=client_id or "")
        sums: dict[datetime, Counter[Measure]] = {at: Counter() for at in _times(span)}
        for at, type, of_grant_type, count in found:
            if grant_type in (None, of_grant_type):
                # A row that was written by hand may not begin at a whole hour.
                begin = at if at in sums else begin_of(step, at)
                sums[begin][_measure(type, of_grant_type)] += count
        rows = tuple(TotalsRow(key=_text(at), at=at, counts=_counts(each)) for at, each in sums.items())
        together: Counter[Measure] = Counter()
        for each in sums.values():
            together.update(each)
        return Totals(since=span.since, until=span.until, counts=_counts(together), rows=rows)
    spans = _spans(engine, since, until)
    found_totals = [
        total
        for total in engine.stores.statistics.totals(spans, types, client_ids=[client_id or ""])
        if grant_type in (None, total.grant_type)
    ]
    counts = _sum(found_totals)
    answer = Totals(since=spans[0].since, until=spans[-1].until, counts=_counts(counts))
    match by:
        case By.CLIENT:
            if client_id is not None:
                raise BadSearch("one client cannot be shown by client: leave out one of the two")
            return _by_client(engine, answer, spans, types, grant_type, order, limit)
        case By.GRANT_TYPE:
            of_tokens = [total for total in found_totals if total.type in _OF_A_GRANT_TYPE]
            return _by_key(answer, ((total.grant_type, total) for total in of_tokens), limit)
        case By.REASON:
            refused = [total for total in found_totals if total.type in REFUSALS]
            return _by_key(answer, ((total.reason, total) for total in refused), limit)
        case _:
            return answer


def series(
    engine: Engine,
    measure: Measure,
    since: datetime,
    until: datetime,
    *,
    step: Step,
    client_id: str | None = None,
    grant_type: str | None = None,
) -> Series:
    """The values of a measure for each hour, day or month of a time, for a chart.

    Raises:
        BadSearch: a time that is empty, too long for such steps, or so long ago that its hours are deleted.
        StorageUnavailable: the storage did not answer.
    """
    _check_id(client_id)
    span = _span(engine, step, since, until)
    sums: Counter[datetime] = Counter()
    for at, type, of_grant_type, count in engine.stores.statistics.series(
        span, measure.types, client_id=client_id or ""
    ):
        if measure.fits(type, of_grant_type) and grant_type in (None, of_grant_type):
            sums[begin_of(step, at)] += count
    points = tuple((at, sums[at]) for at in _times(span))
    return Series(step=step, since=span.since, until=span.until, points=points)


def gauge_series(engine: Engine, gauge: Gauge, since: datetime, until: datetime, *, step: Step) -> Series:
    """The samples of a gauge for each hour, day or month of a time, for a chart; without a point where there is no sample.

    Raises as `series`.
    """
    span = _span(engine, step, since, until)
    points = tuple(engine.stores.statistics.samples(gauge, span))
    return Series(step=step, since=span.since, until=span.until, points=points)


def refusal_reasons(
    engine: Engine, since: datetime, until: datetime, *, client_id: str | None = None, limit: int = 20
) -> Sequence[RefusedFor]:
    """Why requests and sign-ins were refused, and grants revoked; the most frequent reasons first. Raises as `totals`."""
    if not 1 <= limit <= MAXIMUM_ROWS:
        raise BadSearch(f"a table has 1 to {MAXIMUM_ROWS:,} rows")
    _check_id(client_id)
    types = REFUSALS | Measure.GRANTS_REVOKED.types
    found = engine.stores.statistics.totals(_spans(engine, since, until), types, client_ids=[client_id or ""])
    sums: Counter[tuple[EventType, str]] = Counter()
    for total in found:
        sums[total.type, total.reason] += total.count
    return [
        RefusedFor(type=type, reason=reason, count=count)
        for (type, reason), count in sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:limit]
    ]


def counting_progress(engine: Engine) -> CountingProgress:
    """The progress of counting; usually it is some seconds behind."""
    stores = engine.stores
    position = stores.event_positions.of(READER) or 0
    following = stores.events.following(position, limit=1)
    if not following:
        return CountingProgress()
    return CountingProgress(waiting=stores.events.last_number() - position, since=following[0][1].at)


def current_figures(engine: Engine) -> Figures:
    """The present totals. This reads whole tables: pages show `latest_figures` instead. Raises StorageUnavailable."""
    return Figures(at=engine.now, values=_current(engine.stores, engine.settings, engine.now))


def latest_figures(engine: Engine) -> Figures | None:
    """The last samples of the last day, usually of the beginning of this hour; None if there are none."""
    now = begin_of(Step.HOUR, engine.now)
    span = Span(step=Step.HOUR, since=now - DAY, until=now + HOUR)
    noted = {gauge: engine.stores.statistics.samples(gauge, span) for gauge in Gauge}
    times = [samples[-1][0] for samples in noted.values() if samples]
    if not times:
        return None
    at = max(times)
    return Figures(at=at, values={gauge: found[-1][1] for gauge, found in noted.items() if found})


def take_sample(stores: Stores, settings: Settings, now: datetime) -> None:
    """Store the present totals, once in each hour, day and month. Raises StorageUnavailable."""
    hour = begin_of(Step.HOUR, now)
    if stores.statistics.samples(Gauge.PEOPLE, Span(step=Step.HOUR, since=hour, until=hour + HOUR)):
        return
    values = _current(stores, settings, now)
    for step in Step:
        stores.statistics.note_sample(step, begin_of(step, now), values)


def _current(stores: Stores, settings: Settings, now: datetime) -> Mapping[Gauge, int]:
    idle_since = now - timedelta(seconds=settings.session_idle_lifetime)
    return stores.statistics.current(now, idle_since)


def _by_client(
    engine: Engine,
    answer: Totals,
    spans: Sequence[Span],
    types: frozenset[EventType],
    grant_type: str | None,
    order: Measure | None,
    limit: int,
) -> Totals:
    ordered_by = types if order is None else types & order.types
    highest = engine.stores.statistics.top_clients(spans, ordered_by, grant_type=grant_type, limit=limit + 1)
    client_ids = [client_id for client_id, _ in highest[:limit]]
    sums: dict[str, Counter[Measure]] = {client_id: Counter() for client_id in client_ids}
    for total in engine.stores.statistics.totals(spans, types, client_ids=client_ids) if client_ids else ():
        if grant_type in (None, total.grant_type):
            sums[total.client_id][_measure(total.type, total.grant_type)] += total.count
    rest = Counter(answer.counts)
    for each in sums.values():
        rest.subtract(each)
    rows = [TotalsRow(key=client_id, counts=_counts(each)) for client_id, each in sums.items()]
    if any(rest.values()):
        rows.append(TotalsRow(key="", counts=_counts(rest)))
    return Totals(
        since=answer.since,
        until=answer.until,
        counts=answer.counts,
        rows=tuple(rows),
        more=len(highest) > limit,
    )


def _by_key(answer: Totals, found: Iterable[tuple[str, Total]], limit: int) -> Totals:
    sums: dict[str, Counter[Measure]] = {}
    for key, total in found:
        sums.setdefault(key, Counter())[_measure(total.type, total.grant_type)] += total.count
    rows = [TotalsRow(key=key, counts=_counts(each)) for key, each in sums.items()]
    rows.sort(key=lambda row: (-row.total, row.key))
    return Totals(
        since=answer.since,
        until=answer.until,
        counts=answer.counts,
        rows=tuple(rows[:limit]),
        more=len(rows) > limit,
    )


def _measure(type: EventType, grant_type: str) -> Measure:
    if type is EventType.TOKEN_ISSUED and grant_type == REFRESH:
        return Measure.REFRESHED
    return _OF_TYPE[type]


def _sum(found: Iterable[Total]) -> Counter[Measure]:
    sums: Counter[Measure] = Counter()
    for total in found:
        sums[_measure(total.type, total.grant_type)] += total.count
    return sums


def _counts(sums: Counter[Measure]) -> Counts:
    """All measures, in their order."""
    return {measure: sums[measure] for measure in Measure}


def usual_since(until: datetime, by: By | None) -> datetime:
    """The default beginning of a time with this end: a day before it by hour, a year before it by month, else 30 days."""
    return before(until, _USUAL.get(by, 30 * DAY))


def before(until: datetime, length: timedelta) -> datetime:
    """The time that is `length` before another, or the earliest possible one."""
    first = datetime.min.replace(tzinfo=UTC)
    return until - length if until - first > length else first


def _check_time(since: datetime, until: datetime) -> None:
    if since < _EARLIEST or until > _LATEST:
        raise BadSearch(f"nothing is counted before {_EARLIEST:%Y} and after {_LATEST:%Y}")
    if since >= until:
        raise BadSearch("the beginning of the time is not before its end: there is nothing to count")
    if until - since > MAXIMUM_TIME:
        raise BadSearch(f"that is longer than {MAXIMUM_TIME.days} days: name a shorter time")


def _check_id(client_id: str | None) -> None:
    if client_id is not None and (client_id == "" or "\0" in client_id or not client_id.isprintable()):
        raise BadSearch("no client has such an id")


def _hours_since(engine: Engine) -> datetime | None:
    """The first hour that is surely still kept; None if all are."""
    lifetime = engine.settings.hourly_statistics_lifetime
    return begin_of(Step.HOUR, engine.now) - timedelta(seconds=lifetime) if lifetime else None


def _span(engine: Engine, step: Step, since: datetime, until: datetime) -> Span:
    """The hours, days or months that a time touches."""
    _check_time(since, until)
    if step is Step.HOUR:
        kept_since = _hours_since(engine)
        if kept_since is not None and since < kept_since:
            raise BadSearch(
                f"hours are kept for {_days(engine.settings.hourly_statistics_lifetime)}: ask for days, or for a later time"
            )
    begin = begin_of(step, since)
    last = begin_of(step, until)
    span = Span(step=step, since=begin, until=last if last == until else end_of(step, until))
    length = {Step.HOUR: HOUR, Step.DAY: DAY, Step.MONTH: 30 * DAY}[step]
    if (span.until - span.since) / length > MAXIMUM_POINTS:
        longer = "days" if step is Step.HOUR else "months"
        raise BadSearch(
            f"that would be more than {MAXIMUM_POINTS:,} {step}s: ask for {longer}, or for a shorter time"
        )
    return span


def _times(span: Span) -> Sequence[datetime]:
    times = []
    at = span.since
    while at < span.until:
        times.append(at)
        at = end_of(span.step, at)
    return times


def _spans(engine: Engine, since: datetime, until: datetime) -> Sequence[Span]:
    """The time as the fewest spans: months in its middle, days and hours at its ends."""
    _check_time(since, until)
    kept_since = _hours_since(engine)
    with_hours = until - since <= HOURS_OF and (kept_since is None or since >= kept_since)
    smallest = Step.HOUR if with_hours else Step.DAY
    begin, end = begin_of(smallest, since), begin_of(smallest, until)
    if end != until:
        end = end_of(smallest, until)
    return _pieces(begin, end, smallest)


def _pieces(since: datetime, until: datetime, step: Step) -> Sequence[Span]:
    longer = {Step.HOUR: Step.DAY, Step.DAY: Step.MONTH}.get(step)
    if longer is None:
        return [Span(step=step, since=since, until=until)]
    first, last = begin_of(longer, since), begin_of(longer, until)
    if first != since:
        first = end_of(longer, since)
    if first >= last:
        return [Span(step=step, since=since, until=until)]
    spans = [Span(step=step, since=since, until=first)] if since < first else []
    spans += _pieces(first, last, longer)
    if last < until:
        spans.append(Span(step=step, since=last, until=until))
    return spans


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _days(seconds: int) -> str:
    days = seconds // 86400
    return f"{days} days" if days > 1 else f"{seconds // 3600} hours"
