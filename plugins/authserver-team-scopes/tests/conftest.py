"""A file of teams, and a real server to ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from authserver.testing.server import Server
from authserver_team_scopes import TeamScopes

TEAMS = """
[everybody]
members = ["*"]
scopes = ["profile"]

[readers]
members = ["ann", "bob"]
scopes = ["files.read"]

[writers]
members = ["Ann"]
scopes = ["files.write"]
days = "mon-fri"
hours = "08:00-17:00"
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of teams: `write(text)`, or `write(text, "teams.csv")`."""

    def write(text: str = TEAMS, name: str = "teams.toml") -> Path:
        # As the README advises: a new file in place of the old one.
        fresh = tmp_path / f"{name}.new"
        fresh.write_text(text, encoding="utf-8")
        return fresh.replace(tmp_path / name)

    return write


@pytest.fixture
def make_policy() -> Callable[..., TeamScopes]:
    """Make the policy with these settings, ready to be asked."""

    def make(**settings: Any) -> TeamScopes:
        policy = TeamScopes(**settings)
        policy.prepare()
        return policy

    return make


@pytest.fixture
def policy(write: Callable[..., Path], make_policy: Callable[..., TeamScopes]) -> TeamScopes:
    """The policy as the tests mostly want it."""
    return make_policy(file=str(write()), timezone="Europe/Oslo", check_seconds=0)


@pytest.fixture
def make_server(authserver_server: Callable[..., Server]) -> Callable[..., Server]:
    """Make a server with this plugin and these settings of it."""
    return partial(authserver_server, "team_scopes")
