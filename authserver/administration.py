"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine import overview
from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, Page, find, search, source_of, types_of
from authserver.engine.clients.authentication import disable_client
from authserver.engine.counting import Rebuilt, rebuild_counts, whole_day_after
from authserver.engine.declarations.apply import apply, ends_of, finish
from authserver.engine.declarations.export import Exported, export
from authserver.engine.declarations.plan import Declared, Manner
from authserver.engine.declarations.planning import plan_of
from authserver.engine.ending import Act, Ended, Subject, SubjectKind, end, end_at_once, plan
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
from authserver.engine.records import REFUSALS, EventFilter, EventType, Gauge, GrantFilter, Step
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
    "MAXIMUM_LIFETIME",
    "MAXIMUM_PAGE",
    "MAXIMUM_POINTS",
    "MAXIMUM_ROWS",
    "MINIMUM_LIFETIME",
    "REFUSALS",
    "Act",
    "AlreadyExists",
    "BadAttributes",
    "BadMoment",
    "BadPassword",
    "BadSearch",
    "BadUsername",
    "By",
    "ChangedMeanwhile",
    "CountingProgress",
    "Declared",
    "Ended",
    "EventFilter",
    "EventType",
    "Exported",
    "Figures",
    "Gauge",
    "GrantFilter",
    "MailFailed",
    "Manner",
    "Measure",
    "NoLink",
    "NoMail",
    "Page",
    "PasswordLink",
    "Rebuilt",
    "RefusedFor",
    "SentLink",
    "Series",
    "Step",
    "Subject",
    "SubjectKind",
    "Totals",
    "TotalsRow",
    "add_user",
    "apply",
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
    "ends_of",
    "export",
    "find",
    "finish",
    "gauge_series",
    "is_mail_on",
    "latest_figures",
    "let_in_by",
    "make_link",
    "moment_of",
    "normalise_username",
    "overview",
    "plan",
    "plan_of",
    "rebuild_counts",
    "refusal_reasons",
    "revoke_grant",
    "search",
    "send_link",
    "series",
    "set_password",
    "sign_out_everywhere",
    "source_of",
    "totals",
    "types_of",
    "whole_day_after",
]
