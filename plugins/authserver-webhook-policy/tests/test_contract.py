"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from listener import Listener

from authserver.testing.contract import policy_contract
from authserver.testing.strategies import REDIRECT_URIS
from authserver_webhook_policy import WebhookPolicy


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
        case "authentication_decision" if facts["user_id"] is None:
            return {"verdict": "deny", "reason": "fine", "error_code": "login_required"}
        case "authentication_decision":
            return {**allowed, "value": "sign_in_again"}
        case "login_decision":
            return {**allowed, "value": {"username": question["typed"]["username"][:100].strip("\0")}}
        case "identity_decision":
            # Also for somebody who was never here: the policy is silent then.
            return {**allowed, "value": {"username": "ann"}}
        case "registration_decision":
            return {**allowed, "value": {"scopes": facts["metadata"]["scopes"][:1]}}
        case "redirect_uri_decision" if facts["redirect_uri"] not in REDIRECT_URIS:
            return {"verdict": "none"}
    return allowed


@pytest.fixture
def policy(endpoint: Listener, make_policy: Callable[..., WebhookPolicy]) -> WebhookPolicy:
    """For every hook, with every answer that there is."""
    endpoint.decides(decide)
    return make_policy(timeout=10, known_reasons=("blocked-by-risk",), send_password=True)


# What it sends has the time in its signature.
TestWebhookPolicy = policy_contract(WebhookPolicy, examples=50, quick=1.0, reads=("clock",))


class TestWebhookPolicyThatRemembers(TestWebhookPolicy):  # made by a function
    """And serves a few hooks only."""

    @pytest.fixture
    def policy(self, endpoint: Listener, make_policy: Callable[..., WebhookPolicy]) -> WebhookPolicy:
        endpoint.decides(decide)
        hooks = ("scope_decision", "redirect_uri_decision", "registration_decision")
        return make_policy(hooks=hooks, timeout=10, cache_seconds=60, cache_size=10)


def test_what_it_remembers_is_its_own(make_policy: Callable[..., WebhookPolicy]) -> None:
    """It keeps connections and answers, so two with the same settings are two."""
    one = make_policy()
    assert one == one and hash(one) == hash(one)
    assert one != make_policy()
