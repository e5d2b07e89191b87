"""Charts and tables: how much was issued, refreshed and refused, how many people signed in, and how much is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from authserver.administration import (
    BadSearch,
    By,
    Gauge,
    Measure,
    Step,
    Totals,
    counting_progress,
    gauge_series,
    latest_figures,
    moment_of,
    refusal_reasons,
    totals,
)
from authserver.features.console.pages import Page, Visit

# How many clients, grant types and reasons are shown.
MAXIMUM_SHOWN = 20
# How many columns a chart has at most: enough for a year with a column for each day.
MAXIMUM_COLUMNS = 400
_LENGTHS = {Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1), Step.MONTH: timedelta(days=30)}
# Up to these lengths of time, a chart is by hour or by day unless something else is chosen.
_BY_HOUR, _BY_DAY = timedelta(days=3), timedelta(days=100)
_PERIODS = {"1d": "1 day", "7d": "7 days", "30d": "30 days", "365d": "1 year"}
_SINCE = "7d"
_CHARTS = (
    (Measure.ISSUED, "Access tokens issued"),
    (Measure.REFRESHED, "Access tokens refreshed"),
    (Measure.REFUSED, "Requests refused"),
    (Measure.SIGN_INS, "Sign-ins"),
    (Measure.SIGN_INS_REFUSED, "Sign-ins refused"),
    (Measure.REGISTRATIONS, "Clients registered"),
)
_SHAPES = {Step.HOUR: "%m-%d %H:%M", Step.DAY: "%Y-%m-%d", Step.MONTH: "%Y-%m"}
_FIELDS = ("since", "until", "by", "client", "grant_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A measure or gauge over time: pairs of label and number, and their sum, which is None for a gauge."""

    title: str
    points: Sequence[tuple[str, int]]
    total: int | None


def show(visit: Visit) -> Mapping[str, Any]:
    """The statistics of a time: charts, and tables by client, grant type and reason."""
    sent = {name: visit.get(name) for name in _FIELDS}
    found: Mapping[str, Any] = {}
    problem = ""
    try:
        found = _found(visit, sent)
    except BadSearch as bad:
        problem = str(bad)
    waiting = counting_progress(visit.engine)
    return {
        "sent": {**sent, "since": sent["since"] or _SINCE},
        "periods": [
            (words, visit.address(visit.page.name, **{**sent, "since": since, "until": "", "by": ""}))
            for since, words in _PERIODS.items()
        ],
        "steps": [("", "As fits the time"), *((step.value, f"By {step.value}") for step in Step)],
        "waiting": waiting,
        "figures": latest_figures(visit.engine),
        "found": None,
        **found,
        "problem": problem,
        "status": 400 if problem else 200,
    }


def _found(visit: Visit, sent: Mapping[str, str]) -> Mapping[str, Any]:
    """The values for what was sent. Raises BadSearch and BadMoment."""
    engine, now = visit.engine, visit.engine.now
    since = moment_of(sent["since"] or _SINCE, now)
    until = moment_of(sent["until"], now) if sent["until"] else now
    step = _step(sent["by"], until - since)
    client_id, grant_type = sent["client"] or None, sent["grant_type"] or None
    count = partial(totals, engine, since, until, grant_type=grant_type)
    if (until - since) / _LENGTHS[step] > MAXIMUM_COLUMNS:
        raise BadSearch(
            f"a chart has at most {MAXIMUM_COLUMNS} columns: choose longer steps, or a shorter time"
        )
    over_time = count(by=By(step.value), client_id=client_id)
    by_grant_type = count(by=By.GRANT_TYPE, client_id=client_id, limit=MAXIMUM_SHOWN)
    by_client = None if client_id else count(by=By.CLIENT, limit=MAXIMUM_SHOWN)
    return {
        "found": over_time,
        "step": step,
        "charts": [
            Chart(
                title=title,
                points=[(_label(row.at, step), row.counts[measure]) for row in over_time.rows],
                total=over_time.counts[measure],
            )
            for measure, title in _CHARTS
        ],
        "gauges": _gauges(visit, since, until, step) if client_id is None and grant_type is None else [],
        "by_client": by_client,
        "names": _names(visit, by_client),
        "by_grant_type": by_grant_type,
        "reasons": refusal_reasons(engine, since, until, client_id=client_id, limit=MAXIMUM_SHOWN)
        if grant_type is None
        else None,
    }


def _step(by: str, length: timedelta) -> Step:
    """The typed step, or one that fits the length of time. Raises BadSearch for an unknown step."""
    if by:
        try:
            return Step(by)
        except ValueError:
            raise BadSearch(f"by: expected {', '.join(step.value for step in Step)}") from None
    return Step.HOUR if length <= _BY_HOUR else Step.DAY if length <= _BY_DAY else Step.MONTH


def _gauges(visit: Visit, since: datetime, until: datetime, step: Step) -> Sequence[Chart]:
    found = gauge_series(visit.engine, Gauge.ACTIVE_GRANTS, since, until, step=step)
    points = [(_label(at, step), count) for at, count in found.points]
    return [Chart(title="Active grants", points=points, total=None)]


def _label(at: datetime | None, step: Step) -> str:
    return at.strftime(_SHAPES[step]) if at else ""


def _names(visit: Visit, by_client: Totals | None) -> Mapping[str, str]:
    client_ids = [row.key for row in by_client.rows if row.key] if by_client else []
    found = visit.engine.stores.clients.find_all(client_ids, visit.engine.now) if client_ids else ()
    return {client.client_id: client.name for client in found}


PAGES = (
    Page(
        name="admin_statistics",
        path="/admin/statistics",
        show=show,
        template="statistics.jinja2",
        entry="Statistics",
    ),
)
