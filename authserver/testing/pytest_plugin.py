"""Fixtures for authors of plugins; pytest finds them if authserver is installed.

    def test_a_question(authserver_question): ...
    def test_a_story(authserver_server): ...
    def test_a_store(memory_stores): ...

Nothing of authserver is imported before a test asks for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from authserver.testing.server import Server
    from authserver.testing.stores import MemoryStores

# Rewritten asserts show what was compared.
for _module in ("contract", "store_contract", "upkeep_contract"):
    pytest.register_assert_rewrite(f"authserver.testing.{_module}")


@pytest.fixture
def memory_stores() -> MemoryStores:
    """All stores, in memory and empty; the same contract holds for them as for those in the database."""
    from authserver.testing.stores import MemoryStores

    return MemoryStores()


@pytest.fixture
def authserver_question() -> Callable[..., Any]:
    """Make the question of a deciding hook: `authserver_question("scope_decision", requested=("read",))`."""
    from authserver.testing.questions import a_question

    return a_question


@pytest.fixture(scope="session")
def authserver_migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    from authserver.storage import migrate

    path = tmp_path_factory.mktemp("authserver") / "migrated.sqlite"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def authserver_server(authserver_migrated_file: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A factory of running servers with a plugin; each has its own database.

        server = authserver_server("quiet_hours", timezone="Europe/Oslo")

    Arguments of the factory:
        plugin: its entry point's name, `module:Class`, or the class; asked before the shipped plugins.
        settings: INI keys that differ from `authserver.testing.server.SETTINGS`; None removes one.
        without: shipped plugins to leave out, because this one replaces them.
        others: settings of the plugin, as texts of the INI.

    Returns an `authserver.testing.server.Server` with the user `ann`.
    """
    from authserver.testing.server import Server, with_plugin

    servers: list[Server] = []

    def make(
        plugin: str | type,
        *,
        settings: Mapping[str, str | None] | None = None,
        without: tuple[str, ...] = (),
        **fields: str,
    ) -> Server:
        path = tmp_path / f"authserver-{len(servers)}.sqlite"
        shutil.copy(authserver_migrated_file, path)
        ini = {**with_plugin(plugin, fields, without=without), **(settings or {})}
        servers.append(Server(f"sqlite:///{path}", ini))
        servers[-1].add_user("ann")
        return servers[-1]

    yield make
    for server in servers:
        server.close()
