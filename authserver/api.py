"""All that a plugin may import.

from dataclasses import dataclass
from authserver.api import allow, hookimpl

@dataclass(frozen=True)
class NightShift:
    team: str = "operations"

    @hookimpl
    def scope_decision(self, client, requested): ...
"""

from authserver.engine.asking import OFFLINE_ACCESS
from authserver.engine.clients import Credentials
from authserver.engine.decisions import Decision, allow, deny, narrow
from authserver.engine.digests import equal, verify_password
from authserver.engine.login import Identity
from authserver.engine.questions import facts_of
from authserver.engine.records import Client, Consent, Event, Grant, RegisteredBy, User
from authserver.engine.register import INITIAL_ACCESS_TOKEN_REQUIRED, ClientMetadata
from authserver.engine.uris import (
    canonical_resource,
    redirect_uri_problem,
    same_loopback_redirect_uri,
    same_redirect_uri,
)
from authserver.hookspecs import hookimpl
from authserver.settings import Secret

__all__ = [
    "INITIAL_ACCESS_TOKEN_REQUIRED",
    "OFFLINE_ACCESS",
    "Client",
    "ClientMetadata",
    "Consent",
    "Credentials",
    "Decision",
    "Event",
    "Grant",
    "Identity",
    "RegisteredBy",
    "Secret",
    "User",
    "allow",
    "canonical_resource",
    "deny",
    "equal",
    "facts_of",
    "hookimpl",
    "narrow",
    "redirect_uri_problem",
    "same_loopback_redirect_uri",
    "same_redirect_uri",
    "verify_password",
]
