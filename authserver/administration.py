"""What operators do and see, in one place: commands, pages and an API for operators call these functions alike.

A plugin that decides or observes needs none of them, and imports `authserver.api` alone. One that imports this is trusted
with everything.
"""

from __future__ import annotations

from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, Page, find, search, source_of, types_of
from authserver.engine.event_proof import BadHead, Finding, Proof, verify
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
from authserver.engine.records import REFUSALS, EventFilter, EventType

__all__ = [
    "MAXIMUM_PAGE",
    "REFUSALS",
    "BadAttributes",
    "BadHead",
    "BadPassword",
    "BadSearch",
    "BadUsername",
    "Ended",
    "EventFilter",
    "EventType",
    "Finding",
    "Page",
    "Proof",
    "add_user",
    "change",
    "disable_user",
    "disconnect",
    "disconnect_all",
    "enable_user",
    "find",
    "let_in_by",
    "normalise_username",
    "revoke_grant",
    "search",
    "set_password",
    "sign_out_everywhere",
    "source_of",
    "types_of",
    "verify",
]
