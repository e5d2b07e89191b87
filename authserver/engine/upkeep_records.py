"""Values of clean-up: the kinds of rows that it deletes, and its batches (`authserver.upkeep`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from authserver.engine.records import Session


class Disposable(StrEnum):
    """The kinds of rows that clean-up deletes, in that order.

    TOKENS are access tokens; codes and refresh tokens go with their GRANTS.
    CLIENTS are those that registered themselves and were not used for long, UNUSED_CLIENTS those that were never used.
    SESSIONS are those that have expired, IDLE_SESSIONS those that were not used for long; they are deleted early only if
    applications are told the end of a session (`session_timeout_delay`).
    REFUSALS and ISSUANCES are the EVENTS of these types, which may be kept for a shorter time.
    HOURLY_COUNTS are those of hours, COUNTS those of days and months (`Count`). SAMPLES are the noted values of a `Gauge`.
    """

    TOKENS = "tokens"
    KEPT_RECORDS = "kept_records"
    GRANTS = "grants"
    SESSIONS = "sessions"
    IDLE_SESSIONS = "idle_sessions"
    CLIENT_SECRETS = "client_secrets"
    UNUSED_CLIENTS = "unused_clients"
    CLIENTS = "clients"
    REFUSALS = "refusals"
    ISSUANCES = "issuances"
    EVENTS = "events"
    HOURLY_COUNTS = "hourly_counts"
    COUNTS = "counts"
    SAMPLES = "samples"


# The place at which a batch ended: the time of the last row that was read, and its id if rows can have the same time.
Place = tuple[datetime, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The result of one batch.

    Attributes:
        removed: the number of deleted rows of the kind.
        dependents: the number of deleted rows that depended on them.
        next: the place at which the next batch begins; None at the end.
        sessions: the deleted sessions.
    """

    removed: int
    dependents: int = 0
    next: Place | None = None
    sessions: Sequence[Session] = ()
