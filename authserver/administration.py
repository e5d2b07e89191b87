"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, Page, find, search, source_of, types_of
from authserver.engine.counting import Rebuilt, rebuild_counts, whole_day_after
from authserver.engine.people.account import (
    Ended,
    disconnect,
    disconnect_all,
    enable_user,
    let_in_by,
    revoke_grant,
    set_password,
    sign_out_everywhere,
)
from authserver.engine.people.attributes import BadAttributes, change
from authserver.engine.people.login import BadPassword, add_user, disable_user
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.records import REFUSALS, EventFilter, EventType, Gauge, Step
from authserver.engine.statistics import (
    MAXIMUM_POINTS,
    MAXIMUM_ROWS,
    By,
    CountingProgress,
    Figures,
    Measure,
    RefusedFor,
    Series,
    Totals,
    TotalsRow,
    counting_progress,
    current_figures,
    gauge_series,
    latest_figures,
    refusal_reasons,
    series,
    totals,
)

__all__ = [
    "MAXIMUM_PAGE",
    "MAXIMUM_POINTS",
    "MAXIMUM_ROWS",
    "REFUSALS",
    "BadAttributes",
    "BadPassword",
    "BadSearch",
    "BadUsername",
    "By",
    "CountingProgress",
    "Ended",
    "EventFilter",
    "EventType",
    "Figures",
    "Gauge",
    "Measure",
    "Page",
    "Rebuilt",
    "RefusedFor",
    "Series",
    "Step",
    "Totals",
    "TotalsRow",
    "add_user",
    "change",
    "counting_progress",
    "current_figures",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "enable_user",
    "find",
    "gauge_series",
    "latest_figures",
    "let_in_by",
    "normalise_username",
    "rebuild_counts",
    "refusal_reasons",
    "revoke_grant",
    "search",
    "series",
    "set_password",
    "sign_out_everywhere",
    "source_of",
    "totals",
    "types_of",
    "whole_day_after",
]
