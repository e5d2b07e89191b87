"""Requests to a protected resource, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import time_machine

from authserver_resource import Access, ProtectedResource, Refusal, Request, Requirement

RESOURCE, ISSUER = "https://api.example/v1", "https://as.example/tenant"
METADATA = "https://api.example/.well-known/oauth-protected-resource/v1"


def request(*authorization: str, dpop: tuple[str, ...] = (), **others: Any) -> Request:
    values: dict[str, Any] = {"method": "GET", "path": "/v1/files", **others}
    return Request(authorization=authorization, dpop=dpop, **values)


def let_in(protected: ProtectedResource, token: str, needed: Requirement | None = None) -> Access:
    """The access of a bearer token."""
    return protected.check(request(f"Bearer {token}"), *([needed] if needed else []))


def refused(
    protected: ProtectedResource, *authorization: str, needed: Requirement | None = None, **others: Any
) -> Refusal:
    """The refusal of a request with these `Authorization` headers."""
    with pytest.raises(Refusal) as caught:
        protected.check(request(*authorization, **others), *([needed] if needed else []))
    return caught.value


def challenge(refusal: Refusal) -> str:
    """Its `WWW-Authenticate`."""
    return dict(refusal.headers)["WWW-Authenticate"]


@contextmanager
def later(seconds: float, since: float | None = None) -> Iterator[None]:
    """So many seconds from now, or from that time, by both clocks: time-machine has no monotonic one."""
    start = time.time()
    target = (start if since is None else since) + seconds
    stopped = time.monotonic() + target - start
    with pytest.MonkeyPatch.context() as patch, time_machine.travel(target, tick=False):
        patch.setattr("authserver_resource.keeping.monotonic", lambda: stopped)
        yield
