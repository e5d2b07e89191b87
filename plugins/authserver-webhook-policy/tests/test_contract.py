"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from listener import SECRET, listening

from authserver.api import Secret
from authserver.testing.contract import policy_contract
from authserver.testing.strategies import REDIRECT_URIS
from authserver_webhook_policy import HOOKS, WebhookPolicy


def decide(question: dict[str, Any]) -> dict[str, Any]:
    """Every verdict that there is, depending on the question alone."""
    hook, facts = question["hook"], question["facts"]
    if facts.get("client_id") == "reports" or facts.get("source") == "garbage":
        return {"verdict": "deny", "reason": "blocked-by-risk"}
    allowed = {"verdict": "allow", "reason": "fine"}
    match hook:
        case "scope_decision" if facts["user_id"] is None:
            return {"verdict": "narrow", "reason": "fine", "value": ["profile"]}
        case "scope_decision":
            # Also what nobody asked for: the policy cuts it.
            return {**allowed, "value": ["profile", "admin", "unasked"]}
        case "resource_decision" if not (facts["resource"] or "").startswith("https://api.example/"):
            return {"verdict": "none"}
        case "resource_decision":
            return {**allowed, "value": facts["resource"]}
        case "login_decision":
            return {**allowed, "value": {"username": question["typed"]["username"][:100].strip("\0")}}
        case "registration_decision":
            return {**allowed, "value": {"scopes": facts["metadata"]["scopes"][:1]}}
        case "redirect_uri_decision" if facts["redirect_uri"] not in REDIRECT_URIS:
            return {"verdict": "none"}
    return allowed


# The contract wants the policy itself when this file is read, so its endpoint listens from then on.
_open = ExitStack()
_listener = _open.enter_context(listening())
_listener.decides(decide)


@pytest.fixture(scope="module", autouse=True)
def _closed_at_the_end() -> Any:
    with _open:
        yield


TestWebhookPolicy = policy_contract(
    WebhookPolicy(
        hooks=HOOKS,
        url=_listener.url,
        secret=Secret(SECRET),
        timeout=10,
        known_reasons=("blocked-by-risk",),
        send_password=True,
    ),
    examples=25,
    quick=1.0,
)
TestRememberingWebhookPolicy = policy_contract(
    WebhookPolicy(
        hooks=("scope_decision", "redirect_uri_decision", "registration_decision"),
        url=_listener.url,
        secret=Secret(SECRET),
        timeout=10,
        cache_seconds=60,
        cache_size=10,
    ),
    examples=25,
    quick=1.0,
)


def test_equal_settings_make_an_equal_value(make_policy: Callable[..., WebhookPolicy]) -> None:
    assert make_policy() == make_policy()
    assert hash(make_policy()) == hash(make_policy())
    assert make_policy() != make_policy(retries=0)
