"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine import overview
from authserver.engine.audit import (
    MAXIMUM_PAGE,
    BadSearch,
    Page,
    cursor_at,
    find,
    place_of,
    search,
    source_of,
    types_of,
)
from authserver.engine.clients.authentication import disable_client
from authserver.engine.ending import (
    Act,
    Ended,
    Part,
    Stage,
    Subject,
    SubjectKind,
    end,
    end_at_once,
    end_part,
    plan,
    plan_part,
)
from authserver.engine.letters import MailFailed, NoMail, address_of, is_mail_on
from authserver.engine.moments import BadMoment, moment_of
from authserver.engine.people.account import (
    ConnectedApp,
    OwnSession,
    connected_apps,
    disconnect,
    disconnect_all,
    disconnect_plan,
    enable_user,
    end_other_sessions,
    end_session,
    grant_plan,
    let_in_by,
    own_sessions,
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
from authserver.engine.records import REFUSALS, EventFilter, EventType, GrantFilter
from authserver.engine.uris import canonical_resource
from authserver.settings import AccessTokenFormat

__all__ = [
    "MAXIMUM_LIFETIME",
    "MAXIMUM_PAGE",
    "MINIMUM_LIFETIME",
    "REFUSALS",
    "AccessTokenFormat",
    "Act",
    "AlreadyExists",
    "BadAttributes",
    "BadMoment",
    "BadPassword",
    "BadSearch",
    "BadUsername",
    "ChangedMeanwhile",
    "ConnectedApp",
    "Ended",
    "EventFilter",
    "EventType",
    "GrantFilter",
    "MailFailed",
    "NoLink",
    "NoMail",
    "OwnSession",
    "Page",
    "Part",
    "PasswordLink",
    "SentLink",
    "Stage",
    "Subject",
    "SubjectKind",
    "add_user",
    "address_of",
    "canonical_resource",
    "change",
    "connected_apps",
    "cursor_at",
    "disable_client",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "disconnect_plan",
    "enable_user",
    "end",
    "end_at_once",
    "end_other_sessions",
    "end_part",
    "end_session",
    "find",
    "grant_plan",
    "is_mail_on",
    "let_in_by",
    "make_link",
    "moment_of",
    "normalise_username",
    "overview",
    "own_sessions",
    "place_of",
    "plan",
    "plan_part",
    "revoke_grant",
    "search",
    "send_link",
    "set_password",
    "sign_out_everywhere",
    "source_of",
    "types_of",
]
