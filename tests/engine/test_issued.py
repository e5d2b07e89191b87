"""When an issued token is valid, and what its grant was derived from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from authserver import app
from authserver.api import hookimpl
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidClient, OAuthError, TemporarilyUnavailable
from authserver.engine.records import Client, Grant, TokenKind
from authserver.engine.tokens.ancestry import MAXIMUM_DISTANCE, ancestors, problem_with, why_ended
from authserver.engine.tokens.issued import Issued
from authserver.plugins.asking import PluginSet
from authserver.testing.records import NOW, a_client, a_grant, a_user
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

MOMENT = timedelta(microseconds=1)
LATER = NOW + timedelta(hours=1)
ANN = a_user()
API, FILES = "https://api.example/", "https://files.example/"
GRANT = a_grant(user_id=ANN.user_id, scopes=("read", "write"), resources=(API, FILES), expires_at=LATER)
ISSUED = Issued(
    kind=TokenKind.ACCESS,
    jti="grant_1.one",
    client_id=GRANT.client_id,
    scopes=("read", "write"),
    audience=(API,),
    issued_at=NOW,
    expires_at=LATER,
    grant=GRANT,
    user=ANN,
)


def refresh(**changes: Any) -> Issued:
    return replace(ISSUED, kind=TokenKind.REFRESH, **changes)


def of_grant(**changes: Any) -> Issued:
    return replace(ISSUED, grant=replace(GRANT, **changes))


ACTIVE: dict[str, Issued] = {
    "as it was issued": ISSUED,
    "of a client itself": of_grant(user_id=None),
    "of a client itself, without a user": replace(of_grant(user_id=None), user=None),
    "for a resource that is spelt in another way since": of_grant(resources=("https://api.example",)),
    "refresh, with one scope left": replace(refresh(), grant=replace(GRANT, scopes=("write",))),
    "refresh, with one resource left": refresh(
        audience=(API, FILES), grant=replace(GRANT, resources=("https://files.example",))
    ),
}
INACTIVE: dict[str, Issued] = {
    "used": refresh(is_used=True),
    "derived from what has ended": replace(ISSUED, has_ended_ancestor=True),
    "of a revoked grant": of_grant(revoked_at=NOW),
    "of a user who is gone": replace(ISSUED, user=None),
    "of a disabled user": replace(ISSUED, user=replace(ANN, disabled_at=NOW)),
    "with a scope that the grant has lost": of_grant(scopes=("read",)),
    "for a resource that the grant has lost": of_grant(resources=(FILES,)),
    "for several, of which the grant has lost one": replace(
        of_grant(resources=(API,)), audience=(API, FILES)
    ),
    "refresh, without a scope left": refresh(grant=replace(GRANT, scopes=("other",))),
    "refresh, without a resource left": refresh(grant=replace(GRANT, resources=(FILES,))),
}


@pytest.mark.parametrize("issued", ACTIVE.values(), ids=ACTIVE)
def test_a_token_is_valid_until_it_or_its_grant_expires(issued: Issued) -> None:
    """M-03, R-09: to the moment, whichever is first."""
    assert issued.is_active(LATER - MOMENT)
    assert not issued.is_active(LATER)
    assert not replace(issued, expires_at=NOW).is_active(NOW)
    assert not replace(issued, grant=replace(issued.grant, expires_at=NOW)).is_active(NOW)


@pytest.mark.parametrize("issued", INACTIVE.values(), ids=INACTIVE)
def test_a_token_is_not_valid(issued: Issued) -> None:
    """M-03, R-09, L-08"""
    assert not issued.is_active(NOW)


# ---- What a grant was derived from (T163) ------------------------------------------------------------


@pytest.fixture
def engine(memory_stores: MemoryStores) -> Engine:
    memory_stores.clients.add(a_client(client_id="reports"))
    memory_stores.clients.add(a_client(client_id="files"))
    parts = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}).parts
    return Engine.of(over(memory_stores, parts), memory_stores, NOW)


@pytest.fixture
def chain(engine: Engine) -> Callable[[int], list[Grant]]:
    """So many grants, each derived from the one before it: the last one first."""

    def make(length: int) -> list[Grant]:
        grants = [
            a_grant(grant_id=f"grant_{number}", parent_id=f"grant_{number - 1}" if number else None)
            for number in range(length)
        ]
        for grant in grants:
            engine.stores.grants.add(grant)
        return grants[::-1]

    return make


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_all_ancestors_are_found_the_parent_first(
    engine: Engine, chain: Callable[[int], list[Grant]], length: int
) -> None:
    """T163"""
    last, *before = chain(length)
    assert ancestors(engine, last) == tuple(before)
    assert why_ended(engine, last) is None


def test_a_grant_without_a_known_first_ancestor_is_not_live(
    engine: Engine, chain: Callable[[int], list[Grant]]
) -> None:
    """T163: what was derived from nothing that is known; whether the nearest one is missing or one behind it."""
    last, parent, first = chain(3)
    orphan = replace(last, parent_id="grant_unknown")
    assert ancestors(engine, orphan) == ()
    assert why_ended(engine, orphan) == "parent-grant-unknown"
    assert why_ended(engine, last, [parent]) == "parent-grant-unknown"
    assert why_ended(engine, last, [parent, first]) is None


def test_a_chain_that_is_too_long_is_a_fault(engine: Engine, chain: Callable[[int], list[Grant]]) -> None:
    """T163: it ends somewhere, and a grant at its end is not live."""
    last, *before = chain(MAXIMUM_DISTANCE + 2)
    assert ancestors(engine, last) == tuple(before[:MAXIMUM_DISTANCE])
    assert why_ended(engine, last) == "parent-grant-unknown"
    assert why_ended(engine, before[0]) is None


@dataclass(frozen=True)
class Directory:
    """A plugin that keeps clients, and gives one answer to every question."""

    answer: Client | OAuthError | None = field(hash=False)

    @hookimpl
    def find_client(self) -> Client | None:
        if isinstance(self.answer, OAuthError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"revoked_at": NOW}, "parent-grant-revoked"),
        ({"expires_at": NOW}, "parent-grant-expired"),
        ({"expires_at": NOW + MOMENT}, None),
        ({"client_id": "files"}, "parent-client-disabled"),
    ],
)
def test_nothing_may_be_derived_from_what_has_ended(
    engine: Engine, changes: dict[str, Any], problem: str | None
) -> None:
    """T163, T164: in any place of the chain."""
    engine.stores.clients.disable("files", NOW)
    good, changed = a_grant(grant_id="good"), a_grant(grant_id="changed", **changes)
    assert problem_with(engine, [good, changed]) == problem
    assert problem_with(engine, [changed, good]) == problem


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (a_client(client_id="elsewhere"), None),
        (a_client(client_id="elsewhere", disabled_at=NOW), "parent-client-disabled"),
        (InvalidClient("It was withdrawn.", reason="withdrawn"), "parent-client-disabled"),
        (None, "parent-client-disabled"),
        (TemporarilyUnavailable("The directory is away.", reason="away"), None),
    ],
)
def test_a_plugin_says_whether_its_client_still_counts(
    engine: Engine, answer: Client | OAuthError | None, problem: str | None
) -> None:
    """T164: nothing is derived from grants of a client that its plugin refuses; while that cannot be known, it may be."""
    asked = replace(engine, policies=PluginSet([("directory", Directory(answer))]))
    good, elsewhere = a_grant(grant_id="good"), a_grant(grant_id="changed", client_id="elsewhere")
    assert problem_with(asked, [good, elsewhere]) == problem
    assert problem_with(asked, [elsewhere]) == problem
