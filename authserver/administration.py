"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine import overview, rates
from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, Page, find, search, source_of, types_of
from authserver.engine.clients.authentication import disable_client
from authserver.engine.counting import Rebuilt, rebuild_counts, whole_day_after
from authserver.engine.crypto.jose import ALGORITHMS
from authserver.engine.ending import Act, Ended, Subject, SubjectKind, end, end_at_once, plan
from authserver.engine.event_proof import BadHead, Finding, Proof, verify
from authserver.engine.event_seals import recode_here
from authserver.engine.keys import ring, signing_keys
from authserver.engine.keys.signing_keys import CannotChange
from authserver.engine.letters import MailFailed, NoMail, is_mail_on
from authserver.engine.moments import BadMoment, moment_of
from authserver.engine.people.account import (
    disconnect,
    disconnect_all,
    enable_user,
    let_in_by,
    revoke_grant,
    set_password,
    sign_out_everywhere,
)
from authserver.engine.people.attributes import BadAttributes, ChangedMeanwhile, change
from authserver.engine.people.login import BadPassword, add_user, disable_user
from authserver.engine.people.password_links import (
    MAXIMUM_LIFETIME,
    MINIMUM_LIFETIME,
    NoLink,
    PasswordLink,
    SentLink,
    make_link,
    send_link,
)
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import REFUSALS, EventFilter, EventType, Gauge, GrantFilter, KeyState, Step
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
from authserver.settings import SettingsError

__all__ = [
    "ALGORITHMS",
    "MAXIMUM_LIFETIME",
    "MAXIMUM_PAGE",
    "MAXIMUM_POINTS",
    "MAXIMUM_ROWS",
    "MINIMUM_LIFETIME",
    "REFUSALS",
    "Act",
    "AlreadyExists",
    "BadAttributes",
    "BadHead",
    "BadMoment",
    "BadPassword",
    "BadSearch",
    "BadUsername",
    "By",
    "CannotChange",
    "ChangedMeanwhile",
    "CountingProgress",
    "Ended",
    "EventFilter",
    "EventType",
    "Figures",
    "Finding",
    "Gauge",
    "GrantFilter",
    "KeyState",
    "MailFailed",
    "Measure",
    "NoLink",
    "NoMail",
    "Page",
    "PasswordLink",
    "Proof",
    "Rebuilt",
    "RefusedFor",
    "SentLink",
    "Series",
    "SettingsError",
    "Step",
    "Subject",
    "SubjectKind",
    "Totals",
    "TotalsRow",
    "add_user",
    "change",
    "counting_progress",
    "current_figures",
    "disable_client",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "enable_user",
    "end",
    "end_at_once",
    "find",
    "gauge_series",
    "is_mail_on",
    "latest_figures",
    "let_in_by",
    "make_link",
    "moment_of",
    "normalise_username",
    "overview",
    "plan",
    "rates",
    "rebuild_counts",
    "recode_here",
    "refusal_reasons",
    "revoke_grant",
    "ring",
    "search",
    "send_link",
    "series",
    "set_password",
    "sign_out_everywhere",
    "signing_keys",
    "source_of",
    "totals",
    "types_of",
    "verify",
    "whole_day_after",
]
