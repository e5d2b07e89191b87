"""The kinds of hooks: which decide, contribute and observe, and what counts as an answer to each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authserver.engine.authorize import Expanded
from authserver.engine.clients.registration import ClientMetadata
from authserver.engine.context import Binding
from authserver.engine.decisions import Decision, Verdict
from authserver.engine.errors import OAuthError
from authserver.engine.people.login import Identity
from authserver.engine.records import Client
from authserver.engine.tokens.issuing import CODE_DETAILS, CORE_CLAIMS, CORE_MEMBERS


@dataclass(frozen=True, slots=True)
class Slot:
    """How the answers to a deciding hook are read.

    Attributes:
        value: the type an allow must carry; None when it carries nothing.
        narrows: whether narrow(reason, tuple) is an answer here.
        silence: what it means when nobody answers, in words.
        silence_refuses: whether that is the same as being refused.
    """

    value: type | None
    silence: str
    narrows: bool = False
    silence_refuses: bool = True


SLOTS: Mapping[str, Slot] = {
    "client_auth_decision": Slot(None, "refused with invalid_client"),
    "redirect_uri_decision": Slot(None, "refused with an error page"),
    "scope_decision": Slot(tuple, "refused with invalid_scope", narrows=True),
    "resource_decision": Slot(str, "refused with invalid_target"),
    "consent_decision": Slot(None, "the user is asked", silence_refuses=False),
    "login_decision": Slot(Identity, "refused"),
    "registration_decision": Slot(ClientMetadata, "registration is closed"),
    "introspection_decision": Slot(None, "refused as inactive"),
}
# The contributing hooks, and what kind of value each joins.
CONTRIBUTING: Mapping[str, type] = {
    "expand_authorization_request": Expanded,
    "find_client": Client,
    "scopes": Mapping,
    "private_use_redirect_uris": tuple,
    "grant_types": Mapping,
    "client_metadata": Mapping,
    "server_metadata": Mapping,
    "code_details": Mapping,
    "token_binding": Binding,
    "token_claims": Mapping,
    "token_response": Mapping,
    "includeme": object,
}
# The observing hooks: told, never asked.
OBSERVING = ("observe",)
HOOKS = (*SLOTS, *CONTRIBUTING, *OBSERVING)
# Hooks that are asked in every request: a plugin that asks somebody outside is timed.
TIMED = frozenset(
    {
        *SLOTS,
        "code_details",
        "expand_authorization_request",
        "find_client",
        "token_claims",
        "token_response",
        "observe",
    }
)
# Contributing hooks at which an OAuth error is a refusal, and no fault of the plugin.
REFUSING = frozenset({"expand_authorization_request", "code_details", "token_binding"})
# Where a plugin declares the names it adds, by hook.
DECLARED = {
    "code_details": "details",
    "token_binding": "confirmations",
    "token_claims": "claims",
    "token_response": "members",
}
RESERVED: Mapping[str, frozenset[str]] = {
    "code_details": CODE_DETAILS,
    "token_binding": frozenset(),
    "token_claims": CORE_CLAIMS,
    "token_response": CORE_MEMBERS,
}

# Of the reason of an answer or a refusal, and of what a refusal says to the client (OAuth 2.1, 3.2.4).
MAXIMUM_REASON = 100
MAXIMUM_DESCRIPTION = 500
_REASON = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+")


def same_outcome(slot: str, one: tuple[Verdict, Any], other: tuple[Verdict, Any]) -> bool:
    """Whether two rulings of a deciding hook, each as (verdict, value), let the same through; reasons apart."""
    return _effect(slot, *one) == _effect(slot, *other)


def _effect(slot: str, verdict: Verdict, value: Any) -> tuple[Verdict, Any]:
    if verdict is Verdict.ALLOW:
        return verdict, value
    asks = verdict is Verdict.SILENT and not SLOTS[slot].silence_refuses
    return Verdict.SILENT if asks else Verdict.DENY, None


def is_refusal(error: Exception) -> bool:
    """Whether this is an OAuth error that can be sent and kept as it is."""
    return (
        isinstance(error, OAuthError)
        and (error.reason == error.code or is_reason(error.reason))
        and isinstance(error.description, str)
        and len(error.description) <= MAXIMUM_DESCRIPTION
        and _DESCRIPTION.fullmatch(error.description) is not None
    )


def is_reason(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAXIMUM_REASON and _REASON.fullmatch(text) is not None


def problem_with(decision: object, rules: Slot) -> str | None:
    """Why this is no answer to this hook; None when it is one."""
    if type(decision) is not Decision:
        return "wrong-type"
    # Made by hand, a decision may hold the text "deny", which is no verdict and must not pass for an allow.
    if not any(decision.verdict is verdict for verdict in (Verdict.ALLOW, Verdict.NARROW, Verdict.DENY)):
        return "wrong-verdict"
    if not is_reason(decision.reason):
        return "bad-reason"
    if (
        decision.verdict is Verdict.ALLOW
        and rules.value is not None
        and not _is_value(decision.value, rules.value)
    ):
        return "wrong-value"
    if decision.verdict is Verdict.NARROW and not (rules.narrows and _is_value(decision.value, tuple)):
        return "wrong-value"
    return None


def _is_value(value: object, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)
