"""An endpoint to ask, and a real server that asks it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authserver.api import Secret
from authserver.testing.server import Server
from authserver_webhook_policy import HOOKS, WebhookPolicy

# The tests are no package: what they share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))

from listener import SECRET, Listener, listening


@pytest.fixture
def endpoint() -> Iterator[Listener]:
    """A real endpoint."""
    with listening() as listener:
        yield listener


@pytest.fixture
def make_policy(endpoint: Listener) -> Iterator[Callable[..., WebhookPolicy]]:
    """Make the policy for this endpoint with other settings; it serves every hook."""

    made: list[WebhookPolicy] = []

    def make(**settings: object) -> WebhookPolicy:
        values = {"hooks": HOOKS, "url": endpoint.url, "secret": Secret(SECRET), **settings}
        policy = WebhookPolicy(**values)  # each test says which
        policy.prepare()
        made.append(policy)
        return policy

    yield make
    for policy in made:
        policy.close()


@pytest.fixture
def policy(make_policy: Callable[..., WebhookPolicy]) -> WebhookPolicy:
    """The policy with a few reasons that it knows."""
    return make_policy(known_reasons=("known", "blocked-by-risk"))


@pytest.fixture
def make_server(authserver_server: Callable[..., Server], endpoint: Listener) -> Callable[..., Server]:
    """Make a server that asks this endpoint, with these settings of the plugin.

    `without` names shipped plugins to leave out.
    """

    def make(*, plugin: str = "webhook_policy", **settings: Any) -> Server:
        return authserver_server(plugin, **{"url": endpoint.url, "secret": SECRET, **settings})

    return make
