"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine import overview
from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, Page, find, search, source_of, types_of
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.client_metadata import read_members, value_of
from authserver.engine.clients.editing import (
    ClientEdit,
    ClientUnchanged,
    Edited,
    ListEdit,
    edit,
    members,
    pin,
)
from authserver.engine.clients.initial_tokens import MAXIMUM_NOTE, MAXIMUM_USES, policy_names
from authserver.engine.clients.initial_tokens import make as make_initial_token
from authserver.engine.clients.initial_tokens import revoke as revoke_initial_token
from authserver.engine.clients.registration import add_client
from authserver.engine.clients.secrets import (
    SecretsUnchanged,
    TwoLiveSecrets,
    end_secret,
    handle,
    live_secrets,
    needs_secret,
    rotate_secret,
)
from authserver.engine.ending import Act, Ended, Subject, SubjectKind, end, end_at_once, plan
from authserver.engine.moments import BadMoment, length_of, moment_of
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
    is_address,
)
from authserver.engine.resources import MINIMUM_LIFETIME, BadResource
from authserver.engine.resources import add as add_resource
from authserver.engine.resources import change as change_resource
from authserver.settings import AccessTokenFormat

__all__ = [
    "MAXIMUM_NOTE",
    "MAXIMUM_PAGE",
    "MAXIMUM_USES",
    "MINIMUM_LIFETIME",
    "REFUSALS",
    "AccessTokenFormat",
    "Act",
    "AlreadyExists",
    "BadAttributes",
    "BadMoment",
    "BadPassword",
    "BadResource",
    "BadSearch",
    "BadUsername",
    "ChangedMeanwhile",
    "ClientEdit",
    "ClientSecret",
    "ClientState",
    "ClientUnchanged",
    "Edited",
    "Ended",
    "EventFilter",
    "EventType",
    "GrantFilter",
    "InitialTokenState",
    "ListEdit",
    "Page",
    "SecretsUnchanged",
    "Subject",
    "SubjectKind",
    "TwoLiveSecrets",
    "add_client",
    "add_resource",
    "add_user",
    "change",
    "change_resource",
    "disable_client",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "edit",
    "enable_user",
    "end",
    "end_at_once",
    "end_secret",
    "find",
    "handle",
    "is_address",
    "length_of",
    "let_in_by",
    "live_secrets",
    "make_initial_token",
    "members",
    "moment_of",
    "needs_secret",
    "normalise_username",
    "overview",
    "pin",
    "plan",
    "policy_names",
    "read_members",
    "revoke_grant",
    "revoke_initial_token",
    "rotate_secret",
    "search",
    "set_password",
    "sign_out_everywhere",
    "source_of",
    "types_of",
    "value_of",
]
