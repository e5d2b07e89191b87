"""Fetchers whose names lead to real servers on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from authserver.engine.documents import DocumentKind, Reply
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.testing.origins import Authority, Origin, resolving, serving

# Nothing is remembered of these longer than their servers say.
PAGE: DocumentKind[bytes] = DocumentKind(name="page", read=lambda reply: reply.body, minimum_age=0)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """Other servers by name, and fetchers that find them.

    `names` are the addresses of hosts; `lookups` the names that were looked up.
    """

    authority: Authority
    stack: ExitStack
    clock: Clock = field(default_factory=Clock)
    names: dict[str, Sequence[str]] = field(default_factory=dict)
    lookups: list[str] = field(default_factory=list)

    def origin(self, host: str = "client.example", *, tls: bool = True) -> Origin:
        self.names[host] = ["127.0.0.1"]
        return self.stack.enter_context(serving(self.authority.context(host) if tls else None))

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        return resolving(self.names)(host, port)

    def fetcher(self, resolve: Callable[[str, int], Sequence[str]] | None = None, **limits: Any) -> Fetcher:
        """By default one that may reach loopback, since that is where the tests' servers are."""
        values = {"reach": Reach(loopback=True), "ca_file": str(self.authority.ca_file), **limits}
        return Fetcher(Limits(**values), resolve=resolve or self.resolve, clock=self.clock)


@pytest.fixture
def world(authority: Authority) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(authority, stack)


@pytest.fixture(scope="session")
def page() -> DocumentKind[bytes]:
    return PAGE


def text_of(reply: Reply) -> str:
    return reply.body.decode()
