"""Every shipped policy, and every feature that decides, holds to the contract that plugin authors are given."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from authserver.api import Secret
from authserver.engine.clients.client_metadata import read_metadata, read_object
from authserver.engine.errors import Refusal
from authserver.features.upstream.providers import Provider
from authserver.hooks import is_implemented
from authserver.hookspecs import DECIDING
from authserver.plugins.loading import GROUP
from authserver.testing import hostile, strategies
from authserver.testing.contract import policy_contract

# Settings under which the policy has something to say to the questions of `authserver.testing.strategies`.
SETTINGS: dict[str, dict[str, Any]] = {
    "redirect_loopback": {"hosts": ("127.0.0.1", "[::1]", "localhost")},
    "scopes_default": {"scopes": ("profile", "files.read")},
    "resources_listed": {
        "resources": ((strategies.RESOURCES[0], "*"), (strategies.RESOURCES[1], "files.read files.write")),
        "default": strategies.RESOURCES[0],
    },
    "introspect_resource_servers": {"clients": (("reports", " ".join(strategies.RESOURCES[:2])),)},
    "client_id_documents": {"scopes": ("profile", "files.read")},
    "registration_open": {"scopes": ("profile", "files.read")},
    "upstream": {
        "providers": (
            Provider(
                name="staff",
                issuer=strategies.ISSUER,
                groups_claim="groups",
                attributes=(("email", "email"),),
                trusts_email=True,
                trusts_methods=True,
                client_id="authserver",
                client_secret=Secret("secret"),
            ),
        )
    },
    "step_up": {
        "levels": (("silver", "pwd"), ("gold", "pwd+otp, 900")),
        "scopes": (("files.write", "gold"),),
    },
    "registration_token": {"tokens": (Secret("t" * 43),), "scopes": ("profile", "files.read")},
}
# An Argon2id hash is slow by design, and a busy machine makes it slower.
CONTRACTS: dict[str, dict[str, Any]] = {
    "login_password": {"examples": 5, "quick": 2.0},
    "openid": {"reads": ("clock",)},
    "rate_limits": {"reads": ("clock",)},
    "step_up": {"reads": ("clock",)},
}

POLICIES = {
    point.name: point.load()
    for point in entry_points(group=GROUP)
    if point.value.startswith("authserver.") and any(is_implemented(point.load(), hook) for hook in DECIDING)
}

for name, kind in POLICIES.items():
    globals()[f"Test{kind.__name__}"] = policy_contract(
        kind(**SETTINGS.get(name, {})), **{"examples": 50, **CONTRACTS.get(name, {})}
    )


def test_no_policy_is_forgotten() -> None:
    """The names above are found by entry point; an empty list would prove nothing."""
    assert len(POLICIES) >= 13
    assert {*SETTINGS, *CONTRACTS} <= set(POLICIES)
    served = {hook for hook in DECIDING if any(is_implemented(kind, hook) for kind in POLICIES.values())}
    assert served == set(DECIDING)


@pytest.mark.parametrize("body", hostile.METADATA, ids=range(len(hostile.METADATA)))
def test_hostile_metadata_reaches_no_policy(body: bytes) -> None:
    """K-06, K-30, T062: what has not the form of metadata is refused before anybody is asked."""
    with pytest.raises(Refusal):
        read_metadata(read_object(body), {})
