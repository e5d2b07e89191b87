"""The engine on memory stores, for rules and their tables of cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from authserver.testing.rules import Rules
from authserver.testing.stories import Granted


@pytest.fixture
def make_rules() -> Callable[..., Rules]:
    """Make an engine with other settings: `make_rules({"authserver.code_lifetime": "10"})`."""
    return Rules


@pytest.fixture
def rules() -> Rules:
    """An engine with the settings of `authserver.testing.server.SETTINGS`, and the user `ann`."""
    rules = Rules()
    rules.add_user("ann")
    return rules


@pytest.fixture(params=["jwt", "opaque"])
def granted(request: pytest.FixtureRequest) -> Granted:
    """A client with tokens of user `ann`; with both formats of access tokens."""
    rules = Rules({"authserver.access_token_format": request.param})
    rules.add_user("ann")
    return Granted(rules)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller
