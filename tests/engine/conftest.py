"""The engine on memory stores, for rules and their tables of cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import pytest
import time_machine

from authserver.testing.rules import Rules
from authserver.testing.stories import Granted


@pytest.fixture
def make_rules() -> Callable[..., Rules]:
    """Make an engine with other settings and the user `ann`: `make_rules({"authserver.code_lifetime": "10"})`."""

    def make(settings: Mapping[str, str | None] | None = None) -> Rules:
        rules = Rules(settings)
        rules.add_user("ann")
        return rules

    return make


@pytest.fixture
def rules(make_rules: Callable[..., Rules]) -> Rules:
    """An engine with the settings of `authserver.testing.server.SETTINGS`."""
    return make_rules()


@pytest.fixture(params=["jwt", "opaque"])
def granted(request: pytest.FixtureRequest, make_rules: Callable[..., Rules]) -> Granted:
    """A client with tokens of user `ann`; with both formats of access tokens."""
    return Granted(make_rules({"authserver.access_token_format": request.param}))


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller
