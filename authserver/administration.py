"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine import operators, overview, rates
from authserver.engine.audit import (
    MAXIMUM_PAGE,
    BadSearch,
    Page,
    cursor_at,
    find,
    place_of,
    refused_types,
    search,
    source_of,
    types_of,
)
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.client_metadata import members, read_members, value_of
from authserver.engine.clients.editing import ClientEdit, ClientUnchanged, Edited, ListEdit, edit, pin
from authserver.engine.clients.initial_tokens import MAXIMUM_USES, BadInitialToken, policy_names
from authserver.engine.clients.initial_tokens import make as make_initial_token
from authserver.engine.clients.initial_tokens import revoke as revoke_initial_token
from authserver.engine.clients.registration import add_client, fitting_metadata
from authserver.engine.clients.secrets import (
    LastSecret,
    SecretsUnchanged,
    TwoLiveSecrets,
    client_with_secrets,
    end_secret,
    handle,
    live_secrets,
    needs_secret,
    rotate_secret,
)
from authserver.engine.count_records import Gauge, Step
from authserver.engine.counting import Rebuilt, rebuild_counts, whole_day_after
from authserver.engine.crypto.jose import ALGORITHMS
from authserver.engine.declarations.apply import apply, ends_of, finish
from authserver.engine.declarations.export import Exported, export
from authserver.engine.declarations.plan import Declared, Manner
from authserver.engine.declarations.planning import plan_of
from authserver.engine.ending import (
    Act,
    Ended,
    Part,
    Stage,
    Subject,
    SubjectKind,
    end_at_once,
    end_part,
    plan_part,
)
from authserver.engine.event_proof import BadHead, Finding, Proof, verify
from authserver.engine.event_seals import recode_here
from authserver.engine.keys import ring, signing_keys
from authserver.engine.keys.signing_keys import CannotChange
from authserver.engine.letters import MailFailed, NoMail, address_of, is_mail_on
from authserver.engine.moments import BadMoment, length_of, moment_of
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
    user_id_of,
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
    signs_in_elsewhere,
)
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import (
    REFUSALS,
    ClientSecret,
    ClientState,
    EventFilter,
    EventType,
    GrantFilter,
    InitialTokenState,
    KeyState,
    SigningKey,
    is_address,
)
from authserver.engine.resources import MINIMUM_LIFETIME as MINIMUM_ACCESS_TOKEN_LIFETIME
from authserver.engine.resources import BadResource
from authserver.engine.resources import add as add_resource
from authserver.engine.resources import change as change_resource
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
    usual_since,
)
from authserver.engine.tokens.ancestry import ancestors
from authserver.engine.uris import canonical_resource
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME, AccessTokenFormat, SettingsError

__all__ = [
    "ALGORITHMS",
    "MAXIMUM_ACCESS_TOKEN_LIFETIME",
    "MAXIMUM_LIFETIME",
    "MAXIMUM_PAGE",
    "MAXIMUM_POINTS",
    "MAXIMUM_ROWS",
    "MAXIMUM_USES",
    "MINIMUM_ACCESS_TOKEN_LIFETIME",
    "MINIMUM_LIFETIME",
    "REFUSALS",
    "AccessTokenFormat",
    "Act",
    "AlreadyExists",
    "BadAttributes",
    "BadHead",
    "BadInitialToken",
    "BadMoment",
    "BadPassword",
    "BadResource",
    "BadSearch",
    "BadUsername",
    "By",
    "CannotChange",
    "ChangedMeanwhile",
    "ClientEdit",
    "ClientSecret",
    "ClientState",
    "ClientUnchanged",
    "ConnectedApp",
    "CountingProgress",
    "Declared",
    "Edited",
    "Ended",
    "EventFilter",
    "EventType",
    "Exported",
    "Figures",
    "Finding",
    "Gauge",
    "GrantFilter",
    "InitialTokenState",
    "KeyState",
    "LastSecret",
    "ListEdit",
    "MailFailed",
    "Manner",
    "Measure",
    "NoLink",
    "NoMail",
    "OwnSession",
    "Page",
    "Part",
    "PasswordLink",
    "Proof",
    "Rebuilt",
    "RefusedFor",
    "SecretsUnchanged",
    "SentLink",
    "Series",
    "SettingsError",
    "SigningKey",
    "Stage",
    "Step",
    "Subject",
    "SubjectKind",
    "Totals",
    "TotalsRow",
    "TwoLiveSecrets",
    "add_client",
    "add_resource",
    "add_user",
    "address_of",
    "ancestors",
    "apply",
    "canonical_resource",
    "change",
    "change_resource",
    "client_with_secrets",
    "connected_apps",
    "counting_progress",
    "current_figures",
    "cursor_at",
    "disable_client",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "disconnect_plan",
    "edit",
    "enable_user",
    "end_at_once",
    "end_other_sessions",
    "end_part",
    "end_secret",
    "end_session",
    "ends_of",
    "export",
    "find",
    "finish",
    "fitting_metadata",
    "gauge_series",
    "grant_plan",
    "handle",
    "is_address",
    "is_mail_on",
    "latest_figures",
    "length_of",
    "let_in_by",
    "live_secrets",
    "make_initial_token",
    "make_link",
    "members",
    "moment_of",
    "needs_secret",
    "normalise_username",
    "operators",
    "overview",
    "own_sessions",
    "pin",
    "place_of",
    "plan_of",
    "plan_part",
    "policy_names",
    "rates",
    "read_members",
    "rebuild_counts",
    "recode_here",
    "refusal_reasons",
    "refused_types",
    "revoke_grant",
    "revoke_initial_token",
    "ring",
    "rotate_secret",
    "search",
    "send_link",
    "series",
    "set_password",
    "sign_out_everywhere",
    "signing_keys",
    "signs_in_elsewhere",
    "source_of",
    "totals",
    "types_of",
    "user_id_of",
    "usual_since",
    "value_of",
    "verify",
    "whole_day_after",
]
