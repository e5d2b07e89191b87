"""Two servers with the same settings: one on an empty database, one on a database with many rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from authserver.storage import migrate
from authserver.testing.plans import Sent, plan_of
from authserver.testing.server import Server
from benchmarks.fill import fill

# Tokens of this resource are opaque, of others JWTs.
OPAQUE_RESOURCE = "https://files.example/"


@dataclass(frozen=True)
class Size:
    """How much there is in the database that is not empty, and how often a refresh token was rotated in it."""

    clients: int
    tokens: int
    rotations: int


@dataclass(frozen=True)
class Servers:
    """The user `ann` can sign in at both of them."""

    empty: Server
    filled: Server
    size: Size

    def assert_indexed(self, on_empty: list[Sent], on_filled: list[Sent]) -> None:
        """The same statements were sent to both databases, and none of them reads a table from end to end."""
        assert on_empty != []
        assert [sent.about for sent in on_filled] == [sent.about for sent in on_empty]
        for sent in on_filled:
            assert plan_of(self.filled.application.storage.engine, sent).scans == (), sent.text


@pytest.fixture(scope="session")
def size() -> Size:
    """`AUTHSERVER_FAULTS=long` takes ten times as much."""
    if os.environ.get("AUTHSERVER_FAULTS") == "long":
        return Size(100_000, 1_000_000, 10_000)
    return Size(20_000, 100_000, 10_000)


@pytest.fixture(scope="session")
def sqlite_servers(
    size: Size, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    for name in ("empty", "filled"):
        shutil.copy(migrated_sqlite_file, folder / f"{name}.db")
    yield from _servers(f"sqlite:///{folder}/empty.db", f"sqlite:///{folder}/filled.db", size)


@pytest.fixture(scope="session")
def postgresql_servers(size: Size, postgresql_server: str) -> Iterator[Servers]:
    urls = []
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        for name in ("scale_empty", "scale_filled"):
            connection.execute(f"CREATE DATABASE {name}")
            url = postgresql_server.replace("postgresql://", "postgresql+psycopg://")
            urls.append(url.replace("/postgres?", f"/{name}?"))
            migrate.upgrade(urls[-1])
    yield from _servers(*urls, size)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def servers(request: pytest.FixtureRequest) -> Servers:
    """Made once for a whole run, on each kind of database: tests add to them, so none counts what is there."""
    servers: Servers = request.getfixturevalue(f"{request.param}_servers")
    return servers


def _servers(empty: str, filled: str, size: Size) -> Iterator[Servers]:
    fill(filled, key_id="test", client_count=size.clients, token_count=size.tokens)
    # Of all the clients that were never used, none has to give way.
    settings = {"authserver.opaque_resources": OPAQUE_RESOURCE, "authserver.unused_clients": "1000000"}
    servers = Servers(Server(empty, settings), Server(filled, settings), size)
    for server in (servers.empty, servers.filled):
        server.add_user("ann")
    yield servers
    for server in (servers.empty, servers.filled):
        server.close()
