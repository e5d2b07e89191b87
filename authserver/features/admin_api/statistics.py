"""Statistics: how much was issued, refreshed and refused, and how much is stored (as `authserver stats`)."""

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
        description="The beginning; unless given, 30 days before the end, a day for hours, or a year for months.",
        schema=TIME,
    ),
    Parameter(description="The end; now unless given.", schema=TIME),
)
TIMES: Mapping[str, Parameter] = {"since": SINCE, "until": UNTIL}
CLIENT = Parameter(description="Count only for this client.")
GRANT_TYPE = Parameter(description="Count only token requests for this grant type.")
LIMIT = Parameter(
    description=f"How many rows there are at most; {DEFAULT_ROWS} unless given.",
    schema={"type": "integer", "minimum": 1, "maximum": MAXIMUM_ROWS},
)
COUNTED: Mapping[str, Parameter] = {
    "since": Parameter(description="The beginning of the counted time.", schema=TIME, required=True),
    "until": Parameter(description="The end of the counted time.", schema=TIME, required=True),
}
Named = TypeVar("Named", By, Measure, Gauge, Step)


def _named(call: Call, name: str, kind: type[Named]) -> Named | None:
    """A parameter that must be one of the values of an enumeration. Raises Problem."""
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
    """Beginning and end of the time that the request names. Raises Problem."""
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
        Problem: neither a measure nor a gauge is named, or both are; or a gauge is named with a client or a grant type.
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
            raise invalid_parameter(
                "gauge", "a gauge is for the whole server: leave out client and grant_type"
            )
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
        summary="Count what happened in a time. With `by`, the answer also has rows, the highest first.",
        act=show,
        query={
            **TIMES,
            "by": Parameter(description="The kind of the rows.", schema={"enum": [*map(str, By)]}),
            "client": CLIENT,
            "grant_type": GRANT_TYPE,
            "limit": LIMIT,
        },
        answer={
            **COUNTED,
            "counts": Parameter(description="The count of each measure.", schema=COUNTS, required=True),
            "rows": Parameter(
                description="The counts for each client, grant type, reason or time; `key` is null for the rest.",
                schema={
                    "type": "array",
                    "items": object_schema(
                        {
                            "key": Parameter(
                                description="The client, grant type or reason.",
                                schema={"type": ["string", "null"]},
                                required=True,
                            ),
                            "at": Parameter(
                                description="The beginning of the time.", schema=NULL_OR_TIME, required=True
                            ),
                            "counts": Parameter(description="The counts.", schema=COUNTS, required=True),
                        }
                    ),
                },
                required=True,
            ),
            "more": Parameter(
                description="Whether there are more rows.", schema={"type": "boolean"}, required=True
            ),
            "not_counted_yet": Parameter(
                description="About how many events are not counted yet, and the time of the first of them.",
                schema=object_schema(
                    {
                        "events": Parameter(description="How many.", schema=COUNT, required=True),
                        "since": Parameter(
                            description="The time of the first.", schema=NULL_OR_TIME, required=True
                        ),
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
        summary="Count in each hour, day or month of a time, for a chart.",
        act=show_series,
        query={
            **TIMES,
            "measure": Parameter(description="The measure to count.", schema={"enum": [*map(str, Measure)]}),
            "gauge": Parameter(
                description="In place of a measure: the gauge whose samples are shown.",
                schema={"enum": [*map(str, Gauge)]},
            ),
            "step": Parameter(
                description="The length of a step; a day unless given.", schema={"enum": [*map(str, Step)]}
            ),
            "client": CLIENT,
            "grant_type": GRANT_TYPE,
        },
        answer={
            "step": Parameter(
                description="The length of a step.", schema={"enum": [*map(str, Step)]}, required=True
            ),
            **COUNTED,
            "points": Parameter(
                description="One point for each step; for a gauge, only for steps with a sample.",
                schema={
                    "type": "array",
                    "items": object_schema(
                        {
                            "at": Parameter(
                                description="The beginning of the step.", schema=TIME, required=True
                            ),
                            "count": Parameter(description="The count.", schema=COUNT, required=True),
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
                description="The type of the events.", schema={"enum": [*map(str, EventType)]}, required=True
            ),
            "reason": Parameter(description="The reason.", required=True),
            "count": Parameter(description="How often.", schema=COUNT, required=True),
        },
        listed=True,
    ),
    Entry(
        method="GET",
        path="/statistics/figures",
        scope=READ,
        summary="Show the last sample of every gauge within a day. All values are null if there is no sample.",
        act=show_figures,
        answer={
            "at": Parameter(description="The time of the sample.", schema=NULL_OR_TIME, required=True),
            **{
                str(gauge): Parameter(
                    description="How many.", schema={"type": ["integer", "null"], "minimum": 0}, required=True
                )
                for gauge in Gauge
            },
        },
    ),
)
