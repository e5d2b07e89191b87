"""Values of the statistics: counts of events, and present totals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from authserver.engine.records import EventType


class Step(StrEnum):
    """The period of a count: an hour, a day or a month of UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The number of events of a type in one hour, day or month, which begins `at`.

    `client_id` is empty for all clients together. `grant_type` is empty if there was none or it is not known; `reason` is
    that of a refusal or a revocation, and empty for other events.
    """

    step: Step
    at: datetime
    client_id: str = ""
    type: EventType
    grant_type: str = ""
    reason: str = ""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive hours, days or months: from the one that begins at `since` up to `until`, without it."""

    step: Step
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The sum of the `Count`s of one or several spans."""

    client_id: str = ""
    type: EventType
    grant_type: str = ""
    reason: str = ""
    count: int


class Gauge(StrEnum):
    """The kinds of present totals.

    ACTIVE_GRANTS have neither expired nor been revoked, and their client got tokens. SESSIONS are signed-in browsers.
    CLIENTS and PEOPLE are those that are not disabled.
    """

    ACTIVE_GRANTS = "active_grants"
    SESSIONS = "sessions"
    CLIENTS = "clients"
    PEOPLE = "people"
