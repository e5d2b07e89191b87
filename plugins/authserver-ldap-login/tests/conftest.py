"""A real directory, and a real server that asks it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authserver.api import Secret
from authserver.storage import migrate
from authserver.testing.server import SETTINGS, Server
from authserver_ldap_login import LdapLogin

# The tests are no package: what they share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))

import directory as slapd


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slapd.Directory]:
    """A slapd of this run."""
    if slapd.SLAPD is None and not os.environ.get("CI"):
        pytest.skip("slapd is not installed; on Debian: apt-get install slapd")
    with slapd.running(tmp_path_factory.mktemp("slapd")) as running:
        yield running


@pytest.fixture
def make_policy(directory: slapd.Directory) -> Callable[..., LdapLogin]:
    """Make the policy for this directory with other settings."""

    def make(**settings: object) -> LdapLogin:
        values = {
            "url": directory.url,
            "base": slapd.PEOPLE,
            "bind_dn": slapd.SERVICE,
            "bind_password": Secret(slapd.SERVICE_PASSWORD),
            **settings,
        }
        return LdapLogin(**values)  # each test says which

    return make


@pytest.fixture
def policy(make_policy: Callable[..., LdapLogin]) -> LdapLogin:
    """The policy as it is mostly set."""
    return make_policy()


@pytest.fixture
def make_server(tmp_path: Path, directory: slapd.Directory) -> Iterator[Callable[..., Server]]:
    """Make a server that asks this directory, with these settings of the plugin."""
    servers: list[Server] = []

    def make(**settings: str) -> Server:
        url = f"sqlite:///{tmp_path}/authserver.sqlite"
        migrate.upgrade(url)
        values = {
            "url": directory.url,
            "base": slapd.PEOPLE,
            "bind_dn": slapd.SERVICE,
            "bind_password": slapd.SERVICE_PASSWORD,
            **settings,
        }
        ini = {f"authserver.plugin.ldap_login.{name}": text for name, text in values.items()}
        servers.append(
            Server(url, {"authserver.plugins": SETTINGS["authserver.plugins"] + "ldap_login\n", **ini})
        )
        return servers[-1]

    yield make
    for server in servers:
        server.close()
