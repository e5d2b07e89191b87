"""Servers for stories through WebTest: each test has its own, on its own copy of a migrated SQLite file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine

from authserver.testing.server import Server
from authserver.testing.stories import Granted


@pytest.fixture
def make_server(sqlite_url: str) -> Iterator[Callable[..., Server]]:
    """Make a server with other settings: `make_server({"authserver.code_lifetime": "10"})`."""
    servers: list[Server] = []

    def make(settings: dict[str, str | None] | None = None, *, database_url: str = sqlite_url) -> Server:
        servers.append(Server(database_url, settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server with the settings of `authserver.testing.server.SETTINGS` and the user `ann`."""
    server = make_server()
    server.add_user("ann")
    return server


@pytest.fixture(params=["jwt", "opaque"])
def granted(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> Granted:
    """A client with tokens of user `ann`; with both formats of access tokens."""
    server = make_server({"authserver.access_token_format": request.param})
    server.add_user()
    return Granted(server)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


@pytest.fixture(scope="module")
def shared_server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same for a whole file of tests that compare before and after, or change nothing."""
    path = tmp_path_factory.mktemp("shared") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    server = Server(f"sqlite:///{path}")
    server.add_user("ann")
    yield server
    server.close()
