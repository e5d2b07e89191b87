"""A real server that trusts a proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authserver.api import Secret
from authserver.storage import migrate
from authserver.testing.server import SETTINGS, Server
from authserver_header_login import HeaderLogin

SECRET = "a long secret of the proxy, nothing a browser knows"


@pytest.fixture
def secret() -> str:
    """What the proxy sends."""
    return SECRET


@pytest.fixture
def policy() -> HeaderLogin:
    """The policy as the README advises it."""
    return HeaderLogin(proxy_secret=Secret(SECRET), name_header="x-remote-name")


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Make a server with this plugin and these settings of it."""
    servers: list[Server] = []

    def make(**settings: str) -> Server:
        url = f"sqlite:///{tmp_path}/authserver.sqlite"
        migrate.upgrade(url)
        ini = {f"authserver.plugin.header_login.{name}": text for name, text in settings.items()}
        servers.append(
            Server(url, {"authserver.plugins": SETTINGS["authserver.plugins"] + "header_login\n", **ini})
        )
        return servers[-1]

    yield make
    for server in servers:
        server.close()
