"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine import overview
from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, Page, find, search, source_of, types_of
from authserver.engine.crypto.jose import ALGORITHMS
from authserver.engine.keys import ring, signing_keys
from authserver.engine.keys.signing_keys import CannotChange
from authserver.engine.moments import BadMoment, moment_of
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
from authserver.engine.people.attributes import BadAttributes, ChangedMeanwhile, change
from authserver.engine.people.login import BadPassword, add_user, disable_user
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import REFUSALS, EventFilter, EventType, KeyState
from authserver.settings import SettingsError

__all__ = [
    "ALGORITHMS",
    "MAXIMUM_PAGE",
    "REFUSALS",
    "AlreadyExists",
    "BadAttributes",
    "BadMoment",
    "BadPassword",
    "BadSearch",
    "BadUsername",
    "CannotChange",
    "ChangedMeanwhile",
    "Ended",
    "EventFilter",
    "EventType",
    "KeyState",
    "Page",
    "SettingsError",
    "add_user",
    "change",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "enable_user",
    "find",
    "let_in_by",
    "moment_of",
    "normalise_username",
    "overview",
    "revoke_grant",
    "ring",
    "search",
    "set_password",
    "sign_out_everywhere",
    "signing_keys",
    "source_of",
    "types_of",
]
