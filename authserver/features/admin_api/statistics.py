"""How much was issued, refreshed and refused, and how much there is (`authserver stats`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from authserver.administration import (
    MAXIMUM_ROWS,
    By,
    Gauge,
    Measure,
    Series,
    Step,
    counting_progress,
    gauge_series,
    latest_figures,
    refusal_reasons,
    series,
    totals,
    usual_since,
)
from authserver.api import EventType, Parameter, object_schema
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    TIME,
    Answer,
    Call,
    Entry,
    invalid_parameter,
    moment,
)

READ = "authserver:statistics:read"
SCOPES = {READ: "See how much this server issued and refused, for which applications"}
DEFAULT_ROWS = 20
COUNT = {"type": "integer", "minimum": 0}
COUNTS = object_schema(
    {str(measure): Parameter(description="How many.", schema=COUNT, required=True) for measure in Measure}
)
SINCE, UNTIL = (
    Parameter(
        description="The beginning; 30 days before the end unless given, by hour a day, by month a year.",
        schema=TIME,
    ),
    Parameter(description="The end; now unless given.", schema=TIME),
)
TIMES: Mapping[str, Parameter] = {"since": SINCE, "until": UNTIL}
CLIENT = Parameter(description="Of this client alone.")
GRANT_TYPE = Parameter(description="Of token requests for this grant type alone.")
LIMIT = Parameter(
    description=f"How many rows there are at most; {DEFAULT_ROWS} unless given.",
    schema={"type": "integer", "minimum": 1, "maximum": MAXIMUM_ROWS},
)
COUNTED: Mapping[str, Parameter] = {
    "since": Parameter(description="The beginning of what was counted.", schema=TIME, required=True),
    "until": Parameter(description="Its end.", schema=TIME, required=True),
}
Named = TypeVar("Named", By, Measure, Gauge, Step)


def _named(call: Call, name: str, kind: type[Named]) -> Named | None:
    """A parameter that is one of some words. Raises Problem."""
    text = call.query.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        raise invalid_parameter(name, f"expected one of {', '.join(kind)}") from None


def _limit(call: Call) -> int:
    text = call.query.get("limit")
    if text is None:
        return DEFAULT_ROWS
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAXIMUM_ROWS):
        raise invalid_parameter("limit", f"expected a whole number from 1 to {MAXIMUM_ROWS}")
    return int(text)


def _times(call: Call, by: By | None = None) -> tuple[datetime, datetime]:
    """What time is meant. Raises Problem."""
    until = moment(call.query.get("until"), "until") or call.engine.now
    return moment(call.query.get("since"), "since") or usual_since(until, by), until


def show(call: Call) -> Answer:
    """How often each thing happened in a time, with a row for each value of `by`, highest first."""
    engine, query, by = call.engine, call.query, _named(call, "by", By)
    since, until = _times(call, by)
    found = totals(
        engine,
        since,
        until,
        by=by,
        client_id=query.get("client"),
        grant_type=query.get("grant_type"),
        limit=_limit(call),
    )
    waiting = counting_progress(engine)
    return Answer(
        body={
            "since": found.since,
            "until": found.until,
            "counts": found.counts,
            "rows": [{"key": row.key or None, "at": row.at, "counts": row.counts} for row in found.rows],
            "more": found.more,
            "not_counted_yet": {"events": waiting.waiting, "since": waiting.since},
        }
    )


def show_series(call: Call) -> Answer:
    """The counts of one measure, or the values of one gauge, for each hour, day or month.

    Raises:
        Problem: neither a measure nor a gauge is named, or both are; a gauge with a client or a grant type.
    """
    engine, query = call.engine, call.query
    measure, gauge, step = (
        _named(call, "measure", Measure),
        _named(call, "gauge", Gauge),
        _named(call, "step", Step),
    )
    if (measure is None) == (gauge is None):
        raise invalid_parameter("measure", "name either a measure or a gauge")
    step = step or Step.DAY
    since, until = _times(call, By(step.value))
    found: Series
    if gauge is not None:
        if query.get("client") or query.get("grant_type"):
            raise invalid_parameter("gauge", "it is of the whole server: leave out client and grant_type")
        found = gauge_series(engine, gauge, since, until, step=step)
    else:
        assert measure is not None  # or it was refused
        found = series(
            engine,
            measure,
            since,
            until,
            step=step,
            client_id=query.get("client"),
            grant_type=query.get("grant_type"),
        )
    return Answer(
        body={
            "step": found.step,
            "since": found.since,
            "until": found.until,
            "points": [{"at": at, "count": count} for at, count in found.points],
        }
    )


def list_reasons(call: Call) -> Answer:
    """The reasons of refusals in a time and how often each was given, most frequent first."""
    since, until = _times(call)
    found = refusal_reasons(call.engine, since, until, client_id=call.query.get("client"), limit=_limit(call))
    return Answer(
        body={"items": [{"event": each.type, "reason": each.reason, "count": each.count} for each in found]}
    )


def show_figures(call: Call) -> Answer:
    """The last sample of every gauge and its time; null before the first sample."""
    found = latest_figures(call.engine)
    values: Mapping[Gauge, int] = found.values if found else {}
    body: dict[str, Any] = {str(gauge): values.get(gauge) for gauge in Gauge}
    return Answer(body={"at": found.at if found else None, **body})


ENTRIES = (
    Entry(
        method="GET",
        path="/statistics",
        scope=READ,
        summary="Say how much happened in a time. With `by`, also in rows, the highest first.",
        act=show,
        query={
            **TIMES,
            "by": Parameter(description="A row for each of these.", schema={"enum": [*map(str, By)]}),
            "client": CLIENT,
            "grant_type": GRANT_TYPE,
            "limit": LIMIT,
        },
        answer={
            **COUNTED,
            "counts": Parameter(description="How much of each measure.", schema=COUNTS, required=True),
            "rows": Parameter(
                description="The same for each client, grant type, reason or time; `key` is null for the rest.",
                schema={
                    "type": "array",
                    "items": object_schema(
                        {
                            "key": Parameter(
                                description="What it is of.",
                                schema={"type": ["string", "null"]},
                                required=True,
                            ),
                            "at": Parameter(
                                description="The beginning of a time.", schema=NULL_OR_TIME, required=True
                            ),
                            "counts": Parameter(description="How much.", schema=COUNTS, required=True),
                        }
                    ),
                },
                required=True,
            ),
            "more": Parameter(
                description="Whether there are more rows.", schema={"type": "boolean"}, required=True
            ),
            "not_counted_yet": Parameter(
                description="How many events wait to be counted, about, and the time of the first of them.",
                schema=object_schema(
                    {
                        "events": Parameter(description="How many.", schema=COUNT, required=True),
                        "since": Parameter(description="Since when.", schema=NULL_OR_TIME, required=True),
                    }
                ),
                required=True,
            ),
        },
    ),
    Entry(
        method="GET",
        path="/statistics/series",
        scope=READ,
        summary="Say how much there was in each hour, day or month of a time, for a chart.",
        act=show_series,
        query={
            **TIMES,
            "measure": Parameter(description="What happened.", schema={"enum": [*map(str, Measure)]}),
            "gauge": Parameter(
                description="Instead: what there was, as it was noted.", schema={"enum": [*map(str, Gauge)]}
            ),
            "step": Parameter(
                description="In what steps; by day unless given.", schema={"enum": [*map(str, Step)]}
            ),
            "client": CLIENT,
            "grant_type": GRANT_TYPE,
        },
        answer={
            "step": Parameter(
                description="In what steps.", schema={"enum": [*map(str, Step)]}, required=True
            ),
            **COUNTED,
            "points": Parameter(
                description="One for each step; of a gauge those at which it was noted.",
                schema={
                    "type": "array",
                    "items": object_schema(
                        {
                            "at": Parameter(description="Its beginning.", schema=TIME, required=True),
                            "count": Parameter(description="How much.", schema=COUNT, required=True),
                        }
                    ),
                },
                required=True,
            ),
        },
    ),
    Entry(
        method="GET",
        path="/statistics/reasons",
        scope=READ,
        summary="List why requests and sign-ins were refused, and grants revoked, the most frequent reasons first.",
        act=list_reasons,
        query={**TIMES, "client": CLIENT, "limit": LIMIT},
        answer={
            "event": Parameter(
                description="What happened.", schema={"enum": [*map(str, EventType)]}, required=True
            ),
            "reason": Parameter(description="Why.", required=True),
            "count": Parameter(description="How often.", schema=COUNT, required=True),
        },
        listed=True,
    ),
    Entry(
        method="GET",
        path="/statistics/figures",
        scope=READ,
        summary="Say how much there is, as it was last noted within a day. All is null if nobody noted it.",
        act=show_figures,
        answer={
            "at": Parameter(description="When it was noted.", schema=NULL_OR_TIME, required=True),
            **{
                str(gauge): Parameter(
                    description="How many.", schema={"type": ["integer", "null"], "minimum": 0}, required=True
                )
                for gauge in Gauge
            },
        },
    ),
)
