"""A protected resource, and an issuer in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The tests are no package: what they share lies here.
sys.path.insert(0, str(Path(__file__).parent))

from steps import ISSUER, RESOURCE

from authserver_resource import Dpop, Issuer, ProtectedResource
from authserver_resource.testing import LocalIssuer

Make = Callable[..., tuple[ProtectedResource, LocalIssuer]]


@pytest.fixture
def make() -> Make:
    """Make a resource with other settings, and its issuer; `issuer` are settings of that."""

    def made(
        *, issuer: dict[str, Any] | None = None, algorithm: str = "ES256", **settings: Any
    ) -> tuple[ProtectedResource, LocalIssuer]:
        values: dict[str, Any] = {
            "scopes": ["files.read", "files.write", "offline_access"],
            "implied_scopes": {"admin": ["files.write"], "files.write": ["files.read"]},
            "dpop": Dpop(),
            **settings,
        }
        known = Issuer(ISSUER, **{"client_id": "api", "client_secret": "a secret: 100%", **(issuer or {})})
        protected = ProtectedResource(RESOURCE, known, **values)
        return protected, LocalIssuer.of(protected, algorithm=algorithm)

    return made


@pytest.fixture
def protected_and_issuer(make: Make) -> tuple[ProtectedResource, LocalIssuer]:
    return make()


@pytest.fixture
def protected(protected_and_issuer: tuple[ProtectedResource, LocalIssuer]) -> ProtectedResource:
    return protected_and_issuer[0]


@pytest.fixture
def issuer(protected_and_issuer: tuple[ProtectedResource, LocalIssuer]) -> LocalIssuer:
    return protected_and_issuer[1]
